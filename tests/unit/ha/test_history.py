"""R14: where a piece of WAL stands in the replicated history of timelines."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.cluster.state import Appointment, Position, Timeline
from appliance.ha.history import Standing, standing, switch_point
from tests.unit.cluster.building import state

# 1 ── 2 ── 4 ── 5 (appointed)
#  └── 3 (given to pg3, never became history)
TREE = (
    Timeline(1, 1, "pg1", 0, 0),
    Timeline(2, 2, "pg2", 1, 100),
    Timeline(3, 3, "pg3", 1, 120),
    Timeline(4, 4, "pg1", 2, 200),
    Timeline(5, 5, "pg2", 4, 300),
)


def branched(timelines=TREE, *, opened=True):
    held = Appointment(5, "pg2", "inc-pg2", 5, Position(4, 300), opened=opened)
    return state(appointment=held, timelines=timelines)


@pytest.mark.parametrize(
    ("timeline", "lsn", "expected"),
    [
        (5, 10**9, Standing.SAME),
        (4, 300, Standing.ANCESTOR),
        (4, 301, Standing.DIVERGED),
        (2, 200, Standing.ANCESTOR),
        (2, 201, Standing.DIVERGED),
        (1, 100, Standing.ANCESTOR),
        (1, 101, Standing.DIVERGED),
        (3, 1, Standing.DIVERGED),
        (6, 1, Standing.DIVERGED),
        (0, 0, Standing.ANCESTOR),
    ],
)
def test_standing(timeline, lsn, expected):
    assert standing(branched(), timeline, lsn) is expected


def test_before_the_primary_has_opened_nobody_knows():
    assert standing(branched(opened=False), 4, 1) is Standing.UNKNOWN
    assert standing(state(appointment=None), 1, 1) is Standing.UNKNOWN


def test_a_switch_point_that_was_never_recorded_sends_nodes_of_the_parent_timeline_to_a_rewind():
    """The node of epoch 4 died between opening and telling; waiting would be for ever."""
    unrecorded = (*TREE[:3], Timeline(4, 4, "pg1", 2), TREE[4])

    assert standing(branched(unrecorded), 2, 150) is Standing.DIVERGED
    assert standing(branched(unrecorded), 4, 300) is Standing.ANCESTOR


def test_a_parent_that_was_never_reached_parts_where_its_child_began():
    """PostgreSQL names what a standby was told of as its parent, though it was promoted before it got there."""
    early = (*TREE[:3], Timeline(4, 4, "pg1", 2, 80), TREE[4])

    assert standing(branched(early), 1, 80) is Standing.ANCESTOR
    assert standing(branched(early), 1, 81) is Standing.DIVERGED
    unrecorded = (TREE[0], Timeline(2, 2, "pg2", 1), *TREE[2:])
    assert standing(branched(unrecorded), 1, 10) is Standing.DIVERGED
    between = (TREE[0], TREE[1], Timeline(4, 4, "pg1", 2), TREE[4])
    assert standing(branched(between), 1, 10) is Standing.DIVERGED


@given(st.lists(st.tuples(st.integers(0, 10), st.integers(0, 50)), min_size=1, max_size=8), st.integers(0, 9))
def test_any_history_with_parents_below_their_children_has_an_end(steps, ancestor):
    timelines = tuple(Timeline(n, n, "pg1", parent % n, lsn) for n, (parent, lsn) in enumerate(steps, start=1))
    left = switch_point(timelines, len(timelines), ancestor)

    assert left is None or left.parent == ancestor
    assert standing(branched(timelines), ancestor, 10) in Standing
