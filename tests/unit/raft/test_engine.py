"""One replica as its owner sees it: commands, their outcomes, the view, and what is told of changes."""

import pytest

from raft.api import (
    COMMAND_LIMIT_BYTES,
    Applied,
    LeaderChanged,
    MembersChanged,
    Refused,
    StateApplied,
    Unknown,
    View,
)
from raft.applier import ID_LIMIT, REMEMBERED_ENTRIES, Submission, unpack
from raft.entries import COMMAND, NO_OP
from raft.messages import Append, Forward, ForwardRefused
from tests.unit.raft.bench import NAMES, Bench, Group, change, command, entry, voters


@pytest.fixture
def leader():
    """It leads term 1, the others have everything, and everything is committed."""
    return Bench().found().lead().settle()


@pytest.fixture
def follower():
    """It follows n2 and has applied one entry."""
    bench = Bench().found()
    bench.hear_entries(entry(2, 1), commit=2)
    bench.step()
    bench.forget()
    return bench


def commit(bench):
    """Let n2 have everything that a leader has."""
    bench.step()
    bench.has("n2", bench.journal.last_index)
    bench.step()


# -- outcomes ------------------------------------------------------------------------------------------


def test_a_command_is_applied_when_a_majority_has_it(leader):
    leader.engine.propose(b"word", "id")
    leader.step()
    assert leader.outcome("command", "id") is None
    commit(leader)
    assert leader.outcome("command", "id") == Applied(4)
    assert leader.engine.view.state == (b"word",)


def test_who_is_told_applied_finds_it_in_the_view(leader):
    seen = []
    leader.engine._on_outcome = lambda key, outcome: seen.append((leader.engine.view.state, leader.engine.view.index))
    leader.engine.propose(b"one", "id 1")
    leader.engine.propose(b"two", "id 2")
    commit(leader)
    assert seen == [((b"one", b"two"), 5)] * 2


def test_what_the_machine_refuses_is_refused_with_its_place(leader):
    leader.engine.propose(b"no thanks", "id")
    commit(leader)
    assert leader.outcome("command", "id") == Refused("said no", 4)


def test_a_command_of_a_leader_that_lost_its_term_is_unknown_and_may_still_be_applied(leader):
    leader.engine.propose(b"word", "id")
    leader.step()
    leader.hear_entries(leader="n3", term=2, previous=(4, 1))
    assert isinstance(leader.outcome("command", "id"), Unknown)
    leader.hear_entries(entry(5, 2, NO_OP), leader="n3", term=2, previous=(4, 1), commit=5)
    leader.step()
    assert leader.outcomes[-1] == (("command", "id"), Applied(4))


def test_d21_without_a_leader_a_command_is_refused_at_once_and_never_sent():
    bench = Bench().found()
    bench.engine.propose(b"word", "id")
    refused = bench.outcome("command", "id")
    assert isinstance(refused, Refused)
    assert refused.index is None
    bench.hear_entries(entry(2, 1), commit=2)
    bench.step()
    assert bench.said(Forward) == []


def test_d20_without_a_connection_to_the_leader_a_command_is_refused_at_once(follower):
    follower.lose("n2")
    follower.engine.propose(b"word", "id")
    assert isinstance(follower.outcome("command", "id"), Refused)


# -- forwarding ----------------------------------------------------------------------------------------


def test_a_follower_forwards_to_its_leader(follower):
    follower.engine.propose(b"word", "id")
    (forward,) = follower.said(Forward, "n2")
    assert unpack(forward.submission) == Submission("id", 2, b"word")


def test_a_follower_answers_when_it_applies_the_command_itself(follower):
    follower.engine.propose(b"word", "id")
    (forward,) = follower.said(Forward)
    follower.hear_entries(entry(3, 1, COMMAND + forward.submission), previous=(2, 1), commit=2)
    follower.step()
    assert follower.outcome("command", "id") is None
    follower.hear_entries(previous=(3, 1), commit=3)
    follower.step()
    assert follower.outcome("command", "id") == Applied(3)


def test_a_leader_takes_what_is_forwarded(leader):
    leader.hear("n3", Forward, number=5, submission=Submission("id", 1, b"word").pack())
    commit(leader)
    assert leader.engine.view.state == (b"word",)


def test_a_leader_takes_the_largest_command_and_nothing_larger(leader):
    """One message must hold it whole: what cannot be sent on would end the leader, and the next one."""
    largest = Submission("i" * ID_LIMIT, 2**62, b"x" * COMMAND_LIMIT_BYTES).pack()
    leader.hear("n3", Forward, number=5, submission=largest)
    assert (leader.journal.last_index, leader.said(ForwardRefused)) == (4, [])
    leader.hear("n3", Forward, number=6, submission=b"x" * 2 * COMMAND_LIMIT_BYTES)
    assert [refused.number for refused in leader.said(ForwardRefused)] == [6]
    assert leader.journal.last_index == 4


