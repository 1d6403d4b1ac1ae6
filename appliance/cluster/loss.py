"""`failover --allow-data-loss`: what a person may lift R7 and R10 for, and what is written down about it.

The acceptance names one node, one epoch and two positions, and is worth nothing beyond them.
"""

from appliance.cluster.state import UNENDED, AcceptedLoss, ClusterState, Lost, Position, Timeline, Vote


def accepted(state: ClusterState, node: str) -> AcceptedLoss | None:
    """What the running operation lets this node lack, in the place of the primary that it was asked about."""
    asked, held = state.running_operation(), state.appointment
    if asked is None or held is None or asked.target != node or asked.epoch != held.epoch:
        return None
    return asked.accepted


def stopped(state: ClusterState, accepted: AcceptedLoss | None) -> bool:
    """R16: whether the person states that the last primary runs no more, which nobody here can see."""
    return accepted is not None and state.appointment is not None and accepted.stopped == state.appointment.node


def objection(state: ClusterState, accepted: AcceptedLoss, own: Position, top: Position) -> str | None:
    """Why the acceptance does not cover this appointment, or None.

    The votes do not meet everybody who may have confirmed a commit, so they do not stop the last primary from
    acknowledging more: only the end of its lease does (R3, R4).
    """
    if state.lease in UNENDED and state.appointment is not None:
        held = state.appointment
        return f"lease.held: {held.node} may still be writable in epoch {held.epoch}, and these votes do not fence it"
    if own < accepted.candidate:
        return f"loss.candidate: it has WAL up to {shown(own)}, and {shown(accepted.candidate)} was accepted"
    ahead = max(p for p in (state.last_known, top) if p is not None)
    if ahead > max(accepted.known, own):
        return f"loss.larger: there is WAL up to {shown(ahead)}, and only {shown(accepted.known)} was known of then"
    return None


def lost(state: ClusterState, kept: Position, votes: tuple[Vote, ...], refusal: str) -> Lost | None:
    """What goes into the history; None when nobody has accepted anything."""
    asked = state.running_operation()
    if asked is None or asked.accepted is None:
        return None
    known = max(p for p in (state.last_known, *(v.position for v in votes)) if p is not None)
    return Lost(
        known=known,
        known_at=state.last_known_at if known == state.last_known else "",
        bytes=lacking(state.timelines, known, kept),
        refusal=refusal.partition(":")[0],
        requester=asked.requester,
        operation=asked.id,
        reason=asked.reason,
        stopped=asked.accepted.stopped,
    )


def lacking(timelines: tuple[Timeline, ...], known: Position, kept: Position) -> int | None:
    """Bytes of WAL up to `known` that are not in what ends at `kept`; None: not known where their histories parted."""
    ours, theirs = _ancestry(timelines, kept), _ancestry(timelines, known)
    for timeline, end in theirs.items():
        if timeline in ours:
            ends = [at for at in (end, ours[timeline]) if at is not None]
            return max(0, known.lsn - min(ends)) if len(ends) == 2 else None
    return None


def _ancestry(timelines: tuple[Timeline, ...], position: Position) -> dict[int, int | None]:
    """Each timeline in the history of this position, the last one first, and where that history left it."""
    by_number = {t.number: t for t in timelines}
    found: dict[int, int | None] = {position.timeline: position.lsn}
    step = by_number.get(position.timeline)
    while step is not None and 0 < step.parent < step.number:
        before = found[step.number]
        # A position short of its own timeline's beginning is short of the parent's end too.
        ends = [at for at in (step.switch_lsn, before) if at is not None]
        found[step.parent] = None if step.switch_lsn is None else min(ends)
        step = by_number.get(step.parent)
    return found


def shown(position: Position) -> str:
    """For people, and for any number: a command may hold one that is no LSN, and `apply` refuses in words."""
    return f"{position.lsn >> 32:X}/{position.lsn & 0xFFFFFFFF:X} on timeline {position.timeline}"
