"""Takes operators' requests to the raft leader and follows what becomes of them, without ever blocking the event loop.

Nothing is decided here, and no request is repeated: unknown stays unknown.
"""

import asyncio
import secrets
from collections.abc import Callable
from concurrent.futures import TimeoutError as FutureTimeoutError
from threading import Thread
from typing import TypeVar

from appliance.api.published import Gateway, InviteRequest, OperatorAnswer, OperatorRequest, Published
from appliance.cluster.state import Operation

SUBMIT_LIMIT_S = 5.0
_MARGIN_S = 1.0
"""The gateway promises to answer within *about* its limit."""
_LOOK_S = 0.05
SEEN_LIMIT_S = 1.0
"""How long an accepted operation may take to be applied on this node too."""
REQUESTS_LIMIT = 8
"""Requests under way at a time: each one costs a thread while the raft leader thinks."""

T = TypeVar("T")


def new_id() -> str:
    return secrets.token_hex(8)


def find(published: Published, operation: str) -> Operation | None:
    return next((o for o in published.state.operations if o.id == operation), None)


class Desk:
    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self._under_way = 0
        self._closed = False

    def close(self) -> None:
        """Let go of everybody who waits for an operation; the operations themselves go on."""
        self._closed = True

    async def ask(self, request: OperatorRequest | InviteRequest) -> OperatorAnswer:
        """Bring one request to the raft leader. Always answers, within the submit limit and a margin."""
        if self._under_way >= REQUESTS_LIMIT:
            message = f"{REQUESTS_LIMIT} requests are under way on this node already"
            return OperatorAnswer("refused", request.id, "api.busy", message, "wait for them, or ask another node")
        loop = asyncio.get_running_loop()
        answered: asyncio.Future[OperatorAnswer] = loop.create_future()
        self._under_way += 1

        def hand_over(answer: OperatorAnswer) -> None:
            # Here and not where the wait ends: a thread that is stuck in the gateway goes on counting.
            self._under_way -= 1
            if not answered.done():
                answered.set_result(answer)

        def work() -> None:
            answer = _submit(self.gateway, request)
            try:
                loop.call_soon_threadsafe(hand_over, answer)
            except RuntimeError:
                # The API was stopped meanwhile; nobody waits any more.
                return

        # A thread of its own, because submit may block; a daemon, because a stuck one must not hold up the exit.
        Thread(target=work, name=f"api-request-{request.id}", daemon=True).start()
        done, _ = await asyncio.wait({answered}, timeout=SUBMIT_LIMIT_S + 2 * _MARGIN_S)
        return answered.result() if done else _no_answer(request)

    async def follow(self, operation: str, limit_s: float) -> Operation | None:
        """Wait until an operation has ended, and return it as it is then or at the limit; None: not seen here."""
        return await self._until(lambda: self._ended(operation), limit_s) or find(self.gateway.published(), operation)

    async def seen(self, operation: str, limit_s: float) -> Operation | None:
        """Wait until this node has applied the start of an operation that the raft leader has accepted."""
        return await self._until(lambda: find(self.gateway.published(), operation), limit_s)

    async def initialised(self, bootstrap: str, limit_s: float) -> bool:
        """Wait until the cluster has data and a primary that is open, or this bootstrap was given up."""
        return await self._until(lambda: self._bootstrapped(bootstrap), limit_s) or False

    async def configured(self, version: int, limit_s: float) -> bool:
        """Wait until this node has applied a configuration document above this version."""
        newer = lambda: self.gateway.published().state.config.version > version or None  # noqa: E731
        return await self._until(newer, limit_s) or False

    def _ended(self, operation: str) -> Operation | None:
        found = find(self.gateway.published(), operation)
        return found if found is not None and found.phase.ended else None

    def _bootstrapped(self, operation: str) -> bool | None:
        state = self.gateway.published().state
        if state.failed_bootstrap is not None and state.failed_bootstrap.operation == operation:
            return False
        return (state.initialised and state.appointment is not None and state.appointment.opened) or None

    async def _until(self, look: Callable[[], T | None], limit_s: float) -> T | None:
        # A look is a glance at one published value: cheaper than making the control loop wake an event loop.
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + limit_s
        while (found := look()) is None and not self._closed and loop.time() < deadline_s:  # noqa: ASYNC110
            await asyncio.sleep(_LOOK_S)
        return found


def _submit(gateway: Gateway, request: OperatorRequest | InviteRequest) -> OperatorAnswer:
    try:
        return gateway.submit(request, SUBMIT_LIMIT_S).result(SUBMIT_LIMIT_S + _MARGIN_S)
    except FutureTimeoutError:
        return _no_answer(request)
    except Exception as error:  # noqa: BLE001  # whatever broke, the request may have gone out
        return OperatorAnswer("unknown", request.id, "outcome.unknown", f"{type(error).__name__}: {error}")


def _no_answer(request: OperatorRequest | InviteRequest) -> OperatorAnswer:
    message = f"no answer from the raft leader within {SUBMIT_LIMIT_S:g} s"
    return OperatorAnswer("unknown", request.id, "outcome.unknown", message)
