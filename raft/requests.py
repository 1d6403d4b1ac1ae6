"""Questions to a peer on connections of their own, so that they never wait behind the log."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor

from raft import codec
from raft.api import PeerUnreachable, ReplicaError, RequestTimeout
from raft.codec import Message
from raft.link import Link, LinkEvents
from raft.transport import Incoming, Transport
from raft.waiting import Waiting

PAYLOAD_LIMIT_BYTES = 4 * 1024 * 1024
_HANDLERS = 4
_OPEN_LIMIT = 64
"""Requests of peers that are accepted and not yet answered; more are answered with an error."""


class Handlers:
    """Runs the handler of incoming requests in a small pool, and sends what it answers."""

    def __init__(self, handler: Callable[[str, bytes], bytes], own_name: str) -> None:
        self._handler = handler
        self._own_name = own_name
        self._pool = ThreadPoolExecutor(_HANDLERS, thread_name_prefix="raft request")
        self._room = threading.BoundedSemaphore(_OPEN_LIMIT)

    def handle(self, incoming: Incoming, request: Message) -> None:
        def answer(ok: bool, payload: bytes) -> None:
            incoming.answer({"type": "answer", "id": request["id"], "ok": ok, "payload": payload})

        self._run(incoming.peer, request["payload"], answer)

    def handle_own(self, payload: bytes, answer: Callable[[bool, bytes], None]) -> None:
        self._run(self._own_name, payload, answer)

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _run(self, peer: str, payload: bytes, answer: Callable[[bool, bytes], None]) -> None:
        if not self._room.acquire(blocking=False):
            answer(False, b"too many requests at once")
            return
        try:
            self._pool.submit(self._work, peer, payload, answer)
        except RuntimeError:  # the pool is closed
            self._room.release()
            answer(False, b"the replica has been stopped")

    def _work(self, peer: str, payload: bytes, answer: Callable[[bool, bytes], None]) -> None:
        try:
            ok, result = True, self._handler(peer, payload)
        except Exception as error:  # noqa: BLE001  a thread's end: the asker gets the reason
            ok, result = False, f"{type(error).__name__}: {error}".encode()[:1024]
        finally:
            self._room.release()
        if len(result) > PAYLOAD_LIMIT_BYTES:
            ok, result = False, f"answer of {len(result)} bytes is over {PAYLOAD_LIMIT_BYTES}".encode()
        answer(ok, result)


class Requests:
    """Asks peers; every future completes within its time."""

    def __init__(self, transport: Transport, members: Mapping[str, str], own_name: str, handlers: Handlers) -> None:
        self._own_name = own_name
        self._handlers = handlers
        self._numbers = itertools.count(1)
        self._waiting: Waiting[tuple[str, int], bytes] = Waiting("raft requests")
        self._links: dict[str, Link] = {
            peer: transport.link(peer, "request", receives=frozenset({"answer"}), events=self._events(peer))
            for peer in members
            if peer != own_name
        }

    def start(self) -> None:
        self._waiting.start()
        for link in self._links.values():
            link.start()

    def ask(self, peer: str, payload: bytes, timeout_s: float) -> Future[bytes]:
        key = (peer, next(self._numbers))
        future = self._waiting.add(
            key,
            timeout_s,
            lambda late, _, reason: late.set_exception(RequestTimeout(f"{peer}: {reason}")),
        )
        if len(payload) > PAYLOAD_LIMIT_BYTES:
            self._fail(key, ReplicaError(f"request of {len(payload)} bytes is over {PAYLOAD_LIMIT_BYTES}"))
        elif peer == self._own_name:
            self._handlers.handle_own(payload, lambda ok, result: self._answered(key, ok, result))
        elif (link := self._links.get(peer)) is None:
            self._fail(key, PeerUnreachable(f"{peer!r} is no member of this cluster"))
        elif not link.send(codec.encode({"type": "request", "id": key[1], "payload": payload})):
            self._fail(key, PeerUnreachable(link.problem or f"{peer}: connection lost"))
        return future

    def close(self) -> None:
        for link in self._links.values():
            link.close()
        self._waiting.close("the replica was stopped")

    def _events(self, peer: str) -> LinkEvents:
        return LinkEvents(
            on_up=lambda _: None,
            on_down=lambda: self._lost(peer),
            on_message=lambda message: self._answered((peer, message["id"]), message["ok"], message["payload"]),
            on_refused=lambda _: None,
        )

    def _lost(self, peer: str) -> None:
        for key in self._waiting.open_keys():
            if key[0] == peer:
                self._fail(key, PeerUnreachable(f"connection to {peer} was lost before the answer"))

    def _fail(self, key: tuple[str, int], error: Exception) -> None:
        self._waiting.complete(key, lambda future: future.set_exception(error))

    def _answered(self, key: tuple[str, int], ok: bool, payload: bytes) -> None:
        if ok:
            self._waiting.complete(key, lambda future: future.set_result(payload))
        else:
            self._fail(key, ReplicaError(f"{key[0]} failed to answer: {payload.decode(errors='replace')}"))
