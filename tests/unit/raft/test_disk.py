"""A directory on a real file system: held by one process, written whole, synced where it must be."""

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from raft.api import ReplicaError
from raft.disk import OsDisk

REPOSITORY = Path(__file__).parents[3]


@pytest.fixture
def disk(tmp_path):
    disk = OsDisk(tmp_path / "raft")
    yield disk
    disk.close()


@pytest.fixture
def synced(monkeypatch):
    """Paths in the order in which the operating system was asked to sync them."""
    paths = []
    for name in ("fsync", "fdatasync"):
        original = getattr(os, name)

        def note(descriptor, original=original):
            paths.append(os.readlink(f"/proc/self/fd/{descriptor}"))
            original(descriptor)

        monkeypatch.setattr(os, name, note)
    return paths


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_a_file_is_written_read_and_written_over(disk):
    file = disk.create("journal")
    file.write(b"0123456789", 0)
    file.write(b"ab", 4)
    file.sync()
    assert file.read() == b"0123ab6789"
    assert file.read() == b"0123ab6789"
    file.close()
    again = disk.open("journal")
    again.write(b"end", 10)
    assert again.read() == b"0123ab6789end"
    again.close()
    assert mode(disk.path / "journal") == 0o600


def test_a_large_file_is_read_whole(disk):
    data = os.urandom(3 * 1024 * 1024 + 1)
    file = disk.create("journal")
    file.write(data, 0)
    assert file.read() == data
    file.close()


def test_short_writes_are_gone_on_with(disk, monkeypatch):
    """No system here writes short on purpose, so the system call is made to."""
    whole = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda descriptor, data, offset: whole(descriptor, data[:7], offset))
    file = disk.create("journal")
    file.write(b"x" * 100, 0)
    file.write(b"y" * 20, 50)
    assert file.read() == b"x" * 50 + b"y" * 20 + b"x" * 30
    file.close()


def test_create_empties_what_is_there(disk):
    file = disk.create("journal")
    file.write(b"old", 0)
    file.close()
    file = disk.create("journal")
    assert file.read() == b""
    file.close()


def test_names_are_seen_renamed_and_removed(disk):
    disk.create("new").close()
    assert disk.exists("new")
    assert not disk.exists("journal")
    disk.create("journal").close()
    disk.rename("new", "journal")
    assert disk.exists("journal")
    assert not disk.exists("new")
    disk.remove("journal")
    assert not disk.exists("journal")
    for call in (disk.open, disk.remove):
        with pytest.raises(FileNotFoundError):
            call("journal")


def test_every_sync_reaches_the_operating_system(disk, synced):
    file = disk.create("journal")
    file.sync()
    disk.sync_directory()
    file.close()
    assert synced == [str(disk.path / "journal"), str(disk.path)]


def test_a_new_directory_is_durable_with_all_that_was_made_above_it(tmp_path, synced):
    OsDisk(tmp_path / "a" / "b" / "raft").close()
    assert set(synced) == {str(tmp_path), str(tmp_path / "a"), str(tmp_path / "a" / "b")}
    assert mode(tmp_path / "a" / "b" / "raft") == 0o700


def test_a_directory_that_is_there_may_not_be_durable_yet(tmp_path, synced):
    (tmp_path / "raft").mkdir()
    OsDisk(tmp_path / "raft").close()
    assert synced == [str(tmp_path)]


def test_a_directory_in_use_is_refused(disk):
    with pytest.raises(ReplicaError, match="in use by another process: stop it, or use another directory"):
        OsDisk(disk.path)
    disk.close()
    disk.close()
    OsDisk(disk.path).close()


def test_a_directory_emptied_under_a_living_process_is_still_in_use(disk):
    for name in os.listdir(disk.path):
        (disk.path / name).unlink()
    with pytest.raises(ReplicaError, match="in use"):
        OsDisk(disk.path)


def test_the_version_before_this_one_is_kept_out_and_keeps_out(tmp_path):
    """It locks the file `lock` and nothing else."""
    code = """
import fcntl, os, sys
file = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
try:
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    sys.exit(3)
print("held", flush=True)
sys.stdin.read()
"""
    command = [sys.executable, "-c", code, str(tmp_path / "lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as old:
        assert old.stdout.readline() == b"held\n"
        with pytest.raises(ReplicaError, match="in use"):
            OsDisk(tmp_path)
        old.stdin.close()
    disk = OsDisk(tmp_path)
    assert subprocess.run(command, stdin=subprocess.DEVNULL, check=False, timeout=20).returncode == 3
    disk.close()


def test_a_killed_process_lets_go(tmp_path):
    code = """
import sys
from pathlib import Path
from raft.disk import OsDisk
disk = OsDisk(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""
    command = [sys.executable, "-c", code, str(tmp_path)]
    variables = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=variables) as process:
        assert process.stdout.readline() == b"held\n"
        with pytest.raises(ReplicaError, match="in use"):
            OsDisk(tmp_path)
        process.kill()
    OsDisk(tmp_path).close()


def test_another_directory_in_the_old_place_is_not_written_to(disk):
    """Somebody moves the directory away under a living process, and starts another one."""
    old = disk.path.with_name("old")
    disk.path.rename(old)
    other = OsDisk(disk.path)
    disk.create("journal").close()
    assert (old / "journal").exists()
    assert not (disk.path / "journal").exists()
    other.close()


def test_a_directory_that_was_removed_takes_nothing_more(disk):
    shutil.rmtree(disk.path)
    with pytest.raises(FileNotFoundError):
        disk.create("journal")


def test_a_directory_that_cannot_be_made_is_a_clear_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ReplicaError, match=r"cannot use raft directory .*Not a directory"):
        OsDisk(tmp_path / "file" / "raft")
    with pytest.raises(ReplicaError, match=r"cannot use raft directory .*exists"):
        OsDisk(tmp_path / "file")


def test_a_refused_directory_leaves_nothing_open(disk):
    before = os.listdir("/proc/self/fd")
    for _ in range(3):
        with pytest.raises(ReplicaError):
            OsDisk(disk.path)
    assert len(os.listdir("/proc/self/fd")) == len(before)
