"""Which WAL segments there are, and the timeline that WAL ends on, which PostgreSQL 15 does not tell of a standby."""

import re
from pathlib import Path

from appliance.postgres.history import begins_at, read_history
from appliance.postgres.pages import opened

_WAL_ID_BYTES = 1 << 32
_NAME = re.compile(r"[0-9A-F]{24}")
_HISTORY = re.compile(r"[0-9A-F]{8}\.history")


def segment_name(timeline: int, lsn: int, segment_bytes: int) -> str:
    """The file that holds the last byte before `lsn`."""
    number = (lsn - 1) // segment_bytes
    high, low = divmod(number, _WAL_ID_BYTES // segment_bytes)
    return f"{timeline:08X}{high:08X}{low:08X}"


def is_segment(name: str) -> bool:
    return _NAME.fullmatch(name) is not None


def timeline_at(wal_dir: Path, lsn: int, segment_bytes: int) -> int:
    """The timeline of the last byte before `lsn`; 0 when no segment file says it (R6).

    A receiver that went over to a new timeline writes its segment anew from the start, while the control file goes on
    naming the old timeline until the next restartpoint. Up to where they part, both hold the same, and that is WAL of
    the old one: a file of the new one decides only behind that place, and only if no older one reaches further.
    """
    if lsn == 0:
        return 0
    place = segment_name(0, lsn, segment_bytes)[8:]
    names = sorted((path.name for path in wal_dir.glob(f"????????{place}") if is_segment(path.name)), reverse=True)
    begun = [name for name in names if _begins(wal_dir, int(name[:8], 16)) < lsn]
    if len(begun) < 2 or _holds(wal_dir / begun[0], lsn - 1):
        return int(begun[0][:8], 16) if begun else 0
    # What follows a switch of segments is nothing but zeros, in whichever file: then that with most before it has it.
    return int(max(begun, key=lambda name: (_pages(wal_dir / name, lsn), name))[:8], 16)


def _holds(path: Path, lsn: int) -> bool:
    with opened(path) as segment:
        return segment is not None and segment.has(lsn)


def _pages(path: Path, limit_lsn: int) -> int:
    with opened(path) as segment:
        return segment.pages(limit_lsn) if segment is not None else 0


def _begins(wal_dir: Path, timeline: int) -> int:
    """Where it left its parent; 0 for timeline 1 and where its history does not say."""
    try:
        return begins_at(read_history(wal_dir, timeline)) or 0
    except ValueError:
        return 0


def highest_timeline(wal_dir: Path) -> int:
    """The highest that any WAL or history there is of; 0 when there is none."""
    names = (path.name for path in wal_dir.iterdir() if is_segment(path.name) or _HISTORY.fullmatch(path.name))
    return max((int(name[:8], 16) for name in names), default=0)


def segment_numbers(wal_dir: Path, segment_bytes: int) -> set[int]:
    """On whatever timeline: recovery and walsenders take a segment from any timeline of their history."""
    names = (path.name for path in wal_dir.iterdir() if is_segment(path.name))
    return {int(name[8:16], 16) * (_WAL_ID_BYTES // segment_bytes) + int(name[16:], 16) for name in names}


def oldest_lsn(wal_dir: Path, lsn: int, segment_bytes: int) -> int:
    """Where the WAL begins that is there without a gap up to `lsn`; `lsn` itself when there is none."""
    numbers, number = segment_numbers(wal_dir, segment_bytes), (lsn - 1) // segment_bytes
    if number not in numbers:
        return lsn
    while number - 1 in numbers:
        number -= 1
    return number * segment_bytes
