"""A leader: what it sends to whom, whose answers it counts, and when an entry is committed."""

import pytest

from raft.api import Applied, Refused, ReplicaFailed
from raft.entries import NO_OP
from raft.messages import Append, Appended
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


def propose(bench, *words):
    for word in words:
        bench.engine.propose(word, f"id of {word.decode()}")
    bench.forget()
    bench.step()


def committed(bench):
    return bench.journal.commit_index


# -- sending -------------------------------------------------------------------------------------------


def test_a_new_leader_begins_with_an_entry_of_its_term():
    bench = Bench().found()
    bench.hear_entries(entry(2, 1), term=1)
    bench.lead()
    assert bench.journal.entry(3) == (NO_OP, 3, 2)
    first = bench.said(Append, "n2")[0]
    assert (first.previous_index, first.previous_term, first.entries) == (2, 1, ((NO_OP, 3, 2),))


def test_a_proposal_leaves_with_the_next_step(leader):
    assert leader.step() > 0
    leader.engine.propose(b"word", "id")
    propose(leader, b"other")
    for peer in ("n2", "n3"):
        (message,) = leader.said(Append, peer)
        assert [index for _, index, _ in message.entries] == [4, 5]


def test_an_answer_that_changes_nothing_needs_no_step_and_any_other_does(leader):
    last = leader.journal.last_index
    leader.wait(HEARTBEAT_S)
    assert not leader.has("n2", last)
    assert not leader.has("n3", last, identity="a replica that is no member")
    leader.engine.barrier("read")
    leader.step()
    assert leader.has("n2", last), "somebody waits for it"
    leader.step()
    leader.engine.transfer("hand over", "n3")
    leader.step()
    assert leader.has("n2", last)


def test_an_answer_that_brings_something_needs_a_step(leader):
    last = leader.journal.last_index
    propose(leader, b"word")
    assert leader.has("n2", last + 1)
    assert not leader.has("n2", last + 1)
    assert leader.hear("n2", Appended, term=9, for_term=1, sent=1, next_index=1, success=False), "of a newer term"


def test_own_entries_are_on_disk_before_they_leave(leader):
    propose(leader, b"word")
    assert leader.on_disk(leader.sent[0]).last_index == 4


def test_own_entries_are_on_disk_before_they_are_counted(leader):
    """R1: the majority may be this leader and one that had answered already."""
    propose(leader, b"word")
    leader.has("n2", 4)
    leader.step()
    durable = leader.medium.durable_names["journal"].synced
    assert committed(leader) == 4
    assert b"word" in durable


def test_entries_are_sent_ahead_of_answers(leader):
    propose(leader, b"one")
    propose(leader, b"two")
    (message,) = leader.said(Append, "n2")
    assert (message.previous_index, [index for _, index, _ in message.entries]) == (4, [5])


def test_a_heartbeat_goes_to_all_each_period_and_not_before(leader):
    leader.wait(HEARTBEAT_S + TICK_S)
    leader.forget()
    leader.wait(HEARTBEAT_S - TICK_S)
    assert leader.sent == []
    leader.wait(2 * TICK_S)
    assert [(sent.peer, sent.message.entries) for sent in leader.sent] == [("n2", ()), ("n3", ())]


def test_the_step_after_an_answer_that_commits_tells_everybody(leader):
    propose(leader, b"word")
    leader.has("n2", 4)
    leader.forget()
    leader.step()
    assert {(sent.peer, sent.message.commit_index) for sent in leader.sent} == {("n2", 4), ("n3", 4)}


def test_message_numbers_grow_also_while_time_stands_still(leader):
    for number in range(5):
        propose(leader, b"%d" % number)
        leader.engine.barrier(f"{number}")
        leader.step()
    leader.clock.now_s -= 500
    leader.engine.barrier("the clock went back")
    leader.step()
    numbers = [message.sent for message in leader.said(Append)]
    assert numbers == sorted(set(numbers))


