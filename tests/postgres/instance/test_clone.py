"""A clone becomes a standby, and the old directory survives whatever goes wrong."""

import os
import shutil
import signal
import time
from pathlib import Path

import pytest

from appliance.postgres.control import ControlState
from appliance.postgres.copies import discard_replaced, new_copy, replaced
from appliance.postgres.directory import inspect
from appliance.postgres.incarnation import forget_incarnation, read_incarnation
from appliance.postgres.jobs import Job
from appliance.postgres.specs import Discard

SMALL_DISK = "APPLIANCE_TEST_SMALL_DISK"


def test_a_clone_streams_from_its_source(pair):
    primary, standby = pair
    primary.sql("CREATE TABLE public.t AS SELECT 1 AS id")
    standby.caught_up(primary)
    assert standby.value("SELECT id FROM public.t") == "1"
    seen = standby.seen()
    assert seen.in_recovery
    assert seen.timeline == 1
    assert seen.streaming
    assert standby.sql("SELECT sender_port, slot_name FROM pg_stat_wal_receiver") == [[str(primary.port), "pg2"]]
    there = primary.seen()
    assert [sender.application_name for sender in there.walsenders] == ["pg2"]
    assert [slot.name for slot in there.slots] == ["pg2"]
    assert read_incarnation(primary.data_dir).id == "template initialised"
    assert read_incarnation(standby.data_dir).id == "pg2 cloned", "a copy is another directory (R13)"
    forget_incarnation(standby.data_dir)
    assert read_incarnation(standby.data_dir).id == ""
    assert standby.seen().streaming, "what is forgotten is nothing of PostgreSQL's"
    assert primary.sql("SELECT slot_type, active FROM pg_replication_slots") == [["physical", "t"]]


def test_a_wal_directory_and_tablespaces_are_carried_through_and_the_old_copy_is_kept_once(primary, member, root):
    space, wal_dir = root / "space", root / "wal"
    space.mkdir()
    wal_dir.mkdir()
    primary.sql(f"CREATE TABLESPACE s LOCATION '{space}'")
    primary.sql("CREATE TABLE public.t TABLESPACE s AS SELECT generate_series(1, 1000) AS id")
    standby = member("pg2", wal_dir=wal_dir)
    used = []
    for _ in range(3):
        job = standby.clone(primary)
        assert job.ok, job
        identity = inspect(standby.data_dir, standby.binaries).control.system_identifier
        assert identity == primary.value("SELECT system_identifier FROM pg_control_system()")
        (link,) = (standby.data_dir / "pg_tblspc").iterdir()
        used.append((link.resolve(), (standby.data_dir / "pg_wal").resolve()))
        assert inspect(standby.data_dir, standby.binaries).standby_signal
        standby.follow(primary)
        standby.start(standby=True)
        standby.caught_up(primary)
        assert standby.value("SELECT count(*) FROM public.t") == "1000"
        standby.stop()
    assert [space.exists() for space, _ in used] == [False, True, True]
    assert {path.parent for _, path in used} == {wal_dir}
    assert set(wal_dir.iterdir()) == {used[1][1], used[2][1]}
    assert replaced(standby.data_dir).is_dir()
    assert discard_replaced(standby.data_dir)
    assert set(wal_dir.iterdir()) == {used[2][1]}
    assert any(space.iterdir()), "the source's own tablespace is its own"
    assert primary.value("SELECT count(*) FROM public.t") == "1000"


def filled(primary, rows: int) -> None:
    primary.sql(f"CREATE TABLE public.big AS SELECT repeat('x', 1000) AS x FROM generate_series(1, {rows})")


def kept(standby) -> None:
    """The old directory is as good as before."""
    assert inspect(standby.data_dir, standby.binaries).control.state is ControlState.SHUT_DOWN_IN_RECOVERY
    standby.start(standby=True)
    assert standby.value("SELECT 1") == "1"
    standby.stop()


