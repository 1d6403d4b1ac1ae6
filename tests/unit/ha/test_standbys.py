"""For whom commits wait: by mode, tags, what the primary sees, and how long a standby has been away."""

from dataclasses import replace

import pytest

from appliance.cluster.config import Policy
from appliance.cluster.state import ASYNCHRONOUS, BLOCKED, NodeRole, SyncSet, SyncVersion
from appliance.ha.seen import PlaceSeen, StorageSeen
from appliance.ha.standbys import standing, wanted_next, wanted_now
from tests.unit.cluster.building import LSN, member, sync, synchronous, with_members

from .building import heard, report, senders, streaming

QUORUM, ON = Policy(), Policy(synchronous_mode="on")
BOTH = SyncSet(1, frozenset({"pg2", "pg3"}))


def one(name):
    return SyncSet(1, frozenset({name}))


def first(*names):
    return SyncSet(len(names), frozenset(names), names)


def wanted(present=None, reports=None, policy=QUORUM, **away_s):
    return wanted_now(present or synchronous(), policy, reports or streaming("pg2", "pg3"), away_s)


def tagged(**tags):
    return with_members(synchronous(), *(member(name, tags=tags[name]) for name in tags))


def test_any_of_all_that_stream():
    assert wanted() == BOTH
    assert wanted(policy=Policy(synchronous_node_count=2)) == replace(BOTH, k=2)
    assert wanted(policy=Policy(synchronous_node_count=5)) == replace(BOTH, k=2)
    assert wanted(policy=Policy(synchronous_mode="off", fencing="lease")) == ASYNCHRONOUS


def test_one_that_comes_has_caught_up():
    nobody = synchronous(sync(0))
    assert wanted(nobody, streaming("pg2")) == one("pg2")
    catching_up = heard(report("pg1", senders=senders("pg2", streaming=False)), report("pg2"), report("pg3"))
    assert wanted(nobody, catching_up) == SyncSet()
    assert wanted(synchronous(sync(1, "pg2")), catching_up) == one("pg2"), "who is listed stays"


def test_one_that_is_listed_has_a_moment_to_connect_again():
    assert wanted(reports=streaming("pg2")) == BOTH
    assert wanted(reports=streaming("pg2"), pg3=2.0) == BOTH
    assert wanted(reports=streaming("pg2"), pg3=2.01) == one("pg2")


@pytest.mark.parametrize(
    "gone",
    [
        heard(report("pg1", senders=senders("pg2", "pg3")), report("pg2")),
        streaming("pg2", "pg3") | heard(report("pg3"), age_s=2.01),
        streaming("pg2", "pg3") | heard(report("pg3", running=False)),
        streaming("pg2", "pg3") | heard(report("pg3", wants_rebuild=True)),
        streaming("pg2", "pg3") | heard(report("pg3", ending=True)),
        streaming("pg2", "pg3") | heard(report("pg3", storage=StorageSeen(PlaceSeen(), PlaceSeen(stalled_s=2.1)))),
    ],
    ids=["never reported", "silent", "its PostgreSQL ended", "is to be rebuilt", "is shut down", "its disk hangs"],
)
def test_one_whose_node_could_not_vote_or_that_runs_no_more_holds_nobody_up(gone):
    assert wanted(reports=gone) == one("pg2")


def test_one_that_is_connected_and_confirms_nothing_holds_nobody_up_and_does_not_come_in():
    """Its WAL receiver is stopped, say: the walsender stays, as long as the kernel takes what it sends."""
    assert wanted(pg3=2.01) == one("pg2")
    assert wanted(synchronous(sync(0)), pg3=2.01) == one("pg2")


def test_who_has_all_there_is_stands_before_nothing():
    primary = report("pg1", senders=(*senders("pg2"), *senders("pg3", flushed_lsn=LSN - 1), *senders("elsewhere")))
    assert standing({"pg2", "pg3", "pg4"}, primary) == {"pg3": LSN - 1, "pg4": 0}


@pytest.mark.parametrize(
    "of_primary",
    [{}, heard(report("pg1", senders=()), age_s=1.01), heard(report("pg1", in_recovery=True))],
    ids=["none", "old", "it is a standby"],
)
def test_a_primary_that_is_silent_says_nothing_of_its_standbys(of_primary):
    """When it dies they lose it in the same instant; a set that is emptied then leaves nobody to be appointed."""
    others = heard(report("pg2", streaming=False), report("pg3", running=False))
    assert wanted(reports=others | of_primary) is None


@pytest.mark.parametrize(
    ("tags", "left"),
    [
        ({"pg2": {"nosync": True}}, one("pg3")),
        ({"pg2": {"nosync": False}}, BOTH),
        ({"pg2": {"nofailover": True}}, one("pg3")),
        ({"pg2": {"nosync": True}, "pg3": {"nosync": True}}, SyncSet()),
    ],
)
def test_tags_keep_a_member_out(tags, left):
    assert wanted(tagged(**tags)) == left


