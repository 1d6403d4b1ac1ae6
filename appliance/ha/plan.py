"""What the coordinator proposes: `plan(state, reports, leader, policy)`, an ordered tuple of small rules.

It runs on the raft leader only and is a suggestion: `apply` checks every condition again at its place in the log.
Reports are what the nodes sent; a node that has not reported is absent, not dead.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from appliance.cluster import elections
from appliance.cluster.commands import (
    AdvanceOperation,
    Appoint,
    Command,
    Depose,
    NotePosition,
    OpenElection,
    RaiseFormat,
    Recovered,
)
from appliance.cluster.config import Policy
from appliance.cluster.state import (
    ClusterState,
    LeaseStatus,
    NodeRole,
    Operation,
    OperationKind,
    Phase,
    Position,
    Vote,
)
from appliance.ha.checks import FRESH_S, Check, failover_checks, refusal, switchover_checks
from appliance.ha.seen import LeaderSeen, ReportSeen

VOTES_WAIT_S = 1.0
"""How long a known live voter is waited for before the best of the votes at hand is appointed."""
TARGET_WAIT_S = 5.0
"""How long a switchover's election waits for its target before anybody may win it."""
CHECKPOINT_WAIT_S = 10.0
NOTE_EVERY_S = 5.0


@dataclass(frozen=True, slots=True)
class Situation:
    state: ClusterState
    reports: Mapping[str, ReportSeen]
    leader: LeaderSeen
    policy: Policy
    wall_time: str = ""
    """RFC 3339, for people; no rule reads it"""


@dataclass(frozen=True, slots=True)
class Plan:
    because: str
    commands: tuple[Command, ...] = field(default=())
    rule: str = ""


Rule = Callable[[Situation], Plan | None]


def fresh(now: Situation, node: str) -> ReportSeen | None:
    seen = now.reports.get(node)
    return seen if seen is not None and seen.age_s <= FRESH_S else None


def silence_s(leader: LeaderSeen) -> float:
    """Since the lease was last renewed, as far as this raft leader knows (R3).

    Without one in this term it counts from this leader's own election, or from the appointment if that came later.
    """
    if leader.confirmed_s is not None:
        return leader.confirmed_s
    return min(leader.leading_s, leader.epoch_s)


def number_recovery(now: Situation) -> Plan | None:
    """R13a: a recovery by a version that told the state machine nothing of it: all data that is a member's is kept.

    A raft leader that has not applied everything yet proposes it as well; then the recovery's own command, which stands
    before all others of this incarnation, has the number already, and this one is refused.
    """
    number = now.leader.log_incarnation
    if number <= now.state.recovery.number:
        return None
    kept = {member.name: member.incarnation for member in now.state.members.values() if member.incarnation}
    return Plan(f"the log is of recovery {number}, which is not in the state", (Recovered(number, kept),))


def depose_silent_primary(now: Situation) -> Plan | None:
    """R3, R10: only after a full ttl without a confirmed renewal."""
    held = now.state.appointment
    if held is None or now.state.lease is not LeaseStatus.HELD:
        return None
    silent_s = silence_s(now.leader)
    if silent_s <= now.policy.depose_after_s:
        return None
    reason = f"{held.node} did not renew its lease of epoch {held.epoch} for {silent_s:.1f} s"
    return Plan(reason, (Depose(held.epoch, reason),))


def open_election(now: Situation) -> Plan | None:
    """R10: the lease was given back or has run out, and no election is open."""
    state = now.state
    if state.election is not None or elections.may_open(state) is not None or state.appointment is None:
        return None
    operation = state.running_operation()
    target = operation.target if operation is not None and operation.epoch == state.appointment.epoch else ""
    reason = f"the lease of epoch {state.appointment.epoch} is {state.lease}"
    if operation is not None:
        reason = f"{operation.kind} {operation.id}: {reason}"
    command = OpenElection(state.epoch + 1, state.appointment.epoch, reason, target, _reported_position(now))
    return Plan(reason, (command,))


def drop_target(now: Situation) -> Plan | None:
    """A switchover's target that does not vote, or cannot win, in time no longer keeps the others from winning."""
    election = now.state.election
    if election is None or not election.target or now.leader.election_s <= TARGET_WAIT_S:
        return None
    held, choice = now.state.appointment, _choose(now, _votes(now))
    if held is None or (choice is not None and choice.node == election.target):
        return None
    reason = f"{election.target} could not win election {election.number} for {now.leader.election_s:.1f} s"
    return Plan(reason, (OpenElection(now.state.epoch + 1, held.epoch, reason),))


