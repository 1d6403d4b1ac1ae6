"""R7, R7a and R10 as functions of the state and the votes: who may be appointed, and what an appointment records."""

from collections.abc import Iterable
from dataclasses import replace

from appliance.cluster.commands import Appoint, OpenElection
from appliance.cluster.config import read_policy
from appliance.cluster.state import (
    HISTORY_LIMIT,
    Appointment,
    Change,
    ClusterState,
    Election,
    HistoryEntry,
    LeaseStatus,
    NodeRole,
    OperationKind,
    Position,
    SyncVersion,
    Timeline,
    Vote,
)


def order(position: Position) -> tuple[int, int]:
    """How positions compare: a later timeline first, then the LSN (R7)."""
    return (position.timeline, position.lsn)


def latest(*positions: Position | None) -> Position | None:
    """The highest of those that are known."""
    return max((p for p in positions if p is not None), key=order, default=None)


def union(versions: tuple[SyncVersion, ...]) -> tuple[frozenset[str], int]:
    """S and k for R7 while a change is joint: the union of all S with the smallest k (R8)."""
    members = frozenset[str]().union(*(v.members for v in versions))
    return members, min((v.k for v in versions), default=0)


def votes_suffice(state: ClusterState, voters: frozenset[str]) -> str | None:
    """R7: None when `voters` must hold every acknowledged commit; otherwise what is missing.

    True when the previous primary voted with the same data, or when every k-subset of S meets the voters.
    """
    held = state.appointment
    if held is not None and held.node in voters:
        return None
    members, k = union(state.sync)
    needed = len(members) - k + 1
    have = len(voters & members)
    if k > 0 and have >= needed:
        return None
    return f"quorum.votes_missing: {have} of {needed} needed votes of {', '.join(sorted(members)) or 'nobody'}"


def within_lag(state: ClusterState, candidate: Position) -> str | None:
    """R10: the candidate may lack at most `maximum_lag_on_failover` of the last known position.

    On an older timeline than the last known one it lacks an unknown amount: then only the switch point counts.
    """
    known = state.last_known
    if known is None:
        return None
    limit = read_policy(state.config.document).maximum_lag_on_failover_bytes
    if candidate.timeline < known.timeline and not _is_ancestor(state, candidate, known.timeline):
        return f"candidate.timeline: timeline {candidate.timeline} is no ancestor of {known.timeline}"
    lag = known.lsn - candidate.lsn
    if lag > limit:
        return f"candidate.lagging: {lag} bytes behind the last known position, the limit is {limit}"
    return None


def _is_ancestor(state: ClusterState, candidate: Position, timeline: int) -> bool:
    """Whether the history of `timeline` contains the candidate's position."""
    by_number = {t.number: t for t in state.timelines}
    while timeline in by_number and timeline > candidate.timeline:
        step = by_number[timeline]
        if step.parent == candidate.timeline:
            return step.switch_lsn is None or candidate.lsn <= step.switch_lsn
        timeline = step.parent
    return False


def eligible(state: ClusterState, vote: Vote) -> str | None:
    """Why this vote does not count in the open election (R6, R13), or None when it does."""
    member = state.members.get(vote.node)
    if member is None:
        return f"member.unknown: {vote.node}"
    if state.election is None or vote.election != state.election.number:
        return f"election.other: {vote.node} voted in election {vote.election}"
    if member.role is NodeRole.WITNESS or member.rebuilding:
        return f"candidate.no_data: {vote.node} has no complete data directory"
    if not vote.incarnation or vote.incarnation != member.incarnation:
        return f"candidate.incarnation: {vote.node} voted with a data directory it has no more"
    if vote.position.timeline > state.highest_timeline:
        return f"candidate.timeline: {vote.node} is on timeline {vote.position.timeline}, which was never assigned"
    return None


def excluded(state: ClusterState, node: str) -> str | None:
    """Why the operator's tags keep a node from being appointed automatically, or None."""
    member = state.members.get(node)
    if member is None:
        return f"member.unknown: {node}"
    if member.tags.get("nofailover") is True:
        return f"candidate.nofailover: {node} has the tag nofailover"
    return None


