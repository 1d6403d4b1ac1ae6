"""A connection, sealed or in the clear: its own thread opens it, reads and waits; any thread sends, and never waits.

TLS is arithmetic on bytes here (`tls.Sealed`), under a lock that nobody holds while waiting for a socket. So the raft
thread seals and sends a message itself: no other thread has to wake up for it, and a peer that does not read costs its
backlog.
"""

from __future__ import annotations

import contextlib
import math
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Protocol

from raft import address, codec, tls
from raft.certificates import CertificateError, Subject
from raft.clock import boottime_s
from raft.codec import FrameReader, Message
from raft.refusals import RefusedError
from raft.tls import Sealed

HANDSHAKE_LIMIT_S = 2.0
HANDSHAKE_LIMIT_BYTES = 64 * 1024
PING_S = 1.0
SILENCE_S = 3.0
"""A connection that says nothing for this long is given up by its reader."""
EXPIRY_GRACE_S = 2.0
"""Who opened a connection ends it when a certificate is over, and can open another at once; the other side does so this
much later."""
BACKLOG_LIMIT_BYTES = 2 * codec.FRAME_LIMIT_BYTES
_READ_BYTES = 64 * 1024
_WRITE_BYTES = 256 * 1024
_PARTING_S = 0.5
_TLS_HANDSHAKE = b"\x16\x03"
"""Begins a TLS connection; a frame that begins like this would be far over the limit."""
_PING = codec.encode({"type": "ping"})


class ExpiredError(ConnectionAbortedError):
    """A certificate that the connection began with is over. Another connection may be made with another one."""


class Cipher(Protocol):
    def seal(self, data: bytes) -> bytes: ...

    def open(self, data: bytes) -> bytes: ...


class Clear:
    """No cipher: what is said is what is sent."""

    def seal(self, data: bytes) -> bytes:
        return data

    def open(self, data: bytes) -> bytes:
        return data


