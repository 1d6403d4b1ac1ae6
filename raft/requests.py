"""Questions to a peer on connections of their own, so that they never wait behind the log."""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from raft.api import PeerUnreachable, ReplicaError, RequestTimeout
from raft.codec import Message
from raft.port import Incoming
from raft.refusals import printable
from raft.transport import Transport
from raft.waiting import Waiting

PAYLOAD_LIMIT_BYTES = 1024 * 1024
"""Of a request, and of an answer. Whoever reads one as JSON holds up all threads of the process meanwhile."""
_WORDS_LIMIT_BYTES = 1024
"""Of an answer that says what went wrong."""
_HANDLERS = 4
_OPEN_LIMIT = 16
"""Requests of one peer that are accepted and not yet answered; more are answered with an error."""


class Handlers:
    """Runs the handler of incoming requests in a small pool, and sends what it answers."""

    def __init__(self, handler: Callable[[str, bytes], bytes], own_name: str) -> None:
        self._handler = handler
        self._own_name = own_name
        self._pool = ThreadPoolExecutor(_HANDLERS, thread_name_prefix="raft request")
        self._mutex = threading.Lock()
        self._open: Counter[str] = Counter()

    def handle(self, incoming: Incoming, request: Message) -> None:
        def answer(ok: bool, payload: bytes) -> None:
            incoming.answer({"type": "answer", "id": request["id"], "ok": ok, "payload": payload})

        if len(request["payload"]) > PAYLOAD_LIMIT_BYTES:
            answer(False, _too_large("request", request["payload"]))
        else:
            self._run(incoming.peer, request["payload"], answer)

    def handle_own(self, payload: bytes, answer: Callable[[bool, bytes], None]) -> None:
        self._run(self._own_name, payload, answer)

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _run(self, peer: str, payload: bytes, answer: Callable[[bool, bytes], None]) -> None:
        with self._mutex:
            room = self._open[peer] < _OPEN_LIMIT
            self._open[peer] += room
        if not room:
            answer(False, b"too many requests at once")
            return
        try:
            self._pool.submit(self._work, peer, payload, answer)
        except RuntimeError:  # the pool is closed
            self._leave(peer)
            answer(False, b"the replica has been stopped")

    def _work(self, peer: str, payload: bytes, answer: Callable[[bool, bytes], None]) -> None:
        try:
            ok, result = True, self._handler(peer, payload)
        except Exception as error:  # noqa: BLE001  a thread's end: the asker gets the reason
            ok, result = False, f"{type(error).__name__}: {error}".encode(errors="replace")[:_WORDS_LIMIT_BYTES]
        finally:
            self._leave(peer)
        if len(result) > PAYLOAD_LIMIT_BYTES:
            ok, result = False, _too_large("answer", result)
        answer(ok, result)

    def _leave(self, peer: str) -> None:
        with self._mutex:
            self._open[peer] -= 1
            if not self._open[peer]:
                del self._open[peer]


class Requests:
    """Asks peers; every future completes within its time."""

    def __init__(self, own_name: str, handlers: Handlers) -> None:
        self._transport: Transport | None = None
        self._own_name = own_name
        self._handlers = handlers
        self._numbers = itertools.count(1)
        self._waiting: Waiting[tuple[str, int], bytes] = Waiting("raft requests")

    def start(self, transport: Transport) -> None:
        self._transport = transport
        self._waiting.start()

    def ask(self, peer: str, payload: bytes, timeout_s: float) -> Future[bytes]:
        key = (peer, next(self._numbers))
        future = self._waiting.add(
            key,
            timeout_s,
            lambda late, _, reason: late.set_exception(RequestTimeout(f"{peer}: {reason}")),
        )
        if len(payload) > PAYLOAD_LIMIT_BYTES:
            self._fail(key, ReplicaError(_too_large("request", payload).decode()))
        elif peer == self._own_name:
            self._handlers.handle_own(payload, lambda ok, result: self._complete(key, ok, result))
        elif self._transport is None:
            self._fail(key, PeerUnreachable("the replica has not been started"))
        elif problem := self._transport.ask(peer, {"type": "request", "id": key[1], "payload": payload}):
            self._fail(key, PeerUnreachable(problem))
        return future

    def answered(self, peer: str, message: Message) -> None:
        self._complete((peer, message["id"]), message["ok"], message["payload"])

    def unanswered(self, peer: str) -> None:
        """The connection was lost, and with it what had not been answered."""
        for key in self._waiting.open_keys():
            if key[0] == peer:
                self._fail(key, PeerUnreachable(f"connection to {peer} was lost before the answer"))

    def close(self) -> None:
        self._waiting.close("the replica was stopped")

    def _fail(self, key: tuple[str, int], error: Exception) -> None:
        self._waiting.complete(key, lambda future: future.set_exception(error))

    def _complete(self, key: tuple[str, int], ok: bool, payload: bytes) -> None:
        if ok and len(payload) <= PAYLOAD_LIMIT_BYTES:
            self._waiting.complete(key, lambda future: future.set_result(payload))
        else:
            words = _too_large("answer", payload) if ok else payload[:_WORDS_LIMIT_BYTES]
            self._fail(key, ReplicaError(f"{key[0]} failed to answer: {printable(words.decode(errors='replace'))}"))


def _too_large(what: str, payload: bytes) -> bytes:
    return f"{what} of {len(payload)} bytes is over {PAYLOAD_LIMIT_BYTES}".encode()
