"""Stands in the place of the watchdog device in a guard of a test: notes in a file what is done to it, and when.

There is no such device where the tests run. What its name begins with says how it behaves.
"""

import os
import time


class Recorded:
    def __init__(self, path: str, timeout_s: int) -> None:
        self._path = path
        self.timeout_s = timeout_s
        self._note("opened")
        if self._behaves("hangs-when-opened"):
            time.sleep(600)

    def feed(self) -> None:
        if self._behaves("hangs-when-fed"):
            time.sleep(600)
        if self._behaves("breaks-when-fed"):
            raise OSError(5, "Input/output error")
        self._note("fed")

    def disarm(self) -> None:
        self._note("disarmed")

    def _behaves(self, how: str) -> bool:
        return os.path.basename(self._path).startswith(how)

    def _note(self, what: str) -> None:
        with open(self._path, "a") as file:
            file.write(f"{what} {time.clock_gettime(time.CLOCK_BOOTTIME)}\n")
