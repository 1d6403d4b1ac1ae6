"""Elections: who asks, who votes for whom, what is on disk by then, and who keeps still."""

import pytest

from raft.messages import Append, Appended, AskPreVote, AskVote, PreVote, Vote
from tests.unit.raft.bench import (
    ELECTION_MAX_S,
    ELECTION_MIN_S,
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

FIVE = ("n1", "n2", "n3", "n4", "n5")


@pytest.fixture
def bench():
    return Bench().found()


def timed_out(bench):
    bench.forget()
    bench.wait(ELECTION_MAX_S + TICK_S)
    return bench.said(AskPreVote)[-1]


def with_learner(bench):
    """A follower of n2 in a group whose n4 is a learner."""
    bench.hear_entries(change(2, 1, with_role(voters(*NAMES), "n4", "learner")))
    bench.reachable.add("n4")
    return bench


# -- asking first --------------------------------------------------------------------------------------


def test_a_replica_asks_whether_it_would_win_before_it_uses_up_a_term(bench):
    timed_out(bench)
    assert [sent.peer for sent in bench.sent] == ["n2", "n3"]
    assert bench.said(AskVote) == []
    assert (bench.term, bench.journal.vote) == (0, None)


def test_no_replica_asks_before_the_shortest_timeout_and_all_have_by_the_longest(bench):
    bench.wait(ELECTION_MIN_S - TICK_S)
    assert bench.sent == []
    bench.wait(ELECTION_MAX_S - ELECTION_MIN_S + 2 * TICK_S)
    assert bench.said(AskPreVote) != []


def test_a_majority_of_pre_votes_begins_the_election_in_the_next_term(bench):
    asked = timed_out(bench)
    bench.hear("n3", PreVote, number=asked.number, granted=True)
    bench.step()
    assert bench.term == 1
    assert {message.term for message in bench.said(AskVote)} == {1}


def test_without_a_majority_of_pre_votes_the_term_stays(bench):
    asked = timed_out(bench)
    bench.hear("n2", PreVote, number=asked.number, granted=False)
    bench.hear("n3", PreVote, number=asked.number, granted=False)
    bench.step()
    assert bench.term == 0


def test_pre_votes_of_an_earlier_round_count_for_nothing(bench):
    old = timed_out(bench)
    timed_out(bench)
    bench.hear("n2", PreVote, number=old.number, granted=True)
    bench.step()
    assert bench.term == 0


def test_d19_pre_votes_that_arrive_after_a_leader_has_spoken_count_for_nothing(bench):
    """They were given while nobody led, and were long on their way: seen to depose a healthy leader."""
    asked = timed_out(bench)
    bench.hear_entries(leader="n2", term=1)
    bench.hear("n3", PreVote, term=0, number=asked.number, granted=True)
    bench.step()
    assert bench.term == 1
    assert bench.said(AskVote) == []


def test_d19_pre_votes_that_arrive_after_a_vote_for_another_count_for_nothing(bench):
    asked = timed_out(bench)
    assert bench.asks_vote("n2", 1).granted
    bench.hear("n3", PreVote, term=0, number=asked.number, granted=True)
    bench.step()
    assert bench.term == 1


def test_d19_pre_votes_that_arrive_in_a_newer_term_count_for_nothing(bench):
    asked = timed_out(bench)
    bench.hear("n2", PreVote, term=5, number=asked.number, granted=False)
    bench.hear("n3", PreVote, term=0, number=asked.number, granted=True)
    bench.step()
    assert bench.term == 5


def test_d19_pre_votes_that_were_asked_for_before_a_restart_count_for_nothing(bench):
    old = timed_out(bench)
    bench.restart()
    bench.found()
    new = timed_out(bench)
    assert new.number != old.number
    bench.hear("n3", PreVote, number=old.number, granted=True)
    bench.step()
    assert bench.term == 0


def test_a_pre_vote_counts_once_for_each_voter():
    bench = Bench(names=FIVE).found()
    asked = timed_out(bench)
    bench.hear("n2", PreVote, number=asked.number, granted=True)
    bench.hear("n2", PreVote, number=asked.number, granted=True)
    bench.step()
    assert bench.term == 0
    bench.hear("n3", PreVote, number=asked.number, granted=True)
    bench.step()
    assert bench.term == 1


@pytest.mark.parametrize("stranger", [{"peer": "n4"}, {"peer": "n2", "identity": "another journal"}])
def test_a_pre_vote_of_who_is_no_voter_counts_for_nothing(bench, stranger):
    with_learner(bench)
    asked = timed_out(bench)
    bench.hear(**stranger, kind=PreVote, number=asked.number, granted=True)
    bench.step()
    assert bench.term == 1  # n2's
    assert bench.said(AskVote) == []


def test_asking_changes_nothing_at_whoever_is_asked(bench):
    assert bench.asks_pre_vote("n2", 7)
    bench.step()
    assert (bench.term, bench.journal.vote) == (0, None)
    assert bench.asks_pre_vote("n3", 7)  # as often as it is asked


def test_who_hears_a_leader_asks_for_nothing(bench):
    for _ in range(20):
        bench.hear_entries()
        bench.wait(ELECTION_MIN_S / 2)
        assert bench.said(AskPreVote) == []


def test_who_hears_a_leader_grants_no_pre_vote(bench):
    bench.hear_entries(entry(2, 1))
    assert not bench.asks_pre_vote("n3", 9, last=(9, 9))
    bench.clock.now_s += ELECTION_MIN_S
    assert bench.asks_pre_vote("n3", 9, last=(9, 9))


def test_a_leader_grants_no_pre_vote(bench):
    bench.lead()
    assert not bench.asks_pre_vote("n3", 9, last=(9, 9))


@pytest.mark.parametrize(
    ("last", "granted"), [((3, 2), True), ((4, 2), True), ((2, 3), True), ((2, 2), False), ((9, 1), False)]
)
def test_a_pre_vote_compares_logs_as_a_vote_does(bench, last, granted):
    bench.hear_entries(entry(2, 1), entry(3, 2), term=2)
    bench.clock.now_s += ELECTION_MIN_S
    assert bench.asks_pre_vote("n3", 2, last=last) == granted


def test_a_refused_pre_vote_tells_of_the_newer_term(bench):
    bench.hear_entries(term=5)
    bench.clock.now_s += ELECTION_MIN_S
    assert not bench.asks_pre_vote("n3", 4, last=(9, 9))
    assert bench.sent[-1].message.term == 5


def test_who_asks_with_an_old_term_learns_the_newer_one_by_being_refused(bench):
    asked = timed_out(bench)
    bench.hear("n2", PreVote, term=5, number=asked.number, granted=False)
    assert bench.term == 5
    assert not bench.leads


def test_an_election_at_hand_is_called_off_when_a_leader_speaks(bench):
    asked = timed_out(bench)
    bench.hear("n3", PreVote, number=asked.number, granted=True)
    bench.hear_entries(leader="n2", term=1)
    bench.step()
    assert bench.term == 1
    assert bench.said(AskVote) == []


def test_an_election_at_hand_is_called_off_by_a_vote_for_another(bench):
    asked = timed_out(bench)
    bench.hear("n3", PreVote, number=asked.number, granted=True)
    assert bench.asks_vote("n2", 1).granted
    bench.step()
    assert (bench.term, bench.journal.vote) == (1, "id-n2")


def test_d19_a_node_that_was_cut_off_raises_no_term_and_deposes_nobody():
    group = Group(*NAMES)
    leader = group.led_by("n1")
    term = leader.term
    group.cut_off("n3")
    group.run(20)
    group.heal()
    group.run(3)
    assert leader.leads
    assert [group[name].term for name in NAMES] == [term] * 3


def test_d19_a_node_that_hears_nobody_while_all_hear_it_deposes_nobody():
    group = Group(*NAMES)
    leader = group.led_by("n1")
    term = leader.term
    group.cut("n1", "n3")
    group.cut("n2", "n3")
    group.run(20)
    assert leader.leads
    assert [group[name].term for name in NAMES] == [term] * 3


# -- stickiness and check-quorum -----------------------------------------------------------------------


def test_who_hears_a_leader_does_not_help_to_depose_it(bench):
    bench.hear_entries(entry(2, 1))
    assert bench.asks_vote("n3", 9, last=(9, 9)) is None
    assert bench.term == 1


def test_who_has_not_heard_a_leader_for_the_shortest_timeout_votes_again(bench):
    bench.hear_entries(entry(2, 1))
    bench.clock.now_s += ELECTION_MIN_S
    assert bench.asks_vote("n3", 9, last=(9, 9)).granted


def test_a_leader_is_not_deposed_by_a_candidate(bench):
    bench.lead()
    assert bench.asks_vote("n3", 9, last=(9, 9)) is None
    assert bench.leads
    assert bench.term == 1


def test_a_leader_that_no_majority_answers_steps_down(bench):
    bench.lead().settle()
    bench.wait(ELECTION_MAX_S - 2 * HEARTBEAT_S)
    assert bench.leads
    bench.wait(3 * HEARTBEAT_S)
    assert not bench.leads
    assert bench.engine.view.leader is None


def test_a_leader_that_one_of_two_answers_stays(bench):
    bench.lead()
    for _ in range(30):
        bench.has("n3", 2)
        bench.wait(HEARTBEAT_S + TICK_S)
    assert bench.leads


def test_answers_of_learners_do_not_keep_a_leader(bench):
    with_learner(bench).lead()
    for _ in range(30):
        bench.has("n4", 2)
        bench.wait(HEARTBEAT_S + TICK_S)
    assert not bench.leads


def test_a_leader_counts_answers_by_when_it_asked_not_by_when_they_arrive(bench):
    bench.lead().settle()
    old = bench.last_sent_to("n2")
    for _ in range(11):
        bench.has("n2", 3, sent=old)
        bench.has("n3", 3, sent=old)
        bench.wait(HEARTBEAT_S)
    assert not bench.leads


def test_a_leader_that_stepped_down_waits_before_it_campaigns(bench):
    bench.lead().settle()
    bench.wait(ELECTION_MAX_S + TICK_S)
    assert not bench.leads
    bench.forget()
    bench.wait(ELECTION_MIN_S - TICK_S)
    assert bench.sent == []


def test_a_leader_that_is_cut_off_steps_down_by_itself_and_follows_the_next_one_later():
    group = Group(*NAMES)
    old = group.led_by("n1")
    group.cut_off("n1")
    group.run(ELECTION_MAX_S + HEARTBEAT_S)
    assert not old.leads
    group.run(3)
    new, term = group.leader(), group.leader().term
    group.heal()
    group.run(2)
    assert (old.engine.view.leader, old.term, new.term) == (new.name, term, term)


# -- votes ---------------------------------------------------------------------------------------------


def test_a_vote_is_on_disk_before_it_leaves(bench):
    assert bench.asks_vote("n3", 2).granted
    disk = bench.on_disk(bench.sent[-1])
    assert (disk.term, disk.vote) == (2, "id-n3")


def test_the_own_vote_is_on_disk_before_others_are_asked(bench):
    bench.campaign()
    asked = [sent for sent in bench.sent if isinstance(sent.message, AskVote)]
    assert sorted(sent.peer for sent in asked) == ["n2", "n3"]
    for sent in asked:
        disk = bench.on_disk(sent)
        assert (disk.term, disk.vote) == (1, bench.name)


def test_a_refusal_with_a_newer_term_is_on_disk_before_it_leaves(bench):
    bench.hear_entries(entry(2, 1))
    bench.clock.now_s += ELECTION_MIN_S
    assert not bench.asks_vote("n3", 4).granted
    assert bench.on_disk(bench.sent[-1]).term == 4


def test_one_vote_a_term(bench):
    assert bench.asks_vote("n2", 1).granted
    assert not bench.asks_vote("n3", 1).granted
    assert bench.asks_vote("n2", 1).granted  # the same one, asked for again
    assert bench.asks_vote("n3", 2).granted


def test_a_request_of_an_older_term_is_refused_and_changes_nothing(bench):
    bench.hear_entries(entry(2, 1), term=5)
    bench.clock.now_s += ELECTION_MIN_S
    refused = bench.asks_vote("n3", 4, last=(9, 4))
    assert (refused.granted, refused.term) == (False, 5)
    assert (bench.term, bench.journal.vote) == (5, None)


def test_a_candidate_votes_for_nobody_else(bench):
    bench.campaign()
    assert not bench.asks_vote("n2", 1).granted


def test_a_vote_is_for_a_replica_not_for_a_name(bench):
    assert bench.asks_vote("n2", 1).granted
    assert not bench.asks_vote("n2", 1, identity="another journal").granted


def test_d14_a_vote_is_remembered_after_a_loss_of_power(bench):
    assert bench.asks_vote("n2", 3).granted
    bench.restart()
    bench.found()
    assert not bench.asks_vote("n3", 3).granted
    assert bench.asks_vote("n2", 3).granted


def test_d14_the_own_vote_is_remembered_after_a_loss_of_power(bench):
    bench.campaign()
    bench.restart()
    bench.found()
    assert not bench.asks_vote("n3", 1).granted


@pytest.mark.parametrize(
    ("last", "granted"), [((3, 2), True), ((4, 2), True), ((2, 3), True), ((2, 2), False), ((9, 1), False)]
)
def test_a_vote_is_for_logs_that_hold_no_less(bench, last, granted):
    bench.hear_entries(entry(2, 1), entry(3, 2), term=2)
    bench.clock.now_s += ELECTION_MIN_S
    assert bench.asks_vote("n3", 3, last=last).granted == granted


def test_a_refusal_tells_of_the_newer_term(bench):
    bench.hear_entries(term=5)
    vote = bench.asks_vote("n3", 4, last=(9, 9))
    assert (vote.granted, vote.term, vote.for_term) == (False, 5, 4)


def test_a_candidate_that_hears_of_a_newer_term_follows_it(bench):
    bench.campaign()
    bench.hear("n2", Vote, term=6, for_term=1, granted=False)
    assert bench.term == 6
    bench.votes_for_it("n3", for_term=1)
    assert not bench.leads


def test_a_leader_that_hears_of_a_newer_term_steps_down(bench):
    bench.lead()
    bench.has("n2", 2, term=6, for_term=1)
    assert not bench.leads
    assert bench.term == 6


def test_a_majority_of_votes_leads(bench):
    bench.campaign()
    bench.votes_for_it("n2")
    assert bench.leads
    assert {sent.peer for sent in bench.sent if isinstance(sent.message, Append)} == {"n2", "n3"}


def test_a_vote_counts_once_for_each_voter():
    bench = Bench(names=FIVE).found().campaign()
    for _ in range(3):
        bench.votes_for_it("n2")
    bench.step()
    assert not bench.leads
    bench.votes_for_it("n3")
    assert bench.leads


def test_votes_of_another_term_count_for_nothing(bench):
    bench.campaign().campaign()
    assert bench.term == 2
    bench.votes_for_it("n2", for_term=1)
    bench.votes_for_it("n3", for_term=1)
    assert not bench.leads


def test_refusals_count_for_nothing(bench):
    bench.campaign()
    bench.votes_for_it("n2", granted=False)
    bench.votes_for_it("n3", granted=False)
    assert not bench.leads


def test_the_vote_of_another_replica_of_that_name_counts_for_nothing(bench):
    bench.campaign()
    bench.votes_for_it("n2", identity="another journal")
    assert not bench.leads
    bench.votes_for_it("n2")
    assert bench.leads


def test_the_vote_of_a_learner_counts_for_nothing(bench):
    with_learner(bench).campaign()
    bench.votes_for_it("n4")
    assert not bench.leads


def test_a_single_voter_leads_alone_and_at_once():
    bench = Bench(names=("n1",))
    bench.wait(ELECTION_MAX_S + TICK_S)
    assert bench.leads
    assert bench.journal.commit_index == bench.journal.last_index == 2


def test_an_old_leader_that_speaks_up_learns_the_newer_term(bench):
    bench.hear_entries(term=4, leader="n3")
    answer = bench.hear_entries(entry(2, 2), term=2, leader="n2")
    assert (answer.success, answer.term, answer.for_term) == (False, 4, 2)
    assert bench.engine._core.leading_peer == "n3"
    assert bench.said(Appended) == [answer]
