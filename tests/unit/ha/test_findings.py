"""Promises that were broken once, each with its smallest case."""

from dataclasses import replace

import pytest

from appliance.cluster.state import Election, LeaseStatus, OperationKind, Phase
from appliance.ha.actions import NoteFenced, Promote, Propose
from appliance.ha.choice import TARGET_WAIT_S
from appliance.ha.decide import decide
from appliance.ha.fences import give_back_after_fence
from appliance.ha.plan import plan
from appliance.ha.seen import LeaseSeen, Notes
from tests.unit.cluster.building import LSN, member, state, vacant, vote, with_members

from .building import (
    ALL,
    APPOINTED,
    POLICY,
    directory,
    heard,
    instance,
    operation,
    primary,
    report,
    situation,
    standby,
    stopped,
    voter,
)

FENCED = Notes(epoch=4, pledge=4, fenced_epoch=4)
OPENED = replace(APPOINTED, appointment=replace(APPOINTED.appointment, opened=True))


def actions(present, seen):
    return decide(present, seen, POLICY).actions


def came_back(present):
    """pg2 was open on timeline 3, its host crashed, and it started as a standby before it had the newest log."""
    alone = instance(timeline=3, lsn=LSN + 100, upstream="", receiver_running=False, streaming=False)
    return standby("pg2", notes=Notes(epoch=5, pledge=5), instance=alone, directory=directory("pg2", timeline=3))


@pytest.mark.parametrize("lease", [None, LeaseSeen(5, 5.0)])
def test_r4_a_primary_that_runs_as_a_standby_gives_its_epoch_up(lease):
    assert NoteFenced(5) in actions(OPENED, replace(came_back(OPENED), lease=lease))


def test_r14_a_promotion_that_was_never_recorded_is_not_tried_a_second_time():
    decided = actions(APPOINTED, replace(came_back(APPOINTED), lease=LeaseSeen(5, 5.0)))

    assert NoteFenced(5) in decided
    assert Promote(5, 3) not in decided


def test_r11_a_lease_is_not_given_back_while_a_stop_is_under_way():
    hangs = replace(voter("pg2", stopping_s=0.1), instance=None, notes=Notes(5, 5, fenced_epoch=5))

    assert not [a for a in actions(APPOINTED, hangs) if isinstance(a, Propose)]


@pytest.mark.parametrize(
    "writable",
    [
        primary(notes=FENCED),
        primary(notes=FENCED, instance=None),
        primary(notes=FENCED, stopping_s=0.1),
        primary(notes=FENCED, stopping_s=0.1, instance=None),
    ],
    ids=["answers", "silent", "stopping", "stopping and silent"],
)
def test_r4_a_lease_is_not_given_back_while_postgresql_is_writable(writable):
    """Asked of the rule itself: in RULES another one that stops the primary stands before it."""
    assert give_back_after_fence(state(), writable, POLICY) is None
    assert give_back_after_fence(state(), stopped(replace(writable, stopping_s=None)), POLICY) is not None
    assert not [a for a in actions(state(), writable) if isinstance(a, Propose)]


def test_t9_a_directory_that_did_not_vote_is_not_promoted():
    other = voter("pg2", lease=LeaseSeen(5, 5.0), directory=directory("pg2", incarnation="inc-other"))

    assert Promote(5, 3) not in actions(APPOINTED, other)


def test_a_failover_to_a_node_tagged_nofailover_was_accepted_and_can_win():
    asked = operation(Phase.ELECTING, kind=OperationKind.FAILOVER, source="")
    present = vacant(election=Election(5, "failover op1", "pg2"), operations=(asked,))
    present = with_members(present, member("pg2", tags={"nofailover": True}))
    ballot = heard(report("pg2", vote=vote("pg2", LSN + 1)), report("pg3", vote=vote("pg3")))

    assert plan(situation(present, ballot, election_s=TARGET_WAIT_S)).commands


def test_a_failover_that_was_accepted_does_not_fail_on_a_check_that_was_waived():
    present = state(operations=(operation(kind=OperationKind.FAILOVER),))
    cut_off = ALL | heard(report("pg2", streaming=False))

    assert present.lease is LeaseStatus.HELD
    assert not plan(situation(present, cut_off)).commands
