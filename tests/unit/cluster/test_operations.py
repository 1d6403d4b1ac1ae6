"""Switchovers and failovers as objects: one at a time, forward only, bounded, and refused with a code."""

from dataclasses import replace

import pytest

from appliance.cluster.apply import apply
from appliance.cluster.commands import AdvanceOperation, StartOperation
from appliance.cluster.state import OPERATIONS_LIMIT, AcceptedLoss, NodeRole, OperationKind, Phase, Position

from .building import AT, LSN, appoint, member, state, vacant, vote, with_members

SWITCHOVER = StartOperation("op1", OperationKind.SWITCHOVER, "anna", "patching", "pg2", 4, AT)
FAILOVER = replace(SWITCHOVER, kind=OperationKind.FAILOVER)
PHASES = (Phase.STOPPING, Phase.ELECTING, Phase.PROMOTING, Phase.DONE)


def started(command=SWITCHOVER, before=None):
    applied = apply(before or state(), command)
    assert applied.refused is None, applied.refused
    return applied.state


def code(before, command):
    return (apply(before, command).refused or "").partition(":")[0]


def test_a_switchover_remembers_who_asked_and_from_whom_it_moves():
    (operation,) = started().operations

    assert (operation.source, operation.target, operation.epoch, operation.phase) == ("pg1", "pg2", 4, Phase.REQUESTED)
    assert (operation.requester, operation.reason, operation.marks[0].at) == ("anna", "patching", AT)


def test_a_failover_without_a_primary_has_no_source():
    assert started(FAILOVER, vacant()).operations[0].source == ""


@pytest.mark.parametrize(
    ("before", "command", "expected"),
    [
        (started(), replace(SWITCHOVER, id="op2"), "operation.running"),
        (started(), SWITCHOVER, "operation.running"),
        (state(), replace(SWITCHOVER, epoch=3), "epoch.moved"),
        (state(), replace(SWITCHOVER, target="pg9"), "member.unknown"),
        (state(), replace(SWITCHOVER, target="pg1"), "candidate.is_primary"),
        (with_members(state(), member("pg2", NodeRole.WITNESS)), SWITCHOVER, "candidate.no_data"),
        (with_members(state(), member("pg2", rebuilding=True)), SWITCHOVER, "candidate.no_data"),
        (with_members(state(), member("pg2", incarnation="")), SWITCHOVER, "candidate.no_data"),
        (vacant(), SWITCHOVER, "cluster.no_primary"),
        (state(), replace(FAILOVER, target=""), "candidate.missing"),
    ],
)
def test_an_operation_is_refused(before, command, expected):
    assert code(before, command) == expected


def test_a_failover_may_go_back_to_the_node_whose_lease_is_gone():
    assert started(replace(FAILOVER, target="pg1"), vacant()).running_operation().target == "pg1"


def test_phases_go_forward_only_and_the_last_message_stays():
    present = started()
    for phase in PHASES:
        applied = apply(present, AdvanceOperation("op1", phase, AT, f"now {phase}"))
        assert applied.refused is None
        assert code(applied.state, AdvanceOperation("op1", phase, AT)) in {"operation.phase", "operation.ended"}
        present = applied.state
    (operation,) = present.operations
    assert [m.phase for m in operation.marks] == [Phase.REQUESTED, *PHASES]
    assert operation.message == "now done"
    assert present.running_operation() is None
    assert code(present, AdvanceOperation("op1", Phase.FAILED, AT)) == "operation.ended"
    assert code(present, AdvanceOperation("op9", Phase.FAILED, AT)) == "operation.unknown"
    assert code(present, SWITCHOVER) == "operation.known", "the same id asks about the old one, it starts no new one"


def test_an_operation_may_fail_in_any_phase():
    for phase in (Phase.REQUESTED, *PHASES[:-1]):
        at_phase = replace(started(), operations=(replace(started().operations[0], phase=phase),))
        assert apply(at_phase, AdvanceOperation("op1", Phase.FAILED, AT)).refused is None


def test_operations_are_bounded_and_the_running_one_is_kept():
    present = state()
    for n in range(OPERATIONS_LIMIT + 5):
        present = started(replace(SWITCHOVER, id=f"op{n}"), present)
        assert present.running_operation().id == f"op{n}"
        present = apply(present, AdvanceOperation(f"op{n}", Phase.FAILED, AT)).state
    assert len(present.operations) == OPERATIONS_LIMIT


def test_a_switchover_shows_as_such_in_the_history():
    moving = replace(vacant(), operations=started().operations)

    assert apply(moving, appoint("pg2", vote("pg2"))).state.history[-1].change == "switchover"
    assert apply(moving, appoint("pg1", vote("pg1"))).state.history[-1].change == "reappointed"


@pytest.mark.parametrize(
    "command",
    [
        replace(FAILOVER, allow_data_loss=True),
        replace(FAILOVER, accepted=AcceptedLoss(Position(2, LSN), Position(2, LSN))),
        replace(SWITCHOVER, allow_data_loss=True, accepted=AcceptedLoss(Position(2, LSN), Position(2, LSN))),
    ],
)
def test_a_loss_is_accepted_by_the_positions_that_were_shown_and_for_a_failover_only(command):
    assert code(state(), command) == "loss.unconfirmed"
