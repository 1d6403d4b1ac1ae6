"""A journal that no process uses: read without a trace, compared, and gone on from alone."""

import fcntl
import os
import random
import shutil
from dataclasses import replace

import pytest

from raft import DirectoryInUse, JournalDamaged, Member, ReplicaError, begin_anew, furthest, read_copy
from raft.applier import Applier, Submission
from raft.disk import OsDisk
from raft.entries import COMMAND, members_entry
from raft.members import Members
from raft.recover import begin_anew_on, copy_of, going_on
from raft.snapshot import Snapshot
from tests.raft.appender import Appender
from tests.simulation.raft.virtual_disk import Crash, Medium, VirtualDisk
from tests.unit.raft.journals import BATCHES, MEMBERS, bytes_on, content, entries, opened, reopened

ADDRESS = "n1:7001"
NOW_S = 1.5


def command(number):
    return COMMAND + Submission(f"id {number}", 0, b"%d" % number).pack()


def told(incarnation):
    return b"incarnation %d begins" % incarnation


def live(journal, commands=3):
    """A member of a group of three that was told of one commit."""
    journal.found("cafe", MEMBERS)
    journal.set_term(4, "n2")
    for number in range(commands):
        journal.add(command(number), journal.last_index + 1, 4)
    journal.sync()
    journal.set_commit(2)


@pytest.fixture
def directory(tmp_path):
    disk = OsDisk(tmp_path / "raft")
    journal = opened(disk)
    live(journal)
    journal.close()
    disk.close()
    return tmp_path / "raft"


def everything_in(directory):
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns, path.stat().st_ino) for path in directory.iterdir()}


def test_a_copy_says_what_it_holds_and_what_its_entries_come_to(directory):
    copy, state = read_copy(directory, Appender())
    assert (copy.cluster, copy.name, copy.replica_id, copy.cluster_id) == ("c", "n1", "id-n1", "cafe")
    assert (copy.incarnation, copy.term, copy.vote, copy.last_term, copy.last_index) == (0, 4, "n2", 4, 4)
    assert (copy.commit_index, copy.snapshot_index, copy.members) == (2, 0, MEMBERS)
    assert state == (b"0", b"1", b"2"), "what is not known to be committed counts too"


def test_reading_leaves_no_trace(directory):
    before = everything_in(directory)
    with open(directory / "journal", "ab") as file:
        file.write(b"torn")
    torn = everything_in(directory)
    read_copy(directory, Appender())
    assert everything_in(directory) == torn
    assert torn.keys() == before.keys()


def test_a_copy_without_its_lock_file_is_read_all_the_same(directory):
    (directory / "lock").unlink()
    read_copy(directory, Appender())
    assert "lock" not in os.listdir(directory)


def test_what_a_snapshot_holds_counts_and_so_do_members_behind_it(directory):
    disk = OsDisk(directory)
    journal = opened(disk)
    applier = Applier(Appender())
    applier.apply(2, command(0)[1:])
    journal.compact(Snapshot(2, 4, MEMBERS, applier.dump()), 3)
    fewer = MEMBERS.without("n3")
    journal.add(members_entry(fewer), 5, 4)
    journal.sync()
    journal.close()
    disk.close()
    copy, state = read_copy(directory, Appender())
    assert (copy.snapshot_index, copy.last_index, copy.members) == (2, 5, fewer)
    assert state == (b"0", b"1", b"2")


def test_a_directory_in_use_is_neither_read_nor_changed(directory):
    copy, _ = read_copy(directory, Appender())
    disk = OsDisk(directory)
    before = everything_in(directory)
    with pytest.raises(DirectoryInUse, match="in use by another process: stop it"):
        read_copy(directory, Appender())
    with pytest.raises(DirectoryInUse):
        begin_anew(directory, copy, ADDRESS, NOW_S)
    assert everything_in(directory) == before
    disk.close()
    read_copy(directory, Appender())


def test_a_directory_that_only_an_earlier_version_holds_is_in_use_too(directory):
    with open(directory / "lock") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(DirectoryInUse):
            read_copy(directory, Appender())


