"""Every rule of `decide` has its case, and the cases in which a rule must keep still have theirs."""

from dataclasses import replace

import pytest

from appliance.cluster.apply import apply
from appliance.cluster.commands import (
    AbandonBootstrap,
    Announce,
    FinishBootstrap,
    Promoted,
    Rebuild,
    Rebuilt,
    Recovered,
    Release,
    RemoveMember,
)
from appliance.cluster.state import (
    Bootstrap,
    Change,
    ClusterState,
    HistoryEntry,
    LeaseStatus,
    Lost,
    NodeRole,
    Phase,
    Position,
    Timeline,
)
from appliance.ha.actions import (
    ApplySettings,
    BeginNotes,
    Checkpoint,
    Clone,
    CreateSlots,
    DiscardReplaced,
    DropSlots,
    EndStray,
    FinishJob,
    Follow,
    ForgetIncarnation,
    Initialise,
    MarkDirectory,
    NoteFenced,
    NoteNeedsClone,
    Pledge,
    Promote,
    Propose,
    Rewind,
    SettleHistory,
    ShowSync,
    StartPrimary,
    StartStandby,
    StopMode,
    StopPostgres,
)
from appliance.ha.decide import RULES, decide, slot_name
from appliance.ha.seen import (
    DirectoryKind,
    DirectorySeen,
    FailedCheckpoint,
    LeaseSeen,
    Notes,
    PlaceSeen,
    PostmasterSeen,
    StorageSeen,
    WatchdogSeen,
)
from tests.unit.cluster.building import AT, LSN, member, state, synchronous, vacant, with_members

from .building import (
    APPOINTED,
    FORKED,
    JOINT,
    POLICY,
    SLOTS,
    directory,
    instance,
    job,
    operation,
    primary,
    senders,
    standby,
    stopped,
    voter,
)

IMMEDIATE = StopPostgres(StopMode.IMMEDIATE)
OPENED = replace(
    APPOINTED,
    appointment=replace(APPOINTED.appointment, opened=True),
    timelines=(*state().timelines, Timeline(3, 5, "pg2", 2, LSN)),
)
ASTRAY = standby(
    instance=instance(streaming=False, receiver_running=False, silent_s=3.0, histories=frozenset({3, 4})),
)
WINNER = voter("pg2", lease=LeaseSeen(5, 5.0))
NEW_PRIMARY = primary(
    "pg2",
    notes=Notes(epoch=5, pledge=5),
    lease=LeaseSeen(5, 5.0),
    instance=instance(primary=True, timeline=3, checkpoint_timeline=2),
    switch={3: Position(2, LSN + 8)},
)
MOVING = state(operations=(operation(Phase.STOPPING),))
BOOTSTRAPPING = ClusterState(members={"pg1": member("pg1", incarnation="")}, bootstrap=Bootstrap("pg1"))
FRESH = primary(
    directory=directory(kind=DirectoryKind.MISSING), notes=Notes(), lease=None, postmaster=None, instance=None
)
MOVED = member("pg2", raft="10.0.0.9:7400", incarnation="")
REBUILDING = with_members(OPENED, member("pg1", incarnation="", rebuilding=True))
LOST = stopped(primary(notes=Notes(4, 5), lease=None), incarnation="")

