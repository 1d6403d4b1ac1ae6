"""Looks and orders with a limit, also at a server that is hung, starting or gone."""

import os
import signal
import time
from contextlib import ExitStack
from dataclasses import replace

import psycopg
import pytest

from appliance.postgres.errors import PostgresError, PostgresUnreachable
from appliance.postgres.monitor import Monitor


def test_a_primary_tells_what_it_is(primary, binaries):
    seen = primary.seen()
    assert not seen.in_recovery
    assert seen.timeline == seen.checkpoint_timeline == 1
    assert seen.flushed_lsn > 0
    assert seen.position_lsn == seen.flushed_lsn
    assert (seen.received_lsn, seen.replayed_lsn, seen.receiver) == (None, None, None)
    assert seen.server_version // 10000 == binaries.major
    assert abs(time.time() - seen.postmaster_start_time) < 60
    assert seen.pending_restart == ()
    assert (seen.walsenders, seen.slots) == ((), ())


def test_a_look_costs_little(primary):
    primary.seen()
    began_s = time.process_time()
    for _ in range(100):
        primary.seen()
    assert (time.process_time() - began_s) / 100 < 0.002


def test_a_parameter_that_waits_for_a_restart_is_named_until_then(primary):
    primary.settings = replace(primary.settings, parameters={**primary.settings.parameters, "max_connections": "60"})
    primary.reload()
    primary.until(lambda seen: seen.pending_restart == ("max_connections",))
    assert primary.seen().pending_restart == ("max_connections",)
    primary.stop()
    primary.start()
    assert primary.seen().pending_restart == ()
    assert primary.value("SHOW max_connections") == "60"


def test_replay_that_waits_is_seen(pair):
    primary, standby = pair
    assert not standby.seen().replay_paused
    standby.sql("SELECT pg_wal_replay_pause()")
    primary.sql("CREATE TABLE public.t AS SELECT 1 AS id")
    standby.until(lambda seen: seen.replay_paused)
    seen = standby.until(lambda seen: seen.received_lsn > seen.replayed_lsn)
    assert seen.position_lsn == seen.received_lsn


@pytest.mark.parametrize("hung", ["backend", "postmaster"])
def test_a_hung_server_costs_the_limit_and_no_more(primary, hung):
    primary.seen()
    if hung == "backend":
        pid = int(primary.value("SELECT pg_backend_pid()"))
    else:
        pid = primary.process.pid
        primary.monitor.close()  # a new connection needs the postmaster
    os.kill(pid, signal.SIGSTOP)
    try:
        began_s = time.monotonic()
        assert primary.monitor.look(0.3) is None
        assert 0.2 < time.monotonic() - began_s < 0.5
        if hung == "backend":  # the hung connection is given up: the next look has a new one
            assert primary.monitor.look(1) is not None
        with pytest.raises(PostgresUnreachable, match="no answer in time"):
            Monitor(primary.root, primary.port).execute("SELECT pg_sleep(9)", limit_s=0.2)
    finally:
        os.kill(pid, signal.SIGCONT)
    primary.seen()


def take_all(primary, taken):
    while True:
        taken.append(psycopg.connect(host=str(primary.root), port=primary.port, user="postgres", dbname="postgres"))


def test_where_all_connections_are_taken_there_is_one_that_applications_cannot_take(primary):
    """Not the look alone: what is asked with values, a checkpoint, and what a new connection shows."""
    taken = []
    try:
        primary.monitor.close()
        with pytest.raises(psycopg.OperationalError, match="too many clients"):
            take_all(primary, taken)
        late = Monitor(primary.root, primary.port)
        for _ in range(2):
            seen = late.look(2)
            assert seen is not None
            assert not seen.in_recovery
            assert seen.walsenders == (), "its own is nobody's standby"
        late.create_slot("appliance_pg9")
        assert {slot.name for slot in late.look(2).slots} >= {"appliance_pg9"}
        late.drop_slot("appliance_pg9")
        assert late.execute("SELECT $1 || $2, $1 IS NULL", ["a'b\\c", "$1"]) == [["a'b\\c$1", "f"]]
        late.end_walsenders("nobody")
        assert late.mark_wal() > seen.flushed_lsn
        late.shown_sync_version()
        assert late.checkpoint(limit_s=20, twice=True)
        while late.checkpointing:
            late.look(2)
        assert late.checkpoint_error is None
        late.close()
    finally:
        for connection in taken:
            connection.close()


def test_a_server_that_is_gone_is_unknown_at_once(primary):
    primary.seen()
    primary.crash()
    began_s = time.monotonic()
    assert primary.monitor.look(1) is None
    assert time.monotonic() - began_s < 0.2
    with pytest.raises(PostgresUnreachable, match=r"refused|No such file"):
        primary.sql("SELECT 1")
    primary.start()
    primary.seen()


def test_a_statement_that_is_refused_leaves_the_connection_usable(primary):
    pid = primary.value("SELECT pg_backend_pid()")
    with pytest.raises(PostgresError, match="does not exist"):
        primary.sql("SELECT nonsense")
    assert primary.value("SELECT pg_backend_pid()") == pid


def test_a_checkpoint_runs_beside_the_looks(primary):
    assert primary.monitor.checkpoint(limit_s=20)
    while primary.monitor.checkpointing:
        primary.seen()
    assert primary.monitor.checkpoint_error is None


def test_one_checkpoint_at_a_time_and_a_hung_one_is_given_up(primary):
    checkpointer = int(primary.value("SELECT pid FROM pg_stat_activity WHERE backend_type = 'checkpointer'"))
    os.kill(checkpointer, signal.SIGSTOP)
    try:
        began_s = time.monotonic()
        assert primary.monitor.checkpoint(limit_s=0.5)
        assert not primary.monitor.checkpoint(limit_s=0.5)
        primary.seen()
        assert time.monotonic() - began_s < 0.4
        time.sleep(0.5)
        assert not primary.monitor.checkpointing
        assert "no end in time" in primary.monitor.checkpoint_error
    finally:
        os.kill(checkpointer, signal.SIGCONT)


def test_a_slot_is_made_once_and_keeps_wal_from_then_on(primary):
    primary.monitor.create_slot("pg2")
    primary.monitor.create_slot("pg2")
    assert [slot.name for slot in primary.seen().slots] == ["pg2"]
    assert primary.value("SELECT restart_lsn IS NOT NULL FROM pg_replication_slots") == "t"


def test_a_primary_cannot_be_promoted(primary):
    with pytest.raises(PostgresError, match="recovery is not in progress"):
        primary.monitor.promote()


def test_looks_go_on_when_every_connection_is_taken(primary, member):
    primary.sql("CREATE ROLE app LOGIN PASSWORD 'secret'")
    primary.settings = replace(primary.settings, parameters={**primary.settings.parameters, "max_connections": "14"})
    primary.stop()
    primary.start()
    primary.monitor.close()
    with ExitStack() as taken:
        while connection := connected(primary):
            taken.enter_context(connection)
        assert primary.seen()


def connected(primary):
    try:
        return psycopg.connect(host="127.0.0.1", port=primary.port, user="app", password="secret", dbname="postgres")
    except psycopg.OperationalError as error:
        assert "remaining connection slots" in str(error)  # noqa: PT017
        return None
