"""Commits that may wait for a synchronous standby, and what they wait for."""

import os
import signal
import time
from contextlib import contextmanager
from dataclasses import replace

from appliance.postgres.conninfo import keywords
from appliance.postgres.settings import standby_names
from appliance.postgres.wire import Wire

INSERT = "INSERT INTO public.t DEFAULT VALUES"
WAITS_S = 0.3
"""A commit that is not answered for so long waits; one that does not wait takes a few ms here."""
ENDS_S = 3.0


class Commit:
    """One row, on a connection of its own; sent, not awaited."""

    def __init__(self, member, statement=INSERT, **options):
        written = " ".join(f"-c {name}={value}" for name, value in options.items())
        where = {"host": str(member.root), "port": str(member.port), "user": "postgres", "dbname": "postgres"}
        self._member = member
        self._wire = Wire.connect(keywords({**where, "options": written}), time.monotonic() + ENDS_S)
        ((pid,),) = self._wire.ask("SELECT pg_backend_pid()", (), time.monotonic() + ENDS_S)
        self.pid = int(pid)
        self._wire.send(statement, (), time.monotonic() + ENDS_S)
        self.sent_s = time.monotonic()

    def waits(self):
        """For a standby, and not for a lock or a slow disk."""
        until_s = time.monotonic() + WAITS_S
        while time.monotonic() < until_s:
            assert not self._wire.answered(), "the commit has not waited"
            time.sleep(0.01)
        asked = "SELECT wait_event FROM pg_stat_activity WHERE pid = $1::int"
        assert self._member.value(asked, str(self.pid)) == "SyncRep"
        return self

    def ends(self):
        """The seconds until it is acknowledged, from now."""
        began_s = time.monotonic()
        try:
            self._wire.answer(began_s + ENDS_S)
        finally:
            self._wire.close()
        return time.monotonic() - began_s


def table(member):
    member.sql("CREATE TABLE IF NOT EXISTS public.t (id int GENERATED ALWAYS AS IDENTITY)")


def write(member, version, names):
    """As the agent does before a start or a reload."""
    member.settings = replace(member.settings, synchronous_standby_names=names, sync_version=version)


def load(member, version, names):
    """By reload, until a new connection shows it."""
    write(member, version, names)
    member.reload()
    until_s = time.monotonic() + ENDS_S
    while member.monitor.shown_sync_version() != version:
        assert time.monotonic() < until_s
        time.sleep(0.001)


def any_of(k, *members):
    return standby_names(k, [str(getattr(member, "name", member)) for member in members], by_priority=False)


def checkpointed(member):
    """R8 (a)."""
    assert member.monitor.checkpoint(20, twice=True)
    while member.monitor.checkpointing:
        time.sleep(0.005)
    assert member.monitor.checkpoint_error is None


def acknowledged(primary, standby, lsn):
    return primary.until(lambda seen: sender(seen, standby).flushed_lsn >= lsn)


def sender(seen, standby):
    (found,) = [one for one in seen.walsenders if one.application_name == standby.name]
    return found


def walsender_pid(primary, standby):
    return int(primary.value("SELECT pid FROM pg_stat_replication WHERE application_name = $1", standby.name))


def process_of(member, kind):
    return int(member.value("SELECT pid FROM pg_stat_activity WHERE backend_type = $1", kind))


@contextmanager
def stopped(*pids):
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