RECOVERED = apply(state(), Recovered(7, {"pg2": "inc-pg2"})).state
"""Only pg2 was left, and its data is kept."""
REMOVED = apply(state(), RemoveMember("pg2")).state
NO_DEVICE = WatchdogSeen("/dev/watchdog", required=True, problem="absent")
CASES = {
    "end_stray": (state(), stopped(primary(), stray_pid=4711), [EndStray(4711)]),
    "stop_strange": (RECOVERED, primary("pg3", notes=Notes(9, 9)), [IMMEDIATE]),
    "fence_newer_epoch": (OPENED, primary(), [IMMEDIATE]),
    "fence_without_lease": (state(), primary(lease=LeaseSeen(4, 2.0)), [IMMEDIATE, NoteFenced(4)]),
    "give_up_stalled": (
        state(),
        primary(storage=StorageSeen(PlaceSeen(stalled_s=12.1)), successors=frozenset({"pg2"})),
        [StopPostgres(StopMode.KILL), NoteFenced(4)],
    ),
    "begin_notes": (RECOVERED, standby(), [BeginNotes(7, keep=True)]),
    "give_back_after_fence": (
        state(),
        stopped(primary(notes=Notes(4, 4, fenced_epoch=4))),
        [NoteFenced(4), Propose(Release(4, "pg1", "pg1 stopped being primary in epoch 4"))],
    ),
    "crashed": (
        synchronous(),
        stopped(primary()),
        [NoteFenced(4), Propose(Release(4, "pg1", "PostgreSQL ended on pg1"))],
    ),
    "without_watchdog": (
        APPOINTED,
        replace(WINNER, watchdog=NO_DEVICE),
        [NoteFenced(5), Propose(Release(5, "pg2", "pg2 must not be primary: its watchdog is required and absent"))],
    ),
    "hand_over": (MOVING, primary(), [StopPostgres(StopMode.FAST)]),
    "await_disk": (state(), stopped(standby(storage=StorageSeen(PlaceSeen(stalled_s=2.1)))), []),
    "finish_job": (REBUILDING, replace(LOST, job=job(running=False, seconds=0.1)), [FinishJob()]),
    "retire": (REMOVED, standby(), [StopPostgres(StopMode.FAST)]),
    "mark_kept": (RECOVERED, standby(notes=Notes(4, 4, recovery=7)), [MarkDirectory(7)]),
    "announce": (state(), replace(standby(), me=MOVED), [Propose(Announce(MOVED))]),
    "initialise": (BOOTSTRAPPING, FRESH, [Initialise()]),
    "pledge": (vacant(), standby(), [Pledge(5)]),
    "pass_on": (
        APPOINTED,
        replace(WINNER, storage=StorageSeen(PlaceSeen(stalled_s=2.1)), successors=frozenset({"pg1", "pg3"})),
        [
            NoteFenced(5),
            Propose(
                Release(
                    5,
                    "pg2",
                    "no write to the data directory has succeeded for 2.1 s; pg1, pg3 could take over",
                )
            ),
        ],
    ),
    "promote": (APPOINTED, WINNER, [Promote(5, 3)]),
    "record_promotion": (
        APPOINTED,
        replace(NEW_PRIMARY, instance=replace(NEW_PRIMARY.instance, slots=frozenset())),
        [SettleHistory(3), CreateSlots(("pg1", "pg3")), Propose(Promoted(5, "pg2", 3, 2, LSN + 8))],
    ),
    "give_up": (state(), primary(answer_age_s=61.0, instance=None), [IMMEDIATE, NoteFenced(4)]),
    "refuse_strange": (RECOVERED, stopped(standby("pg3", notes=Notes(recovery=7))), []),
    "restart_in_place": (state(), stopped(primary()), [StartPrimary(4)]),
    "await_lease": (state(), stopped(primary(lease=None)), []),
    "settle_incarnation": (
        REBUILDING,
        replace(LOST, directory=directory(incarnation="inc-new")),
        [Propose(Rebuilt("pg1", "inc-new"))],
    ),
    "rebuild": (REBUILDING, LOST, [Rewind("pg2", 3)]),
    "start_standby": (state(), stopped(standby()), [StartStandby("pg1")]),
    "finish_stop": (state(), standby(stopping_s=9.0), [StopPostgres(StopMode.IMMEDIATE)]),
    "follow": (OPENED, voter("pg3"), [Follow("pg2")]),
    "left_behind": (
        state(),
        standby(instance=instance(streaming=False, receiver_running=False), source_oldest_lsn=LSN + 1),
        [NoteNeedsClone()],
    ),
    "leave_dead_timeline": (FORKED, ASTRAY, [StopPostgres(StopMode.FAST)]),
    "refuse_writes": (
        state(),
        primary(storage=StorageSeen(PlaceSeen(free_bytes=1 << 20, total_bytes=1 << 40))),
        [ApplySettings()],
    ),
    "admit": (
        synchronous(),
        primary(instance=instance(primary=True, admits=False, senders=senders("pg3")), opened_lsn=LSN),
        [ApplySettings()],
    ),
    "settings": (state(), primary(settings_changed=True), [ApplySettings()]),
    "keep_slots": (
        state(),
        primary(instance=instance(primary=True, slots=frozenset({slot_name("pg2")}))),
        [CreateSlots(("pg3",))],
    ),
    "drop_slots": (
        state(),
        standby(instance=instance(slots=SLOTS, idle_slots=SLOTS | {"backup"})),
        [DropSlots(("pg1", "pg2", "pg3"))],
    ),
    "checkpoint_after_promotion": (OPENED, NEW_PRIMARY, [Checkpoint()]),
    "settle_sync": (JOINT, primary(), [ShowSync(2)]),
    "discard_replaced": (state(), standby(replaced_kept_s=4000.0), [DiscardReplaced()]),
    "await_confirmation": (
        synchronous(),
        primary(instance=instance(primary=True, admits=False, senders=senders("pg3")), opened_lsn=LSN + 1),
        [],
    ),
}


@pytest.mark.parametrize(
    "watchdog",
    [
        None,
        WatchdogSeen("/dev/watchdog", required=True),
        WatchdogSeen("/dev/watchdog", required=True, armed_s=2),
        WatchdogSeen("/dev/watchdog", required=False, problem="absent"),
    ],
)
def test_r4_a_watchdog_that_is_usable_or_not_required_keeps_nobody_from_opening(watchdog):
    assert actions(APPOINTED, replace(WINNER, watchdog=watchdog)) == [Promote(5, 3)]


