"""A new cluster is complete when it is there: roles, passwords, checksums, and nothing of it in a log."""

import os
import re
from dataclasses import replace

import psycopg
import pytest

from appliance.postgres.control import ControlState
from appliance.postgres.copies import new_copy
from appliance.postgres.credentials import REPLICATION_ROLE, REWIND_ROLE
from appliance.postgres.directory import DirectoryKind, inspect
from appliance.postgres.jobs import Job
from appliance.postgres.specs import InitdbOptions, Initialise


def tcp(member, user, password, dbname):
    return psycopg.connect(
        host="127.0.0.1", port=member.port, user=user, password=password, dbname=dbname, connect_timeout=5
    )


def test_a_new_cluster_has_its_identity_checksums_and_roles(member, binaries):
    one = member("pg1")
    assert inspect(one.data_dir, binaries).kind is DirectoryKind.MISSING
    job = one.initialise(application_role="app", application_database="orders")
    assert job.ok, job
    seen = inspect(one.data_dir, binaries)
    assert seen.kind is DirectoryKind.CLUSTER
    assert seen.control.state is ControlState.SHUT_DOWN
    assert seen.control.checksums
    assert not seen.standby_signal
    assert seen.postmaster_pid is None

    one.start()
    assert inspect(one.data_dir, binaries).postmaster_pid == one.process.pid
    assert one.value("SELECT system_identifier FROM pg_control_system()") == seen.control.system_identifier
    assert one.value("SHOW server_encoding") == "UTF8"
    with tcp(one, "app", one.credentials.application, "orders") as connection:
        connection.execute("CREATE TABLE t (id int)")
    with tcp(one, REWIND_ROLE, one.credentials.rewind, "postgres") as connection:
        assert connection.execute("SELECT timeline_id FROM pg_control_checkpoint()").fetchone() == (1,)
        assert connection.execute("SELECT length(pg_read_binary_file('PG_VERSION')) > 0").fetchone() == (True,)


def test_the_own_roles_are_confined_to_what_they_are_for(primary):
    for user, password, dbname in (
        (REPLICATION_ROLE, primary.credentials.replication, "postgres"),
        (REWIND_ROLE, primary.credentials.rewind, "template1"),
        (REWIND_ROLE, "wrong", "postgres"),
        ("postgres", "", "postgres"),
    ):
        with pytest.raises(psycopg.OperationalError, match=r"rejects|password"):
            tcp(primary, user, password, dbname)


def test_a_separate_wal_directory_a_segment_size_and_a_locale_are_used(member, binaries, root):
    wal_dir = root / "wal"
    wal_dir.mkdir()
    one = member("pg1", wal_dir=wal_dir)
    job = one.initialise(options=InitdbOptions(locale="C", wal_segment_mb=1))
    assert job.ok, job
    assert (one.data_dir / "pg_wal").resolve().parent == wal_dir
    assert inspect(one.data_dir, binaries).control.wal_segment_bytes == 1 << 20
    one.start()
    assert one.value("SHOW lc_collate" if binaries.major < 16 else "SELECT datcollate FROM pg_database LIMIT 1") == "C"
    assert [path.name for path in wal_dir.iterdir()] == [(one.data_dir / "pg_wal").resolve().name]


def test_no_password_is_left_in_a_file_or_an_argument(member):
    one = member("pg1")
    assert one.initialise(application_role="app", application_database="app").ok
    written = b"".join(path.read_bytes() for path in (one.root / "job").iterdir())
    for secret in (one.credentials.replication, one.credentials.rewind, one.credentials.application):
        assert secret.encode() not in written
    assert b"SCRAM" not in written


def test_a_directory_with_files_in_it_is_refused_and_left_alone(member, binaries):
    one = member("pg1")
    one.data_dir.mkdir()
    (one.data_dir / "letter.txt").write_text("precious")
    assert inspect(one.data_dir, binaries).kind is DirectoryKind.FOREIGN
    job = one.initialise()
    assert not job.ok
    assert "is not empty" in job.error
    assert os.listdir(one.data_dir) == ["letter.txt"]


def test_a_wrong_locale_is_told_and_leaves_no_directory(member, binaries):
    one = member("pg1")
    job = one.initialise(options=InitdbOptions(locale="xx_XX"))
    assert not job.ok
    assert re.fullmatch('initdb ended with 1: initdb: error: invalid locale name "xx_XX".*', job.error), job.error
    assert inspect(one.data_dir, binaries).kind is DirectoryKind.MISSING
    assert one.initialise().ok


def test_a_new_cluster_has_been_started_with_its_settings_and_reached_by_nobody(member, binaries):
    one = member("pg1", parameters={"max_connections": "17"})
    job = one.initialise(settings=one.settings)
    assert job.ok, job
    seen = inspect(one.data_dir, binaries)
    assert seen.control.state is ControlState.SHUT_DOWN
    assert seen.control.max_connections == 17
    assert seen.control.newest_timeline == 1
    assert not {"trial.log", "postmaster.pid"} & set(os.listdir(one.data_dir))
    one.start()
    assert one.value("SHOW max_connections") == "17"


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"parameters": {"superuser_reserved_connections": "200"}}, "must be less than"),
        ({"parameters": {"shared_buffers": "8000GB"}}, "could not map anonymous shared memory"),
        ({"parameters": {"shared_preload_libraries": "no_such_library"}}, "no_such_library"),
        ({"hba": ("junk all all",)}, 'invalid connection type "junk"'),
    ],
)
def test_settings_that_postgresql_does_not_start_with_are_told_and_leave_no_directory(
    member, binaries, root, more, reason
):
    (root / "wal").mkdir()
    one = member("pg1", wal_dir=root / "wal")
    job = one.initialise(settings=replace(one.settings, **more))
    assert not job.ok
    assert reason in job.error, job.error
    assert inspect(one.data_dir, binaries).kind is DirectoryKind.MISSING
    assert not new_copy(one.data_dir).exists()
    assert not any((root / "wal").iterdir())
    assert one.initialise(settings=one.settings).ok


def test_a_killed_initialisation_leaves_no_process_and_can_be_repeated(member, binaries):
    one = member("pg1")
    spec = Initialise(binaries, one.data_dir, one.credentials)
    job = one.job(spec)
    while job.look().phase == "starting":
        pass
    job.kill()
    seen = job.look()
    assert seen.ok is False
    assert "signal 9" in seen.error
    assert Job.kill_leftovers(one.root / "job") == 0
    assert inspect(one.data_dir, binaries).kind is DirectoryKind.MISSING
    assert one.initialise().ok


def test_an_empty_directory_is_filled(member, binaries):
    one = member("pg1")
    one.data_dir.mkdir(mode=0o700)
    assert inspect(one.data_dir, binaries).kind is DirectoryKind.EMPTY
    assert one.initialise().ok
    assert inspect(one.data_dir, binaries).kind is DirectoryKind.CLUSTER
