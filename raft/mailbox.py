"""The way into the owner thread: what it shall do is posted from any thread, and wakes it."""

from __future__ import annotations

import os
import select
import threading
from collections import deque
from collections.abc import Callable
from typing import TypeAlias

MAILBOX_LIMIT = 4096
"""Actions that wait; beyond that, those that may be dropped are."""

Action: TypeAlias = Callable[[], object]
"""For the owner thread. One that answers False has done nothing that a step must follow at once."""


class Mailbox:
    """Actions for the owner thread, and a descriptor that wakes it."""

    def __init__(self) -> None:
        self.descriptor = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._ready = select.poll()
        self._ready.register(self.descriptor, select.POLLIN)
        self._actions: deque[Action] = deque()
        self._mutex = threading.Lock()
        self._closed = False

    def post(self, action: Action, *, droppable: bool = False) -> bool:
        """Queue an action; False when it was not taken."""
        with self._mutex:
            if self._closed or (droppable and len(self._actions) >= MAILBOX_LIMIT):
                return False
            self._actions.append(action)
            os.eventfd_write(self.descriptor, 1)
        return True

    def wait(self, limit_s: float) -> bool:
        """Wait until something has been posted, and do all that has been: True when a step must follow at once."""
        if self._ready.poll(limit_s * 1000):
            os.eventfd_read(self.descriptor)
        stirred = False
        for _ in range(len(self._actions)):
            stirred |= self._actions.popleft()() is not False
        return stirred

    def close(self) -> None:
        with self._mutex:
            self._closed = True
            os.close(self.descriptor)
