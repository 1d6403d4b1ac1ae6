"""Where a replica stands, put together from what its parts know.

Reading it waits for no disk and no peer. It may be a moment old, and its parts need not be of the same moment.
"""

from __future__ import annotations

from collections.abc import Sequence

from raft.api import PeerStatus, ReplicaConfig, ReplicaStatus, Role
from raft.clock import boottime_s
from raft.compat import CANDIDATE, LEADER
from raft.core import Facts
from raft.journal import Journal
from raft.ticks import Ticks
from raft.transport import Transport


def status(
    config: ReplicaConfig, facts: Facts, journal: Journal, ticks: Ticks, transport: Transport, failure: str | None
) -> ReplicaStatus:
    peers = transport.status(facts.match_index)
    return ReplicaStatus(
        name=config.name,
        cluster=config.cluster,
        cluster_id=journal.cluster_id,
        incarnation=journal.incarnation,
        role=_role(facts, failure),
        term=facts.term,
        leader=facts.leader,
        commit_index=facts.commit_index,
        applied_index=facts.applied_index,
        first_index=journal.first_index,
        last_index=facts.last_index,
        log_bytes=journal.size_bytes,
        replica_id=journal.identity.replica_id,
        members=facts.members,
        votes=facts.votes,
        fsync_count=journal.sync_times.count,
        fsync_last_s=journal.sync_times.last_s,
        fsync_longest_s=journal.sync_times.longest_s,
        fsync_total_s=journal.sync_times.total_s,
        tick_late_s=ticks.late_s,
        tick_late_longest_s=ticks.late_longest_s,
        ticks_late=ticks.late_count,
        failure=failure,
        peers=peers,
        refusals=transport.refusals(),
        certificate=transport.certificate(),
        removed_by=removed_by(config, facts, peers),
    )


def removed_by(config: ReplicaConfig, facts: Facts, peers: Sequence[PeerStatus]) -> tuple[str, ...]:
    """See `ReplicaStatus`. Who hears a leader is a member, whatever somebody has said before."""
    if facts.contact_s is not None and boottime_s() - facts.contact_s < config.election_max_s:
        return ()
    refusing = [peer.name for peer in peers if peer.refused_us is not None and peer.refused_us.no_member]
    return facts.members.excluding(config.name, refusing)


def _role(facts: Facts, failure: str | None) -> Role:
    if failure is not None:
        return "failed"
    if facts.state == LEADER:
        return "leader"
    return "candidate" if facts.state == CANDIDATE else "follower"
