"""The cluster as one object: what `GET /api/v1/cluster`, the command line and the status page show.

A pure function of the published value; every age in it already counts the time since that was taken.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from appliance.api.patroni import member_state
from appliance.api.present import Present, split_address
from appliance.api.published import Published, ReplicaSeen
from appliance.api.verdict import Finding, Verdict, findings, verdict
from appliance.cluster.lsn import format_lsn
from appliance.cluster.state import FailedBootstrap, HistoryEntry, Member, NodeRole, Operation, Scalar
from appliance.ha.seen import CertificateSeen, WatchdogSeen


@dataclass(frozen=True, slots=True)
class LeaseView:
    status: str
    """none, held, contested, released or expired"""
    left_s: float | None
    """only on the node that holds it"""


@dataclass(frozen=True, slots=True)
class SyncView:
    """The newest synchronous set: how many of whom a commit waits for."""

    mode: str
    k: int
    members: tuple[str, ...]
    settled: bool
    """it alone counts (R8); until then an election may ask for what was in force before as well"""
    failsafe: bool = False
    """without a quorum the primary goes on while all of them promise not to vote (R16)"""


@dataclass(frozen=True, slots=True)
class MemberReplica:
    connected: bool | None
    """as seen from this node; None: this node does not know"""
    address: str
    role: str | None
    """voter, learner or joining; None: it is not, or not yet, a member of consensus"""


@dataclass(frozen=True, slots=True)
class MemberView:
    name: str
    role: str
    """primary, standby, sync_standby, quorum_standby or witness: as agreed, whatever PostgreSQL does"""
    state: str
    """running, streaming, starting, stopped …; unknown without a report younger than the lease"""
    host: str
    port: int | None
    api_url: str
    timeline: int | None
    lsn: str | None
    lag_bytes: int | None
    """received or replayed, whichever is later, behind the highest position known of the primary"""
    replay_lag_bytes: int | None
    reported_age_s: float | None
    tags: Mapping[str, Scalar]
    doing: str
    progress: str
    pending_restart: bool
    rebuilding: bool
    version: str
    certificate: CertificateSeen | None
    """null without TLS, or without a report"""
    watchdog: WatchdogSeen | None
    """null where none is asked for, or without a report"""
    raft: MemberReplica
    kind: str
    """data, witness or learner, as its node.yml says"""


@dataclass(frozen=True, slots=True)
class RaftView:
    role: str
    leader: str | None
    term: int
    index: int
    log_entries: int
    log_bytes: int
    members: Mapping[str, ReplicaSeen]
    """everybody that the log is for, also who has not announced itself or was just removed"""
    peers: Mapping[str, bool]
    refusals: Mapping[str, str]
    away: Mapping[str, str]
    """why there is no connection to a peer"""


@dataclass(frozen=True, slots=True)
class Applied:
    index: int
    age_s: float | None
    """since a quorum last confirmed what this node knows; None: it never did"""


@dataclass(frozen=True, slots=True)
class ClusterView:
    name: str
    node: str
    """which node answers"""
    version: str
    verdict: Verdict
    problems: tuple[Finding, ...]
    system_identifier: str
    primary: str | None
    epoch: int
    """of the last appointment, 0 before the first"""
    timeline: int
    lease: LeaseView
    sync: SyncView
    members: tuple[MemberView, ...]
    raft: RaftView
    config_version: int
    operation: Operation | None
    """the one under way"""
    last_change: HistoryEntry | None
    failed_bootstrap: FailedBootstrap | None
    """the last one, until another one begins"""
    applied: Applied
    snapshot_age_s: float
    """since the control loop of this node last looked"""
    quorum: bool
    """this node was in contact with a quorum within two seconds"""
    waiting_for: str
    doing: str
    """the present decision of this node in words"""
    coordinating: str
    """what this node does as raft leader, empty on the others"""
    rule: str


def cluster_view(published: Published, now_s: float) -> ClusterView:
    present, state = Present.at(published, now_s), published.state
    held, found = state.appointment, findings(present)
    return ClusterView(
        name=published.cluster,
        node=published.node,
        version=published.version,
        verdict=verdict(found),
        problems=found,
        system_identifier=state.system_identifier,
        primary=state.primary,
        epoch=held.epoch if held is not None else 0,
        timeline=held.timeline if held is not None else 0,
        lease=LeaseView(state.lease.value, rounded(present.lease_left_s)),
        sync=_sync(present),
        members=members_view(published, now_s),
        raft=_raft(published),
        config_version=state.config.version,
        operation=state.running_operation(),
        last_change=state.history[-1] if state.history else None,
        failed_bootstrap=state.failed_bootstrap,
        applied=Applied(published.raft.index, rounded(present.contact_s)),
        snapshot_age_s=round(present.age_s, 3),
        quorum=present.in_contact(),
        waiting_for=published.waiting_for,
        doing=published.doing,
        coordinating=published.coordinating,
        rule=published.rule,
    )


def members_view(published: Published, now_s: float) -> tuple[MemberView, ...]:
    present = Present.at(published, now_s)
    return tuple(_member(present, published.state.members[name]) for name in sorted(published.state.members))


def rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)


def _sync(present: Present) -> SyncView:
    wanted, settled = present.state.sync_now.wanted, present.state.settled
    members = tuple(sorted(wanted.members))
    return SyncView(present.policy.synchronous_mode, wanted.k, members, settled, wanted.failsafe)


def _raft(published: Published) -> RaftView:
    seen = published.raft
    return RaftView(
        role=seen.role,
        leader=seen.leader,
        term=seen.term,
        index=seen.index,
        log_entries=seen.log_entries,
        log_bytes=seen.log_bytes,
        members=seen.members,
        peers=seen.peers,
        refusals=seen.refusals,
        away=seen.away,
    )


def _member(present: Present, member: Member) -> MemberView:
    seen = present.report(member.name)
    primary = present.state.primary == member.name
    heard = seen if seen is not None and seen.age_s <= present.policy.ttl_s else None
    report = None if seen is None else seen.report
    host, port = split_address(member.postgres) or (member.postgres, None)
    lsn = report.lsn if report is not None else 0
    return MemberView(
        name=member.name,
        role=_role(present, member),
        state=member_state(heard, leader=primary),
        host=host,
        port=port,
        api_url=member.api_url,
        timeline=(report.timeline or None) if report is not None else None,
        lsn=format_lsn(lsn) if lsn else None,
        lag_bytes=None if primary else _behind(present, lsn),
        replay_lag_bytes=None if primary or report is None else _behind(present, report.replayed_lsn),
        reported_age_s=rounded(seen.age_s) if seen is not None else None,
        tags=member.tags,
        doing=report.doing if report is not None else "",
        progress=report.progress if report is not None else "",
        pending_restart=report is not None and report.pending_restart,
        rebuilding=member.rebuilding,
        version=report.version if report is not None else "",
        certificate=report.certificate if report is not None else None,
        watchdog=report.watchdog if report is not None else None,
        raft=_replica(present, member),
        kind=member.role.value,
    )


def _role(present: Present, member: Member) -> str:
    if member.role is NodeRole.WITNESS:
        return "witness"
    if present.state.primary == member.name:
        return "primary"
    return present.synchronous_role(member.name) or "standby"


def _behind(present: Present, lsn: int) -> int | None:
    """None when either end is unknown."""
    return max(0, present.primary_lsn - lsn) if lsn and present.primary_lsn else None


def _replica(present: Present, member: Member) -> MemberReplica:
    raft = present.published.raft
    known = raft.members.get(member.name)
    connected = True if member.name == present.me else raft.peers.get(member.name)
    return MemberReplica(connected, known.address if known else member.raft, known.role if known else None)