def test_until_it_has_answered_a_peer_gets_one_message_at_a_time():
    bench = Bench().found().lead()
    bench.forget()
    propose(bench, b"one")
    propose(bench, b"two")
    assert bench.said(Append) == []
    bench.has("n2", 2, sent=bench.engine._core.stamp)
    (message,) = bench.said(Append, "n2")
    assert [index for _, index, _ in message.entries] == [3, 4]


def test_a_peer_that_is_not_connected_is_sent_nothing(leader):
    leader.lose("n3")
    propose(leader, b"word")
    assert {sent.peer for sent in leader.sent} == {"n2"}


def test_on_a_new_connection_everything_that_was_not_acknowledged_is_sent_again(leader):
    propose(leader, b"word")
    leader.lose("n3")
    leader.meet("n3", cluster_id=leader.journal.cluster_id)
    leader.forget()
    leader.wait(HEARTBEAT_S + TICK_S)
    (message,) = leader.said(Append, "n3")
    assert (message.previous_index, [index for _, index, _ in message.entries]) == (3, [4])


# -- counting ------------------------------------------------------------------------------------------


def test_a_majority_of_acknowledgements_commits(leader):
    propose(leader, b"word")
    assert committed(leader) == 3
    leader.has("n3", 4)
    leader.step()
    assert committed(leader) == 4
    assert leader.outcome("command", "id of word") == Applied(4)


def test_acknowledgements_of_one_peer_count_once():
    bench = Bench(names=("n1", "n2", "n3", "n4", "n5")).found().lead()
    bench.has("n2", 2)
    bench.has("n2", 2)
    bench.step()
    assert committed(bench) == 1
    bench.has("n5", 2)
    bench.step()
    assert committed(bench) == 2


def test_learners_do_not_count():
    """However many they are."""
    learners = ("n4", "n5", "n6", "n7")
    members = voters(*NAMES)
    for name in learners:
        members = with_role(members, name, "learner")
    bench = Bench().found()
    bench.hear_entries(change(2, 1, members))
    for name in learners:
        bench.meet(name)
    bench.lead()
    for name in learners:
        bench.has(name, 3)
    bench.step()
    assert committed(bench) == 1
    assert bench.engine.facts.match_index["n4"] == 3
    bench.has("n2", 3)
    bench.step()
    assert committed(bench) == 3


def test_entries_of_an_earlier_term_are_committed_only_with_one_of_the_own():
    """Figure 8 of the Raft paper: a majority that has them is not enough."""
    bench = Bench().found()
    bench.hear_entries(entry(2, 1), entry(3, 1), term=1)
    bench.lead()
    bench.has("n2", 3)
    bench.step()
    assert committed(bench) == 1
    bench.has("n2", 4)
    bench.step()
    assert committed(bench) == 4


def test_d6_an_answer_to_another_term_counts_for_nothing(leader):
    propose(leader, b"word")
    leader.has("n2", 4, for_term=0)
    leader.has("n3", 4, for_term=0)
    leader.step()
    assert committed(leader) == 3
    assert leader.engine.facts.match_index["n2"] == 3


def test_d6_an_answer_from_an_earlier_leadership_counts_for_nothing():
    """It acknowledged entries that have been replaced since; what it has now is not known."""
    bench = Bench().found().lead()
    propose(bench, b"one", b"two", b"three")
    old = bench.last_sent_to("n2")
    bench.hear_entries(leader="n3", term=2, previous=(1, 0))
    bench.hear_entries(entry(2, 2), leader="n3", term=2)
    bench.lead()
    assert (bench.term, bench.log()) == (3, [2, 3])
    propose(bench, b"four", b"five")
    bench.has("n2", 5, for_term=1, sent=old)
    bench.step()
    assert bench.engine.facts.match_index["n2"] == 0
    assert committed(bench) == 1


def test_d6_an_answer_of_another_replica_of_that_name_counts_for_nothing(leader):
    propose(leader, b"word")
    leader.has("n2", 4, identity="another journal")
    leader.step()
    assert committed(leader) == 3
    assert leader.engine.strangers == 1


