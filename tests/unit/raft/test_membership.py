"""Who belongs to the group: one change at a time, in force at once, through restarts, conflicts and lost journals."""

from dataclasses import replace

import pytest

from raft.api import Applied, Refused, Unknown
from raft.members import Member, Members
from raft.messages import Append, AskPreVote, AskVote
from raft.snapshot import Snapshot
from tests.simulation.raft.virtual_disk import Medium
from tests.unit.raft.bench import (
    ELECTION_MAX_S,
    ELECTION_MIN_S,
    NAMES,
    TICK_S,
    Bench,
    Group,
    address,
    change,
    entry,
    voters,
    with_role,
)

FOUR = (*NAMES, "n4")


@pytest.fixture
def bench():
    return Bench().found()


@pytest.fixture
def leader():
    """It leads term 1, the others have everything, and everything is committed."""
    return Bench().found().lead().settle()


def ask(bench, members, name="change"):
    bench.engine.change_members(name, members)
    return bench.outcome("change", name)


# -- one change at a time ------------------------------------------------------------------------------


def test_a_change_is_in_force_at_once_and_applied_when_it_is_committed(leader):
    assert ask(leader, voters(*FOUR)) is None
    assert leader.members == voters(*FOUR)
    leader.step()
    leader.has("n2", 4)
    leader.step()
    assert leader.outcome("change", "change") is None  # three of four are needed
    leader.has("n3", 4)
    leader.step()
    assert leader.outcome("change", "change") == Applied(4)


def test_a_change_leaves_with_the_next_step(leader):
    leader.step()
    ask(leader, voters("n1", "n2"))
    leader.forget()
    leader.step()
    assert [message.entries for message in leader.said(Append, "n2")] == [(change(4, 1, voters("n1", "n2")),)]


def test_d9_a_second_change_is_refused_until_the_first_is_committed(leader):
    ask(leader, voters(*FOUR))
    assert isinstance(ask(leader, voters("n1", "n2", "n4"), "second"), Refused)
    assert leader.members == voters(*FOUR)
    leader.step()
    leader.has("n2", 4)
    leader.has("n3", 4)
    leader.step()
    assert ask(leader, voters("n1", "n2", "n4"), "third") is None


def test_d9_no_change_before_an_entry_of_the_own_term_is_committed():
    """The erratum to single-server changes (raft-dev, July 2015)."""
    bench = Bench().found()
    bench.hear_entries(change(2, 1, voters(*NAMES)), commit=2)
    bench.lead()
    for peer in ("n2", "n3"):
        bench.has(peer, 2)
    assert bench.engine.facts.commit_index == 2 < bench.journal.last_index
    refused = ask(bench, voters(*FOUR))
    assert "has not committed an entry of its term" in refused.reason
    bench.has("n2", bench.journal.last_index)
    bench.has("n3", bench.journal.last_index)
    bench.step()
    assert ask(bench, voters(*FOUR), "later") is None


@pytest.mark.parametrize(
    "wanted",
    [
        voters("n1", "n2", "n3", "n4", "n5"),
        voters("n1", "n2", "n4"),
        voters("n1"),
        with_role(voters(*NAMES), "n2", "voter", identity="another journal"),
        Members(),
    ],
    ids=["two more", "one for another", "two less", "another journal", "nobody"],
)
def test_one_voter_changes_at_a_time(leader, wanted):
    assert isinstance(ask(leader, wanted), Refused)
    assert leader.members == voters(*NAMES)
    assert leader.journal.last_index == 3


def test_any_number_of_learners_may_change(leader):
    wanted = voters(*NAMES)
    for name in ("n4", "n5", "n6"):
        wanted = with_role(wanted, name, "learner")
    assert ask(leader, wanted) is None


