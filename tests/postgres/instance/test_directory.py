"""What is in a data directory, whether somebody lives in it, and locks that nobody stands behind."""

import os
import subprocess
from dataclasses import replace

from appliance.postgres.control import ControlState
from appliance.postgres.directory import DirectoryKind, inspect, processes_in, remove_stale_lock


def test_a_running_instance_is_recognised_and_its_lock_is_kept(primary):
    seen = inspect(primary.data_dir, primary.binaries)
    assert seen.postmaster_pid == primary.process.pid
    assert primary.process.pid in processes_in(primary.data_dir)
    assert not remove_stale_lock(primary.data_dir)
    primary.stop()
    seen = inspect(primary.data_dir, primary.binaries)
    assert seen.postmaster_pid is None
    assert seen.control.state is ControlState.SHUT_DOWN
    assert processes_in(primary.data_dir) == []
    assert not remove_stale_lock(primary.data_dir)


def test_reused_process_ids_in_its_locks_are_not_believed(primary):
    socket = primary.settings.socket
    locks = [primary.data_dir / "postmaster.pid", socket.with_name(f"{socket.name}.lock")]
    written = [lock.read_text() for lock in locks]
    primary.crash()
    other = subprocess.Popen(["sleep", "60"], cwd="/")
    try:
        for lock, text in zip(locks, written, strict=True):
            lock.write_text(f"{other.pid}\n" + text.split("\n", 1)[1])
        assert inspect(primary.data_dir, primary.binaries).postmaster_pid is None
        assert remove_stale_lock(primary.data_dir, socket)
        assert not any(lock.exists() for lock in locks)
        primary.start()
    finally:
        other.kill()
        other.wait()


def test_a_lock_with_the_process_id_of_another_user_is_stale(primary):
    """As after a reboot: PostgreSQL itself would start."""
    primary.crash()
    (primary.data_dir / "postmaster.pid").write_text("1\n")
    assert inspect(primary.data_dir, primary.binaries).postmaster_pid is None
    assert remove_stale_lock(primary.data_dir)
    primary.start()


def test_the_lock_of_a_socket_is_left_to_another_server(primary):
    primary.stop()
    socket = primary.settings.socket
    lock = socket.with_name(f"{socket.name}.lock")
    for text in ("1\n/elsewhere\n", "1\n", ""):
        lock.write_text(text)
        assert not remove_stale_lock(primary.data_dir, socket)
        assert lock.read_text() == text


def test_a_directory_of_another_user_is_a_problem_and_no_end_of_the_looking(primary):
    """Who may look into it and read nothing there."""
    primary.stop()
    lock = primary.data_dir / "postmaster.pid"
    lock.write_text("1\n")
    lock.chmod(0)
    seen = inspect(primary.data_dir, primary.binaries)

    assert (seen.kind, seen.control, seen.postmaster_pid) == (DirectoryKind.CLUSTER, None, None)
    assert "postmaster.pid cannot be read: Permission denied" in seen.problem


def test_a_cluster_of_another_version_is_one_with_a_problem(template):
    other = replace(template.binaries, version="14.9", major=14)
    seen = inspect(template.data_dir, other)
    assert seen.kind is DirectoryKind.CLUSTER
    assert seen.control is None
    assert f"is of PostgreSQL {template.binaries.major}" in seen.problem
    assert "set postgresql.bin_dir" in seen.problem


def test_a_damaged_control_file_is_a_problem_and_no_guess(primary):
    primary.stop()
    control = primary.data_dir / "global" / "pg_control"
    control.write_bytes(os.urandom(8192))
    seen = inspect(primary.data_dir, primary.binaries)
    assert seen.kind is DirectoryKind.CLUSTER
    assert seen.control is None
    assert "pg_controldata" in seen.problem


def test_the_control_data_follow_the_file(primary):
    primary.stop()
    before = inspect(primary.data_dir, primary.binaries).control
    primary.start()
    primary.sql("CREATE TABLE public.t AS SELECT 1 AS id")
    primary.stop()
    after = inspect(primary.data_dir, primary.binaries).control
    assert after.checkpoint_lsn > before.checkpoint_lsn
