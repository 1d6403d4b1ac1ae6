"""The node's own connection to its PostgreSQL: one cheap look, and a few orders, none longer than its limit.

Belongs to one thread. No call of it waits for a hung server longer than it was told to.
"""

import re
import time
from collections.abc import Sequence
from pathlib import Path

from appliance.cluster.lsn import parse_lsn
from appliance.postgres.conninfo import keywords
from appliance.postgres.errors import PostgresError, PostgresUnreachable
from appliance.postgres.instance import (
    LOOK,
    SHOWN_SYNC_VERSION,
    InstanceSeen,
    Known,
    read_answer,
    read_sync_version,
)
from appliance.postgres.settings import SUPERUSER
from appliance.postgres.wire import Row, Wire

ORDER_LIMIT_S = 2.0
_OPTIONS = (
    "statement_timeout=10s",
    "lock_timeout=5s",
    "plan_cache_mode=force_generic_plan",  # the look is planned once
    "jit=off",
    "search_path=pg_catalog",
    "default_transaction_read_only=off",  # a disk that is about to be full stops applications, not orders
    "synchronous_commit=local",  # orders are about this server, and must not wait for another
    # A log that names every look says nothing.
    "log_statement=none",
    "log_min_duration_statement=-1",
    "log_duration=off",
)

_ALL_TAKEN = re.compile("too many clients already|connection slots are reserved")
"""https://www.postgresql.org/docs/current/errcodes-appendix.html: 53300, which libpq does not tell apart here. In other
languages than English it is not known."""


class Monitor:
    def __init__(self, socket_dir: Path, port: int) -> None:
        self._target = {"host": str(socket_dir), "port": str(port), "user": SUPERUSER, "dbname": "postgres"}
        self._wire: Wire | None = None
        self._known = Known()
        self._checkpoint: _Checkpoint | None = None

    def look(self, limit_s: float) -> InstanceSeen | None:
        """None: no answer in time, or none at all; whether PostgreSQL runs is not known then."""
        try:
            return self._look(time.monotonic() + limit_s)
        except PostgresError:
            self.close()
            return None

    def _look(self, until_s: float) -> InstanceSeen:
        wire = self._connected(until_s)
        rows = wire.ask_prepared(LOOK, [self._known.conf_load_time], until_s)
        seen, self._known = read_answer(rows[0][0] or "", self._known, wire.server_version)
        return seen

    def promote(self) -> None:
        """Returns when it is signalled; a later look shows that it is done. Not on a standby: PostgresError."""
        self.execute("SELECT pg_promote(false)")

    def create_slot(self, name: str) -> None:
        """A physical slot, unless there is one of that name. It keeps WAL from now on, not from its first use."""
        self.execute(
            "SELECT pg_create_physical_replication_slot($1::name, true)"
            " WHERE NOT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = $1::name)",
            [name],
        )

    def drop_slot(self, name: str) -> None:
        """Nothing where there is none. An active one: PostgresError."""
        self.execute(
            "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = $1::name", [name]
        )

    def shown_sync_version(self) -> int:
        """As a new connection shows it: whatever it shows, the postmaster has told every other process to load before.

        UNKNOWN_SYNC_VERSION: what is loaded is no set that the appliance wrote.
        """
        until_s = time.monotonic() + ORDER_LIMIT_S
        wire = self._connect(_OPTIONS, until_s)
        try:
            ((shown,),) = wire.ask(f"SELECT {SHOWN_SYNC_VERSION}", (), until_s)
        finally:
            wire.close()
        return read_sync_version(shown)

    def mark_wal(self) -> int:
        """Write and flush a record, here only; where the flushed WAL ends after it. Every walsender has to send it."""
        self.execute("SELECT pg_logical_emit_message(true, 'appliance', '')")
        ((lsn,),) = self.execute("SELECT pg_current_wal_flush_lsn()")
        return parse_lsn(lsn or "")

    def end_walsenders(self, application_name: str) -> None:
        """Returns when they are signalled; one that hangs stays in later looks. Compared as PostgreSQL does for
        synchronous standbys, without case."""
        self.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_replication WHERE lower(application_name) = lower($1)",
            [application_name],
        )

    def execute(self, sql: str, parameters: Sequence[str | None] = (), *, limit_s: float = ORDER_LIMIT_S) -> list[Row]:
        """One statement; values come and go as text. After PostgresUnreachable it may or may not have been done."""
        until_s = time.monotonic() + limit_s
        return self._connected(until_s).ask(sql, parameters, until_s)

    def checkpoint(self, limit_s: float, *, twice: bool = False) -> bool:
        """Begin one on a connection of its own and return; whether it was begun: one runs at a time.

        It runs in PostgreSQL even when nobody asks for it any more. After `limit_s` it counts as failed.

        R8, T7: the checkpointer is sure to act by what was loaded before only when two have ended, one after the other.
        It looks for a reload first and for a request second; if both come in between, it makes the checkpoint without
        the reload, but comes past it before it can begin the next.
        """
        if self.checkpointing:
            return False
        until_s = time.monotonic() + ORDER_LIMIT_S
        wire = self._connect([*_OPTIONS, "statement_timeout=0"], until_s)
        wire.send("CHECKPOINT", (), until_s)
        self._checkpoint = _Checkpoint(wire, time.monotonic() + limit_s, again=twice)
        return True

    @property
    def checkpointing(self) -> bool:
        return self._checkpoint is not None and self._checkpoint.running()

    @property
    def checkpoint_error(self) -> str | None:
        """Of the last one that was begun here; None: it runs, went well, or there was none."""
        return self._checkpoint.error if self._checkpoint else None

    def close(self) -> None:
        """It may be used again: the next call connects anew."""
        if self._wire is not None:
            self._wire.close()
        self._wire, self._known = None, Known()

    def _connected(self, until_s: float) -> Wire:
        if self._wire is None or self._wire.closed:
            self._known = Known()
            self._wire = self._connect(_OPTIONS, until_s)
        return self._wire

    def _connect(self, options: Sequence[str], until_s: float) -> Wire:
        """Where all connections are taken, those for superusers too, as a walsender: max_wal_senders counts apart, and
        is for members alone. A new node process would otherwise know nothing of a PostgreSQL that is only busy."""
        try:
            return Wire.connect(self._conninfo(options), until_s)
        except PostgresUnreachable as error:
            if not any(_ALL_TAKEN.search(line) for line in error.lines):
                raise
            return Wire.connect(self._conninfo(options, replication="database"), until_s, plain=True)

    def _conninfo(self, options: Sequence[str], **more: str) -> str:
        written = " ".join(f"-c {option}" for option in options)
        return keywords({**self._target, "application_name": "appliance", "options": written, **more})


class _Checkpoint:
    def __init__(self, wire: Wire, until_s: float, *, again: bool) -> None:
        self._wire = wire
        self._until_s = until_s
        self._again = again
        self._ended = False
        self.error: str | None = None

    def running(self) -> bool:
        if not self._ended:
            try:
                self._ended = self._look()
            except PostgresError as error:
                self._ended, self.error = True, str(error)
            if self._ended:
                self._wire.close()
        return not self._ended

    def _look(self) -> bool:
        if self._wire.answered():
            self._wire.answer(self._until_s)
            if not self._again:
                return True
            self._again = False
            self._wire.send("CHECKPOINT", (), self._until_s)
        if time.monotonic() > self._until_s:
            raise PostgresUnreachable("checkpoint", None, ["no end in time"])
        return False
