"""The journal's file: what was synced comes back, what is damaged is refused, whose it is is known."""

import errno
import itertools
import os
from pathlib import Path

import pytest

from raft.api import JournalDamaged, ReplicaError, ReplicaFailed
from raft.disk import OsDisk
from raft.entries import members_in
from raft.journal import FILE_NAME, Identity, Journal
from raft.journal_format import begin_file, frame, read_header
from raft.log import Kind
from tests.simulation.raft.virtual_disk import Medium, VirtualDisk
from tests.unit.raft.journals import (
    BATCHES,
    MEMBERS,
    REST,
    STORY,
    add,
    bytes_on,
    content,
    entries,
    holding,
    opened,
    reopened,
    snapshot,
)

FIXTURES = Path(__file__).parent / "fixtures"


@pytest.fixture
def medium():
    return Medium()


@pytest.fixture
def disk(medium):
    return VirtualDisk(medium)


def recorded(steps):
    """A file with these steps in it, and (size, content) after each."""
    medium = Medium()
    journal = opened(VirtualDisk(medium))
    marks = [(journal.size_bytes, content(journal))]
    for step in steps:
        step(journal)
        marks.append((journal.size_bytes, content(journal)))
    return bytes_on(medium), marks


def after_a_rewrite():
    """A file that begins with a snapshot and entries, and (size, content) from there on."""
    medium = Medium()
    journal = opened(VirtualDisk(medium))
    marks = []
    for step in STORY[:6]:
        before = journal.size_bytes
        step(journal)
        if step.__name__ == "_compact":
            marks.clear()
        if journal.size_bytes != before:
            marks.append((journal.size_bytes, content(journal)))
    return bytes_on(medium), marks


FILES = {"batches": lambda: recorded(BATCHES), "snapshot": after_a_rewrite}


@pytest.fixture(params=FILES, ids=str)
def file(request):
    return FILES[request.param]()


# -- a new one ---------------------------------------------------------------------------------------


def test_a_new_journal_is_empty_and_has_its_identity(medium, disk):
    journal = opened(disk)
    assert journal.identity == Identity("c", "n1", "id-n1")
    assert (journal.last_index, journal.cluster_id) == (1, "")
    assert journal.size_bytes == len(bytes_on(medium))
    assert journal.path == disk.path / "journal"
    journal.close()


def test_the_replica_id_is_drawn_once(tmp_path):
    ids = iter(["first", "second"])
    for _ in range(3):
        disk = OsDisk(tmp_path)
        journal = Journal(disk, "c", "n1", draw_id=lambda: next(ids))
        assert journal.identity.replica_id == "first"
        journal.close()
        disk.close()


def test_every_change_comes_back(medium):
    for step in STORY:
        disk = VirtualDisk(medium)
        journal = opened(disk)
        step(journal)
        expected = content(journal)
        journal.close()
        disk.close()
        assert reopened(medium) == expected


def test_it_goes_on_the_same_on_a_real_disk(tmp_path):
    """And what is written is the same, byte for byte."""
    disk = OsDisk(tmp_path)
    journal = opened(disk)
    for step in STORY:
        step(journal)
    expected = content(journal)
    assert (tmp_path / FILE_NAME).read_bytes() == recorded(STORY)[0]
    journal.close()
    disk.close()
    disk = OsDisk(tmp_path)
    again = opened(disk)
    assert content(again) == expected
    again.close()
    disk.close()


def test_a_life_leaves_no_file_open(tmp_path):
    before = os.listdir("/proc/self/fd")
    disk = OsDisk(tmp_path)
    journal = opened(disk)
    for step in STORY:
        step(journal)
    journal.close()
    with pytest.raises(ReplicaError):
        opened(disk, "n2")
    disk.close()
    assert os.listdir("/proc/self/fd") == before


class Withheld(OsDisk):
    """A directory whose files belong to somebody else; root, as whom tests may run, would not notice."""

    def open(self, name):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), name)


def test_files_of_somebody_else_are_told_with_whose_they_must_be(tmp_path):
    (tmp_path / FILE_NAME).touch()
    disk = Withheld(tmp_path)
    with pytest.raises(ReplicaError, match=r"Permission denied: .* must belong to the replica's user"):
        opened(disk)
    disk.close()


def test_a_file_that_cannot_be_read_is_a_clear_error(tmp_path):
    (tmp_path / FILE_NAME).mkdir()
    disk = OsDisk(tmp_path)
    with pytest.raises(ReplicaError, match=r"cannot open journal .*/journal: .*Is a directory"):
        opened(disk)
    disk.close()


