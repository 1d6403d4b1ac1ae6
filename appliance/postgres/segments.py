"""What names of WAL segments tell: which are there, and a standby's timeline, as no function of PostgreSQL 15 does."""

import re
from pathlib import Path

_WAL_ID_BYTES = 1 << 32
_NAME = re.compile(r"[0-9A-F]{24}")
_HISTORY = re.compile(r"[0-9A-F]{8}\.history")


def segment_name(timeline: int, lsn: int, segment_bytes: int) -> str:
    """The file that holds the last byte before `lsn`."""
    number = (lsn - 1) // segment_bytes
    high, low = divmod(number, _WAL_ID_BYTES // segment_bytes)
    return f"{timeline:08X}{high:08X}{low:08X}"


def newest_timeline(wal_dir: Path, lsn: int, segment_bytes: int) -> int:
    """The newest timeline that has the WAL before `lsn`; 0 when no segment holds it.

    A receiver that went over to a new timeline writes its segment anew from the start, while the control file goes on
    naming the old timeline until the next restartpoint. Up to where they part, both hold the same.
    """
    if lsn == 0:
        return 0
    place = segment_name(0, lsn, segment_bytes)[8:]
    names = (path.name for path in wal_dir.glob(f"????????{place}"))
    return max((int(name[:8], 16) for name in names), default=0)


def highest_timeline(wal_dir: Path) -> int:
    """The highest that any WAL or history there is of; 0 when there is none."""
    names = (path.name for path in wal_dir.iterdir() if _NAME.fullmatch(path.name) or _HISTORY.fullmatch(path.name))
    return max((int(name[:8], 16) for name in names), default=0)


def segment_numbers(wal_dir: Path, segment_bytes: int) -> set[int]:
    """On whatever timeline: recovery and walsenders take a segment from any timeline of their history."""
    names = (path.name for path in wal_dir.iterdir() if _NAME.fullmatch(path.name))
    return {int(name[8:16], 16) * (_WAL_ID_BYTES // segment_bytes) + int(name[16:], 16) for name in names}


def oldest_lsn(wal_dir: Path, lsn: int, segment_bytes: int) -> int:
    """Where the WAL begins that is there without a gap up to `lsn`; `lsn` itself when there is none."""
    numbers, number = segment_numbers(wal_dir, segment_bytes), (lsn - 1) // segment_bytes
    if number not in numbers:
        return lsn
    while number - 1 in numbers:
        number -= 1
    return number * segment_bytes
