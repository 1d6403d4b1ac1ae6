"""When elections open, whom they wait for, and when they appoint (R3, R6, R7, R9, R10)."""

from appliance.cluster import elections, loss, synchronous
from appliance.cluster.commands import Appoint, Depose, OpenElection
from appliance.cluster.state import Appointment, ClusterState, LeaseStatus, Vote
from appliance.ha.checks import voters
from appliance.ha.choice import (
    TARGET_WAIT_S,
    awaited,
    best,
    choose,
    counted_votes,
    ends,
    for_its_clock,
    for_want_of_room,
    why_nobody,
)
from appliance.ha.situation import Plan, Situation, reported_position, silence_s
from appliance.ha.standbys import wanted_next

VOTES_WAIT_S = 1.0
"""How long a known live voter is waited for before the best of the votes at hand is appointed."""


def depose_silent_primary(now: Situation) -> Plan | None:
    """R3, R10: only after a full ttl without a confirmed renewal."""
    held, lease = now.state.appointment, now.state.lease
    # Votes that need not suffice do not fence a primary: whoever accepts a loss waits for the end of its lease.
    waits = lease is LeaseStatus.CONTESTED and _accepts_loss(now.state)
    if held is None or not (waits or lease is LeaseStatus.HELD):
        return None
    silent_s = silence_s(now.leader)
    if silent_s <= now.policy.depose_after_s:
        return None
    reason = f"{held.node} did not renew its lease of epoch {held.epoch} for {silent_s:.1f} s"
    return Plan(reason, (Depose(held.epoch, reason),))


def _accepts_loss(state: ClusterState) -> bool:
    operation = state.running_operation()
    return operation is not None and loss.accepted(state, operation.target) is not None


def open_election(now: Situation) -> Plan | None:
    """R10: the lease was given back or has run out, and no election is open. R9: or the primary is suspected."""
    state = now.state
    if state.election is not None or elections.may_open(state) is not None or state.appointment is None:
        return None
    if state.lease is LeaseStatus.HELD:
        return _suspect(now, state.appointment)
    operation = state.running_operation()
    target = operation.target if operation is not None and operation.epoch == state.appointment.epoch else ""
    reason = f"the lease of epoch {state.appointment.epoch} is {state.lease}"
    if state.lease_over:
        reason = f"{reason}: {state.lease_over}"
    if operation is not None:
        why = f" ({operation.reason})" if operation.reason else ""
        reason = f"{operation.kind} {operation.id}{why}: {reason}"
    return Plan(reason, (_election(now, state.appointment, reason, target),))


def _election(now: Situation, held: Appointment, reason: str, target: str = "") -> OpenElection:
    position, at = reported_position(now), now.primary_heard_at
    return OpenElection(
        now.state.epoch + 1, held.epoch, reason, target, position, "" if position is None else at, now.wall_time
    )


def _suspect(now: Situation, held: Appointment) -> Plan | None:
    """R9: a silent primary need not be waited for, if those who can be heard can show every commit.

    An election stops a primary that is only cut off from the raft leader, so it is not opened in vain. One whose node
    process said that it is restarted has its whole lease: a start takes about as long as `failure_timeout`. Once it is
    back its first report may be here before the renewal that it asks for is confirmed.
    """
    silent_s = silence_s(now.leader)
    if silent_s <= now.policy.failure_timeout_s or _restarts(now, held.node) or _asks(now, held):
        return None
    heard = {name: mark for name, mark in voters(now.state, now.reports).items() if name != held.node}
    reason = f"{held.node} did not renew its lease of epoch {held.epoch} for {silent_s:.1f} s"
    if not synchronous.suffice(now.state.grounds, heard):
        return None
    return Plan(reason, (_election(now, held, reason),))


def _asks(now: Situation, held: Appointment) -> bool:
    """It was heard after its lease was last renewed, and asks for more: that is about to be confirmed."""
    last = now.reports.get(held.node)
    return last is not None and last.report.renew_epoch == held.epoch and last.age_s <= now.policy.failure_timeout_s


def _restarts(now: Situation, node: str) -> bool:
    """By its last word, whose age says nothing here; the next node process takes it back."""
    last = now.reports.get(node)
    return last is not None and last.report.restarting


def drop_target(now: Situation) -> Plan | None:
    """A switchover's target that does not vote, or cannot win, in time no longer keeps the others from winning."""
    election = now.state.election
    if election is None or not election.target or now.leader.election_s <= TARGET_WAIT_S:
        return None
    held, choice = now.state.appointment, choose(now, counted_votes(now))
    if held is None or (choice is not None and choice.node == election.target):
        return None
    reason = f"{election.target} could not win election {election.number} for {now.leader.election_s:.1f} s"
    return Plan(reason, (OpenElection(now.state.epoch + 1, held.epoch, reason, at=now.wall_time),))


def appoint(now: Situation) -> Plan | None:
    """R7, R10: the highest vote; of equals who has not failed to open, then by priority and name.

    Waits a little for known live voters.
    """
    state, election = now.state, now.state.election
    if election is None:
        return None
    votes, choice = best(now)
    missing = awaited(now) - {v.node for v in votes}
    if choice is None:
        return Plan(f"election {election.number}: {why_nobody(now, votes)}")
    if election.target and (choice.node != election.target or not _caught_up(state, choice, now.leader.election_s)):
        return Plan(f"election {election.number}: waits for {election.target}")
    needless = election.target and elections.objection(state, choice, votes) is None
    if missing and not needless and now.leader.election_s <= _votes_wait_s(state, missing):
        return Plan(f"election {election.number}: waits for the votes of {', '.join(sorted(missing))}")
    reason = (
        f"{election.reason}; {_why_it(state, choice, votes)}{for_want_of_room(now, choice)}{for_its_clock(now, choice)}"
    )
    # Who is ahead of an accepted loss has to be rebuilt before anybody can wait for it.
    followers = (v.node for v in votes if v.position <= choice.position and not ends(now, v.node))
    wanted = wanted_next(state, now.policy, choice.node, followers)
    timeline = state.highest_timeline + 1
    return Plan(reason, (Appoint(election.number, choice.node, votes, timeline, wanted, reason, now.wall_time),))


def _why_it(state: ClusterState, choice: Vote, votes: tuple[Vote, ...]) -> str:
    """Why these votes make this one primary, in words (R7, R10)."""
    given_up = elections.objection(state, choice, votes)
    if given_up is not None:
        return f"{choice.node} was asked for, and the loss accepted: {given_up}"
    why = f"{choice.node} has the highest of {synchronous.counted(votes)}"
    if not state.synchronous:
        return why
    return f"{why}, {synchronous.shown(state.grounds, {v.node: v.incarnation for v in votes})}"


def _votes_wait_s(state: ClusterState, missing: set[str]) -> float:
    """R7: with votes that suffice nothing is lost without the others; only a primary that crashed is slow to vote."""
    held = state.appointment
    crashed_only = held is not None and missing <= {held.node}
    return 0.0 if state.synchronous and crashed_only else VOTES_WAIT_S


def _caught_up(state: ClusterState, vote: Vote, waited_s: float) -> bool:
    """The target has the old primary's last record, or a second has passed without it coming."""
    known = state.last_known
    return known is None or elections.order(vote.position) > elections.order(known) or waited_s > VOTES_WAIT_S
