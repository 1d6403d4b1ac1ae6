"""A raft leader that is the primary hands over: to whom, when, and when not."""

import math
from dataclasses import replace

import pytest

from appliance.cluster.apply import apply
from appliance.cluster.commands import RemoveMember
from appliance.cluster.state import LeaseStatus, NodeRole, Phase
from appliance.ha.leadership import (
    KEEP_LONGEST_S,
    KEEP_S,
    SUITED_S,
    LeadershipSeen,
    heir,
    keep_s,
    may_hand_over,
)
from appliance.ha.membership import Replicas
from tests.unit.cluster.building import NAMES, member, state, vacant, with_members

from .building import APPOINTED, operation

THREE = Replicas("pg1", dict.fromkeys(NAMES, "voter"), frozenset(NAMES))
WITNESS = with_members(state(), member("pg2", NodeRole.WITNESS))
FIVE = Replicas("pg1", dict.fromkeys((*NAMES, "pg4", "pg5"), "voter"), frozenset((*NAMES, "pg4", "pg5")))
OF_FIVE = with_members(state(), member("pg4"), member("pg5"))


def up(*names, of=THREE):
    return replace(of, up=frozenset(names))


def test_the_primary_does_not_lead_where_another_voter_can():
    assert heir(state(), THREE, NAMES) == "pg3"
    assert heir(OF_FIVE, FIVE, FIVE.up) == "pg5"


@pytest.mark.parametrize("leader", ["pg2", "pg3"])
def test_another_raft_leader_than_the_primary_stays(leader):
    assert heir(state(), replace(THREE, leader=leader), NAMES) is None


def test_a_witness_is_preferred_and_then_who_would_not_be_the_next_primary():
    assert heir(WITNESS, THREE, NAMES) == "pg2"
    assert heir(state(), THREE, {"pg1", "pg2"}) == "pg2"


@pytest.mark.parametrize(
    ("present", "replicas", "caught_up"),
    [
        (vacant(), THREE, NAMES),
        (state(lease=LeaseStatus.RELEASED), THREE, NAMES),
        (state(lease=LeaseStatus.EXPIRED), THREE, NAMES),
        (vacant(lease=LeaseStatus.HELD), THREE, NAMES),
        (APPOINTED, replace(THREE, leader="pg2"), NAMES),
        (state(operations=(operation(),)), THREE, NAMES),
        (state(appointment=None), THREE, NAMES),
        (state(), replace(THREE, roles={**THREE.roles, "pg4": "joining"}, up=THREE.up | {"pg4"}), NAMES),
    ],
    ids=["election", "released", "expired", "suspected", "promotion", "operation", "no primary", "joining"],
)
def test_nobody_hands_over_while_something_else_is_under_way(present, replicas, caught_up):
    assert heir(present, replicas, caught_up) is None


def test_what_has_ended_or_is_not_there_holds_nothing_up():
    ended = state(operations=(operation(Phase.DONE), operation(Phase.FAILED)))
    assert heir(ended, THREE, NAMES) == "pg3"
    expected = replace(THREE, roles={**THREE.roles, "pg4": "joining"})
    assert heir(state(), expected, NAMES) == "pg3"


@pytest.mark.parametrize(
    ("present", "replicas", "caught_up", "to"),
    [
        (state(), THREE, {"pg1"}, None),
        (state(), THREE, {"pg1", "pg2"}, "pg2"),
        (state(), replace(THREE, roles={**THREE.roles, "pg3": "learner"}), NAMES, None),
        (OF_FIVE, replace(FIVE, roles={**FIVE.roles, "pg5": "learner"}), FIVE.up, "pg4"),
        (OF_FIVE, up("pg1", "pg2", "pg3", "pg4", of=FIVE), FIVE.up, "pg4"),
        (with_members(state(), member("pg3", NodeRole.LEARNER)), THREE, NAMES, "pg2"),
        (apply(state(), RemoveMember("pg3")).state, THREE, NAMES, "pg2"),
        (replace(state(), members={name: member(name) for name in ("pg1", "pg2")}), THREE, NAMES, "pg2"),
    ],
    ids=[
        "nobody caught up",
        "one caught up",
        "two voters",
        "learner",
        "one of five away",
        "a learner that still votes",
        "removed",
        "unannounced",
    ],
)
def test_only_a_voter_that_stays_and_is_there_and_has_the_whole_log(present, replicas, caught_up, to):
    assert heir(present, replicas, caught_up) == to


@pytest.mark.parametrize(
    ("replicas", "to"),
    [
        (Replicas("pg1", {"pg1": "voter"}, frozenset({"pg1"})), None),
        (Replicas("pg1", {"pg1": "voter", "pg2": "voter"}, frozenset({"pg1", "pg2"})), None),
        (up("pg1", "pg2"), None),
        (up("pg1", "pg2", of=FIVE), None),
        (up("pg1", "pg2", "pg3", of=FIVE), None),
        (up("pg1", "pg2", "pg3", "pg4", of=FIVE), "pg4"),
    ],
    ids=["alone", "two", "one of three away", "two of five", "three of five", "four of five"],
)
def test_nothing_is_moved_where_nobody_could_lead_without_this_host(replicas, to):
    assert heir(OF_FIVE, replicas, FIVE.up) == to


# When


CALM = LeadershipSeen(leading_s=500.0, opened_s=400.0, suited_s=SUITED_S)


def test_a_primary_that_appears_where_raft_is_led_from_hands_over_once_it_is_calm():
    assert may_hand_over(CALM)
    assert may_hand_over(replace(CALM, leading_s=2.0, opened_s=1.5))
    assert not may_hand_over(replace(CALM, suited_s=SUITED_S - 0.01))


def test_leadership_that_comes_to_the_primary_later_stays_for_a_minute():
    """A person may have wanted it there; or the others could not keep it."""
    came = replace(CALM, leading_s=KEEP_S - 0.01, suited_s=KEEP_S)
    assert not may_hand_over(came)
    assert may_hand_over(replace(came, leading_s=KEEP_S))


def test_a_hand_over_that_came_to_nothing_is_not_repeated_at_once():
    tried = replace(CALM, tried_s=KEEP_S - 0.01, tries=1)
    assert not may_hand_over(tried)
    assert may_hand_over(replace(tried, tried_s=KEEP_S))


def test_who_gets_it_back_again_and_again_keeps_it_longer_each_time():
    back = replace(CALM, opened_s=math.inf)
    waits = []
    for tries in range(6):
        waits.append(keep_s(tries))
        assert may_hand_over(replace(back, leading_s=keep_s(tries), tries=tries))
        assert not may_hand_over(replace(back, leading_s=keep_s(tries) - 0.01, tries=tries))
    assert waits == [KEEP_S, KEEP_S, 2 * KEEP_S, 4 * KEEP_S, 8 * KEEP_S, 16 * KEEP_S]
    assert keep_s(1000) == KEEP_LONGEST_S
