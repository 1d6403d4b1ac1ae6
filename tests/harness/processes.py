"""Finds and ends processes by the directory they belong to, never by a name that others use too."""

import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

END_LIMIT_S = 10.0
_PR_SET_CHILD_SUBREAPER = 36


def processes_of(directory: Path) -> dict[int, str]:
    """Command lines, by pid, of all living processes that work in `directory` or were told of it.

    PostgreSQL's processes rename themselves, but all of them work in their data directory.
    """
    inside = f"{directory}/".encode()
    found = ((pid, _traces(pid)) for pid in _pids() if pid != os.getpid())
    return {
        pid: traces[0].replace(b"\0", b" ").decode(errors="replace") for pid, traces in found if _any(inside, traces)
    }


def kill_all(directory: Path) -> int:
    """End everything of `directory` at once, as a power cut would; the number of processes.

    All are stopped before the first is killed, so that nobody sees another go and reacts. Their PostgreSQL's
    shared memory goes with them, as it would: the kernel keeps it, and only a start in the same directory looks for it.
    """
    killed: set[int] = set()
    shared: set[str] = set()
    until_s = time.monotonic() + END_LIMIT_S
    while pids := set(processes_of(directory)):
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for pid in pids:
                shared |= _shared_memory(pid)
                send(pid, number)
        killed |= pids
        if time.monotonic() > until_s:
            raise TimeoutError(f"still alive after SIGKILL: {processes_of(directory)}")
        time.sleep(0.01)
    for segment in shared:
        _remove_segment(segment)
    return len(killed)


def send(pid: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def alive(pid: int) -> bool:
    """A zombie does not live."""
    try:
        return _state(pid) not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


@contextmanager
def heir_of_orphans() -> Iterator[None]:
    """Who loses its parent in this block becomes a child of this process, which must wait for it: where nobody else
    does, as in many containers, it would stay for ever."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        yield
    finally:
        libc.prctl(_PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


def _shared_memory(pid: int) -> set[str]:
    """PostgreSQL's own: files in /dev/shm by path, System V segments by their number, which maps shows as the inode."""
    try:
        maps = [line.split(None, 5) for line in Path(f"/proc/{pid}/maps").read_text().splitlines()]
    except OSError:
        return set()
    named = [(words[4], words[5]) for words in maps if len(words) == 6]
    files = {path for _, path in named if path.startswith("/dev/shm/PostgreSQL.")}
    return files | {number for number, path in named if path.startswith("/SYSV")}


def _remove_segment(segment: str) -> None:
    if segment.startswith("/"):
        Path(segment).unlink(missing_ok=True)
    else:
        # a postmaster that had time to end well has removed it already
        subprocess.run(["ipcrm", "-m", segment], check=False, capture_output=True)


def _any(inside: bytes, traces: tuple[bytes, ...]) -> bool:
    return any(inside in trace for trace in traces)


def _pids() -> Iterator[int]:
    return (int(name) for name in os.listdir("/proc") if name.isdecimal())


def _traces(pid: int) -> tuple[bytes, ...]:
    """Command line, working directory and environment; nothing for who is gone or somebody else's."""
    try:
        if _state(pid) in "ZX":
            return (b"",)
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
        place = os.readlink(f"/proc/{pid}/cwd").removesuffix(" (deleted)").encode() + b"/"
        return (command, place, Path(f"/proc/{pid}/environ").read_bytes())
    except OSError:
        return (b"",)


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
