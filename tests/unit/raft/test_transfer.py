"""Handing the leadership over: quickly, past stickiness, and not for ever."""

import pytest

from raft.api import Applied, Refused, Unknown
from raft.applier import Submission
from raft.messages import AskVote, Forward, ForwardRefused, TimeoutNow
from tests.unit.raft.bench import (
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
    bench = Bench().found()
    bench.hear_entries(entry(2, 1), commit=2)
    bench.step()
    bench.forget()
    return bench


def test_the_successor_leads_within_two_ticks_past_stickiness():
    group = Group(*NAMES)
    old = group.led_by("n1")
    term = old.term
    old.engine.transfer("handover", "n3")
    group.run(2 * TICK_S)
    assert [name for name in NAMES if group[name].leads] == ["n3"]
    assert isinstance(old.outcome("transfer", "handover"), Applied)
    assert group["n3"].term == old.term == term + 1


def test_the_successor_is_told_once_it_has_everything(leader):
    leader.engine.propose(b"word", "id")
    leader.engine.transfer("handover", "n3")
    leader.step()
    assert leader.said(TimeoutNow) == []
    leader.has("n2", 4)
    leader.step()
    assert leader.said(TimeoutNow) == []
    leader.has("n3", 4)
    leader.step()
    leader.step()
    assert [sent.peer for sent in leader.sent if isinstance(sent.message, TimeoutNow)] == ["n3"]


def test_proposals_are_refused_meanwhile(leader):
    leader.engine.transfer("handover", "n3")
    leader.engine.propose(b"word", "id")
    assert isinstance(leader.outcome("command", "id"), Refused)
    leader.forget()
    leader.hear("n2", Forward, number=5, submission=Submission("other", 1, b"word").pack())
    assert [answer.number for answer in leader.said(ForwardRefused, "n2")] == [5]
    assert leader.journal.last_index == 3


def test_members_do_not_change_meanwhile(leader):
    leader.engine.transfer("handover", "n3")
    leader.engine.change_members("change", voters("n1", "n2"))
    assert isinstance(leader.outcome("change", "change"), Refused)
    assert leader.journal.last_index == 3


def test_it_is_given_up_after_one_election_timeout_and_proposals_are_taken_again(leader):
    leader.engine.transfer("handover", "n3")
    for _ in range(11):
        leader.wait(HEARTBEAT_S)
        leader.has("n2", 3)
    assert isinstance(leader.outcome("transfer", "handover"), Refused)
    leader.engine.propose(b"word", "id")
    assert leader.outcome("command", "id") is None
    assert leader.journal.last_index == 4


def test_it_is_done_when_the_leadership_is_gone_after_the_successor_was_told(leader):
    leader.engine.transfer("handover", "n3")
    leader.step()
    leader.hear_entries(leader="n3", term=2, previous=(3, 1))
    assert isinstance(leader.outcome("transfer", "handover"), Applied)


def test_it_has_failed_when_the_leadership_is_lost_before_the_successor_was_told(leader):
    leader.engine.propose(b"word", "id")
    leader.engine.transfer("handover", "n3")
    leader.step()
    leader.hear_entries(leader="n2", term=2, previous=(3, 1))
    assert isinstance(leader.outcome("transfer", "handover"), Refused)
    assert isinstance(leader.outcome("command", "id"), Unknown)


@pytest.mark.parametrize("to", ["n1", "n9", "n4"])
def test_it_goes_to_no_one_but_another_voter(to):
    bench = Bench().found()
    bench.hear_entries(change(2, 1, with_role(voters(*NAMES), "n4", "learner")))
    bench.meet("n4")
    bench.lead().settle()
    bench.engine.transfer("handover", to)
    assert isinstance(bench.outcome("transfer", "handover"), Refused)


def test_one_at_a_time(leader):
    leader.engine.transfer("first", "n3")
    leader.engine.transfer("second", "n2")
    assert isinstance(leader.outcome("transfer", "second"), Refused)
    assert leader.outcome("transfer", "first") is None


def test_only_a_leader_hands_over(follower):
    follower.engine.transfer("handover", "n2")
    assert isinstance(follower.outcome("transfer", "handover"), Refused)


def test_who_is_told_asks_for_votes_at_once_and_says_by_whose_wish(follower):
    follower.hear("n2", TimeoutNow)
    follower.step()
    assert {(vote.term, vote.transfer) for vote in follower.said(AskVote)} == {(2, True)}


def test_a_heartbeat_on_its_way_does_not_call_it_off(follower):
    follower.hear("n2", TimeoutNow)
    follower.hear_entries(previous=(2, 1), commit=2)
    follower.step()
    assert follower.said(AskVote) != []


def test_a_newer_leader_calls_it_off(follower):
    follower.hear("n2", TimeoutNow)
    follower.hear_entries(leader="n3", term=2, previous=(2, 1), commit=2)
    follower.step()
    assert follower.said(AskVote) == []


def test_the_next_election_is_by_nobodys_wish_any_more(follower):
    follower.hear("n2", TimeoutNow)
    follower.step()
    follower.forget()
    follower.campaign()
    assert {(vote.term, vote.transfer) for vote in follower.said(AskVote)} == {(3, False)}


@pytest.mark.parametrize("told", [{"peer": "n3"}, {"peer": "n2", "term": 0}])
def test_only_the_leader_of_the_term_can_ask_for_it(follower, told):
    follower.hear(**told, kind=TimeoutNow)
    follower.step()
    assert follower.said(AskVote) == []


def test_who_is_no_voter_does_not_campaign_when_told():
    bench = Bench().found()
    bench.hear_entries(change(2, 1, with_role(voters(*NAMES), "n1", "learner")))
    bench.hear("n2", TimeoutNow)
    bench.step()
    assert bench.said(AskVote) == []


def test_votes_are_given_past_stickiness_when_the_leader_wished_it(follower):
    assert follower.asks_vote("n3", 2, last=(2, 1)) is None
    assert follower.asks_vote("n3", 2, last=(2, 1), transfer=True).granted
