"""Barriers: a leader proves that it still leads, by messages that left after it was asked."""

import pytest

from raft.api import Applied, Refused
from raft.entries import COMMAND
from raft.messages import Append, AskBarrier, Barrier, ForwardRefused
from tests.unit.raft.bench import (
    ELECTION_MAX_S,
    HEARTBEAT_S,
    NAMES,
    TICK_S,
    Bench,
    Group,
    change,
    entry,
    voters,
    with_role,
)


@pytest.fixture
def leader():
    """It leads term 1, the others have everything, and everything is committed."""
    return Bench().found().lead().settle()


@pytest.fixture
def follower():
    """It follows n2 and holds one committed entry."""
    bench = Bench().found()
    bench.hear_entries(entry(2, 1), commit=2)
    bench.step()
    bench.forget()
    return bench


def ask(bench, name="read"):
    """Ask for a barrier and take the step that is due then."""
    bench.forget()
    bench.engine.barrier(name)
    bench.step()


def test_a_barrier_sends_a_round_at_once(leader):
    ask(leader)
    assert {sent.peer for sent in leader.sent} == {"n2", "n3"}


def test_a_majority_that_answers_that_round_confirms_it(leader):
    ask(leader)
    assert leader.outcome("barrier", "read") is None
    leader.has("n3", 3)
    leader.step()
    assert leader.outcome("barrier", "read") == Applied(3)


def test_answers_to_what_left_before_it_was_asked_confirm_nothing(leader):
    leader.wait(HEARTBEAT_S + TICK_S)
    before = leader.last_sent_to("n2")
    ask(leader)
    leader.has("n2", 3, sent=before)
    leader.has("n3", 3, sent=before)
    leader.step()
    assert leader.outcome("barrier", "read") is None


def test_answers_that_arrive_after_it_was_asked_to_what_left_in_the_same_moment_confirm_nothing(leader):
    leader.wait(HEARTBEAT_S + TICK_S)
    leader.engine.barrier("read")
    leader.has("n2", 3)
    leader.has("n3", 3)
    leader.step()
    assert leader.outcome("barrier", "read") is None


def test_an_answer_to_what_was_never_sent_confirms_nothing_that_is_asked_later(leader):
    leader.has("n2", 3, sent=2**62)
    leader.has("n3", 3, sent=2**62)
    ask(leader)
    leader.step()
    assert leader.outcome("barrier", "read") is None


def test_an_answer_that_comes_late_takes_no_proof_back(leader):
    leader.wait(HEARTBEAT_S + TICK_S)
    late = leader.last_sent_to("n2")
    ask(leader)
    leader.has("n2", 3)
    leader.has("n2", 3, sent=late)
    leader.step()
    assert leader.outcome("barrier", "read") == Applied(3)


def test_a_barrier_is_answered_once(leader):
    leader.hear("n3", AskBarrier, number=5)
    ask(leader)
    leader.has("n2", 3, sent=leader.engine._core.leader._reads[-1].stamp)
    leader.step()
    leader.engine.propose(b"word", "id")
    leader.step()
    leader.has("n2", 4)
    leader.step()
    assert [key for key, _ in leader.outcomes] == [("barrier", "read"), ("command", "id")]
    assert len(leader.said(Barrier, "n3")) == 1


def test_a_new_leader_confirms_nothing_before_an_entry_of_its_term_is_committed():
    bench = Bench().found()
    bench.hear_entries(entry(2, 1), commit=1)
    bench.lead()
    ask(bench)
    bench.has("n2", 2)  # it has the old entry and not yet the new leader's first
    bench.has("n3", 2)
    bench.step()
    assert bench.outcome("barrier", "read") is None
    bench.has("n2", 3)
    bench.step()
    assert bench.outcome("barrier", "read") == Applied(3)


def test_what_an_earlier_leader_had_committed_is_in_the_view_after_a_barrier():
    """This replica holds it, and does not know yet that it is committed."""
    group = Group(*NAMES)
    group.led_by("n1")
    group.propose(b"word")
    group.stop("n1")
    for name in ("n2", "n3"):
        group.restart(name)
    leader = group.leader()
    leader.engine.barrier("read")
    group.until(lambda: leader.outcome("barrier", "read") is not None)
    assert isinstance(leader.outcome("barrier", "read"), Applied)
    assert leader.engine.view.state == (b"word",)


def test_the_answer_of_a_learner_confirms_nothing():
    bench = Bench().found()
    bench.hear_entries(change(2, 1, with_role(voters(*NAMES), "n4", "learner")))
    bench.meet("n4")
    bench.lead().settle()
    ask(bench)
    bench.has("n4", 3)
    bench.step()
    assert bench.outcome("barrier", "read") is None


def test_the_answer_of_another_replica_of_that_name_confirms_nothing(leader):
    ask(leader)
    leader.has("n2", 3, identity="another journal")
    leader.step()
    assert leader.outcome("barrier", "read") is None