class Connection:
    """From `secure`, `say` and `hear` (its own thread, each wait bounded) over `begin()` to `run()` and `send()`.

    There is no promise that what was sent arrives; what does arrive is in order, and whole.
    """

    def __init__(self, connection: socket.socket, opening_limit_s: float = HANDSHAKE_LIMIT_S) -> None:
        self._socket = connection
        self._mutex = threading.Lock()
        self._cipher: Cipher = Clear()
        self._reader = FrameReader(codec.HELLO_LIMIT_BYTES)
        self._early: list[bytes] = []
        self._backlog = bytearray()
        self._epoll: select.epoll | None = None
        self._opening_limit_s = opening_limit_s
        self._deadline_s = time.monotonic() + opening_limit_s
        self._sent_s = 0.0
        self._expires_s = math.inf
        """When the first of the certificates that it began with is over, on CLOCK_BOOTTIME: a wall clock that steps
        ends no connection."""
        self._ended = False
        try:
            address.tune(connection, SILENCE_S)
        except OSError:  # reset already
            connection.close()
            raise

    # -- opening: its own thread, until begin() --------------------------------------------------------

    def secure(
        self, context: ssl.SSLContext, *, server: bool, own_expires_at: datetime | None = None
    ) -> Subject | None:
        """Agree on TLS; answers the name in the other side's certificate, if it has shown one.

        `own_expires_at` is the end of the one shown here, which ends the connection as the other's does.
        """
        sealed = Sealed(context, server=server)
        try:
            self._shake_hands(sealed)
            self._cipher = sealed
            self._take_in(b"")
            self._note_expiry(own_expires_at, sealed.peer_expires_at())
            return sealed.peer()
        except ssl.SSLError as error:
            self._part(sealed.to_send())  # the alert that tells the other side
            certificate = isinstance(error, ssl.SSLCertVerificationError)
            raise RefusedError("certificate" if certificate else "tls", tls.explain(error)) from error
        except CertificateError as error:
            raise RefusedError("certificate", f"shows a certificate that names nobody: {error}") from error

    def say(self, message: Message) -> None:
        self._send_all(self._cipher.seal(codec.encode(message)))

    def hear(self) -> bytes:
        """The body of the first frame."""
        while not self._early:
            data = self._receive()
            if data.startswith(_TLS_HANDSHAKE) and isinstance(self._cipher, Clear):
                raise RefusedError("tls", "speaks TLS, which is off here")
            self._take_in(data)
        return self._early.pop(0)

    def part(self, message: Message) -> None:
        """Say a last word, and give it time to arrive."""
        self._part(self._cipher.seal(codec.encode(message)))

    def begin(self) -> bool:
        """From now on anybody may send. False when the connection has been ended meanwhile."""
        self._reader.limit_bytes = codec.FRAME_LIMIT_BYTES
        self._socket.setblocking(False)
        with self._mutex:
            if self._ended:
                return False
            self._epoll = select.epoll(1)
            self._epoll.register(self._socket, select.EPOLLIN)
        return True

    def _shake_hands(self, sealed: Sealed) -> None:
        left_bytes = HANDSHAKE_LIMIT_BYTES
        while not sealed.established():
            self._send_all(sealed.to_send())
            try:
                data = self._receive()
            except ConnectionError as error:
                raise ConnectionResetError(
                    "the peer closed the connection during the TLS handshake; is TLS off there?"
                ) from error
            left_bytes -= len(data)
            if left_bytes < 0:
                raise RefusedError("tls", f"sent more than {HANDSHAKE_LIMIT_BYTES} bytes of TLS handshake")
            sealed.receive(data)
        self._send_all(sealed.to_send())

    def _note_expiry(self, own: datetime | None, other: datetime | None) -> None:
        """An own one that is over already, by the clock here, is for the other side to judge by its clock."""
        now = datetime.now(UTC)
        own_s, other_s = (math.inf if end is None else (end - now).total_seconds() for end in (own, other))
        self._expires_s = boottime_s() + min(other_s, own_s if own_s > 0 else math.inf)

    def _take_in(self, data: bytes) -> None:
        self._early += self._reader.feed(self._unseal(data))

    def _unseal(self, data: bytes) -> bytes:
        try:
            return self._cipher.open(data)
        except ssl.SSLError as error:
            raise RefusedError("tls", tls.explain(error)) from error

    def _receive(self) -> bytes:
        self._socket.settimeout(self._left_s())
        data = self._socket.recv(_READ_BYTES)
        if not data:
            if self._reader.unfinished:
                raise RefusedError("junk", "closed the connection within a message")
            raise ConnectionResetError("the peer closed the connection before it was open")
        return data

    def _send_all(self, data: bytes) -> None:
        if data:
            self._socket.settimeout(self._left_s())
            self._socket.sendall(data)

    def _left_s(self) -> float:
        left_s = self._deadline_s - time.monotonic()
        if left_s <= 0:
            raise TimeoutError(f"nothing whole was said within {self._opening_limit_s:g} s")
        return left_s

    def _part(self, data: bytes) -> None:
        """Closing with something unread would take back what was said last: so read on for a moment."""
        self._deadline_s = time.monotonic() + _PARTING_S
        left_bytes = HANDSHAKE_LIMIT_BYTES
        with contextlib.suppress(OSError):
            self._send_all(data)
            self._socket.shutdown(socket.SHUT_WR)
            while left_bytes > 0 and self._left_s():
                self._socket.settimeout(self._left_s())
                if not (read := self._socket.recv(_READ_BYTES)):
                    return
                left_bytes -= len(read)

    # -- open: any thread ------------------------------------------------------------------------------

    def send(self, frame: bytes) -> bool:
        """Send, or queue, a frame; False when it will not be sent. Never waits."""
        with self._mutex:
            if self._epoll is None or self._ended:
                return False
            if len(self._backlog) + len(frame) > BACKLOG_LIMIT_BYTES:
                self._end()
                return False
            self._sent_s = time.monotonic()
            try:
                self._queue_rest(self._cipher.seal(frame))
            except OSError:
                self._end()
                return False
        return True

    def end(self) -> None:
        """Let its thread find the connection dead."""
        with self._mutex:
            self._end()

    def close(self) -> None:
        """Its own thread, at the very end."""
        with self._mutex:
            self._ended = True
            self._backlog.clear()
            self._socket.close()
            if self._epoll is not None:
                self._epoll.close()
                self._epoll = None

    def _queue_rest(self, data: bytes) -> None:
        if self._backlog:
            self._backlog += data
            return
        sent = self._send_some(data)
        if sent < len(data):
            self._backlog += memoryview(data)[sent:]
            self._watch(select.EPOLLIN | select.EPOLLOUT)

    def _send_some(self, data: bytes | memoryview) -> int:
        try:
            return self._socket.send(data)
        except BlockingIOError:
            return 0

    def _end(self) -> None:
        self._ended = True
        address.shut(self._socket)

    def _watch(self, events: int) -> None:
        """Works at once, also on a wait that has begun."""
        assert self._epoll is not None
        self._epoll.modify(self._socket, events)

    # -- open: its own thread --------------------------------------------------------------------------

    def run(self, take: Callable[[bytes], None], *, pings: bool) -> None:
        """Pass on what arrives until the connection ends (an OSError says how).

        One side pings, and the other gives up when it has heard nothing for long. Both look once a second whether a
        certificate is over, however much arrives.
        """
        for body in self._early:
            take(body)
        self._early.clear()
        epoll = self._epoll
        assert epoll is not None
        heard_s = time.monotonic()
        look_s = heard_s + PING_S
        while True:
            for _, event in epoll.poll(PING_S, 1):
                if event & select.EPOLLOUT:
                    self._drain()
                if event & ~select.EPOLLOUT:
                    self._read(take)
                    heard_s = time.monotonic()
            now_s = time.monotonic()
            if pings and now_s - self._sent_s > PING_S * 0.9:
                self.send(_PING)
            if not pings and now_s - heard_s > SILENCE_S:
                raise TimeoutError(f"nothing heard for {SILENCE_S:g} s")
            if now_s >= look_s:
                look_s = now_s + PING_S
                self._check_expiry(0.0 if pings else EXPIRY_GRACE_S)

    def _check_expiry(self, grace_s: float) -> None:
        if boottime_s() >= self._expires_s + grace_s:
            raise ExpiredError("a certificate that this connection began with has expired")

    def _drain(self) -> None:
        """One piece at a time: whoever wants to send gets the lock in between."""
        with self._mutex:
            with memoryview(self._backlog)[:_WRITE_BYTES] as piece:
                sent = self._send_some(piece)
            del self._backlog[:sent]
            if not self._backlog:
                self._watch(select.EPOLLIN)

    def _read(self, take: Callable[[bytes], None]) -> None:
        try:
            data = self._socket.recv(_READ_BYTES)
        except BlockingIOError:
            return
        if not data:
            raise ConnectionResetError("the peer closed the connection")
        with self._mutex:
            plain = self._unseal(data)
        for body in self._reader.feed(plain):
            take(body)
