"""Lines for a descriptor, written by a thread of their own: who logs never waits for who reads.

A pipe that nobody empties, or a journal that is stuck, must cost lines and never a lease.
"""

import os
import select
import threading
from collections import deque
from collections.abc import Callable

QUEUE_LIMIT_LINES = 1000


class LineWriter:
    """Lines are written in order. Those that find the queue full, or cannot be written, are lost; how many is said in a
    line of its own as soon as one can be written again.
    """

    def __init__(
        self,
        descriptor: int,
        say_lost: Callable[[int], str] = "{} lines were lost".format,
        limit: int = QUEUE_LIMIT_LINES,
    ) -> None:
        self._descriptor = descriptor
        self._say_lost = say_lost
        self._limit = limit
        self._lines: deque[str] = deque()
        self._lost = 0
        self._closed = False
        self._change = threading.Condition()
        """Never held while anything is written."""
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    def put(self, line: str) -> None:
        """From any thread. Never waits."""
        with self._change:
            if len(self._lines) < self._limit:
                self._lines.append(line)
                self._change.notify()
            else:
                self._lost += 1

    def close(self, limit_s: float) -> None:
        """Write what is queued, within the limit; what is not written by then is lost with the process."""
        with self._change:
            self._closed = True
            self._change.notify()
        self._thread.join(limit_s)

    def _run(self) -> None:
        closed = False
        while not closed:
            lines, lost, closed = self._take()
            lost += sum(not self._write(line) for line in lines)
            if lost and not self._write(self._say_lost(lost)):
                with self._change:
                    self._lost += lost

    def _take(self) -> tuple[deque[str], int, bool]:
        """All that is queued. Lines get lost while the queue is full only, so the lost ones came after all of these."""
        with self._change:
            self._change.wait_for(lambda: self._lines or self._closed)
            taken = self._lines, self._lost, self._closed
            self._lines, self._lost = deque(), 0
            return taken

    def _write(self, line: str) -> bool:
        # not through sys.stdout: its lock would be held by this thread when the process ends while it is stuck here
        left = memoryview(f"{line}\n".encode(errors="backslashreplace"))
        while left:
            try:
                left = left[os.write(self._descriptor, left) :]
            except BlockingIOError:
                select.select([], [self._descriptor], [])
            except OSError:
                return False
        return True