def test_what_was_not_synced_is_not_there(medium, disk):
    journal = opened(disk)
    journal.set_term(1, "n1")
    journal.sync()
    expected = content(journal)
    add(journal, 1)
    journal.close()
    disk.close()
    assert reopened(medium) == expected


def test_a_sync_of_nothing_writes_nothing(disk):
    journal = opened(disk)
    calls = disk.calls
    journal.sync()
    assert disk.calls == calls
    assert journal.sync_times.count == 0


def test_nothing_counts_as_committed_before_it_is_on_disk(medium, disk):
    journal = opened(disk)
    journal.set_term(1, None)
    add(journal, 1)
    before = content(journal)
    journal.set_commit(2)
    medium.lose_power()
    assert reopened(medium) == before


def test_the_same_commit_index_again_writes_nothing(disk):
    journal = opened(disk)
    journal.set_term(1, None)
    calls = disk.calls
    journal.set_commit(1)
    assert disk.calls == calls


def test_a_commit_index_alone_is_not_written_and_the_newest_rides_along(medium, disk):
    journal = opened(disk)
    journal.set_term(1, None)
    add(journal, 1, 1, 1, 1)
    journal.sync()
    size, calls = journal.size_bytes, disk.calls
    for index in (2, 3, 4):
        journal.set_commit(index)
        journal.sync()
    assert (disk.calls, journal.sync_times.count) == (calls, 1)
    for _ in range(2):
        add(journal, 1)
        journal.sync()
    seed = read_header(bytes_on(medium)).seed
    first = frame([[Kind.COMMIT, 4], [Kind.ENTRY, b"\0command 6", 6, 1]], size, seed)
    second = frame([[Kind.ENTRY, b"\0command 7", 7, 1]], size + len(first), seed)
    assert bytes_on(medium)[size:] == first + second
    expected = content(journal)
    medium.kill()
    assert reopened(medium) == expected


@pytest.mark.parametrize(("end", "commit_index"), [("kill", 2), ("close", 3)])
def test_a_commit_index_that_nothing_took_along_is_lost_by_a_crash_only(end, commit_index, medium, disk):
    journal = opened(disk)
    journal.set_term(1, None)
    add(journal, 1, 1)
    journal.set_commit(2)
    journal.set_term(2, None)
    journal.sync()
    expected = {**content(journal), "commit_index": commit_index}
    journal.set_commit(3)
    journal.sync()
    add(journal, 2)  # nobody syncs this one
    if end == "close":
        journal.close()
    medium.lose_power()
    assert reopened(medium) == expected


def test_a_close_on_a_full_disk_is_one_all_the_same(medium, disk):
    journal = opened(disk)
    journal.set_term(1, None)
    add(journal, 1)
    journal.sync()
    expected = content(journal)
    journal.set_commit(2)
    medium.capacity_bytes = medium.size_bytes() + 5
    journal.close()
    medium.capacity_bytes = None
    medium.kill()
    assert reopened(medium) == expected


def test_a_rewrite_takes_the_commit_index_along(medium, disk):
    journal = opened(disk)
    journal.set_term(1, None)
    add(journal, 1, 1, 1)
    journal.set_commit(4)
    journal.compact(snapshot(3, 1), 3)
    size, expected = journal.size_bytes, content(journal)
    journal.sync()
    assert journal.size_bytes == size
    medium.kill()
    assert reopened(medium) == expected


def test_one_sync_is_one_write_and_one_sync_of_the_disk(disk):
    journal = opened(disk)
    calls = []
    disk.on_call = calls.append
    journal.set_term(1, "n1")
    add(journal, 1, 1, 1)
    journal.adopt("cafe", 0)
    journal.sync()
    assert [call.split()[:2] for call in calls] == [["write", "journal.new"], ["sync", "journal.new"]]


def test_it_is_told_how_long_the_disk_took(disk):
    times = iter([10.0, 10.25, 20.0, 20.5, 30.0, 30.125])
    journal = Journal(disk, "c", "n1", clock=lambda: next(times), draw_id=lambda: "id")
    for term in (1, 2, 3):
        journal.set_term(term, None)
        journal.sync()
    assert (journal.sync_times.count, journal.sync_times.last_s, journal.sync_times.longest_s) == (3, 0.125, 0.5)


def test_a_contradiction_reaches_neither_log_nor_disk(medium, disk):
    journal = opened(disk)
    journal.set_term(3, "n2")
    journal.sync()
    before, size = content(journal), journal.size_bytes
    for wrong in (
        lambda: journal.add(b"\0", 3, 3),
        lambda: journal.truncate(1),
        lambda: journal.set_term(2, None),
        lambda: journal.set_term(3, "n1"),
        lambda: journal.set_commit(2),
        lambda: journal.compact(snapshot(2, 3), 2),
        lambda: journal.install(snapshot(9, 4)),
    ):
        with pytest.raises(ReplicaFailed):
            wrong()
    journal.sync()
    assert (content(journal), journal.size_bytes) == (before, size)