def test_who_does_not_lead_says_so_and_it_is_refused(follower):
    follower.hear("n3", Forward, number=5, submission=b"")
    assert [refused.number for refused in follower.said(ForwardRefused, "n3")] == [5]
    follower.engine.propose(b"word", "id")
    (forward,) = follower.said(Forward)
    follower.hear("n2", ForwardRefused, number=forward.number, reason="not now")
    assert follower.outcome("command", "id") == Refused("not now", None)


def test_a_refusal_of_another_question_changes_nothing(follower):
    follower.engine.propose(b"word", "id")
    (forward,) = follower.said(Forward)
    follower.hear("n2", ForwardRefused, number=forward.number + 1, reason="not now")
    follower.hear("n2", ForwardRefused, number=forward.number, reason="not now", group="another/0")
    assert follower.outcome("command", "id") is None


def test_a_refusal_is_no_answer_while_another_submission_of_the_command_is_on_its_way(follower):
    """Who gave up waiting and asked again must not be told `never` when it is the first one that was refused."""
    follower.engine.propose(b"word", "id")
    follower.engine.propose(b"word", "id")
    first, second = follower.said(Forward)
    follower.hear("n2", ForwardRefused, number=first.number, reason="not now")
    assert follower.outcomes == []
    follower.hear_entries(entry(3, 1, COMMAND + second.submission), previous=(2, 1), commit=3)
    follower.step()
    assert follower.outcomes == [(("command", "id"), Applied(3))]


def test_the_last_refusal_of_a_command_is_its_answer(follower):
    follower.engine.propose(b"word", "id")
    follower.engine.propose(b"word", "id")
    for forward in follower.said(Forward):
        follower.hear("n2", ForwardRefused, number=forward.number, reason="not now")
    assert follower.outcomes == [(("command", "id"), Refused("not now", None))]


def test_a_leader_that_takes_nothing_more_does_not_refuse_what_it_has_taken(leader):
    leader.engine.propose(b"word", "id")
    leader.engine.transfer("handover", "n3")
    leader.engine.propose(b"word", "id")
    assert leader.outcome("command", "id") is None
    commit(leader)
    assert leader.outcome("command", "id") == Applied(4)


def test_d20_questions_after_a_restart_have_other_numbers_than_those_before(follower):
    """An answer that was on its way must not be taken for one to another question."""
    follower.engine.propose(b"word", "id")
    before = follower.said(Forward)[0].number
    follower.identity = "drawn anew"
    follower.restart()
    follower.found()
    follower.hear_entries(previous=(2, 1))
    follower.engine.propose(b"word", "id")
    assert abs(follower.said(Forward)[0].number - before) > 1000


def test_d20_what_was_forwarded_is_unknown_at_once_when_the_connection_breaks(follower):
    follower.engine.propose(b"word", "id")
    follower.lose("n2")
    assert isinstance(follower.outcome("command", "id"), Unknown)


def test_d20_what_was_forwarded_is_unknown_at_once_when_another_leads(follower):
    follower.engine.propose(b"word", "id")
    follower.hear_entries(leader="n3", term=2, previous=(2, 1))
    assert isinstance(follower.outcome("command", "id"), Unknown)


def test_d20_what_was_forwarded_is_unknown_at_once_when_the_same_one_leads_another_term(follower):
    """In between another may have led, and put something else in its place."""
    follower.engine.propose(b"word", "id")
    follower.hear_entries(leader="n2", term=3, previous=(2, 1))
    assert isinstance(follower.outcome("command", "id"), Unknown)


def test_d20_what_was_forwarded_is_unknown_at_once_when_a_term_begins_without_a_leader(follower):
    follower.engine.propose(b"word", "id")
    follower.clock.now_s += 1
    assert follower.asks_vote("n3", 2, last=(2, 1)).granted
    assert isinstance(follower.outcome("command", "id"), Unknown)


def test_a_connection_that_breaks_to_somebody_else_changes_nothing(follower):
    follower.engine.propose(b"word", "id")
    follower.lose("n3")
    assert follower.outcome("command", "id") is None


def test_nobody_is_told_twice_of_what_was_forwarded_and_applied(follower):
    follower.engine.propose(b"word", "id")
    (forward,) = follower.said(Forward)
    follower.hear_entries(entry(3, 1, COMMAND + forward.submission), previous=(2, 1), commit=3)
    follower.step()
    follower.lose("n2")
    assert follower.outcomes == [(("command", "id"), Applied(3))]


