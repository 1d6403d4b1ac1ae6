"""Where a piece of WAL stands in the replicated history of timelines (R14). Small, pure, proved alone."""

from enum import StrEnum

from appliance.cluster.state import ClusterState, Timeline


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
    left = switch_point(state.timelines, held.timeline, timeline)
    if left is None:
        return Standing.DIVERGED
    # A primary that died before it told where it had left its parent never will: then only a rewind can say.
    known = left.switch_lsn is not None and lsn <= left.switch_lsn
    return Standing.ANCESTOR if known else Standing.DIVERGED


def switch_point(timelines: tuple[Timeline, ...], timeline: int, ancestor: int) -> Timeline | None:
    """The step in the history of `timeline` that left `ancestor`; None when it is no ancestor."""
    by_number = {t.number: t for t in timelines}
    step = by_number.get(timeline)
    while step is not None and step.parent >= ancestor:
        if step.parent == ancestor:
            return step
        step = by_number.get(step.parent)
    return None
