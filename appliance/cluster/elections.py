"""R6, R7, R9 and R10 as functions of the state and the votes: who may be appointed, and what an appointment records."""

from collections.abc import Iterable
from dataclasses import replace

from appliance.cluster import loss, synchronous
from appliance.cluster.commands import Appoint, OpenElection
from appliance.cluster.config import policy_in_force, read_policy
from appliance.cluster.state import (
    HISTORY_LIMIT,
    AcceptedLoss,
    Appointment,
    Change,
    ClusterState,
    Election,
    Grounds,
    HistoryEntry,
    LeaseStatus,
    NodeRole,
    OperationKind,
    Position,
    SyncSet,
    SyncVersion,
    Timeline,
    Vote,
)
from appliance.cluster.timelines import descent


def order(position: Position) -> tuple[int, int]:
    """How positions compare: a later timeline first, then the LSN (R7)."""
    return (position.timeline, position.lsn)


def latest(*positions: Position | None) -> Position | None:
    """The highest of those that are known."""
    return max((p for p in positions if p is not None), key=order, default=None)


def known(state: ClusterState, position: Position | None, at: str = "") -> ClusterState:
    """With the primary's last position, if this one is later than what was known before."""
    if position is None or (state.last_known is not None and order(position) <= order(state.last_known)):
        return state
    return replace(state, last_known=position, last_known_at=at)


def votes_suffice(state: ClusterState, votes: Iterable[Vote]) -> str | None:
    """R7, R7a: None when one of the voters must hold every acknowledged commit; otherwise what is missing."""
    grounds, voters = state.grounds, {vote.node: vote.incarnation for vote in votes}
    if not grounds or synchronous.suffice(grounds, voters):
        return None
    return f"quorum.votes_missing: {synchronous.missing(grounds, voters)}"


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
    """Whether the history of `timeline` contains the candidate's position; a step that was not recorded may."""
    steps = descent(state.timelines, timeline, candidate.timeline)
    return bool(steps) and all(s.switch_lsn is None or candidate.lsn <= s.switch_lsn for s in steps)


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
    """R10: an election opens when nobody holds the lease. R9: with fencing votes it need not wait for that."""
    if not state.initialised or state.appointment is None:
        return "cluster.uninitialised: there is no primary to follow"
    if state.lease in {LeaseStatus.HELD, LeaseStatus.CONTESTED} and not fences_by_votes(state):
        return f"lease.held: {state.appointment.node} holds the lease of epoch {state.appointment.epoch}"
    return None


def fences_by_votes(state: ClusterState) -> bool:
    """R9: votes alone keep an older primary from acknowledging anything."""
    return state.synchronous and read_policy(state.config.document).fencing == "quorum"


