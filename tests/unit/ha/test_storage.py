"""When a primary lets its epoch go because of what it lives on, when writes are refused, and who is fuller."""

from dataclasses import replace

import pytest

from appliance.cluster.apply import apply
from appliance.cluster.commands import Appoint, Recovered, Release
from appliance.cluster.config import policy_in_force
from appliance.cluster.state import Phase, Position
from appliance.ha.actions import ApplySettings, NoteFenced, Propose, StopMode, StopPostgres
from appliance.ha.checks import failover_checks, refusal, switchover_checks
from appliance.ha.decide import decide
from appliance.ha.plan import plan
from appliance.ha.seen import LeaseSeen, Notes, PlaceSeen, StorageSeen, SyncProgress
from appliance.ha.storage import LITTLE_ROOM, NO_ROOM, ROOM, Room, floor_bytes, hung_after_s, level, room, successors
from tests.unit.cluster.building import LSN, SWITCH, member, state, sync, synchronous, vacant, vote, with_members

from .building import (
    ALL,
    APPOINTED,
    JOINT,
    POLICY,
    SLOTS,
    heard,
    instance,
    operation,
    primary,
    report,
    senders,
    situation,
    standby,
    stopped,
    voter,
)

MIB = 1 << 20
GIB = 1 << 30
HUNG_S = hung_after_s(POLICY)
OTHERS = frozenset({"pg2", "pg3"})
FENCE = (StopPostgres(StopMode.KILL), NoteFenced(4))


def disk(free=50 * GIB, total=100 * GIB, **changes):
    return PlaceSeen(free_bytes=free, total_bytes=total, **changes)


def stalled(seconds=HUNG_S + 0.1):
    return StorageSeen(disk(stalled_s=seconds))


def full(mib=1000):
    """Of 100 GiB, of which the last is not for writes."""
    return StorageSeen(disk(mib * MIB))


# A disk that hangs, a postmaster that takes nobody in


@pytest.mark.parametrize(
    ("storage", "words"),
    [
        (stalled(), "no write to the data directory has succeeded for 12.1 s"),
        (StorageSeen(disk(), disk(stalled_s=13.0, error="Input/output error")), "to pg_wal has succeeded for 13.0 s"),
        (StorageSeen(disk(), door_stalled_s=HUNG_S + 1), "the postmaster has taken no new connection for 13.0 s"),
    ],
)
def test_a_primary_that_waits_for_too_long_lets_the_others_take_over(storage, words):
    decision = decide(state(), primary(storage=storage, successors=OTHERS), POLICY)

    assert decision.actions == FENCE
    assert words in decision.because
    assert "pg2, pg3 could take over" in decision.because


@pytest.mark.parametrize(
    "changes",
    [
        {"storage": stalled(HUNG_S)},
        {"storage": None},
        {"successors": frozenset()},
        {"lease": LeaseSeen(4, POLICY.lease_s - POLICY.failure_timeout_s - 0.1)},
    ],
    ids=["a moment", "not known", "nobody else", "no answer of late"],
)
def test_a_primary_stays_for_a_moment_and_in_doubt(changes):
    seen = primary(**({"storage": stalled(), "successors": OTHERS} | changes))

    assert decide(state(), seen, POLICY).actions == ()


def test_a_journal_that_hangs_as_well_keeps_nobody_from_it():
    """The node hears the raft leader, and can apply nothing."""
    assert decide(state(), primary(storage=stalled(), successors=OTHERS, contact_s=99.0), POLICY).actions == FENCE


def test_a_standby_whose_disk_hangs_is_nobodys_primary_to_fence():
    assert decide(state(), standby(storage=stalled(), successors=OTHERS), POLICY).actions == ()


def test_nothing_is_started_on_a_disk_that_hangs():
    waiting = decide(state(), stopped(standby(storage=stalled(POLICY.failure_timeout_s + 0.1))), POLICY)

    assert (waiting.rule, waiting.actions) == ("await_disk", ())
    assert decide(state(), stopped(standby(storage=stalled(1.0))), POLICY).actions


def test_settings_are_not_written_to_a_disk_that_hangs():
    seen = primary(storage=stalled(POLICY.failure_timeout_s + 0.1), settings_changed=True)

    assert decide(state(), seen, POLICY).actions == ()