def test_r4_without_a_required_watchdog_nothing_that_may_be_writable_loses_its_lease():
    promoting = replace(WINNER, watchdog=NO_DEVICE, promoting_s=0.1)
    assert rule(APPOINTED, promoting) == "promote"
    assert rule(APPOINTED, replace(promoting, instance=None)) != "without_watchdog"
    assert rule(state(), primary(watchdog=NO_DEVICE)) == "at_rest"
    assert rule(APPOINTED, replace(WINNER, watchdog=NO_DEVICE, contact_s=None)) != "without_watchdog"


def test_r4_without_a_required_watchdog_a_primary_does_not_come_back_in_place():
    down = stopped(primary(), shut_down=False)
    assert rule(state(), down) == "restart_in_place"
    assert rule(state(), replace(down, watchdog=NO_DEVICE)) == "without_watchdog"


def actions(present, seen):
    return list(decide(present, seen, POLICY).actions)


def rule(present, seen):
    return decide(present, seen, POLICY).rule


def test_every_rule_has_its_case():
    assert list(CASES) == [r.__name__ for r in RULES]


@pytest.mark.parametrize("name", CASES)
def test_each_rule_answers_its_own_case(name):
    present, seen, expected = CASES[name]
    decision = decide(present, seen, POLICY)

    assert decision.rule == name, decision
    assert list(decision.actions) == expected
    assert decision.because


@pytest.mark.parametrize(
    ("present", "seen", "words"),
    [
        (state(), primary(), "primary of epoch 4"),
        (state(), standby(), "standby of pg1"),
        (vacant(), voter(), "standby without a source"),
        (state(), standby(instance=None, told_upstream="10.0.0.1:5432"), "waits for PostgreSQL to answer"),
        (ClusterState(), FRESH, "waits for `appliance bootstrap`"),
    ],
)
def test_a_node_at_rest_does_nothing_and_says_what_it_is(present, seen, words):
    present = replace(present, members=present.members or {"pg1": member("pg1")})
    decision = decide(present, seen, POLICY)

    assert (decision.rule, decision.actions, decision.because) == ("at_rest", (), words)


# Fences


def test_r5_a_node_that_has_obeyed_a_later_epoch_waits_for_the_log():
    assert rule(state(), standby(notes=Notes(epoch=5))) == "wait_for_log"
    assert rule(ClusterState(), standby(notes=Notes(epoch=1))) == "wait_for_log"


@pytest.mark.parametrize("gone", [LeaseStatus.EXPIRED, LeaseStatus.RELEASED])
def test_r5_a_primary_stops_when_it_reads_that_its_lease_is_over(gone):
    assert actions(state(lease=gone), primary()) == [IMMEDIATE]
    assert actions(vacant(), primary()) == [IMMEDIATE]


def test_r5_a_primary_that_does_not_answer_is_stopped_too():
    assert actions(OPENED, primary(instance=None)) == [IMMEDIATE]
    assert IMMEDIATE not in actions(OPENED, standby(instance=None))


@pytest.mark.parametrize("left_s", [POLICY.fence_below_s, 0.0, -1.0])
def test_r4_a_primary_begins_to_fence_at_60_percent_of_ttl(left_s):
    assert actions(state(), primary(lease=LeaseSeen(4, left_s))) == [IMMEDIATE, NoteFenced(4)]


def test_r4_a_node_process_that_has_just_begun_leaves_an_adopted_primary_to_the_guard_for_as_long_as_that_can_end_it():
    begun = primary(contact_s=None, lease=LeaseSeen(4, POLICY.guard_margin_s + 0.01))

    assert rule(state(), begun) == "at_rest"
    assert rule(state(), replace(begun, lease=LeaseSeen(4, POLICY.guard_margin_s))) == "fence_without_lease"
    assert rule(state(), replace(begun, lease=None)) == "fence_without_lease"


def test_r4_the_lease_of_another_epoch_is_no_lease():
    assert rule(state(), primary(lease=LeaseSeen(3, 5.0))) == "fence_without_lease"
    assert rule(state(), primary(lease=None)) == "fence_without_lease"
    assert rule(state(), primary(lease=LeaseSeen(4, POLICY.fence_below_s + 0.01))) == "at_rest"


def test_r4_an_epoch_in_which_the_node_was_fenced_is_given_back_with_its_last_record():
    fenced = stopped(primary(notes=Notes(4, 4, fenced_epoch=4)), shut_down=True, checkpoint_lsn=LSN)
    noted, proposed = actions(state(), fenced)

    assert noted == NoteFenced(4), "it may have been noted in memory only, on a full disk"
    assert proposed.command.position == Position(2, LSN)
    assert rule(state(), replace(fenced, contact_s=None)) != "give_back_after_fence"


