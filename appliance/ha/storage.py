"""What PostgreSQL lives on: disks that hang or fill up, and a postmaster that takes no more connections.

A disk that hangs ends nothing by itself: PostgreSQL waits in the kernel, the node goes on renewing its lease, and
nobody can write. So a primary is measured by tries of a process that may hang in its stead (node/probe.py).
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import takewhile

from appliance.cluster import elections, synchronous
from appliance.cluster.config import Policy
from appliance.cluster.state import Appointment, ClusterState, Member, NodeRole
from appliance.ha.actions import (
    ApplySettings,
    CreateSlots,
    Decision,
    DropSlots,
    Follow,
    ForgetIncarnation,
    MarkDirectory,
    MarkWal,
    NoteFenced,
    Promote,
    SettleHistory,
    StartPrimary,
    StartStandby,
    StopMode,
    StopPostgres,
)
from appliance.ha.facts import may_resume
from appliance.ha.fences import let_go
from appliance.ha.seen import InstanceSeen, Observation, PlaceSeen, ReportSeen, StorageSeen

_MIB = 1 << 20
_LEAST_FLOOR_BYTES = 64 * _MIB
_MOST_FLOOR_BYTES = 1024 * _MIB
_WARN_FLOORS = 5
_LIFT_FLOORS = 1.5
_STEPS = 4
_MOST_SLOT_WAL_MB = 10 * 1024
"""as the default of max_slot_wal_keep_size"""
_SLOT_WAL_SHARE = 4

_WRITE_PATIENCE_S = 1.0
"""So long the probe may wait before nothing is written to that disk any more. A disk under load takes that long now and
then; who puts a write off until it answers loses nothing, since it would have waited as well."""
_NEEDS_DISK = (
    ApplySettings,
    CreateSlots,
    DropSlots,
    Follow,
    ForgetIncarnation,
    MarkDirectory,
    MarkWal,
    Promote,
    SettleHistory,
    StartPrimary,
    StartStandby,
)
"""What writes to PostgreSQL's disk, or has PostgreSQL write to it before it answers. Jobs do so in a process of their
own, and what ends a primary is never put off."""

NO_ROOM, LITTLE_ROOM, ROOM = range(3)


@dataclass(frozen=True, slots=True)
class Room:
    """What the disk means for PostgreSQL's settings."""

    refuses_writes: bool = False
    slot_wal_mb: int | None = None
    """the most WAL that a slot may keep, unless the configuration says otherwise; None: not known"""


def hung_after_s(policy: Policy) -> float:
    """For how long a primary may wait for its disk before it lets others take over.

    Disks under load stall for seconds and come back, and a failover costs as much and brings the same load to the next
    disk. Two ttl is longer than any outage that a lost host would cause, so a failover is the shorter one for sure.
    """
    return 2 * policy.ttl_s


def stalled_s(storage: StorageSeen | None) -> float:
    """Of the directories and of the postmaster, the worst."""
    if storage is None:
        return 0.0
    return max(storage.data.stalled_s, storage.wal.stalled_s if storage.wal else 0.0, storage.door_stalled_s)


def disk_stalled_s(storage: StorageSeen | None) -> float:
    return max((place.stalled_s for _, place in places(storage)), default=0.0)


def places(storage: StorageSeen | None) -> tuple[tuple[str, PlaceSeen], ...]:
    """With their names, for people."""
    if storage is None:
        return ()
    wal = (("pg_wal", storage.wal),) if storage.wal is not None else ()
    return (("the data directory", storage.data), *wal)


def hangs(seen: Observation, policy: Policy) -> bool:
    """Whether the disk has been away for as long as a member that counts as lost."""
    return disk_stalled_s(seen.storage) > policy.failure_timeout_s


def put_off(decision: Decision, seen: Observation) -> Decision:
    """Without what would hang with the disk: the control loop waits in the kernel then, and nothing is renewed, told or
    fenced until the disk answers. What comes before that in the decision is begun, nothing that comes after it."""
    if not may_hang(seen.storage):
        return decision
    begun = tuple(takewhile(lambda action: not isinstance(action, _NEEDS_DISK), decision.actions))
    if begun == decision.actions:
        return decision
    reason = why_stalled(seen.storage, _WRITE_PATIENCE_S)
    return replace(decision, because=f"{decision.because}: put off, as {reason}", actions=begun)


