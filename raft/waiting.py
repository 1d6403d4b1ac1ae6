"""Futures that always complete: by an answer, or by their deadline, whichever comes first."""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class _Wait(Generic[V]):
    """One open question. Whoever takes it out of the table completes its future, so nobody does twice."""

    __slots__ = ("begun", "future", "on_late")

    def __init__(self, on_late: Callable[[Future[V], bool, str], None]) -> None:
        self.future: Future[V] = Future()
        self.future.set_running_or_notify_cancel()  # so that cancel() cannot get in our way
        self.on_late = on_late
        self.begun = False


class Waiting(Generic[K, V]):
    """Open questions by key. Any thread may ask and answer; a thread of its own watches the deadlines.

    Several questions may share a key; one answer completes them all.
    """

    def __init__(self, name: str) -> None:
        self._change = threading.Condition()
        self._waits: dict[K, list[_Wait[V]]] = {}
        self._deadlines: list[tuple[float, int, float, K, _Wait[V]]] = []
        self._numbers = itertools.count()
        self._closed: str | None = None
        self._thread = threading.Thread(target=self._watch, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def add(self, key: K, timeout_s: float, on_late: Callable[[Future[V], bool, str], None]) -> Future[V]:
        """A future for the answer to `key`.

        Without one in time, `on_late(future, begun, reason)` must complete it.
        """
        wait = _Wait(on_late)
        entry = (time.monotonic() + timeout_s, next(self._numbers), timeout_s, key, wait)
        with self._change:
            closed = self._closed
            if closed is None:
                self._waits.setdefault(key, []).append(wait)
                heapq.heappush(self._deadlines, entry)
                if self._deadlines[0] is entry:
                    self._change.notify()
        if closed is not None:
            on_late(wait.future, False, closed)
        return wait.future

    def begin(self, key: K) -> bool:
        """Mark the questions of `key` as sent; False when nobody waits any more."""
        with self._change:
            waits = self._waits.get(key, [])
            for wait in waits:
                wait.begun = True
            return bool(waits)

    def complete(self, key: K, completion: Callable[[Future[V]], None]) -> None:
        with self._change:
            waits = self._waits.pop(key, [])
        for wait in waits:
            completion(wait.future)

    def complete_one(self, key: K, future: Future[V], completion: Callable[[Future[V]], None]) -> None:
        """Only this question, and not the others of its key."""
        with self._change:
            waits = self._waits.get(key, [])
            mine = next((wait for wait in waits if wait.future is future), None)
            open_yet = mine is not None and self._forget(key, mine)
        if open_yet:
            completion(future)

    def open_keys(self) -> list[K]:
        with self._change:
            return list(self._waits)

    def close(self, reason: str) -> None:
        """Treat every question, now and from now on, as late for this reason."""
        with self._change:
            self._closed = reason
            waits = [wait for sharing in self._waits.values() for wait in sharing]
            self._waits.clear()
            self._change.notify()
        for wait in waits:
            wait.on_late(wait.future, wait.begun, reason)

    def _watch(self) -> None:
        while (late := self._next_late()) is not None:
            for timeout_s, wait in late:
                wait.on_late(wait.future, wait.begun, f"no answer within {timeout_s:g} s")

    def _next_late(self) -> list[tuple[float, _Wait[V]]] | None:
        """Wait for the next deadline; None when closed. Answered questions are forgotten on the way."""
        with self._change:
            while self._closed is None:
                late: list[tuple[float, _Wait[V]]] = []
                now_s = time.monotonic()
                while self._deadlines and self._deadlines[0][0] <= now_s:
                    _, _, timeout_s, key, wait = heapq.heappop(self._deadlines)
                    if self._forget(key, wait):
                        late.append((timeout_s, wait))
                if late:
                    return late
                self._change.wait(self._deadlines[0][0] - now_s if self._deadlines else None)
        return None

    def _forget(self, key: K, wait: _Wait[V]) -> bool:
        waits = self._waits.get(key, [])
        if wait not in waits:
            return False
        waits.remove(wait)
        if not waits:
            del self._waits[key]
        return True
