"""`host:port` as people write it, IPv6 in brackets."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import socket

from raft.api import ListenError, ReplicaError

_LIMIT = 255
"""What a member's address may have at most."""
_ADDRESS = re.compile(
    r"(?:(?P<host>[A-Za-z0-9._*-]*)|\[(?P<inner>[0-9A-Fa-f:.]+(?:%[A-Za-z0-9._-]+)?)\]):(?P<port>[0-9]{1,5})"
)
"""Only what a terminal shows as it is: addresses come from other members too, and go into logs and certificates."""


def parse(address: str) -> tuple[str, int]:
    """Host, without the brackets of IPv6, and port."""
    found = _ADDRESS.fullmatch(address) if len(address) <= _LIMIT else None
    if found is None or not 0 < int(found["port"]) < 65536:
        raise ReplicaError(f"{address!r:.300} is no address: write host:port, an IPv6 host in brackets")
    return found["inner"] or found["host"] or "", int(found["port"])


def listener(address: str) -> socket.socket:
    """A listening socket; an empty host, or `*`, is every address of both families."""
    host, port = parse(address)
    try:
        if host in {"", "*"}:
            if socket.has_dualstack_ipv6():
                return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
            return socket.create_server(("", port))
        family, *_, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(place, family=family)  # with its zone, where it has one
    except OSError as error:
        raise ListenError(f"cannot listen on {address}: {reason(error)}; {_remedy(error)}") from error


def reason(error: Exception) -> str:
    """In words for people, without the number and the place that Python adds."""
    if not isinstance(error, OSError) or error.errno is None:
        return str(error)
    return os.strerror(error.errno) if error.errno > 0 else error.strerror or str(error)


def _remedy(error: OSError) -> str:
    match error.errno:
        case errno.EADDRINUSE:
            return "end the process that has the port, or choose another one"
        case errno.EACCES:
            return "choose a port above 1023"
        case _:
            return "name an address of this host, or 0.0.0.0 for all"


def tune(connection: socket.socket, silence_s: float) -> None:
    """Send at once, and let the kernel give up a peer that acknowledges nothing for this long."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, max(1, int(silence_s)))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(silence_s * 1000))


def shut(connection: socket.socket) -> None:
    """End both directions; who waits on it finds it dead."""
    with contextlib.suppress(OSError):  # dead already, which is what was wanted
        connection.shutdown(socket.SHUT_RDWR)