def appoint(now: Situation) -> Plan | None:
    """R7, R10: the highest vote; of equals who has not failed to open, then by priority and name.

    Waits a little for known live voters.
    """
    state, election = now.state, now.state.election
    if election is None:
        return None
    votes = _votes(now)
    missing = _awaited(now) - {v.node for v in votes}
    choice = _choose(now, votes)
    if choice is None:
        return Plan(f"election {election.number}: {_why_nobody(now, votes)}")
    if election.target:
        if choice.node != election.target or not _caught_up(state, choice, now.leader.election_s):
            return Plan(f"election {election.number}: waits for {election.target}")
    elif missing and now.leader.election_s <= VOTES_WAIT_S:
        return Plan(f"election {election.number}: waits for the votes of {', '.join(sorted(missing))}")
    reason = f"{election.reason}; {choice.node} has the highest of {len(votes)} votes"
    command = Appoint(election.number, choice.node, votes, state.highest_timeline + 1, reason, now.wall_time)
    return Plan(reason, (command,))


def _votes(now: Situation) -> tuple[Vote, ...]:
    """Votes that count. A node that may not become primary does not set the mark for the others (R10)."""
    given = (r.report.vote for r in now.reports.values() if r.report.vote is not None)
    counted = (v for v in given if elections.eligible(now.state, v) is None)
    kept = [v for v in counted if _may_win(now, v.node)]
    return tuple(sorted(kept, key=lambda v: v.node))


def _may_win(now: Situation, node: str) -> bool:
    """A tag keeps a node from winning by itself, not from being asked for; in synchronous mode every vote fences."""
    election = now.state.election
    asked = election is not None and election.target == node
    return asked or now.state.synchronous or elections.excluded(now.state, node) is None


def _awaited(now: Situation) -> set[str]:
    """Members that are known to be alive and to have data, so that their vote is worth a short wait."""
    alive = (m for m in now.state.members.values() if fresh(now, m.name) is not None)
    able = (m.name for m in alive if m.role is not NodeRole.WITNESS and m.incarnation and not m.rebuilding)
    return {n for n in able if _may_win(now, n)}


def _choose(now: Situation, votes: tuple[Vote, ...]) -> Vote | None:
    election = now.state.election
    target = next((v for v in votes if election is not None and v.node == election.target), None)
    ranked = [target] if target is not None else sorted(votes, key=lambda v: _rank(now, v), reverse=True)
    possible = (v for v in ranked if elections.may_appoint(now.state, v.node, votes) is None)
    return next((v for v in possible if v.node != _leaving(now)), None)


def _leaving(now: Situation) -> str:
    """Who hands over: it is not elected again unless nobody else could be for TARGET_WAIT_S."""
    operation = now.state.running_operation()
    if operation is None or now.leader.election_s > TARGET_WAIT_S:
        return ""
    return operation.source


def _rank(now: Situation, vote: Vote) -> tuple[int, int, int, int]:
    """Of equals the sort keeps the first by name, as `_votes` sorts them.

    Without a count of what came to nothing, a node whose disk is full wins again and again while equals stand by.
    """
    member = now.state.members[vote.node]
    priority = member.tags.get("failover_priority", 1)
    failed = _never_opened(now.state, vote.node)
    return (*elections.order(vote.position), -failed, priority if isinstance(priority, int) else 1)


def _never_opened(state: ClusterState, node: str) -> int:
    """How often, since a primary last opened, this node was appointed and did not."""
    opened = max((t.number for t in state.timelines if t.switch_lsn is not None), default=0)
    return sum(t.node == node for t in state.timelines if t.number > opened)


def _caught_up(state: ClusterState, vote: Vote, waited_s: float) -> bool:
    """The target has the old primary's last record, or a second has passed without it coming."""
    known = state.last_known
    return known is None or elections.order(vote.position) > elections.order(known) or waited_s > VOTES_WAIT_S


def _why_nobody(now: Situation, votes: tuple[Vote, ...]) -> str:
    if not votes:
        return "no vote has arrived"
    refused = {v.node: elections.may_appoint(now.state, v.node, votes) for v in votes}
    return "; ".join(f"{node}: {reason}" for node, reason in refused.items())


def advance_operation(now: Situation) -> Plan | None:
    """Move the running switchover or failover to its next phase; each step looks at what is, not at what was done."""
    operation = now.state.running_operation()
    if operation is None:
        return None
    step = _next_phase(now, operation)
    if step is None:
        return None
    phase, detail = step
    return Plan(f"{operation.kind} {operation.id}: {detail}", (_move(now, operation, phase, detail),))


def _move(now: Situation, operation: Operation, phase: Phase, detail: str) -> AdvanceOperation:
    return AdvanceOperation(operation.id, phase, now.wall_time, detail)


