"""The one door from the journal to a file system: a directory held by one process, and the calls that durability needs.

Everything here raises OSError as it comes; what an error means is the journal's to decide.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from raft.api import DirectoryInUse, ReplicaError

_LOCK_NAME = "lock"
_READ_BYTES = 1024 * 1024


class File(Protocol):
    """An open file. What was written is durable after `sync()`, and not before."""

    def read(self) -> bytes:
        """All of it."""
        ...

    def write(self, data: bytes, offset: int) -> None:
        """All of it, or an OSError and any part of it."""
        ...

    def sync(self) -> None:
        """Content and size are on disk. After an error nobody knows what is, and a second call proves nothing."""
        ...

    def close(self) -> None: ...


class Disk(Protocol):
    """One directory. Names made, replaced or removed are durable after `sync_directory()`, and not before."""

    @property
    def path(self) -> Path:
        """For messages only."""
        ...

    def exists(self, name: str) -> bool: ...

    def open(self, name: str) -> File:
        """An existing file, to read and write."""
        ...

    def create(self, name: str) -> File:
        """An empty file, new or truncated, of mode 0600."""
        ...

    def rename(self, old: str, new: str) -> None:
        """Put one file in the place of another, at once."""
        ...

    def remove(self, name: str) -> None: ...

    def sync_directory(self) -> None: ...

    def close(self) -> None:
        """Let another process have the directory."""
        ...


class OsDisk:
    """A directory of the operating system, made if need be (0700) and held against other processes until `close()`.

    It is the directory itself that is held and worked in, not its path: who moves or removes it, and starts another
    process in its place, has two directories and not two processes in one.
    """

    def __init__(self, directory: Path) -> None:
        """ReplicaError when it cannot be had, or another process has it."""
        self.path = directory
        self._open: list[int] = []
        try:
            _make_directory(directory)
            self._directory = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            self._open.append(self._directory)
            self._hold()
        except BlockingIOError as error:
            self.close()
            raise _in_use(directory) from error
        except OSError as error:
            self.close()
            raise ReplicaError(f"cannot use raft directory {directory}: {error}") from error

    def exists(self, name: str) -> bool:
        try:
            os.stat(name, dir_fd=self._directory)
        except FileNotFoundError:
            return False
        return True

    def open(self, name: str) -> OsFile:
        return OsFile(os.open(name, os.O_RDWR | os.O_CLOEXEC, dir_fd=self._directory))

    def create(self, name: str) -> OsFile:
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        return OsFile(os.open(name, flags, 0o600, dir_fd=self._directory))

    def rename(self, old: str, new: str) -> None:
        os.rename(old, new, src_dir_fd=self._directory, dst_dir_fd=self._directory)

    def remove(self, name: str) -> None:
        os.unlink(name, dir_fd=self._directory)

    def sync_directory(self) -> None:
        os.fsync(self._directory)

    def close(self) -> None:
        """May be called again."""
        while self._open:
            os.close(self._open.pop())

    def _hold(self) -> None:
        """Lock the directory, and the file in it that earlier versions look at.

        The file alone would not do: who empties the directory under a living process removes it.
        """
        fcntl.flock(self._directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
        lock = os.open(_LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600, dir_fd=self._directory)
        self._open.append(lock)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


class OsFile:
    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def read(self) -> bytes:
        data = bytearray()
        while piece := os.pread(self._descriptor, _READ_BYTES, len(data)):
            data += piece
        return bytes(data)

    def write(self, data: bytes, offset: int) -> None:
        left = memoryview(data)
        while left:
            written = os.pwrite(self._descriptor, left, offset)
            offset += written
            left = left[written:]

    def sync(self) -> None:
        os.fdatasync(self._descriptor)

    def close(self) -> None:
        os.close(self._descriptor)


def read_undisturbed(directory: Path, name: str) -> bytes:
    """A file of a directory that no process uses, changing nothing there. DirectoryInUse when one does."""
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(_kept_from_others(directory))
            if (directory / _LOCK_NAME).exists():
                held.enter_context(_kept_from_others(directory / _LOCK_NAME))
        except BlockingIOError as error:
            raise _in_use(directory) from error
        return (directory / name).read_bytes()


@contextlib.contextmanager
def _kept_from_others(path: Path) -> Iterator[None]:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def _in_use(directory: Path) -> DirectoryInUse:
    return DirectoryInUse(f"raft directory {directory} is in use by another process: stop it, or use another directory")


def _make_directory(directory: Path) -> None:
    """Make it and what is missing above it, each durable in the directory that it is in.

    Also when it is there: the process that made it may have died before it made it durable.
    """
    missing = [above for above in directory.parents if not above.exists()]
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    for made in (directory, *missing):
        # a directory above that may be entered and not read belongs to somebody who has made this one for us
        with contextlib.suppress(PermissionError):
            _sync_directory(made.parent)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