@pytest.mark.parametrize(
    "wanted",
    [
        voters("n2", "n3"),
        with_role(voters(*NAMES), "n1", "learner"),
        with_role(voters(*NAMES), "n1", "voter", identity="another journal"),
    ],
    ids=["removed", "learner", "another journal"],
)
def test_a_leader_does_not_put_itself_out(leader, wanted):
    refused = ask(leader, wanted)
    assert isinstance(refused, Refused)
    assert "transfer the leadership first" in refused.reason
    assert leader.leads


def test_only_a_leader_changes_members_and_others_say_who_leads(bench):
    assert ask(bench, voters(*FOUR)) == Refused("this replica does not lead", None)
    bench.hear_entries(entry(2, 1), leader="n2")
    assert ask(bench, voters(*FOUR), "again").reason == "this replica does not lead: n2 does"


def test_a_change_that_would_leave_no_majority_that_can_be_heard_is_refused(leader):
    leader.wait(ELECTION_MIN_S + TICK_S)
    leader.has("n2", 3)
    refused = ask(leader, voters("n1", "n3"))
    assert "too few of the voters n1, n3 can be heard" in refused.reason
    assert ask(leader, voters("n1", "n2"), "the silent one") is None


def revise(bench, change, name="revised"):
    bench.engine.revise_members(name, change)
    return bench.outcome("change", name)


def test_what_is_asked_of_the_members_in_force_is_refused_in_its_own_words(leader):
    taken = revise(leader, lambda members: members.adding(Member("n2", "", "n9:1", "joining")))
    assert taken.reason == "'n2' is a member already, voter at n2:7000: remove it first"
    unknown = revise(leader, lambda members: members.removing("n9"), "unknown")
    assert unknown.reason == "'n9' is no member; members are n1, n2, n3"
    assert leader.members == voters(*NAMES)


@pytest.mark.parametrize("member", [Member("", "", "n4:1", "joining"), Member("n" * 300, "", "n4:1", "joining")])
def test_what_the_others_could_not_read_is_not_written(leader, member):
    assert isinstance(revise(leader, lambda members: members.adding(member)), Refused)
    assert leader.journal.last_index == 3


def test_one_whose_id_is_not_known_is_no_voter(leader):
    refused = ask(leader, voters(*NAMES).with_member(Member("n4", "", address("n4"), "voter")))
    assert "n4 cannot be a voter before its replica id is known" in refused.reason


def test_one_that_joins_is_taken_in_by_name_and_place_and_its_id_is_its_own():
    group = Group(*NAMES)
    leader = group.led_by("n1")
    leader.engine.revise_members("add", lambda members: members.adding(Member("n4", "", address("n4"), "joining")))
    group.run(1)
    assert isinstance(leader.outcome("change", "add"), Applied)
    group.run(3)
    assert leader.members.get("n4") == Member("n4", "", address("n4"), "joining")
    group.add("n4")
    group.until(lambda: leader.members == voters(*FOUR))
    leader.engine.revise_members("remove", lambda members: members.removing("n2"))
    group.until(lambda: isinstance(leader.outcome("change", "remove"), Applied))
    assert leader.members.voters == {"n1", "n3", "n4"}


def test_a_change_whose_leader_is_deposed_is_unknown(leader):
    ask(leader, voters(*FOUR))
    leader.hear_entries(leader="n2", term=2, previous=(3, 1))
    assert isinstance(leader.outcome("change", "change"), Unknown)


def test_an_address_changes_without_anybody_becoming_another(leader):
    moved = leader.members.with_member(Member("n2", "id-n2", "elsewhere:7000", "voter"))
    assert ask(leader, moved) is None
    leader.step()
    leader.has("n2", 4)
    leader.step()
    assert leader.outcome("change", "change") == Applied(4)
    assert leader.members.get("n2").address == "elsewhere:7000"


