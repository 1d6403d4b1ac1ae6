"""WAL segment files that hide more than they hold.

A standby that goes over to a new timeline receives the segment of the switch anew from its start, into a file of that
timeline. PostgreSQL reads the file of the newest timeline and never looks into another one of the same place
(XLogFileReadAnyTLI). If the receiver ends early, the beginning of a segment hides the whole of it, which was flushed
and may have been acknowledged: recovery ends before it, and a promotion fails because the last record is gone.
"""

from collections import defaultdict
from pathlib import Path

from appliance.postgres.files import sync_directory
from appliance.postgres.history import begins_at, read_history
from appliance.postgres.pages import opened
from appliance.postgres.segments import is_segment


def remove_shadows(wal_dir: Path) -> tuple[str, ...]:
    """Before a start (R6): their names. Each held only what a file that stays holds too; nothing was lost with it.

    Looked at are whole pages. One that a power cut left half written, at the very end of the older file, is not found.
    """
    places: dict[str, list[int]] = defaultdict(list)
    for path in wal_dir.iterdir():
        if is_segment(path.name):
            places[path.name[8:]].append(int(path.name[:8], 16))
    removed = [name for place, timelines in places.items() for name in _shadows(wal_dir, place, sorted(timelines))]
    for name in removed:
        (wal_dir / name).unlink()
    if removed:
        sync_directory(wal_dir)
    return tuple(sorted(removed))


def _shadows(wal_dir: Path, place: str, timelines: list[int]) -> list[str]:
    """Oldest first: what is itself a shadow is no reason to take another for one."""
    kept, shadows = list[int](), list[str]()
    for timeline in timelines:
        if any(_hides(wal_dir, place, timeline, older) for older in kept):
            shadows.append(f"{timeline:08X}{place}")
        else:
            kept.append(timeline)
    return shadows


def _hides(wal_dir: Path, place: str, timeline: int, older: int) -> bool:
    """Up to where they part both are to hold the same, and the file of `timeline` is shorter."""
    try:
        history = read_history(wal_dir, timeline)
    except ValueError:  # PostgreSQL does not start with it; what it would mean is not to be guessed
        return False
    parted = begins_at(history, after=older)
    if parted is None:
        return False
    paths = (wal_dir / f"{number:08X}{place}" for number in (timeline, older))
    with opened(next(paths)) as there, opened(next(paths)) as complete:
        if complete is None:
            return False
        return (there.pages(parted) if there is not None else 0) < complete.pages(parted)