def _next_phase(now: Situation, operation: Operation) -> tuple[Phase, str] | None:
    state, held = now.state, now.state.appointment
    if held is None:
        return (Phase.FAILED, "the cluster is not initialised")
    if held.epoch > operation.epoch:
        return _after_appointment(now, operation)
    if state.lease is not LeaseStatus.HELD:
        if operation.phase in {Phase.REQUESTED, Phase.STOPPING}:
            return (Phase.ELECTING, f"{held.node} has stopped" if operation.source else "there is no primary")
        return None
    if operation.phase is Phase.REQUESTED:
        return _may_stop(now, operation)
    return None


def _after_appointment(now: Situation, operation: Operation) -> tuple[Phase, str] | None:
    held = now.state.appointment
    assert held is not None
    if held.opened:
        if operation.target == held.node or (not operation.target and held.node != operation.source):
            return (Phase.DONE, f"{held.node} is primary on timeline {held.timeline}")
        wanted = operation.target or "another node"
        return (Phase.FAILED, f"{held.node} is primary on timeline {held.timeline}, not {wanted}")
    if operation.phase in {Phase.REQUESTED, Phase.STOPPING, Phase.ELECTING}:
        return (Phase.PROMOTING, f"{held.node} is appointed in epoch {held.epoch}")
    return None


def _may_stop(now: Situation, operation: Operation) -> tuple[Phase, str] | None:
    """Before the primary is stopped the checks are made once more: until here nothing has changed."""
    if not operation.source:
        return None
    source = fresh(now, operation.source)
    if source is None:
        # A failover's primary may be dead: then its lease decides. A switchover needs it alive.
        waits = operation.kind is OperationKind.FAILOVER or now.leader.phase_s <= CHECKPOINT_WAIT_S
        return None if waits else (Phase.FAILED, f"{operation.source} is silent")
    failed = refusal(_checks_again(now, operation))
    if failed is not None:
        return (Phase.FAILED, f"{failed.code}: {failed.candidate} {failed.detail}")
    if source.report.checkpointed_operation == operation.id:
        return (Phase.STOPPING, "the checkpoint was made")
    if now.leader.phase_s > CHECKPOINT_WAIT_S:
        return (Phase.STOPPING, f"no checkpoint was made within {CHECKPOINT_WAIT_S:.0f} s, the stop may take longer")
    return None


def _checks_again(now: Situation, operation: Operation) -> tuple[Check, ...]:
    """What the request was measured by, on what is known now."""
    idle = replace(now.state, operations=())
    if operation.kind is OperationKind.FAILOVER:
        loss = operation.allow_data_loss
        return failover_checks(idle, now.reports, now.policy, operation.target, allow_data_loss=loss)
    return switchover_checks(idle, now.reports, now.policy, operation.target)


def raise_format(now: Situation) -> Plan | None:
    """Only when every member, also one that is away, and every replica has just said that it knows a higher one.

    Who did not would end at the step, and come back only with a newer version (docs/decisions/0013).
    """
    names = sorted(now.leader.replicas | now.state.members.keys())
    said = [seen.report.format for seen in (fresh(now, name) for name in names) if seen is not None]
    if not names or len(said) < len(names) or min(said) <= now.state.format:
        return None
    return Plan(f"all {len(names)} members know format {min(said)}", (RaiseFormat(min(said)),))


def note_position(now: Situation) -> Plan | None:
    """R10: write the primary's position every few seconds while it moves."""
    state, held = now.state, now.state.appointment
    position = _reported_position(now)
    if held is None or position is None or now.leader.noted_s < NOTE_EVERY_S or state.lease is not LeaseStatus.HELD:
        return None
    if state.last_known is not None and elections.order(position) <= elections.order(state.last_known):
        return None
    return Plan("note the primary's position", (NotePosition(held.epoch, position),))


def _reported_position(now: Situation) -> Position | None:
    """The last position that the appointed primary reported as primary; reports of other roles say nothing here."""
    held = now.state.appointment
    seen = now.reports.get(held.node) if held is not None else None
    if held is None or seen is None or seen.report.in_recovery is not False or seen.report.timeline != held.timeline:
        return None
    return Position(seen.report.timeline, seen.report.lsn)


RULES: tuple[Rule, ...] = (
    number_recovery,
    depose_silent_primary,
    advance_operation,
    open_election,
    drop_target,
    appoint,
    raise_format,
    note_position,
)


def plan(now: Situation) -> Plan:
    """The first rule that answers; a rule may answer with words alone, to say what it waits for."""
    for rule in RULES:
        answer = rule(now)
        if answer is not None:
            return replace(answer, rule=rule.__name__)
    return Plan("nothing to do")