def test_r4_a_fenced_node_comes_back_as_a_standby_without_a_source():
    fenced = stopped(primary(notes=Notes(4, 4, fenced_epoch=4), lease=None, contact_s=None, answer_age_s=20.0))

    assert actions(state(), fenced) == [StartStandby("")]


def test_a_switchover_does_not_wait_for_a_standby_that_takes_the_last_record_of_nobody():
    waiting = primary(stopping_s=1.3, shut_down_s=1.1)

    assert actions(MOVING, waiting) == [IMMEDIATE]
    assert actions(MOVING, replace(waiting, shut_down_s=0.9)) == []
    archiving = replace(POLICY, parameters={"archive_mode": "on"})
    assert decide(MOVING, waiting, archiving).actions == ()


def test_a_switchover_checkpoints_stops_fast_and_gives_the_lease_back_when_postgresql_is_down():
    requested = state(operations=(operation(),))
    checkpointed = primary(checkpointed_operation="op1")
    down = stopped(primary(), shut_down=True, checkpoint_lsn=LSN)
    crashed = stopped(primary(), shut_down=False)

    assert actions(requested, primary()) == [Checkpoint("op1")]
    assert Checkpoint("op1") not in actions(requested, primary(checkpointing=True))
    assert actions(requested, checkpointed) == []
    assert actions(MOVING, checkpointed) == [StopPostgres(StopMode.FAST)]
    assert actions(MOVING, primary(stopping_s=3.0)) == []
    assert actions(MOVING, primary(stopping_s=61.0)) == [StopPostgres(StopMode.KILL)]
    assert [type(a) for a in actions(MOVING, down)] == [NoteFenced, Propose]
    assert actions(MOVING, down)[1].command.position == Position(2, LSN)
    assert actions(MOVING, crashed)[1].command.position is None


def test_a_checkpoint_that_failed_is_made_again_after_a_pause_and_its_error_named():
    requested = state(operations=(operation(),))
    failed = primary(failed_checkpoint=FailedCheckpoint(0.9, "terminating connection"))
    later = replace(failed, failed_checkpoint=FailedCheckpoint(1.0, "terminating connection"))

    assert actions(requested, failed) == []
    assert actions(requested, later) == [Checkpoint("op1")]
    assert "the last one failed: terminating connection" in decide(requested, later, POLICY).because
    opened = replace(NEW_PRIMARY, failed_checkpoint=failed.failed_checkpoint)
    assert actions(OPENED, opened) == []
    assert actions(OPENED, replace(opened, failed_checkpoint=later.failed_checkpoint)) == [Checkpoint()]


@pytest.mark.parametrize("ended", [Phase.DONE, Phase.FAILED, Phase.PROMOTING, Phase.ELECTING])
def test_a_switchover_in_another_phase_leaves_the_primary_alone(ended):
    assert actions(state(operations=(operation(ended),)), primary()) == []


def test_a_switchover_of_another_epoch_or_source_leaves_the_primary_alone():
    assert actions(state(operations=(operation(Phase.STOPPING, epoch=3),)), primary()) == []
    assert actions(state(operations=(operation(Phase.STOPPING, source="pg3"),)), primary()) == []


def test_r11_a_primary_that_cannot_come_back_lets_others_be_elected():
    for on_disk in (
        {"kind": DirectoryKind.MISSING},
        {"kind": DirectoryKind.EMPTY},
        {"problem": "unreadable"},
        {"system_identifier": "8"},
        {"incarnation": "inc-other"},
        {"incarnation": ""},
        {"timeline": 1},
    ):
        decision = decide(state(), stopped(primary(), **on_disk), POLICY)
        assert decision.rule == "give_up", on_disk
        fenced, proposed = decision.actions
        assert fenced == NoteFenced(4)
        assert isinstance(proposed.command, Release)


def test_r11_a_hanging_primary_has_until_primary_start_timeout():
    assert actions(state(), primary(instance=None, answer_age_s=59.0)) == []
    assert rule(state(), primary(instance=None, answer_age_s=61.0, contact_s=None)) == "at_rest"


# Jobs


def test_long_work_goes_on_alone_and_a_failure_is_shown_before_it_is_tried_again():
    assert actions(REBUILDING, replace(LOST, job=job())) == []
    assert actions(REBUILDING, replace(LOST, job=job(running=False, failed=True, seconds=1.0, error="no space"))) == []
    assert actions(REBUILDING, replace(LOST, job=job(running=False, failed=True, seconds=6.0))) == [FinishJob()]
    away = job(running=False, failed=True, seconds=1.1, source_away=True)
    assert actions(REBUILDING, replace(LOST, job=away)) == [FinishJob()]
    assert (
        "40 % of 10 MiB"
        in decide(REBUILDING, replace(LOST, job=job(done_bytes=4 << 20, total_bytes=10 << 20)), POLICY).because
    )


# Bootstrap