def test_d6_an_answer_of_who_is_no_member_counts_for_nothing(leader):
    propose(leader, b"word")
    leader.has("n4", 4, sent=1)
    leader.step()
    assert committed(leader) == 3
    assert leader.engine.strangers == 1


def test_an_answer_cannot_claim_more_than_the_leader_has(leader):
    leader.has("n2", 900)
    assert leader.engine._core.leader.progress["n2"].match_index == 3
    propose(leader, b"word")
    leader.step()
    assert committed(leader) == 3


def test_a_refusal_turns_back_and_the_missing_is_sent(leader):
    propose(leader, b"one", b"two")
    leader.has("n2", 3, success=False)
    message = leader.said(Append, "n2")[-1]
    assert (message.previous_index, [index for _, index, _ in message.entries]) == (2, [3, 4, 5])


def test_d7_one_flight_is_turned_back_once(leader):
    for word in (b"one", b"two", b"three"):
        leader.engine.propose(word, f"id of {word}")
        leader.step()
    flight = [message.sent for message in leader.said(Append, "n2")][-3:]
    leader.has("n2", 3, sent=flight[0], success=False)
    leader.has("n2", 4, sent=flight[1], success=False)
    leader.forget()
    leader.has("n2", 5, sent=flight[2], success=False)
    assert leader.said(Append) == []
    leader.wait(HEARTBEAT_S + TICK_S)
    assert leader.said(Append, "n2")[0].previous_index == 2


def test_d7_a_follower_with_a_tail_of_its_own_gets_a_long_log_it_lacks():
    group = Group(*NAMES, batch_bytes=2000)
    old = group.led_by("n1")
    group.cut_off("n1")
    for number in range(40):
        old.engine.propose(b"lost %d" % number, f"lost {number}")
        group.tick()
    group.run(2 * ELECTION_MAX_S)
    for number in range(40):
        group.leader().engine.propose(b"kept %d" % number + b"." * 500, f"kept {number}")
        group.tick()
    group.run(1)
    group.heal()
    group.run(0.5)
    group.stop(next(name for name in ("n2", "n3") if name != group.leader().name))
    group.propose(b"needs n1")
    assert [word[:4] for word in group.agree()] == [b"kept"] * 40 + [b"need"]


# -- going wrong ---------------------------------------------------------------------------------------


def test_d10_a_command_that_raises_is_refused_and_everything_goes_on(leader):
    propose(leader, b"raise")
    leader.has("n2", 4)
    leader.step()
    assert leader.outcome("command", "id of raise") == Refused("ValueError: poison", 4)
    propose(leader, b"word")
    leader.has("n2", 5)
    leader.step()
    assert leader.engine.view.state == (b"word",)
    assert leader.leads


def test_d10_a_command_that_raised_does_no_harm_after_a_restart_of_all():
    group = Group(*NAMES)
    assert group.propose(b"raise") == Refused("ValueError: poison", 4)
    for name in NAMES:
        group.restart(name)
    assert isinstance(group.propose(b"word"), Applied)
    assert group.agree() == (b"word",)


def test_d11_an_answer_that_raises_ends_the_replica_and_nothing_is_applied_twice(leader):
    def raising(key, outcome):
        raise KeyError("a bug of the owner's")

    leader.engine._on_outcome = raising
    propose(leader, b"word")
    leader.has("n2", 4)
    with pytest.raises(KeyError):
        leader.step()
    leader.restart()
    leader.found().lead().settle()
    assert leader.engine.view.state == (b"word",)


def test_an_error_of_the_disk_ends_the_replica_before_anything_leaves(leader):
    leader.engine.propose(b"word", "id")
    leader.forget()
    leader.disk.fail_sync_in(1)
    with pytest.raises(ReplicaFailed, match="cannot write journal"):
        leader.step()
    assert leader.sent == []
    with pytest.raises(ReplicaFailed, match="cannot write journal"):
        leader.step()
