"""Observations and situations of a small cluster, as values and from a tape of choices."""

from dataclasses import replace

from appliance.cluster.apply import apply
from appliance.cluster.commands import Recovered
from appliance.cluster.config import Policy
from appliance.cluster.names import slot_name
from appliance.cluster.state import Appointment, LeaseStatus, Operation, OperationKind, Phase, Position, Timeline
from appliance.ha.seen import (
    DirectoryKind,
    DirectorySeen,
    InstanceSeen,
    JobSeen,
    LeaderSeen,
    LeaseSeen,
    Notes,
    Observation,
    PlaceSeen,
    PostmasterSeen,
    Report,
    ReportSeen,
    SenderSeen,
    StorageSeen,
    SyncProgress,
    WatchdogSeen,
)
from appliance.ha.situation import Situation
from tests.unit.cluster.building import (
    AT,
    LSN,
    NAMES,
    SWITCH,
    contested,
    member,
    next_command,
    state,
    sync,
    synchronous,
    vacant,
    with_members,
)

POLICY = Policy(synchronous_mode="off", fencing="lease")
WAITING = Policy()
"""Commits wait for a standby: the default."""
SYSTEM = "7423474350493388827"
STORAGES = (
    StorageSeen(PlaceSeen(free_bytes=1 << 40, total_bytes=1 << 41)),
    StorageSeen(PlaceSeen(free_bytes=1 << 20, total_bytes=1 << 41)),
    StorageSeen(PlaceSeen(stalled_s=99.0), PlaceSeen()),
    StorageSeen(PlaceSeen(stalled_s=4.0)),
    StorageSeen(PlaceSeen(), PlaceSeen(stalled_s=3.0), door_stalled_s=99.0),
)
HEARD_AT = "2026-11-23T04:59:59.800Z"
SLOTS = frozenset(slot_name(n) for n in NAMES)


def directory(me="pg1", *, primary=False, **changes):
    base = DirectorySeen(
        DirectoryKind.CLUSTER,
        system_identifier=SYSTEM,
        timeline=2,
        was_primary=primary,
        checkpoint_lsn=LSN - 100,
        standby_signal=not primary,
        incarnation=f"inc-{me}",
    )
    return replace(base, **changes)


def instance(*, primary=False, **changes):
    base = InstanceSeen(
        in_recovery=not primary,
        timeline=2,
        lsn=LSN,
        received_lsn=0 if primary else LSN,
        replayed_lsn=0 if primary else LSN,
        receiver_running=not primary,
        upstream="" if primary else "10.0.0.1:5432",
        checkpoint_timeline=2,
        slots=SLOTS if primary else frozenset(),
        streaming=not primary,
    )
    return replace(base, **changes)


def primary(me="pg1", **changes):
    """The healthy primary of epoch 4."""
    base = Observation(
        me=member(me, incarnation=""),
        directory=directory(me, primary=True),
        notes=Notes(epoch=4, pledge=4),
        lease=LeaseSeen(4, 5.0),
        postmaster=PostmasterSeen(100.0),
        instance=instance(primary=True),
        contact_s=0.1,
    )
    return replace(base, **changes)


def standby(me="pg2", **changes):
    """A healthy standby that streams from pg1."""
    base = Observation(
        me=member(me, incarnation=""),
        directory=directory(me),
        notes=Notes(epoch=4, pledge=4),
        lease=None,
        postmaster=PostmasterSeen(100.0),
        instance=instance(),
        contact_s=0.1,
    )
    return replace(base, **changes)


def voter(me="pg2", election=5, **changes):
    """A standby that has pledged itself to the open election and takes WAL from nowhere."""
    base = instance(receiver_running=False, upstream="", streaming=False)
    return standby(me, notes=Notes(epoch=4, pledge=election), instance=base, **changes)


def stopped(seen, **on_disk):
    """The same node after its PostgreSQL has ended."""
    return replace(seen, postmaster=None, instance=None, directory=replace(seen.directory, **on_disk))


def job(kind="clone", **changes):
    return replace(JobSeen(kind, running=True, failed=False, seconds=3.0), **changes)


def operation(phase=Phase.REQUESTED, target="pg2", **changes):
    base = Operation("op1", OperationKind.SWITCHOVER, "anna", "patching", "pg1", target, 4, phase)
    return replace(base, **changes)


