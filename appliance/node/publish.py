"""What the API shows of this node, put together from one round of the control loop. Pure: it asks nobody anything."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from appliance import __version__
from appliance.api.published import Published, RaftSeen, ReplicaSeen
from appliance.cluster.config import Policy
from appliance.cluster.state import ClusterState
from appliance.ha.actions import Decision
from appliance.ha.seen import LeaseSeen, Observation, Report, ReportSeen
from appliance.node.config import NodeConfig
from appliance.node.report import replay_timestamp, walsenders
from appliance.postgres.instance import InstanceSeen as Answer
from raft import PeerStatus, ReplicaStatus, View


@dataclass(frozen=True, slots=True)
class Round:
    """What one round of the control loop saw and did."""

    taken_s: float
    """CLOCK_BOOTTIME"""
    wall_time: float
    view: View[ClusterState]
    policy: Policy
    seen: Observation
    answer: Answer | None
    """PostgreSQL's, as a whole"""
    report: Report
    decision: Decision
    coordinating: str


@dataclass(frozen=True, slots=True)
class Heard:
    """What the raft leader has said up to now."""

    reports: Mapping[str, ReportSeen]
    """of all members, as old as they were then"""
    reports_at_s: float
    contact_s: float | None
    """when it was last asked something whose answer this node has also applied"""
    says: str
    problem: str
    """why the last attempt to ask it failed, empty when it did not"""


def published(config: NodeConfig, done: Round, heard: Heard, status: ReplicaStatus) -> Published:
    view, answer = done.view, done.answer
    peers = [p for p in status.peers if p.name != config.name]
    return Published(
        node=config.name,
        cluster=config.cluster,
        version=__version__,
        taken_s=done.taken_s,
        wall_time=done.wall_time,
        state=view.state,
        policy=done.policy,
        seen=done.seen,
        report=done.report,
        reports=_reports(heard, config.name, done.report, done.taken_s),
        raft=_raft_seen(view, status, peers),
        rule=done.decision.rule,
        doing=done.decision.because,
        coordinating=done.coordinating,
        leader_says=done.coordinating or heard.says,
        waiting_for=_waiting_for(view, [p.name for p in peers if not p.connected], heard.problem),
        walsenders=walsenders(answer),
        replay_timestamp=replay_timestamp(answer),
        replay_paused=answer is not None and answer.replay_paused,
        last_renewal_s=None if heard.contact_s is None else done.taken_s - heard.contact_s,
    )


def renewed(shown: Published, lease: LeaseSeen | None, heard: Heard) -> Published:
    """The same look with a lease that was renewed since; ages are as of that look."""
    age_s = None if heard.contact_s is None else shown.taken_s - heard.contact_s
    seen = replace(shown.seen, lease=lease, contact_s=age_s)
    reports = _reports(heard, shown.node, shown.report, shown.taken_s)
    return replace(shown, seen=seen, reports=reports, last_renewal_s=age_s)


def _reports(heard: Heard, me: str, own: Report, at_s: float) -> Mapping[str, ReportSeen]:
    """Of all members, with their ages at that time; of this node the newest."""
    passed_s = at_s - heard.reports_at_s
    reports = {n: replace(r, age_s=r.age_s + passed_s) for n, r in heard.reports.items()}
    known = reports.get(me)
    return {**reports, me: ReportSeen(own, 0.0) if known is None else replace(known, report=own, age_s=0.0)}


def _raft_seen(view: View[ClusterState], status: ReplicaStatus, peers: list[PeerStatus]) -> RaftSeen:
    expires = None if status.certificate is None else status.certificate.expires_at
    return RaftSeen(
        role=status.role,
        leader=view.leader,
        term=view.term,
        index=view.index,
        log_entries=status.last_index - status.first_index + 1,
        log_bytes=status.log_bytes,
        members={m.name: ReplicaSeen(m.role, m.address) for m in status.members.all},
        peers={p.name: p.connected for p in peers},
        refusals={p.name: p.refusal for p in peers if p.refusal},
        away={p.name: p.problem for p in peers if p.problem},
        votes=status.votes,
        commit_index=status.commit_index,
        last_index=status.last_index,
        fsync_count=status.fsync_count,
        fsync_total_s=status.fsync_total_s,
        fsync_longest_s=status.fsync_longest_s,
        tick_late_longest_s=status.tick_late_longest_s,
        ticks_late=status.ticks_late,
        refused=dict[str, int](status.refusals.items()),
        certificate_expires_s=None if expires is None else expires.timestamp(),
        removed_by=status.removed_by,
    )


def _waiting_for(view: View[ClusterState], away: list[str], problem: str) -> str:
    if view.leader is None:
        return f"a quorum: no connection to {', '.join(sorted(away))}" if away else "a raft leader"
    if not view.state.initialised and view.state.bootstrap is None:
        return "`appliance bootstrap` on one node"
    return problem
