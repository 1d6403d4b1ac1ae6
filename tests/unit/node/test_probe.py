"""The probe as a real child process on real directories and sockets, and what its client makes of what it says."""

import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from appliance.node import probe, probe_client
from appliance.node.probe_client import ProbeClient
from tests.harness.processes import alive, heir_of_orphans, send

PATIENCE_S = 2.0


class Place:
    """A data directory with a running PostgreSQL, as far as the probe can see, and a postmaster that may be stuck."""

    def __init__(self, directory):
        self.data_dir = directory / "data"
        (self.data_dir / "pg_wal").mkdir(parents=True)
        self.pid_file = self.data_dir / "postmaster.pid"
        self.pid_file.write_text("1\n")
        self.socket_file = directory / "s"
        self.client = ProbeClient(self.data_dir, self.socket_file)

    def wait(self, claim, limit_s=10.0, patience_s=PATIENCE_S):
        until_s = time.monotonic() + limit_s
        while True:
            seen = self.client.look(patience_s)
            if seen is not None and claim(seen):
                return seen
            assert time.monotonic() < until_s, seen
            time.sleep(0.05)

    @property
    def pid(self):
        return self.client._process.pid


@pytest.fixture
def place(tmp_path):
    place = Place(tmp_path)
    yield place
    place.client.close()


def answers(seen):
    return seen.data.total_bytes is not None and seen.data.stalled_s == 0.0


def test_nothing_is_known_before_the_first_answer(place):
    assert place.client.look(PATIENCE_S) is None


def test_a_disk_that_works_is_written_to_and_measured(place):
    seen = place.wait(answers)
    real = os.statvfs(place.data_dir)

    assert seen.data.total_bytes == real.f_blocks * real.f_frsize
    assert 0 < seen.data.free_bytes <= seen.data.total_bytes
    assert seen.wal is None
    file = place.data_dir / probe.FILE_NAME
    first = file.read_bytes()
    assert len(first) == probe.FILE_BYTES
    place.wait(lambda _: file.read_bytes() != first)
    assert file.stat().st_size == probe.FILE_BYTES


def test_nothing_is_written_where_no_postgresql_runs(place):
    """A file of ours in an empty directory would keep a data directory from being made there."""
    place.pid_file.unlink()
    place.wait(answers)
    time.sleep(1.5 * probe.EVERY_S)

    assert os.listdir(place.data_dir) == ["pg_wal"]


def test_a_directory_that_is_missing_is_no_broken_disk(place, tmp_path):
    place.client = ProbeClient(tmp_path / "none", tmp_path / "s")
    seen = place.wait(lambda seen: seen.data.error)

    assert (seen.data.error, seen.data.stalled_s, seen.data.total_bytes) == ("No such file or directory", 0.0, None)


def test_a_wal_directory_of_its_own_is_tried_too(place, tmp_path):
    (place.data_dir / "pg_wal").rmdir()
    (tmp_path / "wal").mkdir()
    (place.data_dir / "pg_wal").symlink_to(tmp_path / "wal")
    seen = place.wait(lambda seen: seen.wal is not None and seen.wal.total_bytes)

    assert seen.wal.stalled_s == 0.0
    assert (tmp_path / "wal" / probe.FILE_NAME).exists()


def test_a_postmaster_that_takes_nobody_in_is_counted_until_it_does(place):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(place.socket_file))
        listener.listen(1)
        seen = place.wait(lambda seen: seen.door_stalled_s > 1.5)
        assert seen.data.stalled_s == 0.0, "the disk has nothing to do with it"
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.recv(100) == probe.SSL_REQUEST
            accepted.sendall(b"N")
            place.wait(lambda seen: seen.door_stalled_s < 1.0)


def test_a_postmaster_that_is_not_there_is_an_answer(place):
    place.wait(answers)
    time.sleep(1.5)

    assert place.client.look(PATIENCE_S).door_stalled_s == 0.0


def test_what_was_not_watched_does_not_count(place):
    """The host slept, or the node process was stopped: that says nothing of the postmaster."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(place.socket_file))
        listener.listen(1)
        place.wait(lambda seen: seen.door_stalled_s > 1.5)
        time.sleep(PATIENCE_S + 0.2)

        assert place.client.look(PATIENCE_S).door_stalled_s < 0.5


def test_a_stopped_probe_is_no_hung_disk_and_is_replaced(place, monkeypatch):
    monkeypatch.setattr(probe_client, "SILENT_LIMIT_S", 2.0)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(place.socket_file))
        listener.listen(1)
        place.wait(lambda seen: seen.door_stalled_s > 1.5)  # in the middle of a try
        stopped = place.pid
        os.kill(stopped, signal.SIGSTOP)
        seen = place.wait(lambda seen: seen.door_stalled_s == 0.0)
        assert seen.data.stalled_s == 0.0
        place.wait(lambda _: place.pid != stopped)
        seen = place.client.look(PATIENCE_S)
        assert seen.door_stalled_s < 1.0, "how long the other one stood still is nobody's wait"
    assert not alive(stopped)


def test_a_killed_probe_is_replaced(place):
    place.wait(answers)
    first = place.pid
    os.kill(first, signal.SIGKILL)
    place.wait(lambda seen: place.pid != first and answers(seen))


def test_one_that_hangs_is_left_behind_once_and_what_was_waited_for_is_kept(place, monkeypatch):
    monkeypatch.setattr(probe_client, "HUNG_LIMIT_S", 1.5)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(place.socket_file))
        listener.listen(5)
        place.wait(lambda seen: seen.door_stalled_s > 1.0)
        first, before = place.pid, place.client.look(PATIENCE_S).door_stalled_s
        seen = place.wait(lambda _: place.pid != first)
        assert seen.door_stalled_s >= before
        seen = place.wait(answers)
        assert seen.door_stalled_s >= before


def test_the_probe_ends_with_its_parent(tmp_path):
    """However both are: one that is stopped does not notice that nobody reads any more."""
    code = (
        "import sys, time; from pathlib import Path; from appliance.node.probe_client import ProbeClient\n"
        "client = ProbeClient(Path(sys.argv[1]), Path(sys.argv[1]))\n"
        "while client.look(1.0) is None: time.sleep(0.05)\n"
        "print(client._process.pid, flush=True); time.sleep(60)\n"
    )
    (tmp_path / "data").mkdir()
    parent = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "data")], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    with heir_of_orphans(), parent.stdout:
        child = int(parent.stdout.readline())
        try:
            assert alive(child)
            os.kill(child, signal.SIGSTOP)
            parent.kill()
            parent.wait()
            until_s = time.monotonic() + 5
            while alive(child):
                assert time.monotonic() < until_s
                time.sleep(0.02)
        finally:
            parent.kill()
            parent.wait()
            send(child, signal.SIGKILL)
            os.waitpid(child, 0)
