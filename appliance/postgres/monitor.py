"""The node's own connection to its PostgreSQL: one cheap look, and a few orders, none longer than its limit.

Belongs to one thread. No call of it waits for a hung server longer than it was told to.
"""

import time
from collections.abc import Sequence
from pathlib import Path

from appliance.postgres.conninfo import keywords
from appliance.postgres.errors import PostgresError, PostgresUnreachable
from appliance.postgres.instance import LOOK, InstanceSeen, Known, read_answer
from appliance.postgres.settings import SUPERUSER
from appliance.postgres.wire import Row, Wire

ORDER_LIMIT_S = 2.0
_OPTIONS = (
    "statement_timeout=10s",
    "lock_timeout=5s",
    "plan_cache_mode=force_generic_plan",  # the look is planned once
    "jit=off",
    "search_path=pg_catalog",
    # A log that names every look says nothing.
    "log_statement=none",
    "log_min_duration_statement=-1",
    "log_duration=off",
)


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

    def execute(self, sql: str, parameters: Sequence[str | None] = (), *, limit_s: float = ORDER_LIMIT_S) -> list[Row]:
        """One statement; values come and go as text. After PostgresUnreachable it may or may not have been done."""
        until_s = time.monotonic() + limit_s
        return self._connected(until_s).ask(sql, parameters, until_s)

    def checkpoint(self, limit_s: float) -> bool:
        """Begin one on a connection of its own and return; whether it was begun: one runs at a time.

        It runs in PostgreSQL even when nobody asks for it any more. After `limit_s` it counts as failed.
        """
        if self.checkpointing:
            return False
        until_s = time.monotonic() + ORDER_LIMIT_S
        wire = Wire.connect(self._conninfo(["statement_timeout=0"]), until_s)
        wire.send("CHECKPOINT", (), until_s)
        self._checkpoint = _Checkpoint(wire, time.monotonic() + limit_s)
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
            self._wire = Wire.connect(self._conninfo(_OPTIONS), until_s)
        return self._wire

    def _conninfo(self, options: Sequence[str]) -> str:
        written = " ".join(f"-c {option}" for option in options)
        return keywords({**self._target, "application_name": "appliance", "options": written})


class _Checkpoint:
    def __init__(self, wire: Wire, until_s: float) -> None:
        self._wire = wire
        self._until_s = until_s
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
            return True
        if time.monotonic() > self._until_s:
            raise PostgresUnreachable("checkpoint", None, ["no end in time"])
        return False
