"""The log in memory: its invariants, and that its shortest history tells all of it."""

import pytest

from raft.api import ReplicaFailed
from raft.entries import members_in
from raft.log import Kind, Log
from tests.simulation.raft.virtual_disk import Medium, VirtualDisk
from tests.unit.raft.journals import MEMBERS, REST, STORY, content, entries, opened, snapshot


def log_with(*terms, term=5, commit=None):
    log = Log()
    log.redo([Kind.TERM, term, None])
    for index, entry_term in enumerate(terms, start=2):
        log.redo([Kind.ENTRY, b"\0%d" % index, index, entry_term])
    if commit is not None:
        log.redo([Kind.COMMIT, commit])
    return log


def test_a_new_log_begins_with_an_entry_that_it_does_not_keep():
    log = Log()
    assert (log.base_index, log.base_term, log.first_index) == (1, 0, 2)
    assert (log.last_index, log.last_term, log.commit_index) == (1, 0, 1)
    assert (log.term, log.vote) == (0, None)
    assert (log.cluster_id, log.incarnation, log.snapshot, log.founding) == ("", 0, None, None)


def test_the_term_of_an_entry_is_known_from_the_base_to_the_last():
    log = log_with(1, 1, 4, commit=4)
    log.compact(snapshot(3, 1), 3)
    assert [log.term_at(index) for index in range(6)] == [None, None, 1, 1, 4, None]


def test_an_entry_that_is_not_kept_is_not_another_one():
    log = log_with(1, 1, 4, commit=4)
    log.compact(snapshot(3, 1), 3)
    assert log.entry(3) == (b"\x003", 3, 1)
    for index in (-1, 0, 2, 5):
        with pytest.raises(ReplicaFailed, match=rf"entry {index} is not among those kept, 3\.\.4"):
            log.entry(index)
    with pytest.raises(ReplicaFailed, match="entry 2 is not kept any more, the first is 3"):
        log.entries(2, 100)


def test_entries_stop_at_the_limit_but_there_is_always_one():
    log = log_with(1, 1, 1)
    assert [index for _, index, _ in log.entries(2, 4)] == [2, 3]
    assert [index for _, index, _ in log.entries(2, 3)] == [2, 3]
    assert [index for _, index, _ in log.entries(3, 0)] == [3]
    assert [index for _, index, _ in log.entries(2, 100)] == [2, 3, 4]
    assert log.entries(5, 100) == []


@pytest.mark.parametrize(
    ("record", "why"),
    [
        ([Kind.ENTRY, b"", 4, 2], "entry 4 does not follow entry 4"),
        ([Kind.ENTRY, b"", 6, 2], "entry 6 does not follow entry 4"),
        ([Kind.ENTRY, b"", 5, 1], r"entry 5 has term 1, which is not in 2\.\.5"),
        ([Kind.ENTRY, b"", 5, 6], r"entry 5 has term 6, which is not in 2\.\.5"),
        ([Kind.TRUNCATE, 3], r"entry 3 is committed \(up to 3\)"),
        ([Kind.TERM, 4, None], "term would fall from 5 to 4"),
        ([Kind.TERM, 5, "n2"], "the vote of term 5 was given to n1 and would become n2"),
        ([Kind.TERM, 5, None], "the vote of term 5 was given to n1 and would become None"),
        ([Kind.COMMIT, 3], r"commit index 3 is not in 4\.\.4"),
        ([Kind.COMMIT, 5], r"commit index 5 is not in 4\.\.4"),
        ([Kind.BASE, 9, 1], "a log that has entries up to 4 begins again"),
        ([Kind.SNAPSHOT, snapshot(4, 2).pack()], r"snapshot of entry 4 is not in 1\.\.3"),
        ([Kind.SNAPSHOT, snapshot(3, 2).pack()], "snapshot has term 2 at entry 3, here it is 1"),
        ([Kind.FOUNDED, "b", MEMBERS.pack()], "this log belongs to cluster id a, not to b"),
        ([Kind.ADOPTED, "b", 1], "this log belongs to cluster id a, not to b"),
        ([Kind.RECOVERED, 2, MEMBERS.pack()], "incarnation would go from 2 to 2"),
    ],
)
def test_what_contradicts_the_log_stops_the_replica(record, why):
    log = log_with(1, 1, 2, commit=3)
    log.redo([Kind.TERM, 5, "n1"])
    log.redo([Kind.ADOPTED, "a", 2])
    before = content(log)
    with pytest.raises(ReplicaFailed, match=why):
        log.redo(record)
    assert content(log) == before


@pytest.mark.parametrize("record", [None, 7, [], [99], ["x"], [Kind.ENTRY], [Kind.ENTRY, "text", 2, 1], [Kind.TERM, 1]])
def test_what_is_no_record_is_an_error(record):
    with pytest.raises(ValueError, match="is no record"):
        Log().redo(record)


