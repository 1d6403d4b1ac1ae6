"""One connection with a deadline on every step: libpq without blocking, so a hung server costs no more than that."""

import re
import select
import time
from collections.abc import Sequence
from typing import Self

from psycopg import pq

from appliance.postgres.errors import PostgresError, PostgresUnreachable

Row = list[str | None]
_PLACE = re.compile(r"\$([1-9])")


def ask(conninfo: str, sql: str, *, limit_s: float) -> list[Row]:
    """One question on a connection of its own."""
    until_s = time.monotonic() + limit_s
    wire = Wire.connect(conninfo, until_s)
    try:
        return wire.ask(sql, (), until_s)
    finally:
        wire.close()


class Wire:
    """Belongs to one thread. After PostgresUnreachable it is closed: an answer that comes later is nobody's."""

    def __init__(self, connection: pq.abc.PGconn, *, plain: bool = False) -> None:
        """`plain`: it understands simple queries only, so that values are written into them."""
        self._connection = connection
        self._plain = plain
        self._poll = select.poll()
        self._prepared: dict[str, bytes] = {}

    @classmethod
    def connect(cls, conninfo: str, until_s: float, *, plain: bool = False) -> Self:
        """Name resolution aside, which libpq does not bound: members' addresses are numbers or in the host file."""
        connection = pq.PGconn.connect_start(conninfo.encode())
        wire = cls(connection, plain=plain)
        with _Broken(wire):
            wire._finish_connecting(until_s)
        connection.nonblocking = 1
        return wire

    @property
    def closed(self) -> bool:
        return self._connection.status == pq.ConnStatus.BAD

    @property
    def server_version(self) -> int:
        return self._connection.server_version

    def ask(self, sql: str, parameters: Sequence[str | None], until_s: float) -> list[Row]:
        """Raises PostgresUnreachable when there is no answer in time, PostgresError when PostgreSQL refuses."""
        self.send(sql, parameters, until_s)
        return self.answer(until_s)

    def send(self, sql: str, parameters: Sequence[str | None], until_s: float) -> None:
        """The answer is fetched by `answer`, or awaited by `answered`."""
        with _Broken(self):
            if self._plain:
                self._connection.send_query(self._written(sql, parameters).encode())
            else:
                self._connection.send_query_params(sql.encode(), _encoded(parameters))
            self._flush(until_s)

    def _written(self, sql: str, parameters: Sequence[str | None]) -> str:
        escaping = pq.Escaping(self._connection)
        values = ["NULL" if v is None else bytes(escaping.escape_literal(v.encode())).decode() for v in parameters]
        return _PLACE.sub(lambda place: values[int(place[1]) - 1], sql)

    def ask_prepared(self, sql: str, parameters: Sequence[str | None], until_s: float) -> list[Row]:
        """As `ask`, but PostgreSQL parses and plans it once in the life of this connection."""
        if self._plain:
            return self.ask(sql, parameters, until_s)
        if sql not in self._prepared:
            self._prepare(sql, f"appliance_{len(self._prepared)}".encode(), until_s)
        with _Broken(self):
            self._connection.send_query_prepared(self._prepared[sql], _encoded(parameters))
            self._flush(until_s)
        return self.answer(until_s)

    def _prepare(self, sql: str, name: bytes, until_s: float) -> None:
        with _Broken(self):
            self._connection.send_prepare(name, sql.encode())
            self._flush(until_s)
        self.answer(until_s)
        self._prepared[sql] = name

    def answered(self) -> bool:
        """Whether `answer` would return at once."""
        with _Broken(self):
            self._connection.consume_input()
            return not self._connection.is_busy()

    def answer(self, until_s: float) -> list[Row]:
        rows: list[Row] = []
        refusal: PostgresError | None = None
        while (result := self._result(until_s)) is not None:
            match result.status:
                case pq.ExecStatus.TUPLES_OK | pq.ExecStatus.COMMAND_OK:
                    rows = _rows(result)
                case _:
                    refusal = PostgresError("statement", None, result.get_error_message().splitlines())
            result.clear()
        if refusal:
            raise self._explained(refusal)
        return rows

    def close(self) -> None:
        self._connection.finish()

    def _explained(self, refusal: PostgresError) -> PostgresError:
        """A connection that PostgreSQL ended says so as the result of the statement."""
        if self._connection.status == pq.ConnStatus.OK:
            return refusal
        self.close()
        return PostgresUnreachable("connection", None, refusal.lines)

    def _finish_connecting(self, until_s: float) -> None:
        while True:
            match self._connection.connect_poll():
                case pq.PollingStatus.OK:
                    return
                case pq.PollingStatus.READING:
                    self._wait(select.POLLIN, until_s)
                case pq.PollingStatus.WRITING:
                    self._wait(select.POLLOUT, until_s)
                case _:
                    raise PostgresUnreachable("connect", None, self._connection.get_error_message().splitlines())

    def _flush(self, until_s: float) -> None:
        while self._connection.flush():
            self._wait(select.POLLIN | select.POLLOUT, until_s)
            self._connection.consume_input()

    def _result(self, until_s: float) -> pq.abc.PGresult | None:
        with _Broken(self):
            while self._connection.is_busy():
                self._wait(select.POLLIN, until_s)
                self._connection.consume_input()
            return self._connection.get_result()

    def _wait(self, events: int, until_s: float) -> None:
        left_s = until_s - time.monotonic()
        descriptor = self._connection.socket
        self._poll.register(descriptor, events)
        try:
            if left_s <= 0 or not self._poll.poll(left_s * 1000):
                raise PostgresUnreachable("no answer in time")
        finally:
            self._poll.unregister(descriptor)


class _Broken:
    """Any trouble below closes the connection and is told as PostgresUnreachable."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None:
            return
        self._wire.close()
        if not isinstance(error, PostgresError) and isinstance(error, Exception):
            raise PostgresUnreachable("connection", None, str(error).splitlines()) from error


def _encoded(parameters: Sequence[str | None]) -> list[bytes | None]:
    return [None if value is None else value.encode() for value in parameters]


def _rows(result: pq.abc.PGresult) -> list[Row]:
    columns = range(result.nfields)
    return [[_text(result.get_value(row, column)) for column in columns] for row in range(result.ntuples)]


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode(errors="replace")