FULL = instance(primary=True, refuses_writes=True)
WRITES = {
    "settings": (state(), primary(settings_changed=True)),
    "refuse_writes": (state(), primary(instance=FULL)),
    "admit": (
        synchronous(),
        primary(instance=instance(primary=True, admits=False, senders=senders("pg3")), opened_lsn=LSN),
    ),
    "follow": (state(), standby(instance=instance(upstream="10.0.0.3:5432"))),
    "mark_kept": (apply(state(), Recovered(7, {"pg2": "inc-pg2"})).state, standby(notes=Notes(4, 4, recovery=7))),
    "promote": (APPOINTED, voter("pg2", lease=LeaseSeen(5, 5.0))),
    "keep_slots": (state(), primary(instance=instance(primary=True, slots=frozenset()))),
    "drop_slots": (state(), standby(instance=instance(slots=SLOTS, idle_slots=SLOTS))),
    "settle_sync": (JOINT, primary(sync=SyncProgress(2), instance=instance(primary=True, sync_version=2))),
    "rebuild": (state(), standby(notes=Notes(4, 4, needs_clone=True))),
    "start_standby": (state(), stopped(standby())),
}
"""By the rule that speaks: what has the control loop wait for the disk, where that works."""


@pytest.mark.parametrize("rule", WRITES)
@pytest.mark.parametrize("place", ["the data directory", "pg_wal"])
def test_the_control_loop_writes_nothing_to_a_disk_that_hangs_and_says_so(rule, place):
    """It would wait in the kernel: no renewal, no report, no fence until the disk answers."""

    def after(seconds):
        hung = disk(stalled_s=seconds)
        return StorageSeen(disk(), hung) if place == "pg_wal" else StorageSeen(hung)

    present, seen = WRITES[rule]
    at_once = decide(present, replace(seen, storage=after(1.0)), POLICY)
    assert (at_once.rule, bool(at_once.actions)) == (rule, True), "as long as the tries of the probe are apart"
    waits = decide(present, replace(seen, storage=after(1.1)), POLICY)
    assert (waits.rule, waits.actions) == (rule, ())
    assert waits.because == f"{at_once.because}: put off, as no write to {place} has succeeded for 1.1 s"


def test_a_postmaster_that_takes_nobody_in_keeps_no_file_from_being_written():
    present, seen = WRITES["settings"]
    assert decide(present, replace(seen, storage=StorageSeen(disk(), door_stalled_s=5.0)), POLICY).actions


def test_what_comes_before_a_write_is_begun_and_nothing_after_it():
    fenced = stopped(primary(storage=stalled(1.1), lease=None, answer_age_s=20.0))
    assert decide(state(), fenced, POLICY).actions == (NoteFenced(4),)
    opened = primary("pg2", storage=stalled(1.1), notes=Notes(5, 5), lease=LeaseSeen(5, 5.0))
    opened = replace(
        opened, instance=instance(primary=True, timeline=3, slots=frozenset()), switch={3: Position(2, SWITCH)}
    )
    assert decide(APPOINTED, opened, POLICY).actions == (), "the slots stand before others learn of the promotion (R15)"


@pytest.mark.parametrize(
    ("present", "seen"),
    [
        (APPOINTED, primary(notes=Notes(4, 4))),
        (state(), primary(lease=LeaseSeen(4, 0.1))),
        (state(), stopped(primary(), stray_pid=4711)),
        (state(operations=(operation(Phase.STOPPING),)), primary()),
    ],
)
def test_r4_what_ends_a_primary_waits_for_no_disk(present, seen):
    hung = replace(seen, storage=stalled(5.0))
    assert decide(present, hung, POLICY).actions == decide(present, seen, POLICY).actions != ()


# An appointment that has not opened


WINNER = voter("pg2", lease=LeaseSeen(5, 5.0), storage=stalled(2.1), successors=frozenset({"pg1", "pg3"}))


def test_who_was_appointed_and_cannot_open_for_its_disk_lets_the_others_take_over():
    decision = decide(APPOINTED, WINNER, POLICY)

    assert decision.actions == (NoteFenced(5), Propose(Release(5, "pg2", decision.because)))
    assert "2.1 s; pg1, pg3 could take over" in decision.because


@pytest.mark.parametrize(
    "changes",
    [
        {"storage": stalled(2.0)},
        {"storage": StorageSeen(disk(), door_stalled_s=5.0)},
        {"successors": frozenset()},
        {"lease": LeaseSeen(5, POLICY.lease_s - POLICY.failure_timeout_s - 0.1)},
        {"promoting_s": 0.1},
    ],
    ids=["a moment", "the disk answers", "nobody else", "no answer of late", "it may open at any moment"],
)
def test_an_appointment_that_has_not_opened_is_kept_in_doubt(changes):
    assert decide(APPOINTED, replace(WINNER, **changes), POLICY).rule == "promote"


# Who could take over (R7, R10)


def without(*names, **changes):
    reports = {n: r for n, r in ALL.items() if n not in names}
    return {**reports, **heard(*(report(n, **changes) for n in names))} if changes else reports