def test_a_journal_belongs_to_one_group(disk):
    journal = opened(disk)
    journal.adopt("cafe", 2)
    assert (journal.cluster_id, journal.incarnation, journal.founding) == ("cafe", 2, None)
    for again in (lambda: journal.adopt("cafe", 3), lambda: journal.found("beef", MEMBERS)):
        with pytest.raises(ReplicaFailed, match="belongs to cluster id cafe"):
            again()


def test_a_group_begins_anew_with_all_that_one_log_holds(medium, disk):
    journal = opened(disk)
    journal.found("cafe", MEMBERS)
    journal.set_term(7, "n2")
    add(journal, 5, 7)
    journal.set_commit(2)
    journal.sync()
    before = content(journal)
    journal.begin_anew(3, REST)
    journal.sync()
    expected = content(journal)
    medium.lose_power()
    assert reopened(medium) == expected
    *others, (members, index, term) = expected["entries"]
    assert (members_in(members), index, term) == (REST, 4, 8)
    assert {**expected, "entries": others} == {**before, "incarnation": 3, "term": 8, "vote": None}


def test_nothing_grows_without_end_when_it_is_compacted():
    medium = Medium()
    journal = opened(VirtualDisk(medium))
    journal.set_term(1, "n1")
    largest = 0
    for index in range(2, 5002):
        journal.add(b"x" * 100, index, 1)
        if index % 100 == 0:
            journal.sync()
            journal.set_commit(index)
            journal.compact(snapshot(index, 1), index - 50)
            largest = max(largest, medium.size_bytes())
    assert len(entries(journal)) <= 151
    assert largest < 64 * 1024 + 40_000  # the reserve and one file


# -- torn and damaged --------------------------------------------------------------------------------


def test_every_prefix_recovers_exactly_the_synced_batches(file):
    data, marks = file
    for length in range(len(data) + 1):
        medium = holding(data[:length])
        if length < marks[0][0]:
            with pytest.raises(JournalDamaged):
                reopened(medium)
        else:
            disk = VirtualDisk(medium)
            journal = opened(disk)
            size, expected = [mark for mark in marks if mark[0] <= length][-1]
            assert content(journal) == expected
            assert journal.cut_bytes == length - size
            disk.close()
            assert reopened(medium) == expected


def test_every_flipped_bit_is_refused_but_in_the_last_batch_where_it_is_cut(file):
    data, marks = file
    assert marks[-1][0] == len(data)
    last_begins = marks[-2][0]
    for place, bit in itertools.product(range(len(data)), range(8)):
        harmed = bytearray(data)
        harmed[place] ^= 1 << bit
        if place < last_begins:
            with pytest.raises(JournalDamaged, match="damaged at byte"):
                reopened(holding(harmed))
        else:
            assert reopened(holding(harmed)) == marks[-2][1]


def test_a_flipped_bit_in_what_the_file_was_begun_with_is_never_cut():
    """It had its name only after it was synced, so no power cut can have torn it."""
    data, marks = recorded([])
    for place, bit in itertools.product(range(len(data)), range(8)):
        harmed = bytearray(data)
        harmed[place] ^= 1 << bit
        with pytest.raises(JournalDamaged):
            reopened(holding(harmed))
    assert reopened(holding(data)) == marks[0][1]


@pytest.mark.parametrize("tail", [b"\0" * 4096, b"\xf1bat", b"\xff" * 100], ids=["zeros", "magic", "ones"])
def test_a_torn_tail_of_other_bytes_is_cut_and_written_over(tail):
    data, marks = recorded(BATCHES)
    medium = holding(data + tail)
    disk = VirtualDisk(medium)
    journal = opened(disk)
    assert (content(journal), journal.cut_bytes) == (marks[-1][1], len(tail))
    add(journal, 2)
    journal.sync()
    expected = content(journal)
    disk.close()
    assert reopened(medium) == expected


def test_an_old_block_of_an_earlier_file_is_not_taken_for_a_batch():
    """Some file systems may show, after a loss of power, what a block held when it was another file's."""
    identity = Identity("c", "n1", "id")
    (_, old_seed), (header, seed) = begin_file(identity, 7), begin_file(identity, 8)
    begun = header + frame([[Kind.BASE, 1, 0]], len(header), seed)
    own, old = (frame([[Kind.TERM, 9, "n2"]], len(begun), each) for each in (seed, old_seed))
    assert reopened(holding(begun + own))["term"] == 9
    assert reopened(holding(begun + old))["term"] == 0