def test_no_journal_and_a_damaged_one_are_said(directory, tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        read_copy(tmp_path / "nowhere", Appender())
    assert not (tmp_path / "nowhere").exists()
    data = bytearray((directory / "journal").read_bytes())
    data[80] ^= 1
    (directory / "journal").write_bytes(data)
    with pytest.raises(JournalDamaged, match="remove the directory"):
        read_copy(directory, Appender())


def test_the_most_complete_copy_is_the_one_that_raft_would_elect(directory):
    own, _ = read_copy(directory, Appender())
    longer = replace(own, name="n2", last_index=own.last_index + 1)
    later = replace(own, name="n3", last_term=5, last_index=3)
    replaced = replace(longer, name="n4", last_term=9, incarnation=-1)
    equal = replace(own, name="n0")
    assert furthest([own, longer]) is longer
    assert furthest([own, longer, later]) is later
    assert furthest([own, replaced]) is own, "what an older incarnation wrote is no part of this one"
    assert furthest([own, equal]) is furthest([equal, own]) is equal


def test_only_this_replica_votes_and_the_others_keep_their_places(directory):
    copy, _ = read_copy(directory, Appender())
    learner = Member("n4", "id-n4", "n4:7000", "learner")
    anew = going_on(replace(copy, members=MEMBERS.with_member(learner)), ADDRESS)
    assert anew.voters == {"n1"}
    assert anew.get("n1") == Member("n1", "id-n1", ADDRESS, "voter")
    assert {member.name: member.role for member in anew.all} == {
        "n1": "voter",
        "n2": "joining",
        "n3": "joining",
        "n4": "learner",
    }


def test_a_learner_may_be_the_one_that_is_left(directory):
    copy, _ = read_copy(directory, Appender())
    demoted = MEMBERS.with_member(Member("n1", "id-n1", "n1:7000", "learner"))
    assert going_on(replace(copy, members=demoted), ADDRESS).voters == {"n1"}


def test_the_group_goes_on_with_every_entry_and_the_old_journal_is_kept(directory):
    before, _ = read_copy(directory, Appender())
    was = (directory / "journal").read_bytes()
    kept = begin_anew(directory, before, ADDRESS, NOW_S)
    assert (kept.name, kept.read_bytes()) == ("journal.before-incarnation-1", was)
    assert kept.stat().st_mode & 0o777 == 0o600
    after, state = read_copy(directory, Appender())
    assert (after.incarnation, after.term, after.vote, after.last_index) == (1, 5, None, 5)
    assert (after.cluster_id, after.replica_id, after.members) == ("cafe", "id-n1", going_on(before, ADDRESS))
    assert state == (b"0", b"1", b"2")
    begin_anew(directory, after, ADDRESS, NOW_S)
    assert read_copy(directory, Appender())[0].incarnation == 2, "also within a second, or with a clock set back"
    assert kept.read_bytes() == was


def test_the_state_machine_is_told_before_anything_else_of_the_new_incarnation(directory):
    before, _ = read_copy(directory, Appender())
    begin_anew(directory, before, ADDRESS, NOW_S, told)
    after, state = read_copy(directory, Appender())
    assert state == (b"0", b"1", b"2", b"incarnation 1 begins")
    assert (after.last_index, after.last_term, after.members) == (6, 5, going_on(before, ADDRESS))
    begin_anew(directory, after, ADDRESS, NOW_S, told)
    assert read_copy(directory, Appender())[1] == (*state, b"incarnation 2 begins")


def test_two_that_begin_anew_from_one_incarnation_are_two_groups(directory, tmp_path):
    copy, _ = read_copy(directory, Appender())
    shutil.copytree(directory, tmp_path / "other")
    begin_anew(directory, copy, ADDRESS, 1_795_000_000.2)
    begin_anew(tmp_path / "other", copy, ADDRESS, 1_795_000_060.7)
    found = {read_copy(place, Appender())[0].incarnation for place in (directory, tmp_path / "other")}
    assert found == {1_795_000_000, 1_795_000_060}


def test_a_journal_that_has_changed_since_or_belongs_nowhere_stays_as_it_is(directory, tmp_path):
    copy, _ = read_copy(directory, Appender())
    with pytest.raises(ReplicaError, match="has changed since it was read"):
        begin_anew(directory, replace(copy, last_index=3), ADDRESS, NOW_S)
    assert read_copy(directory, Appender())[0] == copy
    disk = OsDisk(tmp_path / "empty")
    opened(disk).close()
    disk.close()
    empty, _ = read_copy(tmp_path / "empty", Appender())
    with pytest.raises(ReplicaError, match="there is nothing to go on from"):
        begin_anew(tmp_path / "empty", empty, ADDRESS, NOW_S)


def test_a_failing_disk_is_said_in_words(directory, monkeypatch):
    copy, _ = read_copy(directory, Appender())

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(ReplicaError, match="No space left on device"):
        begin_anew(directory, copy, ADDRESS, NOW_S)
    monkeypatch.undo()
    assert read_copy(directory, Appender())[0] == copy


LOSSES = [lambda medium: medium.kill(), lambda medium: medium.lose_power()]
LOSSES += [lambda medium, seed=seed: medium.lose_power(random.Random(seed)) for seed in range(4)]


def written():
    """A medium with a journal, its copy and its content."""
    medium = Medium()
    journal = opened(VirtualDisk(medium))
    for step in BATCHES:
        step(journal)
    medium.kill()
    found = opened(disk := VirtualDisk(medium))
    copy, before = copy_of(found.identity, found), content(found)
    found.close()
    disk.close()
    return medium, copy, before


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 1.0])
def test_a_crash_leaves_the_journal_as_before_or_as_after_with_the_old_one_beside_it(share, loss):
    for crash_at in range(1, crash_points() + 1):
        medium, copy, before = written()
        old = bytes_on(medium)
        disk = VirtualDisk(medium)
        disk.crash_in(crash_at, share)
        with pytest.raises(Crash):
            begin_anew_on(disk, copy, ADDRESS, NOW_S, told)
        loss(medium)
        found = reopened(medium)
        if found == before:
            begin_anew_on(VirtualDisk(medium), copy, ADDRESS, NOW_S, told)
            medium.lose_power()
            assert reopened(medium)["incarnation"] == 1
        else:
            assert (found["incarnation"], found["entries"][:-2]) == (1, before["entries"])
            assert b"incarnation 1 begins" in found["entries"][-1][0], "never the one without the other"
            assert bytes_on(medium, "journal.before-incarnation-1") == old


def crash_points():
    """Every call of a new beginning that changes something on the disk."""
    medium, copy, before = written()
    disk = VirtualDisk(medium)
    begin_anew_on(disk, copy, ADDRESS, NOW_S, told)
    assert disk.calls > 8
    medium.lose_power()
    assert reopened(medium) != before
    return disk.calls


def test_the_new_members_stand_at_the_end_of_the_log():
    medium, copy, _ = written()
    disk = VirtualDisk(medium)
    begin_anew_on(disk, copy, ADDRESS, NOW_S)
    disk.close()
    journal = opened(VirtualDisk(medium))
    assert entries(journal)[-1][0] == members_entry(going_on(copy, ADDRESS))
    assert Members.of(going_on(copy, ADDRESS).all).voters == {"n1"}