def may_hang(storage: StorageSeen | None) -> bool:
    """Whether who touches the disk now may wait with it for long."""
    return disk_stalled_s(storage) > _WRITE_PATIENCE_S


def why_stalled(storage: StorageSeen | None, longer_than_s: float) -> str | None:
    """What does not answer for longer than that, in words, or None."""
    for name, place in places(storage):
        if place.stalled_s > longer_than_s:
            said = f", the last said: {place.error}" if place.error else ""
            return f"no write to {name} has succeeded for {place.stalled_s:.1f} s{said}"
    if storage is not None and storage.door_stalled_s > longer_than_s:
        return f"the postmaster has taken no new connection for {storage.door_stalled_s:.1f} s"
    return None


def floor_bytes(total_bytes: int) -> int:
    """Free space below which new writes are refused: 2 % of the file system, at least 64 MiB, at most 1 GiB.

    It has to hold what is still written after that: transactions under way, checkpoints, autovacuum, a promotion, and
    what a person needs to make room. That grows little with the disk: hence the most. Four segments of WAL are the
    least, but of no disk more than a tenth.
    """
    return min(max(total_bytes // 50, _LEAST_FLOOR_BYTES), _MOST_FLOOR_BYTES, total_bytes // 10)


def _floors(place: PlaceSeen) -> float | None:
    """The free space in floors, or None: not known."""
    if place.free_bytes is None or not place.total_bytes:
        return None
    return place.free_bytes / max(1, floor_bytes(place.total_bytes))


def level(storage: StorageSeen | None, policy: Policy) -> int:
    """How fit it is to be a primary's. What is not known does not count against a node."""
    if stalled_s(storage) > hung_after_s(policy):
        return NO_ROOM
    least = _least_floors(storage)
    return ROOM if least >= _WARN_FLOORS else LITTLE_ROOM if least >= 1 else NO_ROOM


def steps(storage: StorageSeen | None, policy: Policy) -> int:
    """The same, finer, to compare nodes by: quarters of a floor that are free, up to where nobody is warned.

    Two disks that fill up alike differ by what happens to be written just now: that decides nothing.
    """
    if stalled_s(storage) > hung_after_s(policy):
        return -1
    return int(min(_least_floors(storage), _WARN_FLOORS) * _STEPS)


def _least_floors(storage: StorageSeen | None) -> float:
    known = (floors for _, place in places(storage) if (floors := _floors(place)) is not None)
    return min(known, default=float(_WARN_FLOORS))


def room(storage: StorageSeen | None, *, refused: bool) -> Room:
    """What to do about the space that is left; `refused`: writes are refused already.

    They are let in again only at one and a half floors: a file that grows and shrinks must not turn them on and off.
    """
    known = [floors for _, place in places(storage) if (floors := _floors(place)) is not None]
    least = min(known, default=None)
    refuses = refused if least is None else least < (_LIFT_FLOORS if refused else 1)
    wal = places(storage)[-1:]
    total_bytes = wal[0][1].total_bytes if wal else None
    fits = None if not total_bytes else min(_MOST_SLOT_WAL_MB, total_bytes // _SLOT_WAL_SHARE // _MIB)
    return Room(refuses, fits)


def successors(state: ClusterState, reports: Mapping[str, ReportSeen], policy: Policy, me: str) -> frozenset[str]:
    """Who could take over from this primary, by what the members said last; empty in doubt (R7, R10)."""
    others = {m.name: m for m in state.members.values() if m.name != me and _is_there(m, reports.get(m.name), policy)}
    fit = {name for name in others if elections.excluded(state, name) is None}
    if state.synchronous:
        enough = synchronous.suffice(state.grounds, {name: member.incarnation for name, member in others.items()})
        return frozenset(fit) if enough else frozenset()
    mine = reports.get(me)
    ahead = max(state.last_known.lsn if state.last_known else 0, mine.report.lsn if mine else 0)
    near = {n for n in fit if ahead - reports[n].report.lsn <= policy.maximum_lag_on_failover_bytes}
    return frozenset(near)


def _is_there(member: Member, seen: ReportSeen | None, policy: Policy) -> bool:
    if seen is None or seen.age_s > policy.failure_timeout_s or member.role is NodeRole.WITNESS:
        return False
    report = seen.report
    whole = bool(member.incarnation) and not member.rebuilding and not report.wants_rebuild
    whole = whole and not report.ending
    return whole and report.running and report.in_recovery is True and level(report.storage, policy) > NO_ROOM


def give_up_stalled(state: ClusterState, seen: Observation, policy: Policy) -> Decision | None:
    """A primary whose disk hangs, or whose postmaster takes nobody in, ends its epoch, if another can take over.

    In doubt it stays: nobody would be served sooner. PostgreSQL is told to stop before that is written down, as the
    note may be on the same disk and hang too. Then nothing renews the lease any more, and the guard keeps its deadline.
    """
    held = may_resume(state, seen)
    if held is None or seen.postmaster is None:
        return None
    reason = _why_give_up(held, seen, policy, hung_after_s(policy))
    return None if reason is None else Decision(reason, (StopPostgres(StopMode.KILL), NoteFenced(held.epoch)))


def pass_on(state: ClusterState, seen: Observation, policy: Policy) -> Decision | None:
    """Who was appointed and has not opened yet has nothing to lose: others take over as soon as its disk hangs."""
    held, instance = may_resume(state, seen), seen.instance
    if held is None or held.opened or instance is None or not instance.in_recovery or seen.promoting_s is not None:
        return None
    reason = _why_give_up(held, seen, policy, policy.failure_timeout_s) if hangs(seen, policy) else None
    return None if reason is None else let_go(held, reason)


def _why_give_up(held: Appointment, seen: Observation, policy: Policy, after_s: float) -> str | None:
    if not seen.successors or not _just_renewed(seen, held, policy):
        return None
    reason = why_stalled(seen.storage, after_s)
    return None if reason is None else f"{reason}; {', '.join(sorted(seen.successors))} could take over"


def _just_renewed(seen: Observation, held: Appointment, policy: Policy) -> bool:
    """What the members said came with the last renewal. A contact is no measure: it counts what was applied here, and
    nothing is while the journal is on the disk that hangs.
    """
    lease = seen.lease
    if lease is None or lease.epoch != held.epoch:
        return False
    return policy.lease_s - lease.left_s <= policy.failure_timeout_s


def await_disk(state: ClusterState, seen: Observation, policy: Policy) -> Decision | None:
    """Nothing is started on a disk that hangs: the node process would hang with it, in the kernel."""
    if seen.postmaster is not None or not hangs(seen, policy):
        return None
    reason = why_stalled(seen.storage, policy.failure_timeout_s)
    return Decision(f"{reason}: nothing is started on it")


def refuse_writes(state: ClusterState, seen: Observation, policy: Policy) -> Decision | None:
    """Read-only before full: PostgreSQL that cannot write its WAL ends, on every standby as well as here.

    New transactions are read-only unless they ask for more, so whoever makes room can: SET
    default_transaction_read_only TO off.
    """
    instance = seen.instance
    if instance is None:
        return None
    wanted = room(seen.storage, refused=instance.refuses_writes)
    if wanted.refuses_writes == instance.refuses_writes:
        return None
    what = "new writes are refused" if wanted.refuses_writes else "writes are let in again"
    return Decision(f"{least_room(seen.storage)}: {what}", (ApplySettings(),))


def least_room(storage: StorageSeen | None) -> str:
    """The fullest place, in words."""
    known = [(floors, name, place) for name, place in places(storage) if (floors := _floors(place)) is not None]
    if not known:
        return "free space is not known"
    _, name, place = min(known, key=lambda found: found[0])
    assert place.free_bytes is not None
    assert place.total_bytes
    free_mib, total_mib = place.free_bytes // _MIB, place.total_bytes // _MIB
    floor_mib = floor_bytes(place.total_bytes) // _MIB
    return f"{name} has {free_mib} of {total_mib} MiB free, writes are refused below {floor_mib} MiB"


def lack(storage: StorageSeen | None, policy: Policy) -> str:
    """What keeps it from being as fit as others, in words."""
    return why_stalled(storage, hung_after_s(policy)) or least_room(storage)


def refusing(instance: InstanceSeen | None, before: Room, storage: StorageSeen | None) -> Room:
    """The room that PostgreSQL is to be told of now. What it has loaded outlives this process."""
    return room(storage, refused=instance.refuses_writes if instance is not None else before.refuses_writes)
