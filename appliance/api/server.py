"""Runs the API: uvicorn with its own event loop in one thread, on TCP and on a unix socket.

The sockets are bound by the caller's thread, so a port that is taken is an error there and not a line in a log.
"""

import asyncio
import errno
import os
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from threading import Thread

import uvicorn

from appliance.api.app import create
from appliance.api.desk import Desk
from appliance.api.front import Front
from appliance.api.present import split_address
from appliance.api.protocol import Connection
from appliance.api.published import Gateway

START_LIMIT_S = 10.0
HEADERS_LIMIT_BYTES = 16 << 10
_BACKLOG = 256
_TICK_S = 1.0


class ApiError(Exception):
    """The API cannot be served: says on what address, why, and what would do."""


class _Server(uvicorn.Server):
    """uvicorn looks ten times a second whether it should end: a sixth of what an idle node costs. This one is told."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._ending = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    async def main_loop(self) -> None:
        self._loop = asyncio.get_running_loop()
        while not await self.on_tick(0):  # 0: the Date of answers is made anew
            with suppress(TimeoutError):
                await asyncio.wait_for(self._ending.wait(), _TICK_S)

    def end(self) -> None:
        """From any thread."""
        self.should_exit = True
        if self._loop is not None:
            with suppress(RuntimeError):  # it has ended
                self._loop.call_soon_threadsafe(self._ending.set)


class ApiServer:
    def __init__(self, gateway: Gateway, listen: str, socket_path: Path | None, token: str) -> None:
        self._listen = listen
        self._socket_path = socket_path
        self._desk = Desk(gateway)
        self._front = Front(self._desk, create(self._desk), token)
        self._server: _Server | None = None
        self._thread: Thread | None = None
        self.addresses: tuple[tuple[str, int], ...] = ()
        """what it listens on over TCP, once started: the real port where 0 was asked for"""

    @property
    def alive(self) -> bool:
        """False once the thread has ended, asked or not."""
        return self._thread is not None and self._thread.is_alive()

    def start(self) -> None:
        """Bind, and serve in a thread. Raises ApiError with nothing left behind."""
        assert self._thread is None, "started twice"
        with ExitStack() as bound:
            listeners = [bound.enter_context(s) for s in self._bind(bound)]
            self.addresses = tuple(s.getsockname()[:2] for s in listeners if s.family != socket.AF_UNIX)
            self._server = server = _Server(_configuration(self._front))
            self._thread = Thread(target=_serve, args=(server, listeners), name="api", daemon=True)
            self._thread.start()
            self._wait_until_started(server, self._thread)
            # They belong to uvicorn now, which closes them when it ends.
            bound.pop_all()

    def _wait_until_started(self, server: _Server, thread: Thread) -> None:
        deadline_s = time.monotonic() + START_LIMIT_S
        while not server.started:
            if not thread.is_alive() or time.monotonic() > deadline_s:
                server.should_exit = True
                raise ApiError(f"http.listen: {self._listen}: did not start within {START_LIMIT_S:g} s; see the log")
            time.sleep(0.005)

    def stop(self, limit_s: float) -> None:
        """Take no new connections, end the open ones, and be gone at the limit: the thread never holds up an exit."""
        if self._server is None or self._thread is None:
            return
        self._desk.close()
        self._server.end()
        self._thread.join(limit_s)
        if self._thread.is_alive():
            self._server.force_exit = True
        if self._socket_path is not None:
            self._socket_path.unlink(missing_ok=True)

    def _bind(self, undo: ExitStack) -> Iterator[socket.socket]:
        yield from _bind_tcp(self._listen)
        if self._socket_path is not None:
            yield _bind_unix(self._socket_path)
            undo.callback(self._socket_path.unlink, missing_ok=True)


def _configuration(front: Front) -> uvicorn.Config:
    return uvicorn.Config(
        front,
        loop="asyncio",
        http=Connection,
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        # Below this uvicorn tells of every port scan.
        log_level="error",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=_BACKLOG,
        timeout_graceful_shutdown=1,
        h11_max_incomplete_event_size=HEADERS_LIMIT_BYTES,
    )


def _serve(server: uvicorn.Server, listeners: list[socket.socket]) -> None:
    asyncio.run(server.serve(sockets=listeners))


def _bind_tcp(listen: str) -> Iterator[socket.socket]:
    """One socket for each address that the host's name stands for; `[::]` takes IPv4 too."""
    address = split_address(listen)
    if address is None:
        raise ApiError(f"http.listen: {listen!r} is not host:port; write for example 0.0.0.0:8008")
    try:
        found = socket.getaddrinfo(*address, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise ApiError(f"http.listen: {listen}: {error.strerror}; name an address of this host") from None
    for family, where in dict.fromkeys((family, where) for family, _, _, _, where in found):
        yield _listen(family, where, listen)


def _listen(family: int, where: object, listen: str) -> socket.socket:
    # The protocol is named because asyncio looks at it before it turns off Nagle's algorithm: without, each answer
    # on a kept connection waits 40 ms for the client's delayed acknowledgement.
    bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        bound.bind(where)  # type: ignore[arg-type]  # as getaddrinfo gave it
        bound.listen(_BACKLOG)
    except OSError as error:
        bound.close()
        raise ApiError(f"http.listen: {listen}: {error.strerror}; {_remedy(error)}") from None
    return bound


def _remedy(error: OSError) -> str:
    match error.errno:
        case errno.EADDRINUSE:
            return "end the process that has the port, or choose another one"
        case errno.EADDRNOTAVAIL:
            return "name an address of this host, or 0.0.0.0 for all"
        case errno.EACCES:
            return "choose a port above 1023"
        case _:
            return "choose another address"


def _bind_unix(path: Path) -> socket.socket:
    """Whoever reaches the socket is asked for the uid, so its mode is only a first fence."""
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _make_room(path)
        bound.bind(os.fspath(path))
        path.chmod(0o660)
        bound.listen(_BACKLOG)
    except OSError as error:
        bound.close()
        reason = error.strerror or str(error)
        raise ApiError(f"http.socket: {path}: {reason}; name a short path in a directory this user may write") from None
    except ApiError:
        bound.close()
        raise
    return bound


def _make_room(path: Path) -> None:
    """Remove what a killed process left behind, and nothing else."""
    if not os.path.lexists(path):
        return
    if not path.is_socket():
        raise ApiError(f"http.socket: {path}: is there and is no socket; choose another path")
    if _somebody_listens(path):
        raise ApiError(f"http.socket: {path}: another node process listens there; end it, or choose another path")
    path.unlink(missing_ok=True)


def _somebody_listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        with suppress(FileNotFoundError, ConnectionRefusedError):
            probe.connect(os.fspath(path))
            return True
    return False