def test_the_chosen_node_initialises_and_then_says_what_it_made():
    made = replace(FRESH, directory=directory(timeline=1, incarnation="inc-1", primary=True), wall_time="now")

    assert actions(BOOTSTRAPPING, made) == [
        Propose(FinishBootstrap("pg1", made.directory.system_identifier, "inc-1", Position(1, LSN - 100), "now"))
    ]


@pytest.mark.parametrize(
    "on_disk", [directory(kind=DirectoryKind.FOREIGN), directory(incarnation=""), directory(problem="of PostgreSQL 14")]
)
def test_a_bootstrap_over_data_is_given_up(on_disk):
    (proposed,) = actions(BOOTSTRAPPING, replace(FRESH, directory=on_disk))
    assert isinstance(proposed.command, AbandonBootstrap)


def test_a_new_cluster_that_cannot_be_made_is_given_up_with_the_reason():
    ended = replace(FRESH, job=job("initialise", running=False, failed=True, seconds=0.1, error="no room"))
    elsewhere = ClusterState(members=BOOTSTRAPPING.members, bootstrap=Bootstrap("pg2"))

    assert actions(BOOTSTRAPPING, ended) == [Propose(AbandonBootstrap("pg1", "no room"))]
    assert "no room" in decide(BOOTSTRAPPING, ended, POLICY).because
    assert actions(replace(BOOTSTRAPPING, bootstrap=None), ended) == [FinishJob()], "it is over"
    assert actions(elsewhere, ended) == [FinishJob()]
    complete = replace(ended, directory=directory(timeline=1, incarnation="inc-1", primary=True))
    assert actions(BOOTSTRAPPING, complete) == [FinishJob()], "it had done everything but say so"


def test_only_the_chosen_node_initialises():
    present = with_members(BOOTSTRAPPING, member("pg2", incarnation=""))

    assert actions(present, replace(FRESH, me=member("pg2", incarnation=""))) == []
    assert actions(BOOTSTRAPPING, replace(FRESH, contact_s=None)) == []


# Votes and promotion


def test_r6_a_pledge_is_written_once_and_by_nodes_with_data_only():
    assert rule(vacant(), voter()) == "at_rest"
    assert Pledge(5) not in actions(vacant(), standby(directory=directory("pg2", incarnation="other")))
    witness = with_members(vacant(), member("pg2", NodeRole.WITNESS))
    assert actions(witness, replace(FRESH, me=replace(member("pg2", NodeRole.WITNESS)))) == []


def test_a_removed_member_ends_its_postgresql_and_begins_nothing_more():
    down = stopped(standby())
    for seen in (down, replace(down, directory=DirectorySeen(DirectoryKind.MISSING)), replace(down, contact_s=None)):
        decision = decide(REMOVED, seen, POLICY)
        assert (decision.actions, decision.because) == ((), "pg2 was removed from the cluster")
    assert actions(REMOVED, standby(stopping_s=POLICY.primary_stop_timeout_s + 1)) == [IMMEDIATE]
    assert actions(REMOVED, standby(stopping_s=1.0)) == []


def test_r15_the_slot_of_a_removed_member_goes_once_nobody_streams_through_it():
    both = instance(primary=True, slots=SLOTS)
    left = replace(both, idle_slots=frozenset({slot_name("pg2")}))

    assert actions(REMOVED, primary(instance=both)) == []
    assert actions(REMOVED, primary(instance=left)) == [DropSlots(("pg2",))]
    assert actions(REMOVED, standby("pg3", instance=instance(idle_slots=left.idle_slots))) == [DropSlots(("pg2",))]
    alike = with_members(REMOVED, member("PG2"))
    assert actions(alike, primary(instance=left)) == [], "a member of today has a slot of that name"


def test_a_witness_that_was_known_with_data_says_so_and_waits():
    turned = decide(state(), replace(FRESH, me=member("pg2", NodeRole.WITNESS)), POLICY)

    assert (turned.rule, turned.actions) == ("announce", ())
    assert "knows pg2 with role data" in turned.because


def test_r6_after_the_pledge_the_receiver_is_ended():
    attached = standby(notes=Notes(4, pledge=5))

    assert actions(vacant(), attached) == [Follow("")]
    assert actions(vacant(), replace(attached, instance=replace(attached.instance, upstream=""))) == [Follow("")]


def test_r5_a_promotion_waits_for_lease_and_wal():
    assert "waits for the lease" in decide(APPOINTED, replace(WINNER, lease=None), POLICY).because
    assert actions(APPOINTED, replace(WINNER, lease=None)) == []
    assert actions(APPOINTED, replace(WINNER, lease=LeaseSeen(5, 1.0))) == []
    assert actions(APPOINTED, replace(WINNER, lease=LeaseSeen(4, 5.0))) == []
    behind = replace(WINNER, instance=replace(WINNER.instance, lsn=LSN - 1))
    assert "waits for the WAL of its own vote" in decide(APPOINTED, behind, POLICY).because
    assert actions(APPOINTED, behind) == []


