"""How timelines descend from one another in the replicated history (R14)."""

from appliance.cluster.state import Timeline


def descent(timelines: tuple[Timeline, ...], timeline: int, ancestor: int) -> tuple[Timeline, ...]:
    """The timelines from `timeline` down to the one that left `ancestor`; empty when that is no ancestor."""
    by_number, steps = {t.number: t for t in timelines}, list[Timeline]()
    step = by_number.get(timeline)
    while step is not None and step.parent >= ancestor:
        steps.append(step)
        if step.parent == ancestor:
            return tuple(steps)
        step = by_number.get(step.parent)
    return ()


def parted_at(steps: tuple[Timeline, ...]) -> int | None:
    """How far the ancestor's WAL is the descendant's too; None where a step was never recorded, or there is none.

    A later switch may lie before an earlier one, as PostgreSQL's own histories have it (`postgres/history.py`): the
    earliest counts.
    """
    points = [step.switch_lsn for step in steps if step.switch_lsn is not None]
    return min(points) if points and len(points) == len(steps) else None