def report(node, *, primary=None, lsn=LSN, streaming=None, **changes):
    """Of pg1 as the primary and of the others as its standbys, unless said otherwise."""
    is_primary = node == "pg1" if primary is None else primary
    base = Report(
        node=node,
        incarnation=f"inc-{node}",
        notes=Notes(),
        directory=DirectoryKind.CLUSTER,
        running=True,
        in_recovery=not is_primary,
        timeline=2,
        lsn=lsn,
        received_lsn=0 if is_primary else lsn,
        replayed_lsn=0 if is_primary else lsn,
        streaming=(not is_primary) if streaming is None else streaming,
        status="running",
        doing="",
    )
    return replace(base, **changes)


def heard(*reports, age_s=0.2):
    return {r.node: ReportSeen(r, age_s) for r in reports}


def senders(*names, flushed_lsn=LSN, streaming=True):
    return tuple(SenderSeen(name, flushed_lsn, streaming) for name in names)


def streaming(*names, **changes):
    """What all report while these stream from pg1."""
    return heard(report("pg1", senders=senders(*names)), *(report(n, **changes) for n in ("pg2", "pg3")))


ALL = heard(*(report(n) for n in NAMES))


def situation(present=None, reports=None, policy=POLICY, **leader):
    """What a raft leader knows that has led for long and confirmed a renewal a moment ago."""
    known = {"leading_s": 60.0, "confirmed_s": 0.3, "epoch_s": 50.0, "noted_s": 1.0} | leader
    return Situation(present or state(), ALL if reports is None else reports, LeaderSeen(**known), policy, AT, HEARD_AT)


APPOINTED = state(
    epoch=5,
    appointment=Appointment(5, "pg2", "inc-pg2", 3, Position(2, LSN)),
    timelines=(*state().timelines, Timeline(3, 5, "pg2", 2)),
)
"""pg2 was appointed and has not opened yet."""

FORKED = replace(
    state(),
    appointment=replace(state().appointment, timeline=4),
    timelines=(*state().timelines, Timeline(3, 5, "pg3", 2, LSN), Timeline(4, 6, "pg1", 2, LSN)),
)
"""Timeline 3 is dead: 4 left 2 as well."""
LEAVING = with_members(state(), member("pg3", rebuilding=True, incarnation=""))
JOINT = synchronous(sync(1, "pg2"), sync(1, "pg2", "pg3", version=2))
"""Commits of pg1 are to wait for pg3 too, and it is not known yet whether they all do."""


# From a tape


def some_state(tape):
    """A state that a walk of commands led to, so that it is one that `apply` can make."""
    moving = state(operations=(operation(tape.pick(Phase.STOPPING, Phase.REQUESTED)),))
    present = tape.pick(
        state(),
        state(),
        vacant(),
        moving,
        APPOINTED,
        APPOINTED,
        synchronous(),
        JOINT,
        contested(),
        LEAVING,
        FORKED,
        FORKED,
    )
    if tape.pick(False, False, False, True):
        known = {name: m.incarnation for name, m in present.members.items()}
        present = apply(present, Recovered(7, tape.pick(known, {}, dict(list(known.items())[1:])))).state
    for _ in range(tape.pick(0, 0, 1, 2, 4, 8)):
        present = apply(present, next_command(present, tape)).state
    return present


