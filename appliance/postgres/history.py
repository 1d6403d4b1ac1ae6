"""Timeline history files, and the placeholders that keep a timeline number from being used twice (safety R14).

Of PostgreSQL's own files only that of a new primary's timeline is ever changed, before anybody has read it; a
placeholder says in its text that it is one.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from appliance.cluster.lsn import format_lsn, parse_lsn
from appliance.postgres.errors import PostgresError
from appliance.postgres.files import sync_directory, write_atomically

PLACEHOLDER = "# placeholder of pg-appliance: this timeline was assigned and holds no WAL of this node\n"
"""PostgreSQL skips it as a comment: a timeline without a parent, which nobody follows"""
_NAME = re.compile(r"([0-9A-F]{8})\.history")


@dataclass(frozen=True, slots=True)
class TimelineSwitch:
    """`timeline` ended at `switch_lsn`, where its child began."""

    timeline: int
    switch_lsn: int


def history_path(wal_dir: Path, timeline: int) -> Path:
    return wal_dir / f"{timeline:08X}.history"


def parse_history(text: str) -> tuple[TimelineSwitch, ...]:
    """Oldest first. Raises ValueError as PostgreSQL would: a damaged history must not look like a short one."""
    switches: list[TimelineSwitch] = []
    for line in text.splitlines():
        written = line.strip()
        if not written or written.startswith("#"):
            continue
        parts = written.split(None, 2)  # what follows them is for people
        if len(parts) < 2 or not parts[0].isdecimal():
            raise ValueError(f"{line!r} is no line of a timeline history")
        switch = TimelineSwitch(int(parts[0]), parse_lsn(parts[1]))
        if switches and switch.timeline <= switches[-1].timeline:
            raise ValueError(f"timeline {switch.timeline} follows {switches[-1].timeline} in a timeline history")
        switches.append(switch)
    return tuple(switches)


def read_history(wal_dir: Path, timeline: int) -> tuple[TimelineSwitch, ...]:
    """The ancestors of `timeline`, oldest first; empty for timeline 1 and where there is no file."""
    try:
        return parse_history(history_path(wal_dir, timeline).read_text(encoding="utf-8", errors="replace"))
    except FileNotFoundError:
        return ()


def without_empty(history: tuple[TimelineSwitch, ...]) -> tuple[TimelineSwitch, ...]:
    """Without ancestors that ended where, or before, they began: what came after them left the one before.

    A standby that was told of a timeline, and promoted before it came there, names it as its parent all the same.
    """
    real = list[TimelineSwitch]()
    for switch in history:
        timeline = switch.timeline
        while real and switch.switch_lsn <= real[-1].switch_lsn:
            timeline = real.pop().timeline
        real.append(TimelineSwitch(timeline, switch.switch_lsn))
    return tuple(real)


def settle_history(wal_dir: Path, timeline: int) -> bool:
    """Of a new primary's timeline, before anybody follows (R14): only ancestors that have WAL. Whether it was written.

    A walsender looks for the last segment of a timeline in a file of the next one that the history names; where that
    has none, whoever lacks some of the last segment would never get it. The WAL says nothing of an empty timeline.
    """
    history = read_history(wal_dir, timeline)
    real = without_empty(history)
    if real == history:
        return False
    lines = (f"{switch.timeline}\t{format_lsn(switch.switch_lsn)}\tsettled by pg-appliance\n" for switch in real)
    write_atomically(history_path(wal_dir, timeline), "".join(lines))
    return True


def begins_at(history: tuple[TimelineSwitch, ...], *, after: int | None = None) -> int | None:
    """Where the timeline of this history left its parent, or its ancestor `after`; None when it has none such.

    A primary that was lost right after its promotion may have left a history that is not settled (`without_empty`):
    where the first of them left is where they part.
    """
    after = history[-1].timeline if history and after is None else after
    if after not in {switch.timeline for switch in history}:
        return None
    return min(switch.switch_lsn for switch in history if switch.timeline >= after)


def real_histories(wal_dir: Path, above: int) -> frozenset[int]:
    """The timelines above `above` of which there is a history that is no placeholder."""
    numbers = {int(match[1], 16) for path in wal_dir.iterdir() if (match := _NAME.fullmatch(path.name))}
    return frozenset(n for n in numbers if n > above and not _is_placeholder(history_path(wal_dir, n)))


def place_placeholders(wal_dir: Path, own: int, assigned: int) -> tuple[int, ...]:
    """Make a promotion from timeline `own` pick `assigned`; the numbers that got a file.

    Every number from 2 to `assigned` - 1 has a file afterwards, since a standby asks its primary for each file between
    its own timeline and the primary's, and never follows without it; also for ancestors that a clone has no file of.
    A file for `assigned` itself would send the promotion past it: PostgresError.
    """
    if not 1 <= own < assigned:
        raise PostgresError(f"timeline {assigned} cannot be assigned to a node on timeline {own}")
    if history_path(wal_dir, assigned).exists():
        raise PostgresError(f"timeline {assigned} has a history file in {wal_dir} already: it was used before")
    placed = tuple(n for n in range(2, assigned) if not history_path(wal_dir, n).exists())
    for number in placed:
        write_atomically(history_path(wal_dir, number), PLACEHOLDER)
    return placed


def remove_placeholders_above_real(wal_dir: Path) -> tuple[int, ...]:
    """Before a start as a standby, which would take a placeholder above the newest real history for its target."""
    numbers = {int(match[1], 16) for path in wal_dir.iterdir() if (match := _NAME.fullmatch(path.name))}
    placeholders = {number for number in numbers if _is_placeholder(history_path(wal_dir, number))}
    newest_real = max(numbers - placeholders, default=0)
    removed = tuple(sorted(number for number in placeholders if number > newest_real))
    for number in removed:
        history_path(wal_dir, number).unlink()
    if removed:
        sync_directory(wal_dir)
    return removed


def _is_placeholder(path: Path) -> bool:
    return path.read_text(encoding="utf-8", errors="replace").startswith(PLACEHOLDER.rstrip("\n"))
