"""A small disk of a test's own, a file system in a file: it can be full, hang, or break. Needs root.

Whoever sweeps the directory it lies in unmounts it.
"""

import errno
import fcntl
import os
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.harness.places import give

_FREEZE, _THAW = 0xC0045877, 0xC0045878
"""FIFREEZE and FITHAW of linux/fs.h"""
_SHUTDOWN, _NO_LOG_FLUSH = 0x8004587D, struct.pack("I", 2)
"""FS_IOC_SHUTDOWN of ext4"""
_MIB = 1 << 20
_CHUNKS_BYTES = (64 * _MIB, _MIB, 64 << 10, 4 << 10)


class Disk:
    """An ext4 at `place`, below a cluster's directory; it belongs to the nodes' user."""

    def __init__(self, place: Path, size_mib: int) -> None:
        self.place = place
        self._image = place.with_suffix(".img")
        self._filling = place / "filling"
        place.mkdir(exist_ok=True)
        with self._image.open("wb") as image:
            image.truncate(size_mib * _MIB)
        # without blocks reserved for root: what is free is free for PostgreSQL
        _run("mkfs.ext4", "-q", "-F", "-m", "0", self._image)
        self.mount()
        give(place)

    def mount(self) -> None:
        _run("mount", "-o", "loop", self._image, self.place)

    @property
    def free_mib(self) -> int:
        seen = os.statvfs(self.place)
        return seen.f_bavail * seen.f_frsize // _MIB

    def fill(self, leave_mib: int = 0) -> None:
        """All but this much is taken at once; with 0 not a block is left."""
        if leave_mib:
            _run("fallocate", "-l", f"{self.free_mib - leave_mib}M", self._filling)
            return
        with self._filling.open("ab") as file:
            for chunk_bytes in _CHUNKS_BYTES:
                with suppress(OSError):
                    while True:
                        os.posix_fallocate(file.fileno(), os.fstat(file.fileno()).st_size, chunk_bytes)

    def empty(self) -> None:
        """Of what `fill` took."""
        self._filling.unlink(missing_ok=True)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        self.freeze()
        try:
            yield
        finally:
            self.thaw()

    def freeze(self) -> None:
        """Who writes to it waits in the kernel and cannot be killed; who reads what is in memory does not notice.

        One that is frozen stays so.
        """
        try:
            _order(self.place, _FREEZE)
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise

    def thaw(self) -> None:
        thaw(str(self.place))

    def break_down(self) -> None:
        """Every access fails with an I/O error from now on, and what was not written is lost."""
        _order(self.place, _SHUTDOWN, _NO_LOG_FLUSH)


def thaw(mount: str) -> None:
    """One that is not frozen stays as it is."""
    with suppress(OSError):
        _order(Path(mount), _THAW)


def _order(place: Path, request: int, argument: int | bytes = 0) -> None:
    descriptor = os.open(place, os.O_RDONLY)
    try:
        fcntl.ioctl(descriptor, request, argument)
    finally:
        os.close(descriptor)


def _run(*words: str | Path) -> None:
    subprocess.run(words, check=True, capture_output=True)