def test_a_member_that_comes_back_elsewhere_is_written_there_by_the_leader():
    group = Group(*NAMES)
    leader = group.led_by("n1")
    group.cut_off("n3")
    group.restart("n2", place="elsewhere:1")
    group.until(lambda: leader.members.get("n2") == Member("n2", "id-n2", "elsewhere:1", "voter"))
    group.run(0.5)
    last = leader.journal.last_index
    group.heal()
    group.until(lambda: group["n3"].engine.places["n2"][0] == "elsewhere:1")
    group.run(3)
    assert leader.journal.last_index == last
    assert group["n3"].members == leader.members
    assert leader.engine.places["n2"] == ("elsewhere:1", address("n2"))


def test_a_leader_that_has_moved_writes_its_own_address(leader):
    leader.settings = replace(leader.settings, addresses={**leader.settings.addresses, "n1": "elsewhere:1"})
    leader.restart()
    leader.found().lead().settle()
    assert leader.members.get("n1") == Member("n1", "id-n1", "elsewhere:1", "voter")


def test_a_removed_voter_counts_no_more_and_is_sent_nothing(leader):
    ask(leader, voters("n1", "n2"))
    leader.forget()
    leader.has("n3", 4, sent=1)
    leader.wait(0.2)
    assert leader.journal.commit_index == 3
    assert {sent.peer for sent in leader.sent} == {"n2"}
    leader.has("n2", 4)
    leader.step()
    assert leader.journal.commit_index == 4


def test_a_removed_voter_deposes_nobody():
    group = Group(*NAMES)
    leader = group.led_by("n1")
    leader.engine.change_members("without", leader.members.without("n3"))
    group.run(10)
    assert isinstance(leader.outcome("change", "without"), Applied)
    assert leader.leads
    assert isinstance(group.propose(b"word"), Applied)


def test_a_leader_that_was_removed_by_its_successor_is_followed_no_more():
    group = Group(*NAMES)
    old = group.led_by("n1")
    old.engine.propose(b"lost", "never leaves")
    group.cut_off("n1")
    group.run(3)
    new = group.leader()
    new.engine.change_members("without", new.members.without("n1"))
    group.run(1)
    term, last = new.term, new.journal.last_index
    group.heal()
    group.run(5)
    assert new.leads
    assert (new.term, new.journal.last_index) == (term, last)
    assert b"lost" not in new.engine.view.state


# -- in force from when it is written ------------------------------------------------------------------


def test_members_in_an_entry_are_in_force_on_a_follower_before_they_are_committed(bench):
    bench.hear_entries(change(2, 1, voters(*FOUR)))
    assert bench.members == voters(*FOUR)
    bench.reachable.add("n4")
    bench.wait(ELECTION_MAX_S + ELECTION_MIN_S)
    assert [sent.peer for sent in bench.sent if isinstance(sent.message, AskPreVote)] == ["n2", "n3", "n4"]


def test_d9_members_that_are_not_committed_are_in_force_after_a_restart(bench):
    bench.hear_entries(change(2, 1, voters(*FOUR)))
    bench.restart()
    assert bench.journal.commit_index == 1
    assert bench.members == voters(*FOUR)


def test_d9_a_leaders_own_change_is_in_force_after_its_restart(leader):
    ask(leader, voters(*FOUR))
    leader.step()
    leader.restart()
    assert leader.members == voters(*FOUR)


def leads_with(bench, *voters_for_it):
    """It campaigns; whether these votes and its own make it the leader."""
    bench.campaign()
    for peer in voters_for_it:
        bench.votes_for_it(peer)
    bench.step()
    return bench.leads


def needed(bench, *peers):
    """How many of these must have its log before a leader commits what it has."""
    for count, peer in enumerate(peers, start=1):
        bench.has(peer, bench.journal.last_index)
        bench.step()
        if bench.journal.commit_index == bench.journal.last_index:
            return count
    return None


def test_a_leader_counts_by_the_members_that_it_took_as_a_follower(bench):
    bench.hear_entries(entry(2, 1), change(3, 1, voters(*FOUR)))
    bench.meet("n4")
    assert not leads_with(bench, "n2")
    assert leads_with(bench, "n2", "n3")
    assert needed(bench, "n2", "n3", "n4") == 2


