"""A follower: which entries it takes, what it says of them, and what it never drops."""

import pytest

from raft.api import COMMAND_LIMIT_BYTES, Applied, ReplicaFailed
from raft.entries import NO_OP
from raft.messages import Append, Appended, AskVote, PreVote
from tests.unit.raft.bench import NAMES, Bench, Group, crashed, entry

A, B, C = entry(2, 1), entry(3, 1), entry(4, 1)


@pytest.fixture
def bench():
    return Bench().found()


def holds(bench, *entries):
    journal = bench.journal
    return [journal.entry(index) for index in range(2, journal.last_index + 1)] == list(entries)


# -- answers -------------------------------------------------------------------------------------------


def test_an_answer_names_the_message_and_the_term_that_it_answers(bench):
    answer = bench.hear_entries(A, sent=4711)
    assert answer == Appended(bench.group, "id-n1", 1, for_term=1, sent=4711, next_index=3, success=True)


def test_entries_and_term_are_on_disk_before_they_are_acknowledged(bench):
    bench.hear_entries(A, B, term=3)
    disk = bench.on_disk(bench.sent[-1])
    assert (disk.term, disk.last_index) == (3, 3)


def test_a_heartbeat_that_fits_is_a_success(bench):
    bench.hear_entries(A)
    answer = bench.hear_entries(previous=(2, 1))
    assert (answer.success, answer.next_index) == (True, 3)


def test_entries_after_a_gap_are_refused(bench):
    bench.hear_entries(A)
    answer = bench.hear_entries(C, previous=(3, 1))
    assert (answer.success, answer.next_index) == (False, 3)
    assert holds(bench, A)


def test_a_refusal_points_to_the_first_entry_of_the_conflicting_term(bench):
    bench.hear_entries(A, entry(3, 2), entry(4, 2), entry(5, 2), term=2)
    answer = bench.hear_entries(leader="n3", term=4, previous=(5, 3))
    assert (answer.success, answer.next_index) == (False, 3)


def test_a_refusal_never_points_to_what_is_committed(bench):
    bench.hear_entries(A, B, C, entry(5, 1), commit=3)
    answer = bench.hear_entries(leader="n3", term=4, previous=(5, 3))
    assert (answer.success, answer.next_index) == (False, 4)


# -- what it takes and drops ---------------------------------------------------------------------------


def test_d5_a_repeated_message_drops_nothing(bench):
    bench.hear_entries(A, B, C)
    answer = bench.hear_entries(A)
    assert holds(bench, A, B, C)
    assert (answer.success, answer.next_index) == (True, 3)  # what this message proves, not what the log holds


def test_d5_a_late_heartbeat_drops_nothing(bench):
    bench.hear_entries(A, B, C)
    bench.hear_entries()
    assert holds(bench, A, B, C)


def test_d5_what_was_acknowledged_stays_on_disk_through_repeats_and_a_loss_of_power(bench):
    bench.hear_entries(A, B, C)
    bench.hear_entries(A)
    bench.restart()
    assert holds(bench, A, B, C)


def test_a_conflict_replaces_the_tail_from_there_on(bench):
    bench.hear_entries(A, B, C)
    bench.hear_entries(A, entry(3, 2), leader="n3", term=2)
    assert holds(bench, A, entry(3, 2))


def test_entries_before_the_first_kept_one_are_passed_over():
    bench = Bench(compact_entries=4, keep_entries=1).found()
    entries = [entry(index, 1) for index in range(2, 10)]
    bench.hear_entries(*entries, commit=9)
    bench.step()
    assert bench.journal.base_index > 4
    answer = bench.hear_entries(*entries, entry(10, 1), commit=9)
    assert (answer.success, answer.next_index, bench.journal.last_index) == (True, 11, 10)
    answer = bench.hear_entries(entry(4, 1), previous=(3, 1), commit=9)
    assert (answer.success, answer.next_index, bench.journal.last_index) == (True, 5, 10)


def test_a_leader_that_contradicts_what_is_committed_ends_the_replica(bench):
    bench.hear_entries(A, B, commit=3)
    with pytest.raises(ReplicaFailed, match="committed"):
        bench.hear_entries(leader="n3", term=3, previous=(3, 2))


def test_an_entry_that_contradicts_what_is_committed_ends_the_replica(bench):
    bench.hear_entries(A, B, commit=3)
    with pytest.raises(ReplicaFailed, match="committed"):
        bench.hear_entries(entry(3, 2), leader="n3", term=3, previous=(2, 1))


def test_d8_the_largest_command_travels_in_one_message_each_of_many():
    group = Group(*NAMES)
    leader = group.led_by("n1")
    words = [bytes([number]) * (COMMAND_LIMIT_BYTES - 100) for number in range(5)]
    group.cut_off("n3")
    for number, word in enumerate(words):
        leader.engine.propose(word, f"large {number}")
    group.until(lambda: len(group["n2"].engine.view.state) == 5)
    group.heal()
    assert group.agree() == tuple(words)


def test_d8_a_batch_ends_where_its_limit_is_reached():
    bench = Bench(batch_bytes=100).found().lead().settle()
    bench.lose("n3")
    for number in range(6):
        bench.engine.propose(b"x" * 40, f"id {number}")
    bench.forget()
    bench.step()
    bench.has("n2", 3)
    sizes = [len(message.entries) for message in bench.said(Append)]
    assert max(sizes) == 2
    assert bench.said(Append)[0].entries != ()


