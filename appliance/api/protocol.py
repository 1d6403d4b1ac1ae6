"""uvicorn's HTTP/1.1 connection, with the peer's uid and with limits: this process also renews a lease."""

import asyncio
import re
import socket
import struct

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from appliance.api.access import PEER_UID

CONNECTIONS_LIMIT = 500
"""More would eat the descriptors that the rest of the node needs."""
HEAD_LIMIT_S = 5.0
"""For a request's first line and headers; without a limit a slow sender holds its connection for ever."""

_HEAD = re.compile(rb"([^\r\n]+ HTTP/1\.1\r?\n)((?:[^\r\n]+\r?\n)*)\r?\n")
_HOST = re.compile(rb"^host[ \t]*:", re.IGNORECASE | re.MULTILINE)

_CREDENTIALS = struct.Struct("3i")
"""struct ucred: pid, uid, gid"""


class Connection(H11Protocol):
    _head_limit: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's own
        super().connection_made(transport)
        if len(self.connections) > CONNECTIONS_LIMIT:
            transport.abort()
            return
        uid = _peer_uid(transport)
        if uid is not None:
            # The dictionary is shared by all connections; the one of a request is copied from this.
            self.app_state = {**self.app_state, PEER_UID: uid}
        self._limit_head()

    def data_received(self, data: bytes) -> None:
        begins = self.conn.their_state is h11.IDLE and not self.conn.trailing_data[0]
        super().data_received(_with_host(data) if begins else data)
        self._limit_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget_limit()
        super().connection_lost(exc)

    def _limit_head(self) -> None:
        if self.conn.their_state is not h11.IDLE or self.transport.is_closing():
            self._forget_limit()
        elif self._head_limit is None:
            self._head_limit = self.loop.call_later(HEAD_LIMIT_S, self.transport.abort)

    def _forget_limit(self) -> None:
        if self._head_limit is not None:
            self._head_limit.cancel()
            self._head_limit = None


def _with_host(data: bytes) -> bytes:
    """HAProxy's checks in HTTP/1.1 have no Host unless one is configured. Patroni answers them, h11 does not.

    A request whose headers come in several parts goes on as it came.
    """
    head = _HEAD.match(data)
    if head is None or _HOST.search(head[2]):
        return data
    return head[1] + b"Host:\r\n" + data[head.end(1) :]


def _peer_uid(transport: asyncio.Transport) -> int | None:
    peer = transport.get_extra_info("socket")
    if peer is None or peer.family != socket.AF_UNIX:
        return None
    raw = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    uid: int = _CREDENTIALS.unpack(raw)[1]
    return uid
