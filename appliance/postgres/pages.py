"""What the page headers of one WAL segment file tell: how much of it is WAL of its own place.

A new segment file is full of zeros, a recycled one of older WAL; each page says in its header which place it is for
(access/xlog_internal.h; xlogreader.c checks the same before it reads a page).
"""

import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_PAGE = struct.Struct("=HHIQ")
"""magic, flags, timeline, address of the page"""
_FIRST_PAGE = struct.Struct("=HHIQI4xQII")
"""and: rest of a record, system identifier, bytes of a segment, bytes of a page"""
_LONG_HEADER = 0x0002
_PAGE_BYTES = range(1 << 10, (1 << 16) + 1)
_SEGMENT_BYTES = range(1 << 20, (1 << 30) + 1)


@dataclass(frozen=True, slots=True)
class SegmentFile:
    """An open one whose first page is good."""

    descriptor: int
    magic: int
    begin_lsn: int
    segment_bytes: int
    page_bytes: int

    def has(self, lsn: int) -> bool:
        """Whether the page of the byte at `lsn` is there; what comes before it in the file may be missing."""
        offset = lsn - self.begin_lsn
        return 0 <= offset < self.segment_bytes and self._is_good(offset // self.page_bytes)

    def pages(self, limit_lsn: int) -> int:
        """How many are there without a gap from the first on, of those that begin before `limit_lsn`.

        The last of them may be written in part.
        """
        wanted = min(self.segment_bytes, limit_lsn - self.begin_lsn)
        last = -(-wanted // self.page_bytes)
        return next((page for page in range(last) if not self._is_good(page)), max(0, last))

    def _is_good(self, page: int) -> bool:
        offset = page * self.page_bytes
        read = os.pread(self.descriptor, _PAGE.size, offset)
        if len(read) < _PAGE.size:
            return False
        magic, _, _, address = _PAGE.unpack(read)
        return bool(magic == self.magic and address == self.begin_lsn + offset)


@contextmanager
def opened(path: Path) -> Iterator[SegmentFile | None]:
    """None: there is no such file, or its first page is not that of the place in its name."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        yield None
        return
    try:
        yield _read(descriptor, path.name)
    finally:
        os.close(descriptor)


def _read(descriptor: int, name: str) -> SegmentFile | None:
    read = os.pread(descriptor, _FIRST_PAGE.size, 0)
    if len(read) < _FIRST_PAGE.size:
        return None
    magic, flags, _, address, _, _, segment_bytes, page_bytes = _FIRST_PAGE.unpack(read)
    if not flags & _LONG_HEADER or segment_bytes not in _SEGMENT_BYTES or page_bytes not in _PAGE_BYTES:
        return None
    if address != (int(name[8:16], 16) << 32) + int(name[16:24], 16) * segment_bytes:
        return None
    return SegmentFile(descriptor, magic, address, segment_bytes, page_bytes)
