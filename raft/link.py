"""One outgoing connection to one peer: a thread of its own resolves, connects, reads and connects again."""

from __future__ import annotations

import os
import random
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from raft import address, codec
from raft.codec import CodecError, FrameReader, Message

CONNECT_LIMIT_S = 1.0
HANDSHAKE_LIMIT_S = 2.0
PING_S = 1.0
SILENCE_S = 3.0
"""A connection that says nothing for this long is given up by its reader."""
BACKLOG_LIMIT_BYTES = 2 * codec.FRAME_LIMIT_BYTES
_RETRY_S = (0.2, 0.5)
_PING = codec.encode({"type": "ping"})


class RefusedError(Exception):
    """The peer will not talk to us, or is not who it should be; the message is for people."""


@dataclass(frozen=True, slots=True)
class LinkEvents:
    """What a link tells its owner; called from the link's thread."""

    on_up: Callable[[Message], None]
    """With the peer's welcome."""
    on_down: Callable[[], None]
    on_message: Callable[[Message], None]
    on_refused: Callable[[str], None]
    """Each time, with the reason."""


class Link:
    """Keeps a connection to a peer up, from `start()` to `close()`.

    `send` never blocks: what the socket does not take waits in a bounded backlog. There is no promise
    that what was sent arrives; what does arrive is in order, and whole.
    """

    def __init__(
        self,
        peer: str,
        place: str,
        *,
        hello: Callable[[], Message],
        check: Callable[[Message], None],
        receives: frozenset[str],
        events: LinkEvents,
    ) -> None:
        self.peer = peer
        self.place = place
        self._hello = hello
        self._check = check
        self._receives = receives
        self._events = events
        self._mutex = threading.Lock()
        self._socket: socket.socket | None = None
        self._backlog: deque[memoryview] = deque()
        self._backlog_bytes = 0
        self._sent_s = 0.0
        self._problem: str | None = f"{peer} at {place}: not connected yet"
        self._refusal: str | None = None
        self._closed = threading.Event()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._thread = threading.Thread(target=self._run, name=f"raft link {peer}", daemon=True)

    @property
    def connected(self) -> bool:
        return self._socket is not None

    @property
    def problem(self) -> str | None:
        """Why there is no connection; None when there is one."""
        return self._problem

    @property
    def refusal(self) -> str | None:
        """Why the peer or this replica would not talk at the last try; None when nobody minded, or nobody was there."""
        return self._refusal

    def start(self) -> None:
        self._thread.start()

    def send(self, frame: bytes) -> bool:
        """Send, or queue, a frame; False when there is no connection to send it on."""
        with self._mutex:
            if self._socket is None:
                return False
            self._sent_s = time.monotonic()
            rest = memoryview(frame)
            if not self._backlog:
                try:
                    rest = rest[self._socket.send(rest) :]
                except BlockingIOError:
                    pass
                except OSError:
                    self._give_up()
                    return False
            return not rest or self._queue(rest)

    def close(self) -> None:
        """End the thread; it may be in a name lookup, so it is not waited for."""
        self._closed.set()
        with self._mutex:
            self._give_up()

    def _queue(self, rest: memoryview) -> bool:
        if self._backlog_bytes + len(rest) > BACKLOG_LIMIT_BYTES:
            self._give_up()
            return False
        self._backlog.append(rest)
        self._backlog_bytes += len(rest)
        os.eventfd_write(self._wake, 1)
        return True

    def _give_up(self) -> None:
        """Let the link's thread find the connection dead; the caller holds the mutex."""
        if self._socket is not None:
            _shut(self._socket)

    def _run(self) -> None:
        while not self._closed.is_set():
            try:
                with self._connect() as connection:
                    self._converse(connection)
            except RefusedError as error:
                self._problem = self._refusal = str(error)
                self._events.on_refused(str(error))
            except (OSError, CodecError) as error:
                self._problem = f"{self.peer} at {self.place}: {address.reason(error)}"
                self._refusal = None
            self._closed.wait(random.uniform(*_RETRY_S))  # noqa: S311  spreads load, keeps no secret
        os.close(self._wake)

    def _connect(self) -> socket.socket:
        connection = socket.create_connection(address.parse(self.place), timeout=CONNECT_LIMIT_S)
        address.tune(connection, SILENCE_S)
        return connection

    def _converse(self, connection: socket.socket) -> None:
        connection.settimeout(HANDSHAKE_LIMIT_S)
        connection.sendall(codec.encode(self._hello()))
        reader = FrameReader()
        welcome, *early = _first_messages(connection, reader, self._receives)
        if welcome["type"] == "refuse":
            raise RefusedError(_refusal(self.peer, self.place, welcome, self._hello()["cluster"]))
        self._check(welcome)
        connection.setblocking(False)
        with self._mutex:
            self._socket = connection
            self._problem = self._refusal = None
        self._events.on_up(welcome)
        try:
            for message in early:
                self._events.on_message(message)
            self._serve(connection, reader)
        finally:
            with self._mutex:
                self._socket = None
                self._problem = f"{self.peer} at {self.place}: connection lost"
                self._backlog.clear()
                self._backlog_bytes = 0
            self._events.on_down()

    def _serve(self, connection: socket.socket, reader: FrameReader) -> None:
        poll = select.poll()
        poll.register(self._wake, select.POLLIN)
        while not self._closed.is_set():
            poll.register(connection, select.POLLIN | (select.POLLOUT if self._backlog else 0))
            for descriptor, event in poll.poll(PING_S * 1000):
                if descriptor == self._wake:
                    os.eventfd_read(self._wake)
                    continue
                if event & select.POLLOUT:
                    self._drain(connection)
                if event & ~select.POLLOUT:
                    self._read(connection, reader)
            if time.monotonic() - self._sent_s > PING_S * 0.9:
                self.send(_PING)

    def _drain(self, connection: socket.socket) -> None:
        with self._mutex:
            while self._backlog:
                try:
                    sent = connection.send(self._backlog[0])
                except BlockingIOError:
                    return
                self._backlog_bytes -= sent
                if sent < len(self._backlog[0]):
                    self._backlog[0] = self._backlog[0][sent:]
                else:
                    self._backlog.popleft()

    def _read(self, connection: socket.socket, reader: FrameReader) -> None:
        data = connection.recv(65536)
        if not data:
            raise ConnectionResetError("the peer closed the connection")
        for body in reader.feed(data):
            self._events.on_message(codec.decode(body, self._receives))


def _first_messages(connection: socket.socket, reader: FrameReader, receives: frozenset[str]) -> list[Message]:
    while True:
        data = connection.recv(65536)
        if not data:
            raise ConnectionResetError("the peer closed the connection during the handshake")
        if bodies := reader.feed(data):
            first = codec.decode(bodies[0], frozenset({"welcome", "refuse"}))
            return [first, *(codec.decode(body, receives) for body in bodies[1:])]


def _refusal(peer: str, place: str, refuse: Message, cluster: str) -> str:
    if refuse["cluster"] != cluster:
        return f"peer {peer} at {place} belongs to cluster {refuse['cluster']!r}, ours is {cluster!r}"
    return f"peer {peer} at {place} refused us: {refuse['reason']}"


def _shut(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        return  # it is dead already, which is what was wanted
