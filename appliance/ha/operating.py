"""How a switchover or failover on request goes from phase to phase. Each step looks at what is, not what was done."""

from dataclasses import replace

from appliance.cluster import elections
from appliance.cluster.commands import AdvanceOperation
from appliance.cluster.state import LeaseStatus, Operation, OperationKind, Phase
from appliance.ha.checks import Check, failover_checks, refusal, switchover_checks
from appliance.ha.choice import choose, counted_votes, why_nobody
from appliance.ha.situation import Plan, Situation, fresh

CHECKPOINT_WAIT_S = 10.0
ELECTING_LIMIT_S = 30.0
"""After that a switchover or failover that finds nobody has failed."""


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
        return _nobody_wins(now, operation)
    if operation.phase is Phase.REQUESTED:
        return _may_stop(now, operation)
    return None


def _nobody_wins(now: Situation, operation: Operation) -> tuple[Phase, str] | None:
    """The operation ends, and the election stays open: whoever asked may ask for something else."""
    votes = counted_votes(now)
    refused = next((elections.may_appoint(now.state, v.node, votes) for v in votes if v.node == operation.target), None)
    if refused is not None and refused.startswith("loss."):
        return (Phase.FAILED, refused)
    limit_s = max(ELECTING_LIMIT_S, 2 * now.policy.ttl_s)
    if operation.phase is not Phase.ELECTING or now.leader.phase_s <= limit_s or choose(now, votes):
        return None
    return (Phase.FAILED, f"nobody was elected within {limit_s:.0f} s: {why_nobody(now, votes)}")


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
