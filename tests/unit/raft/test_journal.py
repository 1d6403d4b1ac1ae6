"""The journal on real files: what was synced comes back, what is damaged is refused, errors stop it."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from raft.api import JournalDamaged, ReplicaError, ReplicaFailed
from raft.journal import FILE_NAME, Journal

REPOSITORY = Path(__file__).parents[3]
MEMBERS = ("n1", "n2", "n3")


def opened(directory):
    return Journal(directory, "c", "n1", MEMBERS)


def content(journal):
    return (list(journal[:]), journal.term, journal.vote, journal.commit_index, journal.may_vote)


def written(directory):
    """A journal with every kind of record; answers the file size after each sync, and the content there."""
    journal = opened(directory)
    marks = [(journal.size_bytes, content(journal))]

    def sync():
        journal.sync()
        marks.append((journal.size_bytes, content(journal)))

    journal.add(b"\1", 1, 0)
    sync()
    journal.set_term(1, "n1")
    journal.allow_vote()
    sync()
    for index in (2, 3, 4):
        journal.add(b"\0command %d" % index, index, 1)
    sync()
    journal.set_commit(3)
    journal.truncate(4)
    journal.set_term(2, None)
    journal.add(b"\0other", 4, 2)
    sync()
    journal.set_commit(4)
    sync()
    journal.close()
    return marks


def with_file(directory, data):
    directory.mkdir()
    (directory / FILE_NAME).write_bytes(data)
    return directory


def test_every_prefix_recovers_exactly_the_synced_batches(tmp_path):
    marks = written(tmp_path / "whole")
    data = (tmp_path / "whole" / FILE_NAME).read_bytes()
    for length in range(marks[0][0], len(data) + 1):
        journal = opened(with_file(tmp_path / f"cut{length}", data[:length]))
        assert content(journal) == [then for size, then in marks if size <= length][-1]
        assert journal.path.stat().st_size == journal.size_bytes
        journal.close()


def test_a_torn_tail_of_other_bytes_is_cut_and_written_over(tmp_path):
    marks = written(tmp_path / "whole")
    data = (tmp_path / "whole" / FILE_NAME).read_bytes()
    journal = opened(with_file(tmp_path / "torn", data + b"\0" * 4096 + data[-30:]))
    assert content(journal) == marks[-1][1]
    journal.add(b"\0next", 5, 2)
    journal.sync()
    expected = content(journal)
    journal.close()
    again = opened(tmp_path / "torn")
    assert content(again) == expected
    again.close()


def test_a_flipped_bit_is_refused_in_the_middle_and_cut_in_the_last_batch(tmp_path):
    marks = written(tmp_path / "whole")
    data = (tmp_path / "whole" / FILE_NAME).read_bytes()
    last_begins = marks[-2][0]
    for place in range(len(data)):
        harmed = bytearray(data)
        harmed[place] ^= 1 << (place % 8)
        directory = with_file(tmp_path / f"flip{place}", bytes(harmed))
        if place < last_begins:
            with pytest.raises(JournalDamaged, match="damaged at byte"):
                opened(directory)
        else:
            journal = opened(directory)
            assert content(journal) == marks[-2][1]
            journal.close()


def test_damage_names_file_place_and_remedy(tmp_path):
    marks = written(tmp_path / "a")
    path = tmp_path / "a" / FILE_NAME
    data = bytearray(path.read_bytes())
    data[marks[1][0] + 5] ^= 4
    path.write_bytes(data)
    with pytest.raises(JournalDamaged) as error:
        opened(tmp_path / "a")
    assert str(path) in str(error.value)
    assert f"byte {marks[1][0]}" in str(error.value)
    assert "join" in str(error.value)


@pytest.mark.parametrize("data", [b"", b"x", b"\xf1RAFT\r\n\x1a"])
def test_a_file_that_is_no_journal_is_refused(tmp_path, data):
    with pytest.raises(JournalDamaged):
        opened(with_file(tmp_path / "a", data))


def test_a_journal_of_another_cluster_or_replica_is_refused(tmp_path):
    opened(tmp_path).close()
    with pytest.raises(ReplicaError, match=r"belongs to replica 'n1' of cluster 'c', this is 'n2' of 'c'"):
        Journal(tmp_path, "c", "n2", MEMBERS)
    with pytest.raises(ReplicaError, match="this is 'n1' of 'other'"):
        Journal(tmp_path, "other", "n1", MEMBERS)
    opened(tmp_path).close()  # and nothing is held by the refused ones


def test_other_members_are_refused_in_any_order_the_same_are_not(tmp_path):
    opened(tmp_path).close()
    Journal(tmp_path, "c", "n1", reversed(MEMBERS)).close()
    with pytest.raises(ReplicaError, match="begun with the members n1, n2, n3, now they are n1, n2"):
        Journal(tmp_path, "c", "n1", ("n1", "n2"))


def test_the_replica_id_stays_and_differs_between_journals(tmp_path):
    first = opened(tmp_path / "a")
    first.close()
    again = opened(tmp_path / "a")
    other = opened(tmp_path / "b")
    assert first.identity == again.identity
    assert first.identity.replica_id != other.identity.replica_id
    again.close()
    other.close()


def test_a_directory_in_use_is_refused(tmp_path):
    journal = opened(tmp_path)
    with pytest.raises(ReplicaError, match="in use by another process"):
        opened(tmp_path)
    journal.close()


def test_a_directory_that_cannot_be_made_is_a_clear_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ReplicaError, match="cannot use raft directory"):
        opened(tmp_path / "file" / "raft")


def test_committed_entries_cannot_be_dropped_nor_the_term_fall(tmp_path):
    journal = opened(tmp_path)
    journal.add(b"\1", 1, 0)
    journal.add(b"\0x", 2, 1)
    journal.set_term(1, None)
    journal.set_commit(2)
    with pytest.raises(ReplicaFailed, match="committed"):
        journal.truncate(2)
    with pytest.raises(ReplicaFailed, match="term would fall"):
        journal.set_term(0, None)
    with pytest.raises(ReplicaFailed, match="commit index"):
        journal.set_commit(3)
    with pytest.raises(ReplicaFailed, match="does not follow"):
        journal.add(b"\0x", 4, 1)
    journal.close()


def test_nothing_counts_as_committed_before_it_is_on_disk(tmp_path):
    journal = opened(tmp_path)
    journal.add(b"\1", 1, 0)
    journal.add(b"\0x", 2, 1)
    before = journal.sync_times.count
    journal.set_commit(2)
    assert journal.sync_times.count == before + 1
    journal.close()


def test_a_write_error_stops_the_journal_for_good(tmp_path):
    """In a process of its own: the limit on file size stands in for a full disk."""
    code = f"""
import resource, sys
from pathlib import Path
from raft.api import ReplicaFailed
from raft.journal import Journal
journal = Journal(Path({str(tmp_path)!r}), "c", "n1", ["n1"])
journal.add(b"\\1", 1, 0)
journal.sync()
journal.add(b"\\0acknowledged", 2, 1)
journal.sync()
resource.setrlimit(resource.RLIMIT_FSIZE, (journal.size_bytes + 100, resource.RLIM_INFINITY))
journal.add(b"\\0" + b"x" * 1000, 3, 1)
for attempt in range(2):
    try:
        journal.sync()
    except ReplicaFailed as error:
        assert "cannot write journal" in str(error)
    else:
        sys.exit("a write error was not noticed")
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
"""
    subprocess.run(
        [sys.executable, "-c", code], check=True, timeout=20, env={**os.environ, "PYTHONPATH": str(REPOSITORY)}
    )
    journal = Journal(tmp_path, "c", "n1", ["n1"])
    assert [command for command, _, _ in journal[:]] == [b"\1", b"\0acknowledged"]
    journal.close()
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY
