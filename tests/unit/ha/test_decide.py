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
    ClusterState,
    LeaseStatus,
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
    StartPrimary,
    StartStandby,
    StopMode,
    StopPostgres,
)
from appliance.ha.decide import RULES, decide, slot_name
from appliance.ha.seen import DirectoryKind, DirectorySeen, FailedCheckpoint, LeaseSeen, Notes
from tests.unit.cluster.building import LSN, member, state, vacant, with_members

from .building import (
    APPOINTED,
    POLICY,
    SLOTS,
    directory,
    instance,
    job,
    operation,
    primary,
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
CASES = {
    "end_stray": (state(), stopped(primary(), stray_pid=4711), [EndStray(4711)]),
    "stop_strange": (RECOVERED, primary("pg3", notes=Notes(9, 9)), [IMMEDIATE]),
    "fence_newer_epoch": (OPENED, primary(), [IMMEDIATE]),
    "fence_without_lease": (state(), primary(lease=LeaseSeen(4, 2.0)), [NoteFenced(4), IMMEDIATE]),
    "begin_notes": (RECOVERED, standby(), [BeginNotes(7, keep=True)]),
    "give_back_after_fence": (
        state(),
        stopped(primary(notes=Notes(4, 4, fenced_epoch=4))),
        [Propose(Release(4, "pg1", "pg1 stopped being primary in epoch 4"))],
    ),
    "hand_over": (MOVING, primary(), [StopPostgres(StopMode.FAST)]),
    "finish_job": (REBUILDING, replace(LOST, job=job(running=False, seconds=0.1)), [FinishJob()]),
    "retire": (REMOVED, standby(), [StopPostgres(StopMode.FAST)]),
    "mark_kept": (RECOVERED, standby(notes=Notes(4, 4, recovery=7)), [MarkDirectory(7)]),
    "announce": (state(), replace(standby(), me=MOVED), [Propose(Announce(MOVED))]),
    "initialise": (BOOTSTRAPPING, FRESH, [Initialise()]),
    "pledge": (vacant(), standby(), [Pledge(5)]),
    "promote": (APPOINTED, WINNER, [Promote(5, 3)]),
    "record_promotion": (
        APPOINTED,
        replace(NEW_PRIMARY, instance=replace(NEW_PRIMARY.instance, slots=frozenset())),
        [CreateSlots(("pg1", "pg3")), Propose(Promoted(5, "pg2", 3, 2, LSN + 8))],
    ),
    "give_up": (state(), primary(answer_age_s=61.0, instance=None), [NoteFenced(4), IMMEDIATE]),
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
    "follow": (OPENED, voter("pg3"), [Follow("pg2")]),
    "left_behind": (
        state(),
        standby(instance=instance(streaming=False, receiver_running=False), source_oldest_lsn=LSN + 1),
        [NoteNeedsClone()],
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
    "discard_replaced": (state(), standby(replaced_kept_s=4000.0), [DiscardReplaced()]),
}


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
        (state(), standby(instance=None), "waits for PostgreSQL to answer"),
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
    assert actions(state(), primary(lease=LeaseSeen(4, left_s))) == [NoteFenced(4), IMMEDIATE]


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
    (proposed,) = actions(state(), fenced)

    assert proposed.command.position == Position(2, LSN)
    assert rule(state(), replace(fenced, contact_s=None)) != "give_back_after_fence"


def test_r4_a_fenced_node_comes_back_as_a_standby_without_a_source():
    fenced = stopped(primary(notes=Notes(4, 4, fenced_epoch=4), lease=None, contact_s=None, answer_age_s=20.0))

    assert actions(state(), fenced) == [StartStandby("")]


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
    assert actions(MOVING, primary(stopping_s=61.0)) == [IMMEDIATE]
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
    assert actions(begun, replace(running, stopping_s=60.0)) == []
    assert actions(begun, replace(running, stopping_s=60.1)) == [IMMEDIATE], "a stop that hangs would wait for ever"
    assert actions(begun, forgotten) == [Rewind("pg2", 3)]
    assert actions(begun, replace(forgotten, notes=Notes(5, 5, needs_clone=True))) == [Clone("pg2")]
    assert actions(begun, replace(forgotten, directory=directory(kind=DirectoryKind.EMPTY, incarnation=""))) == [
        Clone("pg2")
    ]
    assert decide(begun, forgotten, replace(POLICY, use_pg_rewind=False)).actions == (Clone("pg2"),)


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