@pytest.mark.parametrize(
    ("present", "reports", "expected"),
    [
        (state(), ALL, OTHERS),
        (synchronous(), ALL, OTHERS),
        # R7: one of two that any one of may have confirmed is not enough
        (synchronous(), without("pg3"), frozenset()),
        (synchronous(sync(1, "pg2")), without("pg3"), {"pg2"}),
        # R8: commits may still wait for nobody
        (synchronous(sync(0), sync(1, "pg2", "pg3", version=2)), ALL, frozenset()),
        (state(), without("pg2", running=False), {"pg3"}),
        (state(), without("pg2", in_recovery=None), {"pg3"}),
        (state(), without("pg2", wants_rebuild=True), {"pg3"}),
        (state(), without("pg2", ending=True), {"pg3"}),
        (state(), without("pg2", storage=full()), {"pg3"}),
        (state(), without("pg2", storage=stalled()), {"pg3"}),
        (state(), without("pg2", lsn=LSN - POLICY.maximum_lag_on_failover_bytes - 1), {"pg3"}),
        (with_members(state(), member("pg2", tags={"nofailover": True})), ALL, {"pg3"}),
        (with_members(state(), member("pg2", incarnation="")), ALL, {"pg3"}),
        (state(), {n: replace(r, age_s=POLICY.failure_timeout_s + 0.1) for n, r in ALL.items()}, frozenset()),
        (state(), {}, frozenset()),
    ],
)
def test_who_could_take_over(present, reports, expected):
    assert successors(present, reports, POLICY, "pg1") == expected


# Room


