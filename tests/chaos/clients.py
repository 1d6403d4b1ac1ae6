"""Clients that write and read all the time, and tell the ledger what came of each operation.

One of three: acknowledged, failed, unknown. PostgreSQL answers success to a commit whose wait for a standby was
cancelled, with a WARNING that it is only there locally: that one is unknown. So is every connection that ends under an
operation.
"""

import itertools
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

import psycopg

from tests.chaos.checks import ACCOUNTS
from tests.chaos.ledger import Kind, Operation, Outcome, line
from tests.chaos.tables import Tables

OPERATION_LIMIT_S = 12.0
"""A client gives its connection up then: a server that is stopped would let it wait for ever."""
IMPATIENCE_S = 0.4
"""An impatient client cancels an operation then, and with it the wait for a standby."""
WATCH_EACH_S = 0.05
CANCEL_LIMIT_S = 2.0
JOIN_LIMIT_S = 60.0
LIST_LENGTH = 60
"""after so many appends a list is left and another is begun"""

ids = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Request:
    """An operation before it is tried."""

    statement: str
    operation: Operation


@dataclass(frozen=True, slots=True)
class Role:
    """What a client does, how often, and whom it speaks to."""

    name: str
    dsn: str
    requests: Iterator[Request]
    pause_s: float
    enter: Callable[[], None]
    """moves its thread to its host"""
    impatient: bool = False


def inserts(tables: Tables) -> Iterator[Request]:
    while True:
        id_ = next(ids)
        yield Request(tables.insert(id_), _blank(Kind.INSERT, id_))


def transfers(tables: Tables, rng: Random) -> Iterator[Request]:
    while True:
        source, target = rng.sample(range(ACCOUNTS), 2)
        id_, moved = next(ids), (source, target, rng.randint(1, 50))
        yield Request(tables.transfer(id_, moved), replace(_blank(Kind.TRANSFER, id_), moved=moved))


def appends(tables: Tables, lists: "Lists") -> Iterator[Request]:
    while True:
        id_, key = next(ids), lists.next()
        yield Request(tables.append(id_, key), replace(_blank(Kind.APPEND, id_), key=key))


def reads(tables: Tables, lists: "Lists") -> Iterator[Request]:
    while True:
        key = lists.present()
        yield Request(tables.read(key), replace(_blank(Kind.READ, next(ids)), key=key))


class Lists:
    """The key that everybody appends to at present."""

    def __init__(self) -> None:
        self._count = itertools.count()
        self._last = 0

    def next(self) -> str:
        self._last = next(self._count)
        return self.present()

    def present(self) -> str:
        return f"l{self._last // LIST_LENGTH}"


class Client:
    """One connection at a time, one operation at a time, until it is told to stop."""

    def __init__(self, role: Role, directory: Path) -> None:
        self.role = role
        self.acknowledged = 0
        self._file = directory / f"{role.name}.jsonl"
        self._over = threading.Event()
        self._warnings: list[str] = []
        self._connection: psycopg.Connection | None = None
        self._begun_s: float | None = None
        self._thread = threading.Thread(target=self._run, name=role.name, daemon=True)

    def begin(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._over.set()

    def join(self) -> None:
        self._thread.join(JOIN_LIMIT_S)
        assert not self._thread.is_alive(), f"client {self.role.name} hangs"

    def watch(self) -> None:
        """End what takes too long; called by another thread, again and again."""
        connection, begun_s = self._connection, self._begun_s
        if connection is None or begun_s is None:
            return
        took_s = time.monotonic() - begun_s
        with suppress(psycopg.Error, OSError):
            if took_s > OPERATION_LIMIT_S:
                _hang_up(connection)
            elif self.role.impatient and took_s > IMPATIENCE_S:
                connection.cancel_safe(timeout=CANCEL_LIMIT_S)

    def _run(self) -> None:
        self.role.enter()
        with self._file.open("a") as file:
            while not self._over.is_set():
                with suppress(psycopg.Error), self._connect() as connection:
                    for operation in self._operations(connection):
                        file.write(line(operation))
                self._over.wait(self.role.pause_s)

    def _connect(self) -> psycopg.Connection:
        # ClientCursor sends simple queries: the answer to one comes after its commit
        connection = psycopg.connect(self.role.dsn, autocommit=True, cursor_factory=psycopg.ClientCursor)
        connection.add_notice_handler(self._hear)
        return connection

    def _hear(self, notice: psycopg.errors.Diagnostic) -> None:
        if notice.severity_nonlocalized == "WARNING" and "synchronous replication" in (notice.message_primary or ""):
            self._warnings.append(notice.message_primary or "")

    def _operations(self, connection: psycopg.Connection) -> Iterator[Operation]:
        """Until it is told to stop, or the connection has ended."""
        while not self._over.is_set() and not connection.closed:
            yield self.attempt(connection, next(self.role.requests))
            self._over.wait(self.role.pause_s)

    def attempt(self, connection: psycopg.Connection, request: Request) -> Operation:
        self._warnings.clear()
        begun_s = time.monotonic()
        self._connection, self._begun_s = connection, begun_s
        try:
            answer = connection.execute(request.statement).fetchone()
            found = _answered(request.operation, answer, self._warnings)
        except psycopg.Error as error:
            found = replace(request.operation, outcome=_outcome(error), why=str(error).strip())
        finally:
            self._begun_s = None
        self.acknowledged += found.outcome is Outcome.ACKNOWLEDGED
        return replace(found, client=self.role.name, begun_s=begun_s, ended_s=time.monotonic())


class Clients:
    """A context: all clients of a segment work while it is open."""

    def __init__(self, roles: list[Role], directory: Path, enter: Callable[[], None]) -> None:
        """`enter` moves the thread that cancels for the impatient to a host from which that is possible."""
        directory.mkdir(parents=True)
        self.clients = [Client(role, directory) for role in roles]
        self._enter = enter
        self._over = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="watcher", daemon=True)

    def __enter__(self) -> "Clients":
        for client in self.clients:
            client.begin()
        self._watcher.start()
        return self

    def __exit__(self, *_: object) -> None:
        for client in self.clients:
            client.stop()
        for client in self.clients:
            client.join()
        self._over.set()
        self._watcher.join(JOIN_LIMIT_S)

    def writes(self) -> int:
        """Acknowledged so far."""
        return sum(client.acknowledged for client in self.clients if not client.role.name.startswith("reader"))

    def _watch(self) -> None:
        self._enter()
        while not self._over.wait(WATCH_EACH_S):
            for client in self.clients:
                client.watch()


def _blank(kind: Kind, id_: int) -> Operation:
    return Operation("", kind, id_, 0.0, 0.0, Outcome.UNKNOWN)


def _answered(operation: Operation, answer: tuple[Any, ...] | None, warnings: list[str]) -> Operation:
    assert answer is not None
    node, timeline, *rest = answer
    outcome = Outcome.UNKNOWN if warnings else Outcome.ACKNOWLEDGED
    found = replace(operation, outcome=outcome, node=node, timeline=timeline, why="; ".join(warnings))
    if rest:
        found = replace(found, items=tuple(rest[0]))
    return replace(found, total=rest[1]) if len(rest) > 1 else found


def _outcome(error: psycopg.Error) -> Outcome:
    """What the server answers with ERROR is undone; FATAL, or no answer at all, may come after the commit."""
    return Outcome.FAILED if error.diag.severity_nonlocalized == "ERROR" else Outcome.UNKNOWN


def _hang_up(connection: psycopg.Connection) -> None:
    with socket.socket(fileno=os.dup(connection.fileno())) as copy:
        copy.shutdown(socket.SHUT_RDWR)