def test_a_leader_counts_by_the_members_before_an_entry_that_was_taken_back(bench):
    bench.hear_entries(entry(2, 1), change(3, 1, voters(*FOUR)))
    bench.meet("n4")
    bench.hear_entries(entry(3, 2), previous=(2, 1), term=2)
    assert leads_with(bench, "n2")
    assert needed(bench, "n2", "n3") == 1


def test_a_leader_counts_by_the_members_that_its_journal_held_at_the_start(bench):
    bench.hear_entries(entry(2, 1), change(3, 1, voters(*FOUR)))
    bench.restart()
    bench.found().meet("n4")
    assert not leads_with(bench)
    assert not leads_with(bench, "n2")
    assert leads_with(bench, "n2", "n3")
    assert needed(bench, "n2", "n3", "n4") == 2


def test_a_leader_counts_by_the_members_of_a_snapshot_that_it_took(bench):
    bench.hear_entries(entry(2, 1))
    bench.meet("n4")
    bench.hear_snapshot(Snapshot(5, 1, voters(*FOUR), bench.engine.dump()))
    assert not leads_with(bench, "n2")
    assert leads_with(bench, "n2", "n3")
    assert needed(bench, "n2", "n3", "n4") == 2


def test_members_are_taken_back_when_their_entry_is_replaced(bench):
    bench.hear_entries(change(2, 1, voters(*FOUR)), change(3, 1, voters(*FOUR, "n5")))
    bench.hear_entries(change(2, 1, voters(*FOUR)), entry(3, 2), leader="n3", term=2)
    assert bench.members == voters(*FOUR)
    bench.hear_entries(entry(2, 3), leader="n3", term=3)
    assert bench.members == voters(*NAMES)
    bench.restart()
    assert bench.members == voters(*NAMES)


def test_a_leader_that_is_deposed_goes_by_the_members_before_its_change(leader):
    ask(leader, voters(*FOUR))
    leader.step()
    leader.hear_entries(entry(4, 2), leader="n2", term=2, previous=(3, 1))
    assert leader.members == voters(*NAMES)


def test_members_are_known_after_compaction_and_a_restart():
    bench = Bench(compact_entries=4, keep_entries=1).found()
    entries = [change(2, 1, voters(*FOUR)), *(entry(index, 1) for index in range(3, 12))]
    bench.hear_entries(*entries, commit=10)
    bench.step()
    assert bench.journal.base_index > 2
    bench.restart()
    assert bench.members == voters(*FOUR)
    bench.hear_entries(change(12, 1, voters(*NAMES)), previous=(11, 1), commit=10)
    assert bench.members == voters(*NAMES)
    bench.hear_entries(entry(12, 2), previous=(11, 1), commit=10, term=2)
    assert bench.members == voters(*FOUR)


def test_a_snapshot_holds_the_members_of_its_place_not_those_of_the_tail():
    bench = Bench(compact_entries=4, keep_entries=1).found()
    entries = [entry(index, 1) for index in range(2, 8)]
    bench.hear_entries(*entries, change(8, 1, voters(*FOUR)), commit=7)
    bench.step()
    assert bench.journal.snapshot.index == 7
    assert bench.journal.snapshot.members == voters(*NAMES)
    assert bench.members == voters(*FOUR)


# -- who may be heard that is no member here ---------------------------------------------------------------


def test_guests_are_admitted_until_a_leader_is_heard_and_when_none_is_any_more(bench):
    assert bench.engine.admits("n9")
    bench.hear_entries(entry(2, 1))
    bench.step()
    assert not bench.engine.admits("n9")
    bench.wait(ELECTION_MAX_S - TICK_S)
    assert not bench.engine.admits("n9")
    bench.wait(2 * TICK_S)
    assert bench.engine.admits("n9")