def test_members_without_complete_data_are_never_waited_for():
    for odd in (
        member("pg3", leaving=True),
        member("pg3", rebuilding=True),
        member("pg3", incarnation=""),
        member("pg3", NodeRole.WITNESS),
    ):
        assert wanted(with_members(synchronous(), odd)) == one("pg2")


def test_lag_beyond_the_limit_is_not_waited_for():
    limited = Policy(maximum_lag_on_syncnode_bytes=1000)
    behind = streaming() | heard(
        report("pg1", senders=(*senders("pg2"), *senders("pg3", flushed_lsn=LSN - 1001))), report("pg2"), report("pg3")
    )
    assert wanted(reports=behind, policy=limited) == one("pg2")
    assert wanted(reports=behind) == BOTH


# Mode on


def test_mode_on_waits_for_as_many_as_it_needs_by_priority():
    nobody = with_members(synchronous(sync(0)), member("pg3", tags={"sync_priority": 2}))
    assert wanted(nobody, policy=ON) == first("pg3")
    assert wanted(nobody, policy=replace(ON, synchronous_node_count=2)) == first("pg3", "pg2")
    junk = with_members(synchronous(sync(0)), member("pg3", tags={"sync_priority": "high"}))
    assert wanted(junk, policy=ON) == first("pg2")


def test_mode_on_of_equals_who_is_listed_stays():
    present = synchronous(SyncVersion(1, 4, first("pg3")))
    assert wanted(present, policy=ON) == first("pg3")
    assert wanted(present, streaming("pg2"), policy=ON, pg3=3.0) == first("pg2")


def test_mode_on_equals_do_not_change_places_with_their_positions():
    two = replace(ON, synchronous_node_count=2)
    present = synchronous(SyncVersion(1, 4, first("pg2", "pg3")))
    for ahead, behind in (("pg2", "pg3"), ("pg3", "pg2")):
        primary = report("pg1", senders=(*senders(ahead), *senders(behind, flushed_lsn=LSN - 1001)))
        assert wanted(present, heard(primary, report("pg2"), report("pg3")), policy=two) == first("pg2", "pg3")


def test_mode_on_one_of_another_zone_is_among_them_if_there_is_one():
    zones = {"pg1": {"zone": "a"}, "pg2": {"zone": "a", "sync_priority": 9}, "pg3": {"zone": "b"}}
    present = with_members(synchronous(sync(0)), *(member(name, tags=zones[name]) for name in zones))
    assert wanted(present, policy=ON) == first("pg3")
    same = with_members(present, member("pg3", tags={"zone": "a"}))
    assert wanted(same, policy=ON) == first("pg2")


# Strict mode


def test_strict_mode_always_waits_for_somebody():
    strict = Policy(synchronous_mode_strict=True)
    alone = heard(report("pg1", senders=()))
    rebuilding = alone | heard(report("pg2", wants_rebuild=True, running=False))

    assert wanted(synchronous(sync(1, "pg2")), alone, strict) == one("pg2")
    assert wanted(synchronous(sync(1, "pg2")), alone) == SyncSet()
    assert wanted(synchronous(sync(2, "pg2", "pg3")), rebuilding, strict) == one("pg3")
    assert wanted(synchronous(sync(1, "pg2")), rebuilding, strict) == BLOCKED
    assert wanted(synchronous(SyncVersion(1, 4, BLOCKED)), alone, strict) == BLOCKED
    assert wanted(synchronous(SyncVersion(1, 4, BLOCKED)), streaming("pg2"), strict) == one("pg2")


# After an appointment


def test_r7a_a_new_primary_waits_for_the_others_that_voted():
    present = synchronous()
    assert wanted_next(present, QUORUM, "pg2", ["pg2", "pg3"]) == one("pg3")
    assert wanted_next(present, QUORUM, "pg2", ["pg1", "pg2", "pg3"]) == SyncSet(1, frozenset({"pg1", "pg3"}))
    assert wanted_next(present, QUORUM, "pg2", ["pg2"]) == SyncSet()
    assert wanted_next(present, ON, "pg2", ["pg1", "pg2", "pg3"]) == first("pg1")
    strict = Policy(synchronous_mode_strict=True)
    assert wanted_next(present, strict, "pg2", ["pg2"]) == one("pg3")
    assert wanted_next(synchronous(sync(1, "pg2")), strict, "pg2", ["pg2"]) == BLOCKED
    assert wanted_next(present, Policy(synchronous_mode="off", fencing="lease"), "pg2", ["pg2"]) == ASYNCHRONOUS
    assert wanted_next(tagged(pg3={"nosync": True}), QUORUM, "pg2", ["pg2", "pg3"]) == SyncSet()
