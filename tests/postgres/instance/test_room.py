"""Writes that are refused for want of disk space, and a server whose connections are all taken: the appliance's own
orders and looks go on.
"""

import time
from contextlib import ExitStack
from dataclasses import replace

import psycopg
import pytest

from appliance.node.probe import try_door
from appliance.postgres.monitor import Monitor

WRITE = "CREATE TABLE public.written AS SELECT 1 AS id"


def refuse(primary, *, refuses):
    primary.settings = replace(primary.settings, refuses_writes=refuses)
    primary.reload()
    return primary.until(lambda seen: seen.refuses_writes is refuses)


def connect(primary, **more):
    return psycopg.connect(
        host=str(primary.root), port=primary.port, user="postgres", dbname="postgres", autocommit=True, **more
    )


def _take_all(primary, sessions):
    """More than once, as a session that was refused, or has just ended, still has its place for a moment."""
    refused = 0
    while refused < 5:
        try:
            sessions.enter_context(connect(primary))
        except psycopg.OperationalError as error:
            if "too many clients" not in str(error):
                raise
            refused += 1
            time.sleep(0.05)


def test_new_transactions_are_read_only_unless_they_ask_for_more(primary):
    assert not primary.seen().refuses_writes
    with connect(primary) as before:
        refuse(primary, refuses=True)
        with connect(primary) as after:
            for session in (before, after):
                with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
                    session.execute(WRITE)
            after.execute("BEGIN READ WRITE")
            after.execute(WRITE)
            after.execute("DROP TABLE public.written")
            after.execute("COMMIT")
        with pytest.raises(psycopg.OperationalError, match="read-only"):
            connect(primary, target_session_attrs="read-write")
        refuse(primary, refuses=False)
        before.execute(WRITE)


def test_the_appliances_own_orders_are_not_refused(primary):
    refuse(primary, refuses=True)
    primary.monitor.create_slot("one")
    primary.monitor.mark_wal()
    primary.monitor.execute(WRITE)
    primary.monitor.drop_slot("one")
    assert primary.monitor.checkpoint(limit_s=20)
    while primary.monitor.checkpointing:
        primary.seen()
    assert primary.monitor.checkpoint_error is None


def test_with_all_connections_taken_looks_go_on_and_the_postmaster_still_answers(primary):
    """Also those that are reserved for superusers."""
    primary.settings = replace(primary.settings, parameters={**primary.settings.parameters, "max_connections": "8"})
    primary.stop()
    primary.start()
    primary.seen()
    with ExitStack() as sessions:
        _take_all(primary, sessions)
        for _ in range(3):
            primary.seen()
        try_door(str(primary.data_dir), str(primary.root / f".s.PGSQL.{primary.port}"))
        seen = Monitor(primary.root, primary.port).look(1)
    assert seen is not None, "a new node process comes in as a walsender"
    assert not seen.in_recovery
