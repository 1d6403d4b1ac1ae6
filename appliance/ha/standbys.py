"""Synchronous standbys, for the coordinator: for whom commits should wait now."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace

from appliance.cluster.config import Policy
from appliance.cluster.state import ASYNCHRONOUS, BLOCKED, ClusterState, Member, NodeRole, SyncSet
from appliance.cluster.synchronous import confirms
from appliance.cluster.zones import zone_of
from appliance.ha.seen import Report, ReportSeen
from appliance.ha.storage import disk_stalled_s


@dataclass(frozen=True, slots=True)
class Standby:
    """A member that a commit may wait for."""

    member: Member
    flushed_lsn: int = 0
    listed: bool = False
    """it is in the newest set already"""
    streaming: bool = False

    @property
    def priority(self) -> int:
        value = self.member.tags.get("sync_priority", 1)
        return value if isinstance(value, int) else 1

    def stands_apart_from(self, primary: Member | None) -> bool:
        """Of two zones that are known, and differ."""
        here, there = zone_of(primary), zone_of(self.member)
        return bool(here and there) and here != there


def wanted_now(
    state: ClusterState, policy: Policy, reports: Mapping[str, ReportSeen], away_s: Mapping[str, float]
) -> SyncSet | None:
    """What commits should wait for, as the present primary sees its standbys; None: it is not known just now.

    `away_s` says for how long the primary has heard nothing of use from a member (`standing`). When a primary dies its
    standbys lose it in the same instant: only while it reports itself is one that does not stream the one that is gone.
    """
    held = state.appointment
    if held is None:
        return None
    newest = state.sync_now.wanted
    if policy.synchronous_mode == "off":
        return _to_asynchronous(state)
    primary = reports.get(held.node)
    if primary is None or primary.age_s > policy.failure_timeout_s / 2 or primary.report.in_recovery is not False:
        return None
    able = [m for m in state.members.values() if m.name != held.node and may_be_waited_for(m)]
    standbys = [_standby(member, newest, policy, primary.report, reports) for member in able]
    there = [s for s in standbys if s is not None and _stays(s, policy, away_s)]
    found = _chosen(policy, state.members.get(held.node), there)
    if not found.members and policy.synchronous_mode_strict:
        found = _still(newest, able, reports)
    return replace(found, failsafe=policy.failsafe_mode)


def _to_asynchronous(state: ClusterState) -> SyncSet | None:
    """R16: a primary that may go on without a quorum has to know first that it may not."""
    if not any(listed.wanted.failsafe for listed in state.sync):
        return ASYNCHRONOUS
    newest = state.sync_now.wanted
    return replace(newest, failsafe=False) if newest.failsafe else None


def _still(newest: SyncSet, able: list[Member], reports: Mapping[str, ReportSeen]) -> SyncSet:
    """Strict mode without a standby: who may come back is waited for, and without any of them somebody is (R13)."""
    rebuilt = {name for name, seen in reports.items() if seen.report.wants_rebuild}
    left = newest.members & {member.name for member in able} - rebuilt
    if not left:
        return BLOCKED
    return SyncSet(min(newest.k, len(left)), left, tuple(name for name in newest.order if name in left))


def wanted_next(state: ClusterState, policy: Policy, candidate: str, voters: Iterable[str]) -> SyncSet:
    """R7a: what the commits of a new primary wait for from the first one on: others that have voted, so are there."""
    if policy.synchronous_mode == "off":
        return ASYNCHRONOUS
    others = [Standby(state.members[name]) for name in sorted(voters) if name != candidate]
    found = _chosen(policy, state.members.get(candidate), [s for s in others if may_be_waited_for(s.member)])
    if not found.members and policy.synchronous_mode_strict:
        able = [m for m in state.members.values() if m.name != candidate and may_be_waited_for(m)]
        found = _still(state.sync_now.wanted, able, {})
    return replace(found, failsafe=policy.failsafe_mode)


def may_be_waited_for(member: Member) -> bool:
    if member.role is NodeRole.WITNESS or member.rebuilding or member.leaving or not member.incarnation:
        return False
    return confirms(member)


def _standby(
    member: Member, newest: SyncSet, policy: Policy, primary: Report, reports: Mapping[str, ReportSeen]
) -> Standby | None:
    """None: its node is silent, so that it could not vote (R6); it does not run, its disk hangs, or it is about to end;
    or it is to leave (R13)."""
    seen = reports.get(member.name)
    if seen is None or seen.age_s > policy.failure_timeout_s or not seen.report.running:
        return None
    if seen.report.wants_rebuild or seen.report.ending:
        return None
    if disk_stalled_s(seen.report.storage) > policy.failure_timeout_s:
        return None
    sender = next((s for s in primary.senders if s.member == member.name), None)
    flushed_lsn, limit = sender.flushed_lsn if sender is not None else 0, policy.maximum_lag_on_syncnode_bytes
    if sender is not None and limit is not None and primary.lsn - flushed_lsn > limit:
        return None
    streaming = sender is not None and sender.streaming
    return Standby(member, flushed_lsn, member.name in newest.members, streaming)


def _stays(standby: Standby, policy: Policy, away_s: Mapping[str, float]) -> bool:
    """One that comes has caught up; one that is listed has a moment to connect again, or for the first time."""
    if not (standby.listed or standby.streaming):
        return False
    return away_s.get(standby.member.name, 0.0) <= policy.failure_timeout_s


def standing(members: Collection[str], primary: Report) -> Mapping[str, int]:
    """Who gets no commit through now, as this primary sees it, and where each stands; 0 without a walsender.

    A walsender alone says little: its standby's disk may hang, or its WAL receiver be stopped. Then its position stays
    where it is while there is more; whoever has all there is waits for nothing.
    """
    confirmed = dict.fromkeys(members, 0) | {s.member: s.flushed_lsn for s in primary.senders if s.member in members}
    return {name: lsn for name, lsn in confirmed.items() if lsn < primary.lsn}


def _chosen(policy: Policy, primary: Member | None, standbys: list[Standby]) -> SyncSet:
    """Mode `quorum`: any of all that can. Mode `on`: as many as are waited for, by priority; others only wait to come.

    Of equals who is listed stays. One of another zone than the primary's takes the last place, if none has one. All
    that are named are waited for: equals stand in the order of their names, or each look would find another one.
    """
    k = min(policy.synchronous_node_count, len(standbys))
    if policy.synchronous_mode == "quorum":
        return SyncSet(k, frozenset(s.member.name for s in standbys))
    ranked = sorted(
        standbys, key=lambda s: (-s.priority, not s.listed, 0 if s.listed else -s.flushed_lsn, s.member.name)
    )
    first = ranked[:k]
    elsewhere = [s for s in ranked[k:] if s.stands_apart_from(primary)]
    if first and elsewhere and not any(s.stands_apart_from(primary) for s in first):
        first[-1] = elsewhere[0]
    names = tuple(s.member.name for s in sorted(first, key=lambda s: (-s.priority, s.member.name)))
    return SyncSet(k, frozenset(names), names)