def test_the_same_vote_may_be_said_again_and_a_later_one_is_free():
    log = Log()
    for term, vote in [(1, None), (1, "n2"), (1, "n2"), (2, "n3"), (4, None)]:
        log.redo([Kind.TERM, term, vote])
    assert (log.term, log.vote) == (4, None)


def test_a_compaction_keeps_what_is_asked_for_and_still_there():
    log = log_with(1, 1, 2, 2, commit=5)
    log.compact(snapshot(4, 2), 3)
    assert (log.base_index, log.base_term, log.last_index) == (2, 1, 5)
    log.compact(snapshot(5, 2), 1)  # long gone
    assert (log.base_index, log.base_term) == (2, 1)
    assert log.snapshot.index == 5
    log.compact(snapshot(5, 2), 6)
    assert (log.base_index, log.base_term, entries(log)) == (5, 2, [])
    assert log.commit_index == 5


@pytest.mark.parametrize(
    ("taken", "keep_from", "why"),
    [
        (snapshot(3, 1), 5, "entry 4 would be lost"),
        (snapshot(5, 2), 2, r"snapshot of entry 5 is not in 2\.\.4"),
        (snapshot(4, 1), 2, "snapshot has term 1 at entry 4, here it is 2"),
        (snapshot(1, 0), 2, r"snapshot of entry 1 is not in 2\.\.4"),
    ],
)
def test_a_compaction_never_loses_an_entry_nor_goes_back(taken, keep_from, why):
    log = log_with(1, 1, 2, 2, commit=4)
    log.compact(snapshot(2, 1), 2)
    before = content(log)
    with pytest.raises(ReplicaFailed, match=why):
        log.compact(taken, keep_from)
    assert content(log) == before


def test_a_snapshot_of_the_leader_keeps_the_tail_that_follows_from_it():
    log = log_with(1, 1, 2, 2, commit=2)
    log.install(snapshot(4, 2))
    assert (log.base_index, log.base_term, log.commit_index) == (4, 2, 4)
    assert entries(log) == [(b"\x005", 5, 2)]


@pytest.mark.parametrize("taken", [snapshot(4, 3), snapshot(6, 2), snapshot(5, 3)])
def test_a_snapshot_of_the_leader_drops_a_tail_of_another_log(taken):
    log = log_with(1, 1, 2, 2, commit=3)
    log.install(taken)
    assert (log.base_index, log.base_term, log.commit_index) == (taken.index, taken.term, taken.index)
    assert entries(log) == []
    assert log.last_term == taken.term


@pytest.mark.parametrize(
    ("taken", "why"),
    [
        (snapshot(2, 1), "a snapshot of entry 2 is behind what is committed, 3"),
        (snapshot(3, 2), "the snapshot has term 2 at committed entry 3"),
        (snapshot(9, 6), "a snapshot of term 6 in term 5"),
    ],
)
def test_a_snapshot_of_the_leader_never_goes_back(taken, why):
    log = log_with(1, 1, 2, 2, commit=3)
    before = content(log)
    with pytest.raises(ReplicaFailed, match=why):
        log.install(taken)
    assert content(log) == before


def test_a_log_of_no_group_cannot_begin_anew():
    log = log_with(1)
    with pytest.raises(ReplicaFailed, match="belongs to no cluster"):
        log.redo([Kind.RECOVERED, 1, MEMBERS.pack()])


def test_a_new_beginning_is_an_entry_of_its_own_term_with_the_members():
    log = log_with(1, 2, commit=2)
    log.redo([Kind.TERM, 6, "n2"])
    log.redo([Kind.FOUNDED, "a", MEMBERS.pack()])
    log.redo([Kind.RECOVERED, 1, REST.pack()])
    assert (log.cluster_id, log.incarnation, log.term, log.vote, log.commit_index) == ("a", 1, 7, None, 2)
    assert (log.last_index, log.last_term) == (4, 7)
    assert members_in(log.entry(4)[0]) == REST
    assert log.founding == MEMBERS, "who they were before stays known"


def test_members_that_cannot_be_read_begin_nothing():
    log = log_with(1)
    log.redo([Kind.ADOPTED, "a", 0])
    before = content(log)
    with pytest.raises(ValueError, match="is no member"):
        log.redo([Kind.RECOVERED, 1, [["n1"]]])
    assert content(log) == before


def test_the_members_a_log_began_with_count_until_a_snapshot_says_who_they_are():
    log = log_with(1, commit=2)
    log.redo([Kind.FOUNDED, "a", MEMBERS.pack()])
    assert log.founding == MEMBERS
    log.compact(snapshot(2, 1), 2)
    assert log.founding is None


def test_the_shortest_history_tells_all_of_it_at_every_moment():
    journal = opened(VirtualDisk(Medium()))
    for step in STORY:
        step(journal)
        again = Log()
        for record in journal.history():
            again.redo(record)
        assert {**content(again), "identity": journal.identity} == content(journal)