@pytest.mark.parametrize(
    ("total", "floor"),
    [(160 * MIB, 16 * MIB), (700 * MIB, 64 * MIB), (20 * GIB, 20 * GIB // 50), (100 * GIB, GIB), (10_000 * GIB, GIB)],
)
def test_the_floor_grows_with_the_disk_within_limits(total, floor):
    assert floor_bytes(total) == floor


@pytest.mark.parametrize(
    ("free", "refused", "expected"),
    [
        (GIB, False, False),
        (GIB - 1, False, True),
        (GIB - 1, True, True),
        (GIB, True, True),
        (GIB * 3 // 2 - 1, True, True),
        (GIB * 3 // 2, True, False),
        (None, True, True),
        (None, False, False),
    ],
)
def test_writes_are_refused_below_the_floor_and_let_in_again_well_above_it(free, refused, expected):
    assert room(StorageSeen(disk(free)), refused=refused).refuses_writes is expected


def test_the_fuller_of_both_directories_counts():
    assert room(StorageSeen(disk(), disk(10 * MIB)), refused=False).refuses_writes
    assert room(StorageSeen(disk(10 * MIB), disk()), refused=False).refuses_writes


@pytest.mark.parametrize(
    ("storage", "megabytes"),
    [
        (None, None),
        (StorageSeen(disk(total=100 * GIB)), 10 * 1024),
        (StorageSeen(disk(total=8 * GIB)), 2048),
        (StorageSeen(disk(total=100 * GIB), disk(total=2 * GIB)), 512),
        (StorageSeen(PlaceSeen()), None),
    ],
)
def test_a_slot_may_keep_a_quarter_of_the_disk_of_the_wal(storage, megabytes):
    assert room(storage, refused=False) == Room(slot_wal_mb=megabytes)


@pytest.mark.parametrize(
    ("storage", "loaded", "words"),
    [
        (full(), False, "1000 of 102400 MiB free, writes are refused below 1024 MiB: new writes are refused"),
        (full(2000), True, "writes are let in again"),
    ],
)
def test_postgresql_is_told_when_the_room_has_changed(storage, loaded, words):
    seen = primary(storage=storage, instance=instance(primary=True, refuses_writes=loaded))
    decision = decide(state(), seen, POLICY)

    assert decision.actions == (ApplySettings(),)
    assert words in decision.because


@pytest.mark.parametrize(("storage", "loaded"), [(full(), True), (full(1200), True), (full(1200), False), (None, True)])
def test_postgresql_is_told_once(storage, loaded):
    seen = primary(storage=storage, instance=instance(primary=True, refuses_writes=loaded))

    assert decide(state(), seen, POLICY).rule == "at_rest"


# Elections


@pytest.mark.parametrize(
    ("storage", "expected"),
    [
        (None, ROOM),
        (StorageSeen(PlaceSeen()), ROOM),
        (full(5 * 1024), ROOM),
        (full(5 * 1024 - 1), LITTLE_ROOM),
        (full(1024), LITTLE_ROOM),
        (full(1023), NO_ROOM),
        (stalled(), NO_ROOM),
        (StorageSeen(disk(), door_stalled_s=HUNG_S + 1), NO_ROOM),
    ],
)
def test_levels(storage, expected):
    assert level(storage, POLICY) == expected


def elected(present, storage, *votes):
    """Who is appointed when pg2's disk is like that; and that `apply` takes it."""
    reports = heard(
        *(
            report(v.node, vote=v, in_recovery=True, streaming=False, storage=storage if v.node == "pg2" else None)
            for v in votes
        )
    )
    now = situation(present, reports, election_s=5.0)
    (command,) = plan(replace(now, policy=policy_in_force(present))).commands
    assert isinstance(command, Appoint)
    assert apply(present, command).refused is None
    return command.node


def test_of_equals_the_fuller_one_does_not_win_whatever_its_priority():
    preferred = with_members(vacant(), member("pg2", tags={"failover_priority": 9}))

    assert elected(preferred, full(5000), vote("pg2"), vote("pg3")) == "pg3"
    assert elected(preferred, full(6000), vote("pg2"), vote("pg3")) == "pg2"


@pytest.mark.parametrize(
    ("fuller", "other", "winner"),
    [
        (10, 900, "pg3"),
        (900, 10, "pg2"),
        (1100, 4000, "pg3"),
        (4000, 1100, "pg2"),
        (900, 1000, "pg2"),
        (6000, 9000, "pg2"),
    ],
)
def test_of_equals_on_one_level_the_one_with_more_room_wins(fuller, other, winner):
    """By quarters of a floor, and up to where nobody is warned; else by name."""
    open_ = with_members(vacant(), member("pg2", tags={"failover_priority": 9}), member("pg3"))
    there = {"pg2": full(fuller), "pg3": full(other)}
    reports = heard(*(report(n, vote=vote(n), in_recovery=True, storage=s) for n, s in there.items()))
    (command,) = plan(situation(open_, reports, election_s=5.0)).commands
    assert command.node == winner


def test_r10_a_node_below_the_floor_does_not_win_by_its_position_while_another_could():
    assert elected(vacant(), full(), vote("pg2", LSN + 8), vote("pg3")) == "pg3"
    assert elected(vacant(), full(5000), vote("pg2", LSN + 8), vote("pg3")) == "pg2"


def test_r10_a_node_below_the_floor_wins_when_the_others_lag_too_much_or_are_away():
    far = LSN - POLICY.maximum_lag_on_failover_bytes - 1

    assert elected(vacant(), full(), vote("pg2"), vote("pg3", far)) == "pg2"
    assert elected(vacant(), full(), vote("pg2")) == "pg2"


def test_r7_with_synchronous_standbys_the_fuller_one_loses_when_the_other_votes_show_every_commit():
    open_ = synchronous(epoch=5, election=vacant().election, lease=vacant().lease)

    assert elected(open_, full(), vote("pg2", LSN + 8), vote("pg3")) == "pg2", "it may be the one that confirmed"
    only_pg3 = replace(open_, sync=(sync(1, "pg3"),))
    assert elected(only_pg3, full(), vote("pg2", LSN + 8), vote("pg3")) == "pg3"
    both = replace(open_, sync=(sync(2, "pg2", "pg3"),))
    assert elected(both, full(), vote("pg2", LSN + 8), vote("pg3")) == "pg3"
    assert elected(both, stalled(), vote("pg2", LSN + 8), vote("pg3")) == "pg3"


@pytest.mark.parametrize(
    ("storage", "votes", "words"),
    [
        (full(), (vote("pg2"), vote("pg3")), "highest of 1 vote; not pg2: the data directory has 1000 of 102400 MiB"),
        (full(5000), (vote("pg2"), vote("pg3")), "highest of 2 votes; not pg2: the data directory has 5000 of"),
        (stalled(), (vote("pg2"), vote("pg3")), "not pg2: no write to the data directory has succeeded for"),
        (full(5000), (vote("pg2"), vote("pg3", LSN + 8)), "highest of 2 votes"),
        (full(), (vote("pg2"),), "highest of 1 vote, and nobody else could win: the data directory has 1000 of"),
    ],
)
def test_history_says_who_lost_for_want_of_room(storage, votes, words):
    reports = heard(*(report(v.node, vote=v, storage=storage if v.node == "pg2" else None) for v in votes))
    (command,) = plan(situation(vacant(), reports, election_s=5.0)).commands
    assert words in command.reason
    assert ("not pg2" in command.reason) is ("not pg2" in words)


def test_a_switchover_to_a_node_that_would_refuse_writes_is_refused_and_a_failover_by_hand_is_not():
    reports = ALL | heard(report("pg2", storage=full()))
    failed = refusal(switchover_checks(state(), reports, POLICY, "pg2"))
    assert (failed.code, failed.candidate) == ("candidate.storage", "pg2")
    assert failed.detail.endswith("writes are refused below 1024 MiB: mend that, or name another")
    assert refusal(switchover_checks(state(), reports, POLICY, "")) is None, "pg3 is there too"
    assert refusal(failover_checks(vacant(), reports, POLICY, "pg2", allow_data_loss=False)) is None