@pytest.fixture
def small_disk():
    """A file system, and how to leave only so many bytes free on it."""
    if SMALL_DISK not in os.environ:
        pytest.skip("needs a small file system, which only root can mount")
    disk = Path(os.environ[SMALL_DISK])

    def leave(free_bytes: int) -> Path:
        (disk / "filler").unlink(missing_ok=True)
        (disk / "filler").write_bytes(bytes(shutil.disk_usage(disk).free - free_bytes))
        return disk

    yield leave
    for path in disk.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def standby_on(disk, member, primary):
    one = member("pg2", on=disk)
    assert one.clone(primary).ok
    one.follow(primary)
    one.start(standby=True)
    one.stop()
    return one


def test_a_disk_that_is_too_small_is_noticed_before_it_is_full(primary, member, small_disk):
    standby = standby_on(small_disk(100 << 20), member, primary)
    small_disk(20 << 20)
    job = standby.clone(primary)
    assert not job.ok
    assert "MiB free; the old data directory is untouched" in job.error
    small_disk(1 << 20)
    kept(standby)


def test_a_disk_that_fills_up_during_the_copy_leaves_the_old_directory_intact(primary, member, small_disk):
    standby = standby_on(small_disk(100 << 20), member, primary)
    small_disk(31 << 20)  # for the data, not for its WAL
    job = standby.clone(primary)
    assert not job.ok
    assert "No space left on device" in job.error
    kept(standby)


def test_a_killed_clone_leaves_the_old_directory_and_no_process(pair):
    primary, standby = pair
    standby.stop()
    filled(primary, 100_000)
    job = standby.job(standby.clone_of(primary))
    while not (standby.data_dir.with_name("data.new")).exists():
        time.sleep(0.005)
    job.kill()
    seen = job.look()
    assert seen.ok is False
    assert job.fileno() is None
    assert Job.kill_leftovers(standby.root / "job") == 0
    kept(standby)
    assert standby.clone(primary).ok
    assert not new_copy(standby.data_dir).exists()


def test_leftovers_of_an_earlier_node_process_are_ended(pair):
    primary, standby = pair
    standby.stop()
    filled(primary, 100_000)
    job = standby.job(standby.clone_of(primary))
    while not new_copy(standby.data_dir).exists():
        time.sleep(0.005)
    os.kill(job._process.pid, signal.SIGKILL)  # the task alone; pg_basebackup lives on
    assert Job.kill_leftovers(standby.root / "job") >= 1
    assert Job.kill_leftovers(standby.root / "job") == 0
    job.kill()
    kept(standby)


def test_progress_is_told_in_bytes(primary, member):
    filled(primary, 100_000)
    standby = member("pg2")
    job = standby.job(standby.clone_of(primary))
    told = []
    while (seen := job.look()).running:
        told.append(seen)
        time.sleep(0.005)
    assert seen.ok, seen
    copying = [one for one in told if one.phase == "copying" and one.total_bytes]
    assert copying, {one.phase for one in told}
    assert all(100 << 20 < one.total_bytes < 400 << 20 for one in copying)
    assert [one.done_bytes for one in copying] == sorted(one.done_bytes for one in copying)


def test_an_unreachable_source_is_told_at_once(pair):
    primary, standby = pair
    standby.stop()
    primary.stop()
    began_s = time.monotonic()
    job = standby.clone(primary)
    assert not job.ok
    assert "connection to server" in job.error
    assert time.monotonic() - began_s < 5
    kept(standby)


def test_a_job_that_removes_the_replaced_directory(primary, member):
    standby = member("pg2")
    assert standby.clone(primary).ok
    assert standby.clone(primary).ok
    job = standby.job(Discard(standby.data_dir))
    while job.look().running:
        time.sleep(0.01)
    assert job.look().ok
    assert not replaced(standby.data_dir).exists()
    assert standby.data_dir.exists()