def may_open(state: ClusterState) -> str | None:
    """R10: in asynchronous mode an election opens only when nobody holds the lease."""
    if not state.initialised or state.appointment is None:
        return "cluster.uninitialised: there is no primary to follow"
    if state.lease is LeaseStatus.HELD:
        return f"lease.held: {state.appointment.node} holds the lease of epoch {state.appointment.epoch}"
    return None


def open_election(state: ClusterState, command: OpenElection) -> ClusterState | str:
    refused = may_open(state)
    if refused is not None:
        return refused
    assert state.appointment is not None
    if command.epoch != state.appointment.epoch:
        return f"epoch.moved: epoch {command.epoch} is not the appointed one"
    if command.number <= state.epoch:
        return f"election.number: {command.number} was used, the highest is {state.epoch}"
    known = latest(state.last_known, command.last_known)
    return replace(
        state,
        epoch=command.number,
        election=Election(command.number, command.reason, command.target),
        last_known=known,
    )


def best(votes: Iterable[Vote]) -> Vote | None:
    """The highest position; of equals the first by name, so that every node ranks alike."""
    ranked = sorted(votes, key=lambda v: v.node)
    return max(ranked, key=lambda v: order(v.position), default=None)


def may_appoint(state: ClusterState, node: str, votes: tuple[Vote, ...]) -> str | None:
    """Everything an appointment needs but its timeline: R6's votes, R7 or R10, R13. None, or why not."""
    if state.election is None:
        return "election.none: no election is open"
    for vote in votes:
        refused = eligible(state, vote)
        if refused is not None:
            return refused
    own = next((v for v in votes if v.node == node), None)
    top = best(votes)
    if own is None or top is None:
        return f"candidate.no_vote: {node} has not voted"
    if len({v.node for v in votes}) < len(votes):
        return "election.double_vote: a node voted twice"
    if not state.synchronous and _loss_accepted(state, node):
        return may_open(state)
    if order(own.position) < order(top.position):
        return f"candidate.behind: {node} is behind {top.node}"
    if state.synchronous:
        return votes_suffice(state, frozenset(v.node for v in votes))
    return may_open(state) or within_lag(state, own.position)


def _loss_accepted(state: ClusterState, node: str) -> bool:
    """An operator asked for this very node and accepted what it lacks (`failover --allow-data-loss`)."""
    asked = state.running_operation()
    return asked is not None and asked.allow_data_loss and asked.target == node


def appoint(state: ClusterState, command: Appoint) -> ClusterState | str:
    if state.election is None or state.election.number != command.election:
        return f"election.moved: election {command.election} is not open"
    refused = may_appoint(state, command.node, command.votes)
    if refused is not None:
        return refused
    if command.timeline != state.highest_timeline + 1:
        return f"timeline.used: the next free timeline is {state.highest_timeline + 1}"
    own = next(v for v in command.votes if v.node == command.node)
    previous = state.appointment.node if state.appointment is not None else ""
    level = frozenset(v.node for v in command.votes if v.position == own.position)
    policy = read_policy(state.config.document)
    timeline = Timeline(command.timeline, command.election, command.node, own.position.timeline)
    entry = HistoryEntry(
        at=command.at,
        change=_change(state, command.node, previous),
        epoch=command.election,
        timeline=command.timeline,
        lsn=0,
        previous=previous,
        primary=command.node,
        reason=command.reason,
    )
    return replace(
        state,
        appointment=Appointment(
            epoch=command.election,
            node=command.node,
            incarnation=own.incarnation,
            timeline=command.timeline,
            start=own.position,
            holders=(level | {previous}) - {""},
            ttl_s=policy.ttl_s,
            clock_drift=policy.clock_drift,
        ),
        lease=LeaseStatus.HELD,
        election=None,
        timelines=(*state.timelines, timeline),
        history=(*state.history, entry)[-HISTORY_LIMIT:],
    )


def _change(state: ClusterState, node: str, previous: str) -> Change:
    operation = state.running_operation()
    if operation is not None and operation.kind is OperationKind.SWITCHOVER and node != previous:
        return Change.SWITCHOVER
    return Change.REAPPOINTED if node == previous else Change.FAILOVER
