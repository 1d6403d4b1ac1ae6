"""R13a: after a majority was lost for good, what lies beside an old journal is not believed either."""

from dataclasses import replace

import pytest

from appliance.cluster.apply import apply
from appliance.cluster.commands import AbandonBootstrap, FinishBootstrap, Rebuild, Rebuilt, Recovered, Release
from appliance.cluster.state import Bootstrap, ClusterState, LeaseStatus, NodeRole
from appliance.ha.actions import (
    BeginNotes,
    Clone,
    Follow,
    ForgetIncarnation,
    MarkDirectory,
    NoteFenced,
    Pledge,
    Promote,
    Propose,
    StartStandby,
    StopMode,
    StopPostgres,
)
from appliance.ha.decide import cast_vote, decide, wants_lease
from appliance.ha.plan import plan
from appliance.ha.seen import DirectoryKind, LeaseSeen, Notes
from appliance.node.report import make_report
from tests.unit.cluster.building import LSN, appoint, member, state, vacant, vote, with_members

from .building import (
    APPOINTED,
    POLICY,
    directory,
    heard,
    instance,
    is_open_primary,
    primary,
    report,
    situation,
    standby,
    stopped,
    voter,
)

NUMBER = 1_795_000_000
KEPT = {"pg2": "inc-pg2"}
NOW = Notes(4, 4, recovery=NUMBER)
AHEAD = Notes(epoch=9, pledge=11, fenced_epoch=8)
"""What a lost majority had decided without the one that was left."""


def recovered(before, kept=KEPT, number=NUMBER):
    applied = apply(before, Recovered(number, kept))
    assert applied.refused is None
    return applied.state


LOST = recovered(state())
"""pg1 is the primary of epoch 4 by the log; pg2 alone was left."""
OPEN = recovered(state(appointment=replace(state().appointment, node="pg2", incarnation="inc-pg2")))
"""pg2 is the primary of epoch 4, and was left."""


def actions(present, seen):
    return list(decide(present, seen, POLICY).actions)


def old_host(**changes):
    """pg3 with what it had before, up to a timeline that nobody here has heard of."""
    there = standby("pg3", notes=AHEAD, directory=directory("pg3", timeline=3), instance=instance(timeline=3))
    return replace(there, log_incarnation=NUMBER, **changes)


def test_an_old_host_is_refused_in_words_and_clones_once_its_data_is_gone():
    running = old_host()
    assert actions(OPEN, running) == [StopPostgres(StopMode.FAST)]
    down = stopped(running)
    assert actions(OPEN, down) == [BeginNotes(NUMBER, keep=False)]
    noted = replace(down, notes=Notes(recovery=NUMBER))
    refused = decide(OPEN, noted, POLICY)
    assert (refused.actions, refused.rule) == ((), "refuse_strange")
    assert "of another history (recovery 0) than the one that the cluster went on with" in refused.because
    assert "move it away or remove it, then this node clones the cluster" in refused.because
    without_quorum = replace(noted, contact_s=None, answer_age_s=100.0)
    assert actions(OPEN, without_quorum) == [], "nobody reads it as this cluster's either"

    removed = replace(noted, directory=directory("pg3", kind=DirectoryKind.MISSING, incarnation=""))
    assert actions(OPEN, removed) == [ForgetIncarnation(), Propose(Rebuild("pg3"))]
    begun = apply(OPEN, Rebuild("pg3")).state
    assert actions(begun, removed) == [Clone("pg2")]
    cloned = replace(noted, directory=directory("pg3", incarnation="inc-new", recovery=NUMBER))
    assert actions(begun, cloned) == [Propose(Rebuilt("pg3", "inc-new"))]
    whole = apply(begun, Rebuilt("pg3", "inc-new")).state
    assert actions(whole, cloned) == [StartStandby("pg2")]


def test_an_old_host_does_nothing_before_the_recovery_has_reached_it_through_the_log():
    """Its replica is empty and reads the log from the beginning: for a while the state is that of before."""
    assert is_open_primary(state())
    for seen in (old_host(), stopped(old_host())):
        waiting = decide(state(), seen, POLICY)
        assert (waiting.actions, waiting.rule) == ((), "wait_for_log")
        assert str(NUMBER) in waiting.because
    voting = replace(voter("pg3"), log_incarnation=NUMBER)
    assert cast_vote(vacant(), voter("pg3")) == vote("pg3")
    assert cast_vote(vacant(), voting) is None