def test_a_barrier_writes_nothing(leader):
    leader.answer_all()
    count = leader.journal.sync_times.count
    ask(leader)
    leader.has("n2", 3)
    leader.step()
    assert leader.outcome("barrier", "read") == Applied(3)
    assert leader.journal.sync_times.count == count


def test_a_barrier_of_a_leader_that_lost_its_term_is_refused(leader):
    ask(leader)
    leader.hear_entries(leader="n3", term=2, previous=(3, 1))
    assert isinstance(leader.outcome("barrier", "read"), Refused)


def test_a_leader_that_is_cut_off_confirms_nothing():
    group = Group(*NAMES)
    old = group.led_by("n1")
    group.cut_off("n1")
    old.engine.barrier("read")
    group.run(ELECTION_MAX_S + 2 * HEARTBEAT_S)
    assert isinstance(old.outcome("barrier", "read"), Refused)


def test_a_single_voter_needs_nobody():
    bench = Bench(names=("n1",))
    bench.lead()
    ask(bench)
    assert isinstance(bench.outcome("barrier", "read"), Applied)


def test_the_proof_of_contact_is_as_old_as_what_was_answered(leader):
    asked_s = leader.clock.now_s
    ask(leader)
    sent = leader.last_sent_to("n2")
    leader.wait(3 * HEARTBEAT_S)
    leader.has("n2", 3, sent=sent)
    leader.step()
    assert leader.engine.view.contact_s == pytest.approx(asked_s, abs=1e-6)


# -- on a follower -------------------------------------------------------------------------------------


def test_a_follower_asks_its_leader(follower):
    follower.engine.barrier("read")
    assert [(sent.peer, type(sent.message)) for sent in follower.sent] == [("n2", AskBarrier)]


def test_a_followers_barrier_waits_until_it_has_applied_what_the_leader_named(follower):
    follower.engine.barrier("read")
    follower.hear("n2", Barrier, number=follower.said(AskBarrier)[0].number, index=3)
    follower.step()
    assert follower.outcome("barrier", "read") is None
    follower.hear_entries(entry(3, 1), previous=(2, 1), commit=3)
    follower.step()
    assert follower.outcome("barrier", "read") == Applied(3)


def test_a_followers_barrier_is_done_at_once_when_all_of_it_is_applied(follower):
    follower.engine.barrier("read")
    follower.hear("n2", Barrier, number=follower.said(AskBarrier)[0].number, index=2)
    assert follower.outcome("barrier", "read") == Applied(2)


def test_an_answer_to_another_question_is_none(follower):
    follower.engine.barrier("read")
    number = follower.said(AskBarrier)[0].number
    follower.hear("n2", Barrier, number=number + 1, index=2)
    follower.hear("n2", Barrier, number=number, index=2, group="another/0")
    assert follower.outcome("barrier", "read") is None


def test_a_followers_barrier_without_a_leader_is_refused_at_once():
    bench = Bench().found()
    bench.engine.barrier("read")
    assert isinstance(bench.outcome("barrier", "read"), Refused)


def test_a_followers_barrier_is_refused_when_the_connection_breaks(follower):
    follower.engine.barrier("read")
    follower.lose("n2")
    assert isinstance(follower.outcome("barrier", "read"), Refused)


def test_a_followers_barrier_is_refused_by_who_does_not_lead(leader, follower):
    follower.forget()
    follower.hear("n3", AskBarrier, number=5)
    assert follower.said(ForwardRefused, "n3")[0].number == 5


def test_a_leader_answers_a_followers_barrier_after_a_round(leader):
    leader.forget()
    leader.hear("n3", AskBarrier, number=5)
    leader.step()
    assert leader.said(Append, "n2") != []
    leader.has("n2", 3)
    leader.step()
    assert [(answer.number, answer.index) for answer in leader.said(Barrier, "n3")] == [(5, 3)]


def test_a_leader_that_lost_its_term_says_so_to_who_asked_it_for_a_barrier(leader):
    leader.hear("n3", AskBarrier, number=5)
    leader.forget()
    leader.hear("n2", Append, term=2, sent=1, previous_index=3, previous_term=1, commit_index=1, entries=())
    assert [answer.number for answer in leader.said(ForwardRefused, "n3")] == [5]


def test_after_a_followers_barrier_its_view_holds_what_was_acknowledged_elsewhere():
    group = Group(*NAMES)
    group.led_by("n1")
    reader = group["n3"]
    for number in range(10):
        word = b"%d" % number
        group.propose(word, "n2")
        reader.engine.barrier(f"read {number}")
        group.until(lambda name=f"read {number}": reader.outcome("barrier", name) is not None)
        assert reader.engine.view.state[-1] == word


def test_a_barrier_leaves_no_entry_in_the_log():
    group = Group(*NAMES)
    leader = group.led_by("n1")
    last = leader.journal.last_index
    for name in NAMES:
        group[name].engine.barrier("read")
    group.run(0.5)
    assert [group[name].outcome("barrier", "read") for name in NAMES] == [Applied(last)] * 3
    assert leader.journal.last_index == last
    assert leader.journal.entry(last)[0][:1] != COMMAND
