"""Where a piece of WAL stands in the replicated history of timelines (R14). Small, pure, proved alone."""

from enum import StrEnum

from appliance.cluster.state import ClusterState, Timeline
from appliance.cluster.timelines import descent, parted_at


class Standing(StrEnum):
    SAME = "same"
    """on the appointed timeline"""
    ANCESTOR = "ancestor"
    """on an older timeline and not past the point where history left it: it can follow"""
    DIVERGED = "diverged"
    """past the switch point, or on a timeline that history does not contain: rewind or clone"""
    UNKNOWN = "unknown"
    """the appointed primary has not opened yet: wait"""


def standing(state: ClusterState, timeline: int, lsn: int) -> Standing:
    """Whether WAL that ends at `lsn` on `timeline` is a prefix of the appointed primary's."""
    held = state.appointment
    if held is None or not held.opened:
        return Standing.UNKNOWN
    if timeline == held.timeline:
        return Standing.SAME
    steps = descent(state.timelines, held.timeline, timeline)
    if not steps:
        return Standing.DIVERGED
    # A primary that died before it told where it had left its parent never will: then only a rewind can say.
    left = parted_at(steps)
    return Standing.ANCESTOR if left is not None and lsn <= left else Standing.DIVERGED


def switch_point(timelines: tuple[Timeline, ...], timeline: int, ancestor: int) -> Timeline | None:
    """The step in the history of `timeline` that left `ancestor`; None when it is no ancestor."""
    steps = descent(timelines, timeline, ancestor)
    return steps[-1] if steps else None