def test_a_promotion_is_signalled_again_only_after_a_while():
    assert actions(APPOINTED, replace(WINNER, promoting_s=0.5)) == []
    assert actions(APPOINTED, replace(WINNER, promoting_s=2.5)) == [Promote(5, 3)]


def test_a_promotion_that_is_about_to_open_is_not_given_up():
    """PostgreSQL writes the new timeline into its control file just before it leaves recovery."""
    opening = replace(WINNER, instance=replace(WINNER.instance, timeline=3), promoting_s=0.3)

    assert actions(APPOINTED, opening) == []


def test_r14_a_promotion_to_another_timeline_is_stopped():
    wrong = replace(NEW_PRIMARY, instance=replace(NEW_PRIMARY.instance, timeline=4))

    assert actions(APPOINTED, wrong) == [IMMEDIATE]
    assert actions(APPOINTED, replace(NEW_PRIMARY, switch={})) == []


def test_r14_nobody_follows_before_the_new_timeline_is_known():
    assert actions(APPOINTED, voter("pg3")) == []
    assert actions(OPENED, voter("pg3")) == [Follow("pg2")]


# Restart in place


@pytest.mark.parametrize(
    ("change", "on_disk"),
    [
        ({"lease": LeaseSeen(4, 2.0)}, {}),
        ({"lease": LeaseSeen(3, 5.0)}, {}),
        ({"notes": Notes(4, 4, fenced_epoch=4)}, {}),
        ({}, {"standby_signal": True}),
        ({}, {"was_primary": False}),
        ({}, {"incarnation": "inc-other"}),
        ({}, {"timeline": 1}),
    ],
    ids=str,
)
def test_r11_a_restart_in_place_needs_lease_epoch_and_the_same_directory(change, on_disk):
    assert StartPrimary(4) not in actions(state(), stopped(primary(**change), **on_disk))


def test_r11_a_promotion_that_crashed_before_it_was_recorded_is_resumed():
    crashed = stopped(NEW_PRIMARY, timeline=3)

    assert actions(APPOINTED, crashed) == [StartPrimary(5)]
    assert actions(APPOINTED, stopped(NEW_PRIMARY, timeline=2, was_primary=False)) == [StartStandby("")]


def test_a_restarted_primary_waits_two_ttl_for_its_lease_then_becomes_a_standby():
    silent = stopped(primary(lease=None))

    assert actions(state(), replace(silent, answer_age_s=11.9)) == []
    assert actions(state(), replace(silent, answer_age_s=12.1)) == [NoteFenced(4), StartStandby("")]


# Rebuild


def test_r13_a_rebuild_forgets_the_incarnation_says_so_stops_and_copies():
    there = primary(notes=Notes(5, 5), lease=None)
    diverged = stopped(there, shut_down=False)
    begun = with_members(OPENED, member("pg1", incarnation="", rebuilding=True))

    assert actions(OPENED, diverged) == [ForgetIncarnation(), Propose(Rebuild("pg1"))]
    forgotten = stopped(there, incarnation="")
    assert actions(OPENED, forgotten) == [ForgetIncarnation(), Propose(Rebuild("pg1"))]
    running = standby("pg1", notes=Notes(5, 5), directory=directory(incarnation=""))
    assert actions(begun, running) == [StopPostgres(StopMode.FAST)]
    assert actions(begun, replace(running, stopping_s=5.0)) == []
    assert actions(begun, replace(running, stopping_s=5.1)) == [IMMEDIATE], "a stop that hangs would wait for ever"
    assert actions(begun, forgotten) == [Rewind("pg2", 3)]
    assert actions(begun, replace(forgotten, notes=Notes(5, 5, needs_clone=True))) == [Clone("pg2")]
    assert actions(begun, replace(forgotten, directory=directory(kind=DirectoryKind.EMPTY, incarnation=""))) == [
        Clone("pg2")
    ]
    assert decide(begun, forgotten, replace(POLICY, use_pg_rewind=False)).actions == (Clone("pg2"),)


def test_r12_commits_that_a_person_gave_up_are_kept_beside_a_copy_and_not_rewound():
    there = stopped(primary(notes=Notes(5, 5), lease=None), shut_down=False, incarnation="")
    begun = with_members(OPENED, member("pg1", incarnation="", rebuilding=True))
    lost = Lost(Position(2, LSN), AT, 8, "quorum.votes_missing", "anna", "op1", "")
    entry = HistoryEntry(AT, Change.FAILOVER, 5, 3, 0, "pg1", "pg2", "why", lost=lost)

    decision = decide(replace(begun, history=(entry,)), there, POLICY)
    assert decision.actions == (Clone("pg2"),)
    assert "a person gave that up, so it is kept beside the copy" in decision.because
    for other in (replace(entry, lost=None), replace(entry, timeline=2)):
        assert actions(replace(begun, history=(other,)), there) == [Rewind("pg2", 3)]