@pytest.mark.parametrize("incarnation", ["inc-pg3", ""])
@pytest.mark.parametrize("number", [0, NUMBER - 60, NUMBER + 60])
def test_data_of_before_and_of_another_recovery_has_no_vote(incarnation, number):
    """The last: two hosts began anew from the same past, by mistake, and one lost its journal."""
    data = directory("pg3", incarnation=incarnation, recovery=number)
    seen = replace(voter("pg3"), directory=data, notes=Notes(4, 5, recovery=NUMBER))
    present = recovered(vacant())

    assert cast_vote(present, seen) is None
    assert actions(present, seen) == [StopPostgres(StopMode.FAST)]


def test_its_further_position_does_not_win():
    """The trace that the rule is for: the lost majority had gone on, with the numbers that are given out again."""
    present = recovered(vacant())
    further, own = vote("pg3", LSN + 1000), vote("pg2")
    told = heard(*(report(v.node, vote=v, in_recovery=True) for v in (further, own)))

    assert plan(situation(vacant(), told, election_s=9.0)).commands[0].node == "pg3", "it would have"
    assert [c.node for c in plan(situation(present, told, election_s=9.0)).commands] == ["pg2"]
    assert apply(present, appoint("pg3", further, own)).refused.startswith("candidate.incarnation")


def test_the_appointed_primary_that_was_not_kept_gives_its_epoch_up_and_tells_no_position():
    noted = primary(notes=NOW)
    assert wants_lease(state(), noted) == 4
    assert wants_lease(LOST, noted) is None
    assert actions(LOST, noted) == [StopPostgres(StopMode.IMMEDIATE), NoteFenced(4)]
    ended = stopped(noted, shut_down=True, checkpoint_lsn=LSN + 1000)
    noting, proposal = actions(LOST, ended)
    assert noting == NoteFenced(4)
    assert isinstance(proposal.command, Release)
    assert proposal.command.position is None
    given_back = actions(LOST, replace(ended, notes=replace(NOW, fenced_epoch=4)))
    assert [a.command.position for a in given_back if isinstance(a, Propose)] == [None]


def test_an_appointed_node_whose_data_was_not_kept_does_not_open():
    present = recovered(APPOINTED, {"pg3": "inc-pg3"})
    winner = voter("pg2", lease=LeaseSeen(5, 5.0))

    assert actions(APPOINTED, winner) == [Promote(5, 3)]
    assert actions(present, replace(winner, notes=Notes(4, 5, recovery=NUMBER))) == [StopPostgres(StopMode.FAST)]


@pytest.mark.parametrize("seen", [old_host(), old_host(instance=None)], ids=["answers", "silent"])
def test_no_position_is_reported_of_it(seen):
    told = make_report(OPEN, seen, None, "")

    assert (told.incarnation, told.timeline, told.lsn, told.received_lsn, told.replayed_lsn) == ("", 0, 0, 0, 0)
    assert (told.in_recovery, told.streaming, told.vote, told.running) == (None, False, None, True)


def test_what_was_left_goes_on_with_its_data_and_its_notes():
    """PostgreSQL may have run on meanwhile: it is not stopped."""
    alone = instance(upstream="", receiver_running=False, streaming=False)
    left = standby("pg2", notes=Notes(4, 4, fenced_epoch=3), log_incarnation=NUMBER)
    assert actions(LOST, left) == [BeginNotes(NUMBER, keep=True)]
    noted = replace(left, notes=replace(left.notes, recovery=NUMBER))
    assert actions(LOST, noted) == [MarkDirectory(NUMBER)]
    marked = replace(noted, directory=replace(noted.directory, recovery=NUMBER), instance=alone)
    assert decide(LOST, marked, POLICY).rule == "at_rest"
    forgotten = replace(marked, directory=replace(marked.directory, incarnation=""))
    assert actions(OPEN, replace(forgotten, me=member("pg3", incarnation="")))[0] == ForgetIncarnation(), "not refused"
    assert Pledge(5) in actions(recovered(vacant()), marked)


def test_nobody_takes_wal_or_a_copy_from_a_primary_whose_data_was_not_kept():
    """It may run on among the lost: whoever connected there would fetch its timeline, and then its WAL."""
    marked = directory("pg2", recovery=NUMBER)
    assert actions(LOST, stopped(standby("pg2", notes=NOW, directory=marked))) == [StartStandby("")]
    following = standby("pg2", notes=NOW, directory=marked)
    assert actions(LOST, following) == [Follow("")]
    begun = apply(LOST, Rebuild("pg3")).state
    empty = stopped(standby("pg3", notes=NOW), kind=DirectoryKind.MISSING, incarnation="")
    assert "waits for an open primary to copy from" in decide(begun, empty, POLICY).because


