"""The node's side of the probe: starts it, hears what it says, and never waits for it.

A try that hangs in the kernel can be neither ended nor waited for. What counts is how long it has been under way; a
probe that is itself stopped, or gets no CPU time, says nothing of the disk.
"""

import json
import os
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from appliance.ha.seen import PlaceSeen, StorageSeen
from appliance.node import probe
from appliance.node.clock import boottime_s

SILENT_LIMIT_S = 10.0
"""A probe that says nothing for so long, and hangs in no try, is replaced."""
HUNG_LIMIT_S = 60.0
"""One that hangs in a try is left behind for another one, once: what it waits for may have been replaced as well."""
START_PAUSE_S = 1.0
WAITING = frozenset("DS")
"""States of a thread in /proc that a try waits in. One that is stopped, traced or ready to run is not waiting."""
END_LIMIT_S = 0.5


@dataclass
class _Place:
    began_s: float | None = None
    """of the present try"""
    failing_since_s: float | None = None
    """when the first try began that has not succeeded; None: the last one did"""
    thread: int = 0
    result: dict[str, Any] = field(default_factory=dict)

    def hear(self, said: dict[str, Any]) -> None:
        if "thread" in said:
            self.began_s, self.thread = said["at"], said["thread"]
            if self.failing_since_s is None:
                self.failing_since_s = said["at"]
            return
        self.began_s, self.result = None, said
        if not said.get("broken"):
            self.failing_since_s = None


class ProbeClient:
    """Used by the control loop only."""

    def __init__(self, data_dir: Path, socket_file: Path) -> None:
        self._arguments = [str(data_dir), str(socket_file), str(os.getpid())]
        self._process: subprocess.Popen[bytes] | None = None
        self._left_behind: subprocess.Popen[bytes] | None = None
        self._places = {place: _Place() for place in probe.TRIES}
        self._unread = b""
        self._heard_s = self._started_s = self._looked_s = 0.0

    def look(self, patience_s: float) -> StorageSeen | None:
        """What is known now; None: nothing yet.

        A look that comes later than `patience_s` after the one before counts nothing of what it did not watch: the
        host slept, or this process was stopped, and the answer may be on its way.
        """
        now_s = boottime_s()
        self._hear(now_s)
        if now_s - self._looked_s > patience_s:
            self._count_from(now_s)
        self._looked_s = now_s
        self._supervise(now_s)
        data, wal, door = (self._seen(self._places[name], now_s) for name in ("data", "wal", "door"))
        if not any(place.result or place.began_s for place in self._places.values()):
            return None
        known_wal = wal.total_bytes is not None or wal.error or wal.stalled_s
        return StorageSeen(data, wal if known_wal else None, door.stalled_s)

    def close(self) -> None:
        """One that hangs is left to the kernel."""
        for process in (self._process, self._left_behind):
            if process is not None:
                process.kill()
                with suppress(subprocess.TimeoutExpired):
                    process.wait(END_LIMIT_S)
                assert process.stdout is not None
                process.stdout.close()
        self._process = self._left_behind = None

    def _seen(self, place: _Place, now_s: float) -> PlaceSeen:
        said = place.result
        return PlaceSeen(
            stalled_s=round(self._stalled_s(place, now_s), 1),
            error=said.get("error", ""),
            free_bytes=said.get("free"),
            total_bytes=said.get("total"),
        )

    def _stalled_s(self, place: _Place, now_s: float) -> float:
        """0 for a try that is not waited for by its own fault."""
        if place.failing_since_s is None:
            return 0.0
        stalled_s = now_s - place.failing_since_s
        if place.began_s is not None and stalled_s > probe.EVERY_S and not self._waits(place):
            return 0.0
        return max(0.0, stalled_s)

    def _waits(self, place: _Place) -> bool:
        pid = self._process.pid if self._process is not None else 0
        try:
            stat = Path(f"/proc/{pid}/task/{place.thread}/stat").read_text()
        except OSError:
            return False
        return stat.rpartition(")")[2].split()[0] in WAITING

    def _hear(self, now_s: float) -> None:
        if self._process is None or self._process.stdout is None:
            return
        with suppress(BlockingIOError):
            while heard := os.read(self._process.stdout.fileno(), 65536):
                self._heard_s = now_s
                *lines, self._unread = (self._unread + heard).split(b"\n")
                for said in map(json.loads, lines):
                    self._places[said["place"]].hear(said)

    def _supervise(self, now_s: float) -> None:
        """One runs; one more may hang in the kernel."""
        if self._left_behind is not None and self._left_behind.poll() is not None:
            self._left_behind = None
        process = self._process
        if process is None or process.poll() is not None:
            if now_s - self._started_s >= START_PAUSE_S:
                # what ended hung in nothing
                self._count_from(None)
                self._start(now_s)
            return
        hung_s = max(self._stalled_s(place, now_s) for place in self._places.values())
        silent_s = now_s - max(self._heard_s, self._started_s)
        if min(hung_s, now_s - self._started_s) > HUNG_LIMIT_S and self._left_behind is None:
            process.kill()
            self._left_behind = process
            self._start(now_s)  # how long has been waited is kept: a success alone ends that
        elif silent_s > SILENT_LIMIT_S and not hung_s:
            process.kill()

    def _count_from(self, since_s: float | None) -> None:
        for place in self._places.values():
            place.failing_since_s = since_s if place.failing_since_s is not None else None

    def _start(self, now_s: float) -> None:
        if self._process is not None and self._process.stdout is not None:
            self._process.stdout.close()
        for place in self._places.values():
            place.began_s = None
        self._unread, self._started_s = b"", now_s
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", probe.__file__, *self._arguments],
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        assert self._process.stdout is not None
        os.set_blocking(self._process.stdout.fileno(), False)
