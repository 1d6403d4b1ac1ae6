"""The virtual disk forgets what it may and nothing else."""

import errno
from random import Random

import pytest

from raft.api import ReplicaError
from tests.simulation.raft.virtual_disk import Crash, Medium, VirtualDisk


@pytest.fixture
def medium():
    return Medium()


@pytest.fixture
def disk(medium):
    return VirtualDisk(medium)


def content(medium, name="journal"):
    disk = VirtualDisk(medium)
    try:
        return disk.open(name).read() if disk.exists(name) else None
    finally:
        disk.close()


def make(disk, data, name="journal"):
    file = disk.create(name)
    file.write(data, 0)
    file.sync()
    disk.sync_directory()
    return file


def test_a_kill_loses_nothing_that_was_written(medium, disk):
    file = make(disk, b"old")
    file.write(b"new", 3)
    medium.kill()
    assert content(medium) == b"oldnew"


def test_a_loss_of_power_loses_what_was_not_synced(medium, disk):
    file = make(disk, b"old")
    file.write(b"new", 3)
    medium.lose_power()
    assert content(medium) == b"old"


def test_what_a_killed_process_had_not_synced_may_be_lost_later(medium, disk):
    file = make(disk, b"old")
    file.write(b"new", 3)
    medium.kill()
    assert content(medium) == b"oldnew"
    medium.lose_power()
    assert content(medium) == b"old"


def test_an_unsynced_write_may_be_torn_kept_lost_or_zeros(medium):
    seen = set()
    for seed in range(200):
        medium = Medium()
        file = make(VirtualDisk(medium), b"o" * 600)
        file.write(b"n" * 1000, 600)
        medium.lose_power(Random(seed))
        data = content(medium)
        assert data[:600] == b"o" * 600
        seen.add((len(data), data[-1:] == b"n", b"\0" in data))
    assert (600, False, False) in seen, "lost"
    assert (1600, False, True) in seen, "only the size"
    assert (1600, True, True) in seen, "a later sector without an earlier one"
    assert len(seen) > 20, "torn at many places"


def test_a_rename_may_be_undone_until_the_directory_is_synced(medium, disk):
    make(disk, b"old")
    file = disk.create("journal.new")
    file.write(b"new", 0)
    file.sync()
    disk.rename("journal.new", "journal")
    assert disk.open("journal").read() == b"new"
    medium.lose_power()
    assert content(medium) == b"old"
    assert content(medium, "journal.new") is None


def test_a_renamed_file_that_was_not_synced_may_be_empty(medium, disk):
    make(disk, b"old")
    disk.create("journal.new").write(b"new", 0)
    disk.rename("journal.new", "journal")
    disk.sync_directory()
    medium.lose_power()
    assert content(medium) == b""


def test_a_rename_is_kept_once_the_directory_is_synced(medium, disk):
    make(disk, b"old")
    make(disk, b"new", "journal.new")
    disk.rename("journal.new", "journal")
    disk.sync_directory()
    medium.lose_power()
    assert content(medium) == b"new"


def test_the_directory_goes_back_in_order(medium, disk):
    make(disk, b"old")
    states = set()
    for seed in range(50):
        medium = Medium()
        disk = VirtualDisk(medium)
        make(disk, b"old")
        file = disk.create("journal.new")
        file.write(b"new", 0)
        file.sync()
        disk.rename("journal.new", "journal")
        medium.lose_power(Random(seed))
        states.add((content(medium), content(medium, "journal.new")))
    assert states == {(b"old", None), (b"old", b"new"), (b"new", None)}


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("at", range(1, 7))
def test_a_crash_at_any_call_leaves_what_came_before(at, share):
    medium = Medium()
    disk = VirtualDisk(medium)
    make(disk, b"old")
    disk.crash_in(at, share)
    with pytest.raises(Crash):
        replace(disk)
    assert disk.dead
    medium.lose_power()
    assert content(medium) == (b"new" if (at == 5 and share >= 0.5) or at == 6 else b"old")


def replace(disk):
    file = disk.create("journal.new")
    file.write(b"new", 0)
    file.sync()
    disk.rename("journal.new", "journal")
    disk.sync_directory()
    disk.remove("journal")


def test_nothing_works_after_a_crash(disk):
    file = make(disk, b"old")
    disk.crash_in(1)
    with pytest.raises(Crash):
        file.sync()
    for call in (file.sync, file.read, lambda: disk.exists("journal"), lambda: disk.rename("journal", "x")):
        with pytest.raises(Crash):
            call()


def test_part_of_a_write_happens_before_the_crash(medium, disk):
    file = make(disk, b"")
    disk.crash_in(1, 0.5)
    with pytest.raises(Crash):
        file.write(b"12345678", 0)
    assert content(medium) == b"1234"


def test_a_full_disk_takes_what_fits():
    medium = Medium(capacity_bytes=10)
    disk = VirtualDisk(medium)
    file = make(disk, b"12345678")
    file.write(b"ab", 0)
    with pytest.raises(OSError, match="No space") as caught:
        file.write(b"1234", 8)
    assert caught.value.errno == errno.ENOSPC
    assert file.read() == b"ab34567812"
    disk.create("other").write(b"", 0)
    disk.remove("journal")
    disk.open("other").write(b"1234", 0)


def test_a_failed_sync_is_not_made_good_by_the_next(medium, disk):
    file = make(disk, b"old")
    file.write(b"new", 3)
    disk.fail_sync_in(1)
    with pytest.raises(OSError, match="Input/output"):
        file.sync()
    file.sync()
    assert file.read() == b"oldnew"
    medium.lose_power()
    assert content(medium) == b"old"


def test_one_process_holds_a_medium(medium, disk):
    with pytest.raises(ReplicaError, match="in use"):
        VirtualDisk(medium)
    disk.close()
    VirtualDisk(medium)


def test_a_missing_file_is_missing(disk):
    assert not disk.exists("journal")
    with pytest.raises(FileNotFoundError):
        disk.open("journal")
