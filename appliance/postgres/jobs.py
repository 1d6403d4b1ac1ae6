"""Long work as a child process in a session of its own: seen like everything else, killed as a whole.

A job is never waited for. Killed at any point it leaves the data directory as it was, complete, or marked as unusable.
"""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import appliance
from appliance.postgres.commands import environment
from appliance.postgres.files import write_atomically
from appliance.postgres.progress import Told, read_told
from appliance.postgres.specs import Spec, encode, kind_of

SPEC_FILE = "spec.json"
TOLD_FILE = "told.json"
LOG_FILE = "output.log"
_MARK = "APPLIANCE_JOB"
"""in the environment of all processes of a job: how leftovers are recognised, whatever their process id"""
_KILL_LIMIT_S = 5.0


@dataclass(frozen=True, slots=True)
class JobSeen:
    kind: str
    running: bool
    ok: bool | None
    """None while it runs"""
    phase: str
    done_bytes: int | None
    total_bytes: int | None
    seconds: float
    """since it began, until it was seen to have ended"""
    error: str | None
    needs_clone: bool
    """of a failed rewind: another one cannot help"""
    source_away: bool
    """it failed for want of an answer from its source, which says nothing about this directory"""


class Job:
    """One at a time in its directory. Belongs to the thread that started it."""

    def __init__(self, spec: Spec, directory: Path, process: subprocess.Popen[bytes]) -> None:
        self.kind = kind_of(spec)
        self._directory = directory
        self._process = process
        self._pidfd: int | None = os.pidfd_open(process.pid)
        self._began_s = time.monotonic()
        self._ended_s: float | None = None

    @classmethod
    def start(cls, spec: Spec, directory: Path) -> Self:
        """`directory` is the job's own, on a file system of the node's state, not in the data directory."""
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        cls.kill_leftovers(directory)
        (directory / TOLD_FILE).unlink(missing_ok=True)
        write_atomically(directory / SPEC_FILE, encode(spec))
        packages = str(Path(appliance.__file__).parents[1])  # the node may run from a checkout
        with (directory / LOG_FILE).open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "appliance.postgres.task", str(directory)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=directory, start_new_session=True,
                env=environment({_MARK: str(directory), "PYTHONPATH": packages}),
            )  # fmt: skip
        return cls(spec, directory, process)

    def look(self) -> JobSeen:
        code = self._process.poll()
        told = read_told(self._directory / TOLD_FILE)
        if code is None:
            return self._seen(told, ok=None, error=None)
        self._release()
        if told.ended:
            return self._seen(told, ok=not told.error, error=told.error or None)
        ended = f"signal {-code}" if code < 0 else f"exit {code}"
        return self._seen(told, ok=False, error=f"ended by {ended} in phase {told.phase!r}{self._last_words()}")

    def kill(self) -> None:
        """All of it, at once; returns when every process is gone, or hangs in the kernel for longer than the limit."""
        if self._process.poll() is None:
            self.kill_leftovers(self._directory)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(_KILL_LIMIT_S)
        self._release()

    def fileno(self) -> int | None:
        """Readable once the job has ended; None after that was seen."""
        return self._pidfd

    @staticmethod
    def kill_leftovers(directory: Path) -> int:
        """End what runs of a job of this directory, also of an earlier node process; how many processes there were."""
        mark = f"{_MARK}={directory}".encode()
        killed = set[int]()
        until_s = time.monotonic() + _KILL_LIMIT_S
        # Again until none is seen: one may fork while the list is read.
        while left := {pid for pid in _processes() if _is_marked(pid, mark)}:
            for pid in left:
                _kill(pid)
            killed |= left
            if time.monotonic() > until_s:  # in an uninterruptible wait for its disk: it ends before it writes again
                break
            time.sleep(0.005)
        return len(killed)

    def _seen(self, told: Told, *, ok: bool | None, error: str | None) -> JobSeen:
        return JobSeen(
            kind=self.kind,
            running=ok is None,
            ok=ok,
            phase=told.phase,
            done_bytes=told.done_bytes,
            total_bytes=told.total_bytes,
            seconds=(self._ended_s or time.monotonic()) - self._began_s,
            error=error,
            needs_clone=told.needs_clone,
            source_away=told.source_away,
        )

    def _last_words(self) -> str:
        written = (self._directory / LOG_FILE).read_text(errors="replace").split("\n")
        last = [line for line in written if line.strip()][-1:]
        return f": {last[0].strip()}" if last else ""

    def _release(self) -> None:
        if self._pidfd is not None:
            self._ended_s = time.monotonic()
            os.close(self._pidfd)
            self._pidfd = None


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return


def _processes() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdecimal() and int(name) != os.getpid()]


def _is_marked(pid: int, mark: bytes) -> bool:
    try:
        return mark in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:  # gone, or another user's
        return False