def test_every_file_has_a_seed_of_its_own(medium):
    seeds = set()
    for _ in range(5):
        reopened(medium)
        seeds.add(read_header(bytes_on(medium)).seed)
    assert len(seeds) == 5


def test_a_batch_in_another_place_is_not_taken_for_one_again():
    data, marks = recorded(BATCHES)
    last = data[marks[-2][0] :]
    medium = holding(data + last)
    assert reopened(medium) == marks[-1][1]


@pytest.mark.parametrize("data", [b"", b"x", b"\xf1RAFT\r\n\x1a", b"\0" * 4096])
def test_a_file_that_is_no_journal_is_refused(data):
    with pytest.raises(JournalDamaged, match="damaged at byte 0: it does not begin like a journal"):
        reopened(holding(data))


def test_damage_names_file_place_and_remedy():
    data, marks = recorded(BATCHES)
    harmed = bytearray(data)
    harmed[marks[1][0] + 5] ^= 4
    medium = holding(harmed)
    with pytest.raises(JournalDamaged) as error:
        reopened(medium)
    assert str(error.value) == (
        f"journal /virtual/journal is damaged at byte {marks[1][0]}: a whole batch follows at byte {marks[2][0]};"
        " entries that were acknowledged may be lost. While a majority of the others is up, remove the directory"
        " /virtual and start this replica again: it joins anew, without a vote until it has caught up"
    )
    assert bytes_on(medium) == harmed, "and the evidence is left as it is"


def test_a_whole_batch_that_cannot_be_is_damage():
    header, seed = begin_file(Identity("c", "n1", "id"), 1)
    for records, why in [
        ([[Kind.BASE, 1, 0], [Kind.ENTRY, b"", 7, 0]], "entry 7 does not follow entry 1"),
        ([[99]], r"\[99\] is no record"),
        ([[Kind.SNAPSHOT, b"junk"]], "checksum"),
        ([[Kind.FOUNDED, "", [["n1"]]]], "no member"),
        (7, "int"),
    ]:
        with pytest.raises(JournalDamaged, match=rf"at byte {len(header)}: a record that cannot be: .*{why}"):
            reopened(holding(header + frame(records, len(header), seed)))


# -- whose, and which format -------------------------------------------------------------------------


def test_a_journal_of_another_cluster_or_replica_is_refused(tmp_path):
    disk = OsDisk(tmp_path)
    opened(disk).close()
    before = (tmp_path / FILE_NAME).read_bytes()
    with pytest.raises(ReplicaError, match=r"belongs to replica 'n1' of cluster 'c', this is 'n2' of 'c'"):
        opened(disk, "n2")
    with pytest.raises(ReplicaError, match="this is 'n1' of 'other': correct the name, or give this replica"):
        Journal(disk, "other", "n1", draw_id=lambda: "id")
    assert (tmp_path / FILE_NAME).read_bytes() == before
    opened(disk).close()
    disk.close()


def test_whose_it_is_comes_before_what_is_wrong_with_it():
    """The remedy for damage would remove a member that is well."""
    data, _ = recorded(BATCHES)
    disk = VirtualDisk(holding(data[:60] + b"\0" + data[61:]))
    with pytest.raises(ReplicaError, match="belongs to replica 'n1'"):
        opened(disk, "n2")


def of_format_1():
    """From before the first release, with a header in the same envelope."""
    return (FIXTURES / "journal_format_1").read_bytes()


def of_format_3(monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr("raft.journal_format.FORMAT", 3)
        header, _ = begin_file(Identity("c", "n1", "id"), 1)
    return header + b"whatever comes then"


@pytest.mark.parametrize("version", [1, 3])
def test_an_unknown_format_is_refused_and_left_alone(version, monkeypatch):
    data = of_format_1() if version == 1 else of_format_3(monkeypatch)
    medium = holding(data)
    why = f"has format {version}, which this version does not read: start the version that wrote it"
    with pytest.raises(ReplicaError, match=why) as error:
        reopened(medium)
    assert not isinstance(error.value, JournalDamaged)
    assert (set(medium.names), bytes_on(medium)) == ({"journal"}, data)


def test_format_2_is_what_it_was():
    """Whoever changes what is written here needs another format number, and a reader for this one."""
    data, marks = recorded(STORY)
    recording = (FIXTURES / "journal_format_2").read_bytes()
    assert reopened(holding(recording)) == marks[-1][1]
    assert data == recording