def some_observation(present, tape):
    """A node as it might be: mostly in order, with any one thing or several out of order."""
    me = tape.pick(*NAMES, *([present.appointment.node] * 3 if present.appointment else []))
    epoch = present.appointment.epoch if present.appointment else 0
    known = present.members[me].incarnation if me in present.members else ""
    number = present.recovery.number
    mixed = tuple(tape.pick(number, 0, number + 1) for _ in range(3))
    of_data, of_notes, of_log = tape.pick(*[(number, number, number)] * 4, mixed)
    timelines = [present.highest_timeline, 2, 1, present.highest_timeline + 1]
    running = tape.pick(True, True, False)
    recovering = tape.pick(True, False)
    lsn = tape.pick(LSN, LSN - 1, SWITCH, 0, LSN + 1)
    on_disk = DirectorySeen(
        tape.pick(*[DirectoryKind.CLUSTER] * 5, *DirectoryKind),
        system_identifier=tape.pick(present.system_identifier, present.system_identifier, "8"),
        timeline=tape.pick(*timelines),
        shut_down=tape.pick(False, True),
        was_primary=tape.pick(True, False),
        checkpoint_lsn=lsn,
        standby_signal=recovering,
        incarnation=tape.pick(known, known, known, "inc-other", ""),
        problem=tape.pick("", "", "", "unreadable"),
        stray_pid=0 if running else tape.pick(0, 0, 0, 99),
        recovery=of_data,
    )
    answer = InstanceSeen(
        in_recovery=recovering,
        timeline=tape.pick(*timelines),
        lsn=lsn,
        received_lsn=tape.pick(0, LSN, lsn),
        replayed_lsn=tape.pick(lsn, LSN, 0),
        receiver_running=tape.pick(False, True),
        upstream=tape.pick("", "10.0.0.1:5432", "10.0.0.2:5432"),
        checkpoint_timeline=tape.pick(*timelines),
        slots=tape.pick(SLOTS, SLOTS, frozenset()),
        streaming=tape.pick(True, False),
        idle_slots=tape.pick(frozenset(), frozenset(), SLOTS),
        lost_slots=tape.pick(*[frozenset()] * 7, SLOTS),
        senders=tape.pick(senders("pg2", "pg3"), senders("pg2"), senders("pg2", "pg3", flushed_lsn=LSN - 9), ()),
        sync_version=tape.pick(present.sync_now.version, present.sync_now.version, 0),
        refuses_writes=tape.pick(False, False, True),
        admits=tape.pick(True, False),
        silent_s=tape.pick(9.0, 9.0, 0.0),
        histories=frozenset(range(1, present.highest_timeline + tape.pick(1, 1, 0))),
    )
    opened_lsn = tape.pick(lsn, lsn, None)
    notes = Notes(
        epoch=tape.pick(epoch, epoch, 0, epoch + 1),
        pledge=tape.pick(epoch, present.epoch, present.epoch, present.epoch + 1),
        fenced_epoch=tape.pick(0, 0, epoch - 1, epoch),
        needs_clone=tape.pick(False, False, True),
        recovery=of_notes,
        sync_version=tape.pick(present.sync_now.version, 0, 0, present.sync_now.version + tape.pick(0, 0, 0, 1)),
    )
    lsns = tape.pick((None, None), (LSN, None), (LSN, LSN))
    progress = SyncProgress(tape.pick(*[present.sync_now.version] * 4, 0), tape.pick(True, False), *lsns)
    lease = LeaseSeen(tape.pick(epoch, epoch, epoch - 1), tape.pick(5.0, 5.0, POLICY.fence_below_s, 0.0, -3.0))
    kind = tape.pick("initialise", "clone", "rewind")
    work = JobSeen(kind, running=tape.pick(True, False), failed=tape.pick(False, True), seconds=tape.pick(0.0, 9.0))
    return Observation(
        me=member(me, incarnation="", tags=tape.pick({}, {}, {}, {"zone": "b"})),
        directory=on_disk,
        notes=notes,
        lease=tape.pick(lease, lease, None),
        postmaster=PostmasterSeen(50.0) if running else None,
        instance=tape.pick(answer, answer, answer, None) if running else None,
        job=tape.pick(None, None, None, None, work) if not running else None,
        opened_lsn=opened_lsn,
        answer_age_s=tape.pick(0.0, 0.0, 20.0, 100.0),
        stopping_s=tape.pick(*[None] * 6, 1.0, 90.0) if running else None,
        promoting_s=tape.pick(None, None, 0.5, 9.0) if running and recovering else None,
        wall_time=AT,
        contact_s=tape.pick(0.1, 0.1, None),
        switch=tape.pick({}, {present.highest_timeline: Position(max(1, present.highest_timeline - 1), LSN)}),
        checkpointing=tape.pick(False, True),
        checkpointed_operation=tape.pick("", "op0", "op1"),
        settings_changed=tape.pick(*[False] * 5, True),
        replaced_kept_s=tape.pick(None, 10.0, 9999.0),
        source_oldest_lsn=tape.pick(0, 0, 0, LSN, LSN + 2),
        sync=progress,
        log_incarnation=of_log,
        watchdog=tape.pick(*[None] * 4, WatchdogSeen("/dev/watchdog", tape.pick(True, False), problem="absent")),
        storage=tape.pick(None, None, None, *STORAGES),
        successors=tape.pick(frozenset(), frozenset(NAMES) - {me}),
    )


def is_open_primary(present):
    held = present.appointment
    return held is not None and held.opened and present.lease is LeaseStatus.HELD
