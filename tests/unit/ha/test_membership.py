"""Replicas follow the agreed members one step at a time, and no step leaves voters without a majority that is up."""

from dataclasses import replace

import pytest

from appliance.cluster.apply import apply
from appliance.cluster.commands import RemoveMember
from appliance.cluster.state import ClusterState, NodeRole
from appliance.ha.checks import FRESH_S, refusal, removal_checks
from appliance.ha.membership import (
    LEAVE_WAIT_S,
    Change,
    ChangeRole,
    DropReplica,
    HandOver,
    Replicas,
    next_change,
    seen_by,
    without_a_majority,
)
from tests.unit.cluster.building import NAMES, member, state, vacant, with_members

from .building import ALL, heard, operation, report

THREE = Replicas("pg1", dict.fromkeys(NAMES, "voter"), frozenset(NAMES))
REMOVED = apply(state(), RemoveMember("pg3")).state
DOWN = ALL | heard(report("pg3", running=False))
LEARNER = with_members(state(), member("pg3", NodeRole.LEARNER))


def step(present, replicas=THREE, reports=DOWN, leaving_s=0.0):
    change = next_change(present, replicas, reports, leaving_s)
    return None if change is None else change.step


def test_what_is_as_agreed_stays():
    assert next_change(state(), THREE, ALL, 0.0) is None
    learner = replace(THREE, roles={**THREE.roles, "pg3": "learner"})
    assert next_change(LEARNER, learner, ALL, 0.0) is None
    joining = replace(THREE, roles={**THREE.roles, "pg3": "joining"})
    assert next_change(state(), joining, ALL, 0.0) is None


def test_who_has_not_announced_itself_is_left_alone():
    assert next_change(replace(state(), members={"pg1": member("pg1")}), THREE, ALL, 0.0) is None


def test_roles_follow_what_the_nodes_say():
    assert step(LEARNER) == ChangeRole("pg3", "learner")
    assert step(LEARNER, replace(THREE, roles={**THREE.roles, "pg3": "joining"})) == ChangeRole("pg3", "learner")
    assert step(state(), replace(THREE, roles={**THREE.roles, "pg3": "learner"})) == ChangeRole("pg3", "joining")
    witness = with_members(state(), member("pg3", NodeRole.WITNESS))
    assert step(witness, replace(THREE, roles={**THREE.roles, "pg3": "learner"})) == ChangeRole("pg3", "joining")


def test_a_removed_member_is_dropped():
    assert step(REMOVED) == DropReplica("pg3")
    assert step(REMOVED, replace(THREE, up=frozenset({"pg1", "pg2"})), {}) == DropReplica("pg3")


def test_a_removed_member_that_lives_has_time_to_stop():
    waits = next_change(REMOVED, THREE, ALL, LEAVE_WAIT_S)
    assert waits == Change("pg3 was removed: waits for the end of its PostgreSQL", None)
    assert step(REMOVED, reports=ALL, leaving_s=LEAVE_WAIT_S + 0.1) == DropReplica("pg3")


@pytest.mark.parametrize("present", [REMOVED, LEARNER], ids=["removed", "learner"])
def test_no_vote_is_taken_away_while_the_others_have_no_majority_that_is_up(present):
    one_down = replace(THREE, up=frozenset({"pg1", "pg3"}))
    change = next_change(present, one_down, DOWN, 0.0)

    assert change.step is None
    assert "only 1 of 2 voters would be up" in change.because


def test_the_last_voter_keeps_its_vote():
    alone = Replicas("pg3", {"pg1": "learner", "pg2": "learner", "pg3": "voter"}, frozenset(NAMES))
    all_learners = with_members(state(), *(member(name, NodeRole.LEARNER) for name in NAMES))

    assert next_change(all_learners, alone, DOWN, 0.0) == Change("pg3 is a learner: pg3 is the last voter", None)


def test_what_waits_keeps_nothing_else_from_going_on():
    both = with_members(REMOVED, member("pg2", NodeRole.LEARNER))
    busy = replace(THREE, roles={**THREE.roles, "pg2": "joining"})

    assert step(both, busy, ALL) == ChangeRole("pg2", "learner")


def test_a_raft_leader_that_leaves_hands_over_first_to_one_that_stays():
    leads = replace(THREE, leader="pg3")
    assert step(REMOVED, leads) == HandOver("pg1")
    first_is_learner = with_members(REMOVED, member("pg1", NodeRole.LEARNER))
    assert step(first_is_learner, replace(leads, roles={**leads.roles, "pg1": "joining"})) == ChangeRole(
        "pg1", "learner"
    )
    assert step(first_is_learner, leads) in {ChangeRole("pg1", "learner"), HandOver("pg2")}
    away = replace(leads, up=frozenset({"pg2", "pg3"}), roles={**leads.roles, "pg1": "learner"})
    assert step(REMOVED, away) == ChangeRole("pg1", "joining")


def test_up_is_who_is_connected_and_reported_lately_and_the_raft_leader_itself():
    reports = heard(report("pg2")) | heard(report("pg3"), age_s=FRESH_S + 0.1)
    assert seen_by("pg1", THREE.roles, {"pg2", "pg3"}, reports).up == {"pg1", "pg2"}
    assert seen_by("pg1", THREE.roles, {"pg3"}, reports).up == {"pg1"}


def test_a_replica_without_a_vote_is_never_missed():
    assert without_a_majority(replace(THREE, roles={**THREE.roles, "pg3": "learner"}), "pg3") is None


# The checks of a removal


@pytest.mark.parametrize(
    ("present", "reports", "name", "code"),
    [
        (state(), DOWN, "pg3", None),
        (state(), {}, "pg3", None),
        (state(), DOWN, "pg9", "member.unknown"),
        (state(), ALL, "pg3", "member.running"),
        (state(), ALL, "pg1", "member.last_primary"),
        (vacant(), {}, "pg1", "member.last_primary"),
        (vacant(), {}, "pg3", "cluster.primary"),
        (replace(ClusterState(), members=state().members), {}, "pg3", None),
        (state(operations=(operation(),)), DOWN, "pg3", "operation.running"),
    ],
)
def test_a_removal_is_refused_with_the_check_that_failed(present, reports, name, code):
    failed = refusal(removal_checks(present, reports, name, None, force=False))

    assert (failed and failed.code) == code


def test_force_takes_a_member_that_runs_and_no_majority_away():
    assert refusal(removal_checks(state(), ALL, "pg3", None, force=True)) is None
    assert refusal(removal_checks(vacant(), {}, "pg3", None, force=True)) is None
    assert refusal(removal_checks(state(), ALL, "pg3", "1 of 2", force=True)).code == "quorum.kept"
    assert refusal(removal_checks(state(), ALL, "pg1", None, force=True)).code == "member.last_primary"