def test_a_primary_that_was_left_keeps_its_epoch_and_its_fences():
    running = primary("pg2", notes=Notes(4, 4), log_incarnation=NUMBER)
    assert actions(OPEN, running) == [BeginNotes(NUMBER, keep=True)]
    late = replace(running, lease=LeaseSeen(4, 1.0))
    assert actions(OPEN, late) == [StopPostgres(StopMode.IMMEDIATE), NoteFenced(4)], "before anything else"


def test_notes_of_this_history_keep_a_node_from_acting_on_less_and_those_of_another_do_not():
    behind = standby("pg2", notes=Notes(9, 9, recovery=NUMBER), directory=directory("pg2", recovery=NUMBER))
    assert decide(OPEN, behind, POLICY).rule == "wait_for_log"
    for number in (0, NUMBER - 60, NUMBER + 60):
        other = stopped(old_host(notes=replace(AHEAD, recovery=number)), kind=DirectoryKind.MISSING, incarnation="")
        assert actions(OPEN, other) == [BeginNotes(NUMBER, keep=False)]


def test_a_replica_that_has_joined_nobody_yet_judges_no_notes():
    """Of a host that lost its journal alone: the pledges in its notes hold on."""
    alone = old_host(notes=Notes(9, 9, recovery=NUMBER))
    empty = replace(alone, log_incarnation=0, contact_s=None)
    nothing = replace(state(), system_identifier="", appointment=None, lease=LeaseStatus.NONE)

    assert decide(nothing, empty, POLICY).rule == "wait_for_log"


def test_notes_without_data_beside_them_are_not_set_aside_under_a_running_postgresql():
    moved = standby("pg3", notes=AHEAD, directory=directory("pg3", incarnation="inc-pg3", recovery=NUMBER))
    present = with_members(OPEN, member("pg3"))

    assert actions(present, moved) == [StopPostgres(StopMode.FAST)]
    assert actions(present, stopped(moved)) == [BeginNotes(NUMBER, keep=False)]


def test_a_bootstrap_does_not_take_data_of_another_history_for_what_it_made():
    present = ClusterState(
        members={"pg1": member("pg1", incarnation="")}, bootstrap=Bootstrap("pg1"), recovery=LOST.recovery
    )
    made = stopped(primary(notes=Notes()), timeline=1, incarnation="inc-1", recovery=NUMBER)
    (finish,) = actions(present, made)
    assert isinstance(finish.command, FinishBootstrap)
    assert apply(present, finish.command).refused is None
    (given_up,) = actions(present, replace(made, directory=replace(made.directory, recovery=0)))

    assert given_up == Propose(AbandonBootstrap("pg1", "the data directory is not empty"))


def test_a_recovery_by_a_version_that_did_not_tell_of_it_is_numbered_by_the_raft_leader():
    (command,) = plan(situation(log_incarnation=NUMBER)).commands
    assert command == Recovered(NUMBER, {name: f"inc-{name}" for name in ("pg1", "pg2", "pg3")})
    numbered = apply(state(), command).state
    assert decide(numbered, replace(primary(), log_incarnation=NUMBER), POLICY).actions == (
        BeginNotes(NUMBER, keep=True),
    )
    assert plan(situation(numbered, log_incarnation=NUMBER)).rule != "number_recovery"


def test_a_raft_leader_that_has_not_applied_a_recovery_yet_cannot_undo_it():
    """What it proposes comes later in the log."""
    (command,) = plan(situation(log_incarnation=NUMBER)).commands
    after = apply(LOST, command)

    assert after.refused.startswith("recovery.old")
    assert after.state.recovery.kept == KEPT


def test_notes_are_not_judged_while_the_data_beside_them_cannot_be_read():
    """A want of file descriptors must not cost what was left its pledges."""
    unread = directory("pg2", incarnation="", system_identifier="", problem="cannot be read: Too many open files")

    for seen in (standby("pg2", directory=unread), stopped(standby("pg2", directory=unread))):
        decision = decide(LOST, seen, POLICY)
        assert (decision.rule, decision.actions) == ("begin_notes", ())
        assert "Too many open files" in decision.because


def test_a_witness_has_nothing_to_refuse():
    witness = member("pg3", NodeRole.WITNESS)
    present = recovered(with_members(state(), witness), {})
    seen = stopped(standby("pg3", notes=Notes()), kind=DirectoryKind.MISSING, incarnation="")

    assert decide(present, replace(seen, me=witness), POLICY).because == "witness: a vote and no PostgreSQL"