@pytest.mark.parametrize(
    "closed",
    [
        APPOINTED,
        replace(OPENED, lease=LeaseStatus.EXPIRED),
        replace(OPENED, lease=LeaseStatus.RELEASED),
    ],
)
def test_r13_nothing_is_rebuilt_while_no_primary_is_open(closed):
    there = stopped(primary(notes=Notes(5, 5), lease=None), incarnation="")

    assert actions(closed, there) == []


def test_r12_a_directory_of_another_cluster_or_no_directory_of_postgresql_is_never_touched():
    strange = stopped(standby(), system_identifier="8")
    foreign = stopped(standby(), kind=DirectoryKind.FOREIGN, incarnation="")

    assert actions(state(), strange) == actions(state(), foreign) == []
    assert "belongs to system 8" in decide(state(), strange, POLICY).because
    assert "holds other files" in decide(state(), foreign, POLICY).because


def test_r14_a_cleanly_stopped_primary_whose_last_record_was_streamed_just_follows():
    handed_over = stopped(primary(notes=Notes(5, 5), lease=None), shut_down=True, checkpoint_lsn=LSN - 1)
    unstreamed = stopped(primary(notes=Notes(5, 5), lease=None), shut_down=True, checkpoint_lsn=LSN)

    assert actions(OPENED, handed_over) == [StartStandby("pg2")]
    assert actions(OPENED, unstreamed) == [ForgetIncarnation(), Propose(Rebuild("pg1"))]


@pytest.mark.parametrize("postmaster", [None, PostmasterSeen(3.0)], ids=["ended", "gives no answer"])
def test_r14_where_the_wal_of_one_in_recovery_as_a_standby_ends_is_not_known_before_it_says_so(postmaster):
    """A primary that crashed and began as a standby, or a copy of a primary that never ran."""
    there = primary(notes=Notes(5, 5), lease=None)
    crashed = replace(stopped(there, standby_signal=True, checkpoint_lsn=LSN), postmaster=postmaster)
    crashed = replace(crashed, told_upstream="10.0.0.2:5432")
    further = replace(crashed, directory=replace(crashed.directory, checkpoint_lsn=LSN + 1))

    assert actions(OPENED, crashed) == ([StartStandby("pg2")] if postmaster is None else [])
    for diverged in (further, stopped(there)):
        assert actions(OPENED, diverged) == [ForgetIncarnation(), Propose(Rebuild("pg1"))]


@pytest.mark.parametrize("runs", [True, False])
def test_r14_a_rewound_standby_whose_pages_need_wal_that_history_left_out_is_rebuilt(runs):
    """It answers nobody before it has that WAL, and no primary will ever have it."""
    silent = standby("pg3", instance=None, told_upstream="10.0.0.2:5432", notes=Notes(5, 5))
    there = silent if runs else stopped(silent)
    needs = lambda lsn: replace(there, directory=replace(there.directory, min_recovery_lsn=lsn))  # noqa: E731

    assert actions(OPENED, needs(LSN)) == ([] if runs else [StartStandby("pg2")])
    assert actions(OPENED, needs(LSN + 1)) == [ForgetIncarnation(), Propose(Rebuild("pg3"))]


def test_r14_a_standby_past_the_switch_point_is_rebuilt_and_one_before_it_follows():
    past = instance(lsn=LSN + 1, upstream="", receiver_running=False)

    assert actions(OPENED, voter("pg3")) == [Follow("pg2")]
    assert actions(OPENED, standby("pg3", instance=past)) == [ForgetIncarnation(), Propose(Rebuild("pg3"))]


# Standby


def test_r15_a_standby_whose_wal_is_gone_at_its_primary_is_cloned_and_no_other():
    behind = standby(instance=instance(streaming=False, receiver_running=False), source_oldest_lsn=LSN + 1)
    begun = with_members(state(), member("pg2", incarnation="", rebuilding=True))
    noted = stopped(replace(behind, notes=Notes(4, 4, needs_clone=True)), incarnation="", shut_down=True)

    assert decide(state(), behind, POLICY).because == "its WAL ends at 0/3000000 and that of pg1 begins at 0/3000001"
    assert actions(begun, noted) == [Clone("pg1")], "a rewind would find nothing to do"
    for fine in (
        replace(behind, source_oldest_lsn=LSN),
        replace(behind, source_oldest_lsn=0),
        replace(behind, instance=replace(behind.instance, streaming=True)),
        replace(behind, instance=replace(behind.instance, replay_waits=False)),
    ):
        assert actions(state(), fine) == []