def test_a_leader_that_is_no_member_here_stays_until_its_members_are_known(bench):
    bench.hear_entries(entry(2, 1), leader="n9")
    bench.step()
    assert bench.engine.admits("n9")
    assert not bench.engine.admits("n8")


def test_a_leader_admits_nobody(leader):
    assert not leader.engine.admits("n9")
    assert not leader.engine.admits("n1")


def test_what_a_guest_has_said_is_forgotten_with_its_connection(leader):
    leader.meet("n9")
    leader.lose("n9")
    leader.lose("n2")
    assert set(leader.engine._core.introductions) == {"n2", "n3"}


# -- learners ------------------------------------------------------------------------------------------


def test_a_learner_receives_the_log_and_neither_campaigns_nor_is_asked(leader):
    group = Group(*NAMES, others=["n4"])
    leader = group.led_by("n1")
    leader.engine.change_members("add", with_role(leader.members, "n4", "learner"))
    group.run(1)
    group.propose(b"word")
    assert group.agree() == (b"word",)
    learner = group["n4"]
    assert learner.members.get("n4").role == "learner"
    group.cut_off("n4")
    term = learner.term
    learner.forget()
    learner.wait(10 * ELECTION_MAX_S)
    learner.step()
    assert (learner.sent, learner.term) == ([], term)


def test_a_learner_is_not_asked_for_its_vote():
    bench = Bench().found()
    bench.hear_entries(change(2, 1, with_role(voters(*NAMES), "n4", "learner")))
    bench.reachable.add("n4")
    bench.forget()
    bench.campaign()
    assert {sent.peer for sent in bench.sent if isinstance(sent.message, AskVote | AskPreVote)} == {"n2", "n3"}


def test_a_learner_stays_one_however_well_it_keeps_up():
    group = Group(*NAMES, others=["n4"])
    leader = group.led_by("n1")
    leader.engine.change_members("add", with_role(leader.members, "n4", "learner"))
    group.run(5)
    assert leader.members.voters == set(NAMES)


def test_one_that_is_joining_becomes_a_voter_when_it_has_caught_up():
    group = Group(*NAMES, others=["n4"], compact_entries=20, keep_entries=5)
    leader = group.led_by("n1")
    for number in range(100):
        leader.engine.propose(b"%d" % number, f"id {number}")
        group.tick()
    leader.engine.change_members("add", with_role(leader.members, "n4", "joining"))
    assert leader.members.voters == set(NAMES)
    group.run(2)
    assert leader.members.voters == set(FOUR)
    assert group["n4"].engine.facts.votes
    group.stop("n2")
    assert isinstance(group.propose(b"three of four"), Applied)


def test_one_that_is_added_before_its_journal_is_known_gets_its_id_when_it_comes():
    group = Group(*NAMES)
    leader = group.led_by("n1")
    leader.engine.change_members("add", leader.members.with_member(Member("n4", "", address("n4"), "joining")))
    group.run(1)
    group.add("n4")
    group.run(2)
    assert leader.members == voters(*FOUR)
    assert group["n4"].engine.facts.votes


def test_one_that_is_joining_and_lags_behind_waits():
    bench = Bench().found()
    bench.hear_entries(change(2, 1, with_role(voters(*NAMES), "n4", "joining")))
    bench.hear_entries(*(entry(index, 1) for index in range(3, 40)), previous=(2, 1), commit=30)
    bench.meet("n4")
    bench.lead()
    for _ in range(3):
        bench.has("n2", bench.journal.last_index)
        bench.has("n4", 20)
        bench.wait(0.1)
    assert bench.members.learners == {"n4"}
    bench.has("n2", bench.journal.last_index)
    bench.has("n4", 39)
    bench.step()
    bench.step()
    assert bench.members.learners == set()


