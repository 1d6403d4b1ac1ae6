"""R7 and R8's union by brute force, and how positions and ancestors compare."""

from itertools import chain, combinations

import pytest

from appliance.cluster import elections
from appliance.cluster.state import LeaseStatus, Position, Timeline

from .building import LSN, SWITCH, member, state, sync, vacant, vote, with_members

EVERYBODY = ("pg1", "pg2", "pg3", "pg4")


def subsets(names, smallest=0):
    sizes = range(smallest, len(names) + 1)
    return [frozenset(c) for c in chain.from_iterable(combinations(sorted(names), n) for n in sizes)]


def in_words(version):
    return f"{version.wanted.k} of {','.join(sorted(version.wanted.members))}"


def cast(voters):
    return tuple(vote(name) for name in voters)


def versions():
    return [sync(k, *members) for members in subsets(EVERYBODY[1:], 1) for k in range(1, len(members) + 1)]


@pytest.mark.parametrize("version", versions(), ids=in_words)
def test_r7_votes_suffice_exactly_when_they_meet_every_set_that_may_have_confirmed(version):
    listed = state(sync=(version,))
    confirming = [c for c in subsets(version.wanted.members) if len(c) == version.wanted.k]
    for voters in subsets(EVERYBODY):
        meets_all = all(voters & c for c in confirming)
        expected = "pg1" in voters or meets_all
        assert (elections.votes_suffice(listed, cast(voters)) is None) == expected, voters


@pytest.mark.parametrize("older", versions(), ids=in_words)
def test_r8_while_a_change_is_joint_votes_meet_what_any_mixture_may_have_confirmed(older):
    """T5: a walsender that has the new k counts a standby whose walsender still has the old S."""
    for newer in versions():
        joint = state(sync=(older, newer))
        everyone, smallest = older.wanted.members | newer.wanted.members, min(older.wanted.k, newer.wanted.k)
        mixtures = [c for c in subsets(everyone) if len(c) == smallest]
        for voters in subsets(EVERYBODY):
            if elections.votes_suffice(joint, cast(voters)) is None:
                assert "pg1" in voters or all(voters & c for c in mixtures), (newer, voters)


def test_r7_with_an_empty_set_only_the_previous_primary_qualifies():
    for listed in (state(), state(sync=(sync(0),)), state(sync=(sync(0, "pg2"),))):
        for voters in subsets(EVERYBODY):
            assert (elections.votes_suffice(listed, cast(voters)) is None) == ("pg1" in voters)


def test_a_refusal_says_how_many_votes_are_missing():
    listed = state(sync=(sync(1, "pg2", "pg3"),))

    assert elections.votes_suffice(listed, cast({"pg2"})) == (
        "quorum.votes_missing: no vote of pg1, the last primary, and 1 of 2 needed votes of pg2, pg3"
    )


def test_positions_compare_by_timeline_first():
    assert elections.order(Position(2, 0)) > elections.order(Position(1, 10**12))
    assert elections.latest(None, Position(1, 5), None, Position(2, 1)) == Position(2, 1)
    assert elections.latest(None, None) is None


def test_of_equal_votes_every_node_ranks_the_same_one_first():
    votes = [vote("pg3"), vote("pg2"), vote("pg1", LSN - 1)]

    assert elections.best(votes) == elections.best(reversed(votes)) == vote("pg2")
    assert elections.best([]) is None


THREE = (
    Timeline(1, 1, "pg1", 0, 0),
    Timeline(2, 2, "pg2", 1, SWITCH),
    Timeline(3, 3, "pg3", 1, SWITCH + 100),
    Timeline(4, 4, "pg1", 3, SWITCH + 200),
)


@pytest.mark.parametrize(
    ("candidate", "code"),
    [
        (Position(4, LSN), None),
        (Position(3, SWITCH + 200), None),
        (Position(3, SWITCH + 201), "candidate.timeline"),
        (Position(1, SWITCH + 100), None),
        (Position(1, SWITCH + 101), "candidate.timeline"),
        (Position(2, SWITCH), "candidate.timeline"),
        (Position(9, LSN), None),
    ],
    ids=str,
)
def test_r10_an_older_timeline_counts_up_to_where_history_left_it(candidate, code):
    branched = vacant(timelines=THREE, last_known=Position(4, SWITCH + 300))
    answer = elections.within_lag(branched, candidate)

    assert (answer and answer.partition(":")[0]) == code


def test_r10_without_a_known_position_nothing_lags():
    assert elections.within_lag(vacant(last_known=None), Position(1, 0)) is None


def test_only_the_tag_true_keeps_a_node_from_automatic_failover():
    for tag, kept_out in ((True, True), (False, False), ("true", False), (1, False)):
        tagged = with_members(state(), member("pg2", tags={"nofailover": tag}))
        assert (elections.excluded(tagged, "pg2") is not None) == kept_out
    assert elections.excluded(state(), "pg9") is not None


def test_an_election_may_open_only_without_a_holder():
    assert elections.may_open(state()).startswith("lease.held")
    for status in (LeaseStatus.EXPIRED, LeaseStatus.RELEASED):
        assert elections.may_open(state(lease=status)) is None
    assert elections.may_open(state(appointment=None)).startswith("cluster.uninitialised")
