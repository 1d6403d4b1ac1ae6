"""Operations as objects in the state: written before they start, advanced by whoever coordinates, bounded."""

from dataclasses import replace

from appliance.cluster.commands import AdvanceOperation, StartOperation
from appliance.cluster.state import (
    OPERATIONS_LIMIT,
    Appointment,
    ClusterState,
    LeaseStatus,
    NodeRole,
    Operation,
    OperationKind,
    Phase,
    PhaseMark,
)

_ORDER = tuple(Phase)


def start(state: ClusterState, command: StartOperation) -> ClusterState | str:
    """Begin a switchover or failover. One at a time; a switchover needs a primary, a failover a target."""
    running = state.running_operation()
    if running is not None:
        return f"operation.running: {running.kind} {running.id} is under way ({running.phase})"
    if any(o.id == command.id for o in state.operations):
        return f"operation.known: {command.id} was started before"
    if not state.initialised or state.appointment is None or command.epoch != state.appointment.epoch:
        return f"epoch.moved: epoch {command.epoch} is not the appointed one"
    refused = _target_refused(state, command) or _loss_refused(command, state.appointment)
    if refused is not None:
        return refused
    held = state.lease is LeaseStatus.HELD
    if command.kind is OperationKind.SWITCHOVER and not held:
        return "cluster.no_primary: a switchover needs a primary; use failover"
    operation = Operation(
        id=command.id,
        kind=command.kind,
        requester=command.requester,
        reason=command.reason,
        source=state.appointment.node if held else "",
        target=command.target,
        epoch=command.epoch,
        phase=Phase.REQUESTED,
        marks=(PhaseMark(Phase.REQUESTED, command.at),),
        allow_data_loss=command.allow_data_loss,
        accepted=command.accepted,
    )
    return replace(state, operations=(*state.operations, operation)[-OPERATIONS_LIMIT:])


def _target_refused(state: ClusterState, command: StartOperation) -> str | None:
    assert state.appointment is not None
    if not command.target:
        return "candidate.missing: failover needs a target" if command.kind is OperationKind.FAILOVER else None
    member = state.members.get(command.target)
    if member is None:
        return f"member.unknown: {command.target}"
    if member.role is NodeRole.WITNESS or member.rebuilding or not member.incarnation:
        return f"candidate.no_data: {command.target} has no complete data directory"
    if command.target == state.appointment.node and state.lease is LeaseStatus.HELD:
        return f"candidate.is_primary: {command.target} is the primary"
    return None


def _loss_refused(command: StartOperation, held: Appointment) -> str | None:
    """A loss is accepted for one named node, and by the positions that were shown."""
    if not command.allow_data_loss and command.accepted is None:
        return None
    if command.kind is not OperationKind.FAILOVER or not command.allow_data_loss or command.accepted is None:
        return "loss.unconfirmed: only a failover may lose data, and not more than was shown to whoever asks for it"
    if command.accepted.stopped not in {"", held.node}:
        return f"loss.stopped: {command.accepted.stopped} is not the last primary, {held.node} is"
    return None


def advance(state: ClusterState, command: AdvanceOperation) -> ClusterState | str:
    """Move an operation forward; phases never go back and an ended operation never moves."""
    operation = next((o for o in state.operations if o.id == command.id), None)
    if operation is None:
        return f"operation.unknown: {command.id}"
    if operation.phase.ended:
        return f"operation.ended: {command.id} is {operation.phase}"
    if _ORDER.index(command.phase) <= _ORDER.index(operation.phase):
        return f"operation.phase: {command.id} is already {operation.phase}"
    moved = replace(
        operation,
        phase=command.phase,
        marks=(*operation.marks, PhaseMark(command.phase, command.at, command.detail)),
        message=command.detail if command.phase.ended else operation.message,
    )
    return replace(state, operations=tuple(moved if o.id == moved.id else o for o in state.operations))