def test_one_that_has_caught_up_and_is_silent_now_waits():
    bench = Bench().found()
    bench.hear_entries(change(2, 1, with_role(voters(*NAMES), "n4", "joining")), commit=2)
    bench.meet("n4")
    bench.lead()
    bench.has("n4", 3)
    bench.wait(ELECTION_MIN_S + TICK_S)
    bench.has("n2", 3)
    bench.step()
    bench.step()
    assert bench.journal.commit_index == 3
    assert bench.members.learners == {"n4"}


# -- lost journals -------------------------------------------------------------------------------------


def wiped(group, name):
    """This replica has lost its disk, and comes back with an empty one."""
    group.stop(name)
    group.run(0.1)
    return group.add(name, medium=Medium(), identity=f"second journal of {name}")


def test_d18_a_wiped_voter_is_a_learner_under_its_new_id_until_it_has_caught_up():
    group = Group(*NAMES)
    leader = group.led_by("n1")
    group.propose(b"word")
    seen = []
    leader.engine._on_event = lambda event: seen.append(leader.members.get("n3"))
    wiped(group, "n3")
    group.run(2)
    stages = list(dict.fromkeys((member.replica_id, member.role) for member in seen))
    assert stages[-2:] == [("second journal of n3", "joining"), ("second journal of n3", "voter")]
    assert group.agree() == (b"word",)
    assert group["n3"].engine.facts.votes


def test_d18_a_wiped_voter_helps_nobody_to_win_who_lacks_what_it_had_acknowledged():
    """n2 and n3 had committed; n3 loses its disk, n2 is away. n1, which lacks it, must not lead."""
    group = Group(*NAMES)
    group.led_by("n2")
    group.cut_off("n1")
    group.propose(b"acknowledged", "n2")
    group.stop("n2")
    wiped(group, "n3")
    group.heal()
    group.run(10)
    assert [replica.name for replica in group.replicas.values() if replica.leads] == []


def test_d18_the_old_journal_that_comes_back_is_not_the_voter_any_more():
    group = Group(*NAMES)
    leader = group.led_by("n1")
    old = group["n3"].medium
    wiped(group, "n3")
    group.run(2)
    assert leader.members.get("n3").replica_id == "second journal of n3"
    group.stop("n3")
    bench = leader
    assert not bench.engine._core.is_voter("n3", Append(bench.group, "id-n3", bench.term, 1, 1, 0, 1, ()))
    group.add("n3", medium=old)
    group.run(2)
    assert leader.members.get("n3") == Member("n3", "id-n3", address("n3"), "voter")
    assert isinstance(group.propose(b"word"), Applied)


def test_d18_a_replaced_learner_stays_a_learner():
    group = Group(*NAMES, others=["n4"])
    leader = group.led_by("n1")
    leader.engine.change_members("add", with_role(leader.members, "n4", "learner"))
    group.run(1)
    wiped(group, "n4")
    group.run(2)
    assert leader.members.get("n4") == Member("n4", "second journal of n4", address("n4"), "learner")
    group.propose(b"word")
    assert group.agree() == (b"word",)


def test_d18_a_wiped_voter_is_sent_nothing_before_the_members_name_its_journal():
    """The leader has not committed an entry of its term yet, so it may not change them."""
    bench = Bench().found().lead()
    bench.lose("n3")
    bench.meet("n3", identity="another journal")
    bench.forget()
    bench.wait(0.2)
    assert {sent.peer for sent in bench.sent} == {"n2"}
    bench.has("n2", 2)
    bench.step()
    bench.wait(0.2)
    bench.has("n2", 3)
    bench.step()
    bench.wait(0.2)
    assert bench.members.get("n3") == Member("n3", "another journal", address("n3"), "joining")
    assert bench.said(Append, "n3") != []


def test_d18_nothing_is_known_of_what_a_wiped_voter_has(leader):
    leader.lose("n3")
    leader.meet("n3", identity="another journal")
    leader.step()
    assert leader.members.get("n3").role == "joining"
    assert leader.engine.facts.match_index == {"n2": 3, "n3": 0}
