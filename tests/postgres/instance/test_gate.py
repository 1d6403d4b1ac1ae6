"""The gate of a primary (R5a) on real PostgreSQL: a reload closes and opens it; a crash of one session ends all."""

import os
import signal
from dataclasses import replace

import psycopg
import pytest

from appliance.postgres.credentials import REPLICATION_ROLE, REWIND_ROLE

USER = "someone"


def gate(primary, *, opened):
    primary.settings = replace(primary.settings, admits=opened)
    primary.reload()
    return primary.until(lambda seen: seen.admits is opened)


def connect(primary, host, user=USER):
    return psycopg.connect(
        host=host, port=primary.port, user=user, password="secret", dbname="postgres", autocommit=True
    )


@pytest.fixture
def application(primary):
    primary.monitor.execute(f"CREATE ROLE {USER} LOGIN PASSWORD 'secret'")
    return primary


def test_a_closed_gate_lets_the_members_in_and_nobody_else(application):
    places = (str(application.root), "127.0.0.1")
    with connect(application, places[0]) as before:
        gate(application, opened=False)
        for place in places:
            with pytest.raises(psycopg.OperationalError, match="rejects connection"):
                connect(application, place)
        before.execute("SELECT 1")  # who is in stays
        application.monitor.close()
        assert not application.seen().admits, "the appliance itself comes in"
        for role in (REPLICATION_ROLE, REWIND_ROLE):
            psycopg.connect(
                application.conninfo(role, application, dbname="postgres")
                + (" replication=true" if role == REPLICATION_ROLE else "")
            ).close()
        gate(application, opened=True)
        for place in places:
            connect(application, place).close()


def test_a_line_that_cannot_be_read_does_not_keep_it_from_closing(application):
    application.settings = replace(application.settings, hba=("junk",))
    gate(application, opened=False)
    with pytest.raises(psycopg.OperationalError, match="rejects connection"):
        connect(application, str(application.root))


def test_it_is_closed_from_the_very_start(application):
    application.stop()
    application.settings = replace(application.settings, admits=False)
    application.start()
    assert not application.seen().admits
    with pytest.raises(psycopg.OperationalError, match="rejects connection"):
        connect(application, str(application.root))


def test_a_session_that_crashes_ends_postgresql_whatever_alter_system_says(application):
    application.monitor.execute("ALTER SYSTEM SET restart_after_crash = on")
    application.reload()
    with connect(application, str(application.root)) as session:
        os.kill(session.info.backend_pid, signal.SIGKILL)
    assert application.process.wait(20) != 0
