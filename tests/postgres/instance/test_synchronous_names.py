"""Whose name counts in a synchronous set, on each installed release of PostgreSQL."""

import shutil
import subprocess
import time
from contextlib import contextmanager

import pytest

from appliance.postgres.clone import COPY_NAME
from appliance.postgres.conninfo import keywords
from appliance.postgres.credentials import REPLICATION_ROLE
from appliance.postgres.settings import standby_names
from tests.postgres.instance.commits import Commit, any_of, checkpointed, load, table


@pytest.fixture
def primary(copies):
    one = copies("pg1")
    one.start()
    table(one)
    return one


@pytest.mark.parametrize(
    ("listed", "comes_as"),
    [
        ("PG2", "pg2"),
        ("pg2", "Pg2"),
        ("node-2.Example.org", "NODE-2.example.ORG"),
        ("2", "2"),
        ("any", "any"),
        ("n" * 63, "n" * 63),
        ('say "pg2", \\ please', 'say "pg2", \\ please'),
        ("it's", "it's"),
    ],
)
def test_a_name_is_found_whatever_it_is_made_of_and_without_case(primary, listed, comes_as):
    load(primary, 1, standby_names(1, ["pg0", listed], by_priority=True))
    checkpointed(primary)
    with receiver_of_wal(primary, comes_as, "--synchronous"):
        (seen,) = primary.until(streams).walsenders
        assert (seen.application_name, seen.sync_priority) == (comes_as, 2)
        assert Commit(primary).ends() < 1
        load(primary, 2, any_of(1, listed + "x", "x" + listed))
        Commit(primary).waits()


def test_a_star_counts_everybody_in_quotes_too(primary):
    """No member may have this name."""
    load(primary, 1, any_of(1, "*"))
    checkpointed(primary)
    with receiver_of_wal(primary, "pg2", "--synchronous"):
        primary.until(streams)
        assert Commit(primary).ends() < 1


@contextmanager
def program(primary, comes_as, tool, *argv):
    """One of PostgreSQL's own that streams WAL, under the name of a member."""
    source = f"{primary.conninfo(REPLICATION_ROLE, primary)} {keywords({'application_name': comes_as})}"
    place = primary.root / "received"
    place.mkdir()
    process = subprocess.Popen(
        [primary.binaries.directory / tool, *argv, f"--dbname={source}", "--status-interval=1"],
        cwd=place,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        process.terminate()
        process.wait(10)


def receiver_of_wal(primary, comes_as, *more):
    return program(primary, comes_as, "pg_receivewal", "--directory=.", *more)


def copy(primary, *more):
    """Slow enough to be looked at."""
    return program(primary, "pg2", "pg_basebackup", "--pgdata=copy", "--checkpoint=fast", "--max-rate=32", *more)


def streams(seen):
    return any(one.state == "streaming" for one in seen.walsenders)


def test_pg_receivewal_does_not_count_unless_it_was_told_to(primary):
    load(primary, 1, any_of(1, "pg2"))
    checkpointed(primary)
    with receiver_of_wal(primary, "pg2"):
        primary.until(streams)
        waiting = Commit(primary).waits()
        time.sleep(1.2)
        waiting.waits()
        assert [one.flushed_lsn for one in primary.seen().walsenders] == [0]


@pytest.mark.parametrize("more", [[], ["--slot=pg2"], ["--no-slot"]])
def test_pg_basebackup_counts_as_the_member_whose_name_it_bears_a_segment_at_a_time_if_it_has_a_slot(primary, more):
    """It makes a temporary slot by itself, and says what it has flushed if there is one."""
    primary.monitor.create_slot("pg2")
    load(primary, 1, any_of(1, "pg2"))
    checkpointed(primary)
    with copy(primary, *more):
        primary.until(streams)
        waiting = Commit(primary).waits()
        primary.sql("SELECT pg_switch_wal()")
        if more == ["--no-slot"]:
            time.sleep(1.2)
            waiting.waits()
        else:
            assert waiting.ends() < 3


def test_a_members_clone_does_not_count_as_that_member(primary, copies):
    """R13 keeps it out of every set until the copy is whole; a copy that is not would confirm what nobody can use."""
    two = copies("pg2")
    shutil.rmtree(two.data_dir)
    primary.monitor.create_slot("pg2")
    load(primary, 1, any_of(1, "pg2"))
    job, seen = two.job(two.clone_of(primary, slot="pg2")), []
    while job.look().running:
        seen += primary.seen().walsenders
    assert job.look().ok
    assert {one.state for one in seen} >= {"backup", "streaming"}
    assert {(one.application_name, one.sync_priority) for one in seen if one.state != "startup"} == {(COPY_NAME, 0)}