# -- what is committed ---------------------------------------------------------------------------------


def test_only_what_the_message_proves_is_committed(bench):
    bench.hear_entries(A, B, C)
    bench.hear_entries(A, commit=4)
    assert bench.journal.commit_index == 2


def test_d15_the_commit_index_never_passes_the_log(bench):
    bench.hear_entries(A, commit=50)
    assert bench.journal.commit_index == 2
    bench.hear_entries(B, previous=(2, 1), commit=2)
    assert bench.journal.commit_index == 2


def test_d15_no_crash_leaves_a_commit_index_beyond_the_log():
    def act(bench):
        bench.hear_entries(A, B, commit=3)
        bench.hear_entries(C, previous=(3, 1), commit=4)
        bench.step()

    found = [bench.journal for bench in crashed(lambda: Bench().found(), act)]
    assert all(journal.commit_index <= journal.last_index for journal in found)
    assert {1, 3} <= {journal.commit_index for journal in found}


def test_the_commit_index_never_falls(bench):
    bench.hear_entries(A, B, C, commit=4)
    bench.hear_entries(A, commit=2)
    bench.step()
    assert bench.engine.facts.commit_index == 4


def test_what_is_committed_is_applied_in_the_next_step(bench):
    bench.hear_entries(entry(2, 1, NO_OP), commit=2)
    assert bench.engine.view.index == 1
    bench.step()
    assert bench.engine.view.index == 2


# -- whom it follows -----------------------------------------------------------------------------------


def test_it_follows_whoever_leads_a_newer_term(bench):
    bench.hear_entries(A, leader="n2", term=1)
    bench.hear_entries(B, previous=(2, 1), leader="n3", term=2)
    bench.step()
    assert (bench.engine.view.leader, bench.term) == ("n3", 2)


def test_a_leader_of_an_older_term_changes_nothing(bench):
    bench.hear_entries(A, term=3)
    answer = bench.hear_entries(entry(2, 2), leader="n3", term=2, commit=2)
    assert holds(bench, A)
    assert (answer.success, answer.term, bench.journal.commit_index) == (False, 3, 1)


def test_two_leaders_in_one_term_end_the_replica(bench):
    bench.lead()
    with pytest.raises(ReplicaFailed, match="two raft leaders in one term"):
        bench.hear_entries(term=bench.term)


def test_two_leaders_in_one_term_end_also_the_replica_that_hears_both(bench):
    bench.hear_entries(A, leader="n2", term=2)
    with pytest.raises(ReplicaFailed, match="two raft leaders in one term"):
        bench.hear_entries(leader="n3", term=2)


def test_a_candidate_follows_the_one_that_won_its_term(bench):
    bench.campaign()
    bench.hear_entries(A, leader="n3", term=1)
    bench.votes_for_it("n2")
    assert not bench.leads
    assert holds(bench, A)
    assert bench.journal.vote == "n1"


# -- who is heard at all -------------------------------------------------------------------------------


@pytest.mark.parametrize("group", ["another/0", "/0", "{id}/1", "{id}/"])
def test_messages_of_another_group_change_nothing_and_are_counted(bench, group):
    bench.hear_entries(A)
    group = group.format(id=bench.journal.cluster_id)
    bench.forget()
    fields = {"sent": 9, "previous_index": 1, "previous_term": 0, "commit_index": 2, "entries": (entry(2, 5),)}
    bench.hear("n3", Append, term=5, group=group, **fields)
    bench.hear("n3", AskVote, term=9, group=group, last_index=9, last_term=9, transfer=True)
    bench.hear("n3", PreVote, term=9, group=group, number=1, granted=False)
    assert (bench.engine.strangers, bench.term, bench.sent) == (3, 1, [])
    assert holds(bench, A)


def test_a_new_journal_belongs_to_the_first_leader_that_sends_it_entries():
    bench = Bench()
    bench.reachable.add("n2")
    bench.forget()
    fields = {"sent": 9, "previous_index": 1, "previous_term": 0, "commit_index": 1, "entries": (A,)}
    bench.hear("n2", Append, term=1, group="cafe/3", **fields)
    disk = bench.on_disk(bench.sent[-1])
    assert (disk.cluster_id, disk.incarnation, disk.last_index) == ("cafe", 3, 2)
    bench.hear("n2", Append, term=1, group="beef/0", **fields)
    assert bench.engine.strangers == 1


@pytest.mark.parametrize("group", ["", "cafe", "/3", "cafe/x", "cafe/-1"])
def test_a_new_journal_belongs_to_nobody_by_a_group_that_is_none(group):
    bench = Bench()
    fields = {"sent": 9, "previous_index": 1, "previous_term": 0, "commit_index": 1, "entries": (A,)}
    bench.hear("n2", Append, term=1, group=group, **fields)
    assert (bench.journal.cluster_id, bench.engine.strangers) == ("", 1)


def test_a_new_journal_belongs_to_nobody_by_being_asked_for_its_vote():
    bench = Bench()
    bench.hear("n2", AskVote, term=1, group="cafe/0", last_index=1, last_term=0, transfer=False)
    assert (bench.journal.cluster_id, bench.term, bench.engine.strangers) == ("", 0, 1)


def test_a_proposal_on_a_follower_is_applied_everywhere():
    group = Group(*NAMES)
    group.led_by("n1")
    assert isinstance(group.propose(b"word", "n3"), Applied)
    assert group.agree() == (b"word",)