def test_r14_a_standby_that_waits_for_a_dead_timeline_is_started_anew_and_no_other():
    said = lambda **changes: replace(ASTRAY, instance=replace(ASTRAY.instance, **changes))  # noqa: E731

    assert decide(FORKED, ASTRAY, POLICY).because == (
        "it waits for timeline 3, which never became history, and pg1 is on 4: start anew"
    )
    for fine in (
        said(streaming=True),
        said(replay_waits=False),
        said(silent_s=2.9),
        said(histories=frozenset({4})),
        said(histories=frozenset({3})),  # without the primary's history a start would take the same one again
        said(histories=frozenset({3, 4, 5})),
        said(histories=frozenset()),
        replace(ASTRAY, postmaster=PostmasterSeen(9.9)),
    ):
        assert actions(FORKED, fine) == []
    assert actions(replace(FORKED, lease=LeaseStatus.CONTESTED), ASTRAY) == []
    child = replace(FORKED, timelines=(*FORKED.timelines[:-1], Timeline(4, 6, "pg1", 3, LSN)))
    assert actions(child, ASTRAY) == [], "3 is on the way to 4"


def test_a_stop_of_a_standby_that_was_begun_comes_to_its_end_whatever_it_was_for():
    stopping = standby(stopping_s=1.0)

    assert decide(state(), stopping, POLICY).rule == "finish_stop"
    assert actions(state(), stopping) == []
    assert actions(state(), replace(stopping, stopping_s=6.0, instance=None)) == [StopPostgres(StopMode.IMMEDIATE)]


def test_a_standby_that_answers_nobody_is_told_of_another_primary():
    """It may need the WAL of one that is gone before it is consistent."""
    silent = standby(instance=None, told_upstream="10.0.0.3:5432")
    detached = replace(silent, notes=Notes(4, 5), told_upstream="")

    for other in (silent, replace(silent, told_upstream=None)):
        assert actions(state(), other) == [Follow("pg1")], "None: nobody knows what it was told"
        assert actions(vacant(), replace(other, notes=Notes(4, pledge=5))) == [Follow("")]
    for fine in (replace(silent, told_upstream="10.0.0.1:5432"), stopped(silent, problem="unreadable")):
        assert actions(state(), fine) == []
    assert actions(vacant(), detached) == []
    crashed = replace(primary(), instance=None, told_upstream=None)
    assert Follow("") not in actions(state(), crashed), "a primary follows nobody"


@pytest.mark.parametrize("without", [vacant(), replace(state(), lease=LeaseStatus.EXPIRED), APPOINTED])
def test_r15_without_an_open_primary_the_best_data_may_be_here(without):
    behind = voter("pg3", source_oldest_lsn=LSN + 1)

    assert NoteNeedsClone() not in actions(without, behind)
    assert NoteNeedsClone() not in actions(without, replace(behind, instance=instance(streaming=False)))


def test_a_standby_that_has_no_quorum_waits_and_then_serves_reads_without_a_source():
    alone = stopped(standby(contact_s=None))

    assert actions(state(), replace(alone, answer_age_s=11.0)) == []
    assert actions(state(), replace(alone, answer_age_s=13.0)) == [StartStandby("")]


def test_a_restarted_promotion_candidate_is_not_fenced_by_its_own_start():
    assert actions(APPOINTED, stopped(WINNER)) == [StartStandby("")]


def test_r15_a_slot_whose_wal_is_gone_is_made_anew_and_nobody_elses_is():
    """PostgreSQL 18 refuses a standby that comes with it, for ever."""
    gone = instance(primary=True, slots=SLOTS | {"backup"}, lost_slots=frozenset({slot_name("pg3"), "backup"}))
    dropped = replace(gone, slots=SLOTS - {slot_name("pg3")}, lost_slots=frozenset())

    assert actions(state(), primary(instance=gone)) == [DropSlots(("pg3",))]
    assert actions(state(), primary(instance=dropped)) == [CreateSlots(("pg3",))]


def test_r15_slots_stay_until_another_primary_is_followed():
    """A fenced primary that is appointed again still has the WAL that its standbys lack."""
    idle = replace(voter("pg1").instance, slots=SLOTS, idle_slots=SLOTS)

    assert actions(vacant(), replace(voter("pg1"), instance=idle)) == []
    assert actions(state(), primary(instance=instance(primary=True, slots=SLOTS, idle_slots=SLOTS))) == []


def test_slots_have_names_that_postgresql_takes():
    assert slot_name("PG-1.example") == "appliance_pg_1_example"
    assert slot_name("knoten-ü") == "appliance_knoten__"
    assert len(slot_name("x" * 100)) == 63


def test_a_zone_that_the_configuration_does_not_name_is_not_announced_and_a_member_goes_on():
    named = replace(state(), config=replace(state().config, document={**state().config.document, "zones": ["east"]}))
    seen = replace(standby(), me=replace(standby().me, tags={"zone": "wst"}))
    assert decide(named, seen, POLICY).rule != "announce"
    stranger = {name: known for name, known in named.members.items() if name != "pg2"}
    said = decide(replace(named, members=stranger), seen, POLICY)
    assert (said.rule, said.actions) == ("announce", ())
    assert "zone 'wst' of pg2 is none of the configuration's zones: east" in said.because
