"""The first start: empty journals among nothing but empty journals found a group; any other waits to be added."""

import pytest

from raft.members import Introduction
from raft.messages import Append, AskPreVote
from tests.unit.raft.bench import (
    ELECTION_MAX_S,
    NAMES,
    TICK_S,
    Bench,
    Group,
    address,
    crashed,
    founding_of,
    replica_id,
    voters,
)


def test_a_group_is_founded_when_everybody_is_there_and_new():
    bench = Bench()
    bench.meet("n2")
    assert bench.journal.cluster_id == ""
    bench.meet("n3")
    cluster_id, members = founding_of(*NAMES)
    assert (bench.journal.cluster_id, bench.journal.founding) == (cluster_id, members)
    assert members == voters(*NAMES)


def test_every_founder_founds_the_same_group_in_whatever_order_it_meets_the_others():
    benches = [Bench("n1"), Bench("n2"), Bench("n3")]
    for bench, order in zip(benches, (("n2", "n3"), ("n3", "n1"), ("n1", "n2")), strict=True):
        for peer in order:
            bench.meet(peer)
    assert len({bench.journal.cluster_id for bench in benches}) == 1
    assert len({bench.journal.founding for bench in benches}) == 1


def test_who_has_founded_already_does_not_keep_the_others_from_it():
    bench = Bench()
    cluster_id, _ = founding_of(*NAMES)
    bench.meet("n2", cluster_id=cluster_id)
    bench.meet("n3")
    assert bench.journal.cluster_id == cluster_id


def test_d18_a_new_journal_among_others_that_belong_to_a_group_founds_nothing_and_does_not_campaign():
    bench = Bench()
    bench.meet("n2", cluster_id="cafe")
    bench.meet("n3", cluster_id="cafe")
    bench.wait(ELECTION_MAX_S + TICK_S)
    assert bench.journal.cluster_id == ""
    assert bench.sent == []


def test_d18_a_wiped_founder_does_not_found_the_same_group_again():
    """Its replica id is another, so the group it would found is another than the one it hears of."""
    bench = Bench(identity="id of another journal")
    cluster_id, _ = founding_of(*NAMES)
    bench.meet("n2", cluster_id=cluster_id)
    bench.meet("n3", cluster_id=cluster_id)
    assert bench.journal.cluster_id == ""


def test_d18_a_majority_that_was_wiped_does_not_found_a_second_group_beside_the_survivor():
    bench = Bench(identity="id of another journal")
    cluster_id, _ = founding_of(*NAMES)
    bench.meet("n2", identity="a third journal")
    bench.meet("n3", cluster_id=cluster_id)
    assert bench.journal.cluster_id == ""


def test_nobody_founds_anything_before_everybody_is_there():
    bench = Bench()
    bench.meet("n2")
    bench.wait(ELECTION_MAX_S + TICK_S)
    assert (bench.journal.cluster_id, bench.sent) == ("", [])


def test_who_has_a_log_founds_nothing():
    bench = Bench()
    bench.reachable.add("n2")
    bench.journal.set_term(1, None)
    bench.journal.add(b"\1", 2, 1)
    bench.found()
    assert bench.journal.cluster_id == ""


def test_who_is_not_among_the_founders_founds_nothing():
    bench = Bench("n4", names=NAMES).found()
    assert bench.journal.cluster_id == ""


def test_a_single_member_founds_its_group_alone():
    bench = Bench(names=("n1",))
    assert bench.journal.founding == voters("n1")
    assert bench.lead().leads


def test_the_group_is_on_disk_before_the_first_word():
    bench = Bench().found()
    bench.wait(ELECTION_MAX_S + TICK_S)
    disk = bench.on_disk(bench.sent[0])
    assert isinstance(bench.sent[0].message, AskPreVote)
    assert (disk.cluster_id, disk.founding) == founding_of(*NAMES)


def test_a_crash_in_the_middle_of_founding_leads_to_the_same_group():
    for bench in crashed(Bench, lambda bench: bench.found().lead()):
        assert bench.journal.cluster_id in {"", founding_of(*NAMES)[0]}
        bench.found()
        assert bench.journal.cluster_id == founding_of(*NAMES)[0]


def test_founders_introduce_themselves_with_the_group():
    bench = Bench()
    assert bench.engine.introduction() == Introduction("id-n1", "", 0, "n1:7000")
    bench.found()
    assert bench.engine.introduction() == Introduction("id-n1", founding_of(*NAMES)[0], 0, "n1:7000")


def test_the_first_leader_writes_the_founders_into_the_log():
    group = Group(*NAMES)
    group.leader()
    group.run(0.5)
    assert {replica.engine._core.members.index for replica in group.replicas.values()} == {3}
    assert {replica.members for replica in group.replicas.values()} == {voters(*NAMES)}


@pytest.mark.parametrize("late", NAMES)
def test_founders_wait_for_the_last_of_them(late):
    group = Group(*NAMES, late=[late])
    group.run(3)
    assert [replica.journal.cluster_id for replica in group.replicas.values()] == ["", ""]
    group.add(late)
    group.leader()
    assert {replica.journal.cluster_id for replica in group.replicas.values()} == {founding_of(*NAMES)[0]}


def test_a_founder_that_heard_too_little_belongs_to_the_group_by_its_first_leader():
    """The others have met everybody; it hears of the group only by the leader's first entries."""
    bench = Bench()
    bench.reachable.add("n2")
    cluster_id, members = founding_of(*NAMES)
    other = Bench("n2").found().lead()
    assert other.members == members
    bench.engine.deliver("n2", other.said(Append, "n1")[-1])
    assert bench.journal.cluster_id == cluster_id
    assert not bench.engine.facts.votes  # not before it has read who the members are


def test_addresses_are_those_that_were_configured():
    _, members = founding_of(*NAMES)
    assert {member.address for member in members.all} == {address(name) for name in NAMES}
    assert {member.replica_id for member in members.all} == {replica_id(name) for name in NAMES}
