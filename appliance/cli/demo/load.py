"""`demo load`: a client that writes one row a commit, and afterwards looks for every row that was acknowledged."""

import contextlib
import secrets
import sys
import time
from dataclasses import dataclass, field

import psycopg

from appliance.cli.demo.layout import Layout, chosen
from appliance.cli.demo.status import demo_uri
from appliance.cli.exits import Code, CommandError
from appliance.cli.output import Format, Table, emit, say

BETWEEN_ROWS_S = 0.005
RETRY_S = 0.02
TELL_EVERY_S = 1.0
TELL_GAP_S = 0.2
CONNECT_LIMIT_S = 30.0
_CREATE = "create table if not exists demo_load (run text, n bigint, primary key (run, n))"
_INSERT = "insert into demo_load (run, n) values (%s, %s)"


@dataclass(slots=True)
class Ledger:
    """What the server acknowledged, and how long it let the client wait."""

    began_s: float
    acknowledged: list[int] = field(default_factory=list)
    last_s: float | None = None
    longest_gap_s: float = 0.0
    errors: int = 0

    def note(self, number: int, now_s: float) -> float:
        """Returns the gap since the acknowledgement before."""
        gap_s = now_s - self.last_s if self.last_s is not None else 0.0
        self.acknowledged.append(number)
        self.last_s = now_s
        self.longest_gap_s = max(self.longest_gap_s, gap_s)
        return gap_s


def load(directory: str, seconds: float | None, output: Format) -> int:
    """Exits 1 when a row is missing at the end."""
    dsn = demo_uri(Layout.load(chosen(directory)))
    with contextlib.closing(_connected(dsn, CONNECT_LIMIT_S)) as connection:
        connection.execute(_CREATE)
    writer = Writer(dsn, secrets.token_hex(4), Ledger(time.monotonic()))
    with contextlib.suppress(KeyboardInterrupt), contextlib.closing(writer):
        while seconds is None or time.monotonic() < writer.ledger.began_s + seconds:
            writer.write()
    return _conclude(writer.ledger, _present(dsn, writer.run), output)


class Writer:
    """One row after the other; reconnects over the multi-host connection string."""

    def __init__(self, dsn: str, run: str, ledger: Ledger) -> None:
        self.dsn = dsn
        self.run = run
        self.ledger = ledger
        self._number = 0
        self._told_s = ledger.began_s
        self._connection: psycopg.Connection | None = None

    def write(self) -> None:
        # A row whose outcome is not known is not tried again: it may be there, and was not acknowledged.
        self._number += 1
        try:
            self._connection = self._connection or _connect(self.dsn)
            self._connection.execute(_INSERT, (self.run, self._number))
        except psycopg.Error as error:
            self.ledger.errors += 1
            self.close()
            self._tell(f"{time.monotonic() - self.ledger.began_s:6.1f} s  no write: {_reason(error)}")
            time.sleep(RETRY_S)
            return
        now_s = time.monotonic()
        gap_s = self.ledger.note(self._number, now_s)
        if gap_s >= TELL_GAP_S:
            say(sys.stderr, f"{now_s - self.ledger.began_s:6.1f} s  no acknowledged write for {gap_s:.2f} s")
        self._tell(_line(self.ledger, now_s))
        time.sleep(BETWEEN_ROWS_S)

    def _tell(self, line: str) -> None:
        now_s = time.monotonic()
        if now_s - self._told_s >= TELL_EVERY_S:
            self._told_s = now_s
            say(sys.stderr, line)

    def close(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(psycopg.Error):
                self._connection.close()
        self._connection = None


def _line(ledger: Ledger, now_s: float) -> str:
    rows = len(ledger.acknowledged)
    return f"{now_s - ledger.began_s:6.1f} s  {rows} rows, longest gap {ledger.longest_gap_s:.2f} s"


def _reason(error: psycopg.Error) -> str:
    """The last server's words; libpq puts each host and its address before them."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[-1].rpartition("failed: ")[2].strip()


def _connect(dsn: str) -> psycopg.Connection:
    return psycopg.connect(
        dsn,
        autocommit=True,
        connect_timeout=2,
        tcp_user_timeout=2000,
        application_name="appliance demo load",
    )


def _connected(dsn: str, limit_s: float) -> psycopg.Connection:
    """A connection to the primary, tried again for as long as the limit."""
    deadline_s = time.monotonic() + limit_s
    while True:
        try:
            return _connect(dsn)
        except psycopg.Error as error:
            if time.monotonic() > deadline_s:
                why = " ".join(str(error).split())
                raise CommandError(Code.UNREACHABLE, f"no primary takes a connection in {limit_s:g} s: {why}") from None
            time.sleep(RETRY_S)


def _present(dsn: str, run: str) -> set[int]:
    with contextlib.closing(_connected(dsn, CONNECT_LIMIT_S)) as connection:
        return {row[0] for row in connection.execute("select n from demo_load where run = %s", (run,))}


def _conclude(ledger: Ledger, present: set[int], output: Format) -> int:
    lost = len(set(ledger.acknowledged) - present)
    document = {
        "seconds": round(time.monotonic() - ledger.began_s, 3),
        "acknowledged": len(ledger.acknowledged),
        "lost": lost,
        "longest_gap_s": round(ledger.longest_gap_s, 3),
        "errors": ledger.errors,
    }
    text = [
        f"rows acknowledged  {document['acknowledged']}",
        f"longest gap        {ledger.longest_gap_s:.2f} s",
        f"acknowledged rows lost  {lost}",
    ]
    table = Table([key.upper() for key in document], [[str(value) for value in document.values()]])
    emit(document, table, output, text=text)
    return Code.FAILED if lost else Code.DONE