def test_questions_that_are_never_answered_do_not_pile_up(follower):
    """A leader whose mailbox is full drops them; as long as it leads, nothing else ends them."""
    for number in range(10_000):
        follower.engine.propose(b"word", f"id {number}")
    assert len(follower.engine._forwarded) < 5000
    last = follower.said(Forward)[-1]
    follower.hear_entries(entry(3, 1, COMMAND + last.submission), previous=(2, 1), commit=3)
    follower.step()
    assert follower.outcomes == [(("command", "id 9999"), Applied(3))]


# -- exactly once --------------------------------------------------------------------------------------


def test_d20_a_command_is_applied_once_however_often_it_arrives(leader):
    for _ in range(3):
        leader.engine.propose(b"word", "id")
        leader.hear("n3", Forward, number=5, submission=Submission("id", 2, b"word").pack())
    commit(leader)
    assert leader.engine.view.state == (b"word",)
    assert set(leader.outcomes) == {(("command", "id"), Applied(4))}


def test_d20_a_command_is_applied_once_through_restarts_and_snapshots():
    bench = Bench(compact_entries=5, keep_entries=0).found()
    bench.hear_entries(*(command(index, 1, b"word") for index in range(2, 9)), commit=8)
    bench.step()
    assert bench.journal.base_index == 8
    bench.restart()
    bench.found().hear_entries(command(9, 1, b"word"), previous=(8, 1), commit=9)
    bench.step()
    assert bench.engine.view.state == (b"word",)
    assert bench.outcomes[-1] == (("command", "id of word"), Applied(2))


def test_d20_a_command_that_is_too_old_to_be_remembered_is_refused(follower):
    submission = Submission("id", 2, b"word").pack()
    fillers = [entry(index, 1) for index in range(4, 4 + REMEMBERED_ENTRIES)]
    follower.hear_entries(entry(3, 1, COMMAND + submission), *fillers, previous=(2, 1), commit=3 + REMEMBERED_ENTRIES)
    last = 4 + REMEMBERED_ENTRIES
    follower.hear_entries(entry(last, 1, COMMAND + submission), previous=(last - 1, 1), commit=last)
    follower.step()
    assert follower.engine.view.state == (b"word",)
    assert [type(outcome) for _, outcome in follower.outcomes] == [Applied, Refused]


def test_two_replicas_that_propose_the_same_id_are_told_the_same():
    group = Group(*NAMES)
    group.led_by("n1")
    for name in NAMES:
        group[name].engine.propose(b"word", "id")
    group.run(0.5)
    assert group.agree() == (b"word",)
    assert len({group[name].outcome("command", "id") for name in NAMES}) == 1


# -- what others see -----------------------------------------------------------------------------------


def test_a_new_replica_shows_the_initial_state():
    assert Bench().engine.view == View((), 1, 0, None, False, None, None)


def test_the_view_of_a_leader(leader):
    view = leader.engine.view
    assert (view.term, view.leader, view.is_leader, view.index) == (1, "n1", True, 3)
    since_s = view.leading_since_s
    leader.settle()
    assert leader.engine.view.leading_since_s == since_s < leader.clock.now_s


def test_a_follower_was_in_contact_when_it_last_heard_its_leader(follower):
    assert follower.engine.view.contact_s == follower.clock.now_s
    follower.wait(0.3)
    assert follower.engine.view.contact_s == pytest.approx(follower.clock.now_s - 0.3)


def test_changes_are_told(leader):
    seen = [event for event in leader.events if not isinstance(event, StateApplied)]
    assert seen == [MembersChanged(voters(*NAMES)), LeaderChanged(None, 1), LeaderChanged("n1", 1)]
    leader.events.clear()
    leader.engine.change_members("change", voters("n1", "n2"))
    assert leader.events == [MembersChanged(voters("n1", "n2"))]


def test_every_batch_that_is_applied_is_told_once(follower):
    follower.events.clear()
    follower.hear_entries(command(3, 1, b"one"), command(4, 1, b"two"), previous=(2, 1), commit=4)
    follower.step()
    follower.step()
    assert [event for event in follower.events if isinstance(event, StateApplied)] == [StateApplied(4)]


def test_a_step_says_when_the_next_is_due(leader):
    assert 0 < leader.step() < 0.11
    leader.engine.propose(b"word", "id")
    leader.step()
    assert 0 < leader.step() < 0.11
    follower = Bench().found()
    assert 0.5 <= follower.step() <= 1.0


def test_members_in_an_entry_of_another_leader_do_not_answer_the_own_change(leader):
    leader.engine.change_members("change", voters("n1", "n2"))
    leader.step()
    leader.hear_entries(change(4, 2, voters("n1", "n3")), leader="n2", term=2, previous=(3, 1), commit=4)
    leader.step()
    assert [type(outcome) for key, outcome in leader.outcomes if key == ("change", "change")] == [Unknown]


def test_a_second_step_in_the_same_moment_sends_nothing(leader):
    leader.wait(0.11)
    leader.forget()
    leader.step()
    assert leader.said(Append) == []