def open_election(state: ClusterState, command: OpenElection) -> ClusterState | str:
    refused = may_open(state)
    if refused is not None:
        return refused
    assert state.appointment is not None
    if command.epoch != state.appointment.epoch:
        return f"epoch.moved: epoch {command.epoch} is not the appointed one"
    if command.number <= state.epoch:
        return f"election.number: {command.number} was used, the highest is {state.epoch}"
    return replace(
        known(state, command.last_known, command.last_known_at),
        epoch=command.number,
        election=Election(command.number, command.reason, command.target, command.at),
        lease=LeaseStatus.CONTESTED if state.lease is LeaseStatus.HELD else state.lease,
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
    refused, accepted = objection(state, own, votes), loss.accepted(state, node)
    if refused is None or accepted is None:
        return refused
    whole = next((v.node for v in votes if objection(state, v, votes) is None), None)
    if whole is not None:
        return f"loss.needless: {whole} has voted and can be appointed without any loss"
    return vouched_for(state, votes, accepted) or loss.objection(state, accepted, own.position, top.position)


def objection(state: ClusterState, own: Vote, votes: tuple[Vote, ...]) -> str | None:
    """R7, R10: why this vote does not win by the rules alone, whatever anybody has accepted, or None."""
    top = best(votes)
    if top is not None and order(own.position) < order(top.position):
        return f"candidate.behind: {own.node} is behind {top.node}"
    lacks = votes_suffice(state, votes) if state.synchronous else within_lag(state, own.position)
    return may_open(state) or lacks


def vouched_for(state: ClusterState, votes: Iterable[Vote], accepted: AcceptedLoss | None = None) -> str | None:
    """R16: why the last primary may be writable yet on the word of its synchronous members, or None.

    Asked where R7 is not: votes that satisfy R7 contain one of them, who votes only when its promise has ended. What
    the configuration says does not matter here: that primary may not have heard of a change.
    """
    held, voters = state.appointment, {vote.node: vote.incarnation for vote in votes}
    if held is None or state.lease is LeaseStatus.RELEASED or loss.stopped(state, accepted):
        return None
    member = state.members.get(held.node)
    if member is None or member.incarnation != held.incarnation:
        return None  # R13a: a recovery went on without its data, and whoever did that said that it never runs again
    if not any(listed.wanted.failsafe for listed in state.sync) or voters.get(held.node) == held.incarnation:
        return None
    if synchronous.silences(state.sync, voters):
        return None
    members = ", ".join(sorted(synchronous.union(state.sync)[0])) or "the others"
    return (
        f"failsafe.votes_missing: {held.node} may be writable on the word of {members}, and their votes do not show"
        f" that it is not; bring one of them back, or the host of {held.node}; or switch that host off, and state it:"
        f" --allow-data-loss --stopped {held.node}"
    )


def appoint(state: ClusterState, command: Appoint) -> ClusterState | str:
    if state.election is None or state.election.number != command.election:
        return f"election.moved: election {command.election} is not open"
    refused = may_appoint(state, command.node, command.votes)
    if refused is not None:
        return refused
    if command.timeline != state.highest_timeline + 1:
        return f"timeline.used: the next free timeline is {state.highest_timeline + 1}"
    policy = policy_in_force(state)
    refused = synchronous.objection(state, policy, command.wanted, command.node)
    if refused is not None:
        return refused
    own = next(v for v in command.votes if v.node == command.node)
    previous = state.appointment.node if state.appointment is not None else ""
    level = frozenset(v.node for v in command.votes if v.position == own.position)
    given_up = objection(state, own, command.votes)
    policy = read_policy(state.config.document)
    newest = SyncVersion(state.sync_now.version + 1, command.election, command.wanted)
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
        start=own.position,
        votes={v.node: v.position for v in command.votes},
        election_at=state.election.at,
        lost=None if given_up is None else loss.lost(state, own.position, command.votes, given_up),
    )
    # R7a: after an accepted loss the previous primary is no holder: what counts is what the new one has.
    holders = level if given_up is not None else (level | {previous}) - {""}
    before = _before(state, command.wanted, None if given_up is None else own)
    return replace(
        state,
        appointment=Appointment(
            epoch=command.election,
            node=command.node,
            incarnation=own.incarnation,
            timeline=command.timeline,
            start=own.position,
            holders=holders,
            ttl_s=policy.ttl_s,
            clock_drift=policy.clock_drift,
            before=before,
        ),
        lease=LeaseStatus.HELD,
        lease_over="",
        election=None,
        sync=(newest,) if state.synchronous else synchronous.appended(state.sync, newest),
        timelines=(*state.timelines, timeline),
        history=(*state.history, entry)[-HISTORY_LIMIT:],
    )


def _before(state: ClusterState, wanted: SyncSet, alone: Vote | None) -> tuple[Grounds, ...]:
    """R7a: what sufficed until now. `alone`: a person accepted what this one lacks, so that only its own data counts,
    until its synchronous set is finalised.
    """
    if not state.synchronous or wanted.asynchronous:
        return ()
    return synchronous.kept(state.grounds) if alone is None else (Grounds(alone.node, alone.incarnation),)


def _change(state: ClusterState, node: str, previous: str) -> Change:
    operation = state.running_operation()
    if operation is not None and operation.kind is OperationKind.SWITCHOVER and node != previous:
        return Change.SWITCHOVER
    return Change.REAPPOINTED if node == previous else Change.FAILOVER
