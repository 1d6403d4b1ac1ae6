"""R5a: a primary lets applications in when no election can lose what they would read, and says what it waits for."""

from dataclasses import replace

import pytest

from appliance.cluster.apply import apply
from appliance.cluster.commands import Promoted
from appliance.cluster.state import BLOCKED, Position, SyncSet, SyncVersion, Vote
from appliance.ha.actions import ApplySettings, Promote, StartPrimary
from appliance.ha.decide import decide
from appliance.ha.gate import admits, why_closed
from appliance.ha.seen import LeaseSeen, Notes
from appliance.node.report import make_report
from tests.unit.cluster.building import LSN, SWITCH, appoint, contested, sync, synchronous, vote

from .building import JOINT, WAITING, instance, primary, senders, standby, stopped, voter

PG3 = SyncSet(1, frozenset({"pg3"}))
BOTH = SyncSet(1, frozenset({"pg2", "pg3"}))
BEHIND = vote("pg3", LSN - 8)


def appointed(present, node, *votes, wanted):
    done = apply(present, appoint(node, *votes, wanted=wanted))
    assert done.refused is None
    return done.state


def about_to_open(present):
    """Whether the node that was appointed opens with an open gate."""
    held = present.appointment
    seen = voter(held.node, lease=LeaseSeen(5, 5.0))
    if held.node == "pg1":
        seen = replace(seen, notes=Notes(epoch=4, pledge=5))
    return admits(present, seen)


REAPPOINTED = appointed(contested(), "pg1", vote("pg1", LSN + 8), vote("pg2"), vote("pg3"), wanted=BOTH)
"""It crashed with a commit that nobody else has."""
OPEN = apply(REAPPOINTED, Promoted(5, "pg1", 3, 2, LSN + 8)).state


def opened(*flushed, loaded=False, opened_lsn=LSN + 9, **changes):
    running = instance(primary=True, timeline=3, lsn=LSN + 20, admits=loaded, senders=flushed, sync_version=2)
    held = {"notes": Notes(epoch=5, pledge=5, sync_version=2), "lease": LeaseSeen(5, 5.0), "admitted": loaded}
    return primary(instance=running, opened_lsn=opened_lsn, **{**held, **changes})


def test_after_an_ordinary_failover_nobody_could_be_elected_who_lacks_what_is_read():
    """The primary before has it too, and without that one and the new one the votes do not suffice."""
    assert about_to_open(appointed(contested(), "pg2", vote("pg2"), BEHIND, wanted=PG3))


def test_where_a_minority_of_the_set_could_elect_one_that_is_behind_the_new_primary_opens_gated():
    two = contested(sync(2, "pg2", "pg3"))
    assert not about_to_open(appointed(two, "pg2", vote("pg2"), BEHIND, wanted=PG3))
    assert about_to_open(appointed(two, "pg2", vote("pg2"), vote("pg3"), wanted=PG3)), "both have all that is there"


def test_a_primary_before_that_has_written_nothing_may_lack_what_others_have():
    """pg3 wrote timeline 1, and pg1, the primary after it, nothing."""
    old = Position(1, SWITCH)
    votes = Vote(5, "pg2", "inc-pg2", old), Vote(5, "pg3", "inc-pg3", replace(old, lsn=SWITCH - 8))
    assert not about_to_open(appointed(contested(), "pg2", *votes, wanted=PG3))


def test_a_primary_that_crashed_and_is_appointed_again_opens_gated():
    assert not about_to_open(REAPPOINTED)
    seen = voter("pg1", lease=LeaseSeen(5, 5.0))
    loaded = replace(seen.instance, sync_version=2, lsn=LSN + 8)

    assert list(decide(REAPPOINTED, replace(seen, instance=loaded), WAITING).actions) == [ApplySettings()]
    closed = replace(loaded, admits=False)
    assert list(decide(REAPPOINTED, replace(seen, instance=closed), WAITING).actions) == [Promote(5, 3)]


@pytest.mark.parametrize(
    ("flushed", "expected"),
    [
        ((), False),
        (senders("pg2", "pg3", flushed_lsn=LSN + 8), False),
        (senders("backup", flushed_lsn=LSN + 20), False),
        (senders("pg2", flushed_lsn=LSN + 9), True),
        (senders("pg3", flushed_lsn=LSN + 20), True),
    ],
)
def test_it_opens_when_as_many_as_commits_wait_for_have_what_it_had_when_it_became_a_primary(flushed, expected):
    seen = opened(*flushed)
    assert admits(OPEN, seen) is expected
    assert (decide(OPEN, seen, WAITING).rule == "admit") is expected


def test_until_that_is_known_nothing_is_confirmed():
    assert not admits(OPEN, opened(*senders("pg2", "pg3", flushed_lsn=LSN + 20), opened_lsn=None))


def test_who_was_let_in_stays_and_a_look_without_an_answer_changes_nothing():
    assert admits(OPEN, opened(loaded=True))
    assert admits(OPEN, replace(opened(), instance=None, admitted=True))
    assert not admits(OPEN, replace(opened(), instance=None, admitted=False))


def test_a_crash_in_place_starts_gated_where_others_could_be_elected():
    """With an operation under way the epoch is not given up (R11)."""
    seen = stopped(primary(admitted=True))
    assert not admits(synchronous(), seen)
    assert admits(synchronous(sync(0)), seen), "nobody else qualifies"
    assert admits(synchronous(SyncVersion(1, 4, BLOCKED)), seen)
    assert admits(synchronous(sync(0), sync(1, "pg2", version=2)), seen), "nor before it is final"
    assert not admits(JOINT, seen)
    asynchronous = replace(synchronous(), sync=())
    assert admits(asynchronous, seen)
    assert list(decide(asynchronous, seen, WAITING).actions) == [StartPrimary(4)]


def test_two_of_three_are_waited_for_when_two_have_to_confirm():
    present = synchronous(sync(2, "pg2", "pg3"))
    seen = primary(instance=instance(primary=True, admits=False, senders=senders("pg2")), opened_lsn=LSN)
    assert not admits(present, seen)
    assert admits(present, replace(seen, instance=replace(seen.instance, senders=senders("pg2", "pg3"))))


def test_standbys_are_open():
    assert admits(synchronous(), standby())
    assert admits(contested(), voter("pg1")), "also the one that was primary"
    assert admits(REAPPOINTED, replace(voter("pg1"), notes=Notes(5, 5, fenced_epoch=5))), (
        "which is not to open any more"
    )
    assert admits(OPEN, voter("pg1", lease=LeaseSeen(5, 5.0)))


def test_what_it_waits_for_is_said_and_reported():
    seen = opened(*senders("pg2", flushed_lsn=LSN))
    words = "lets no application in before 1 of pg2, pg3 confirm WAL up to 0/"
    assert why_closed(OPEN, seen).startswith(words)
    assert make_report(OPEN, seen, None, "").gate == why_closed(OPEN, seen)
    assert why_closed(OPEN, opened(loaded=True)) == ""
    assert why_closed(OPEN, standby(instance=instance(admits=False))) == ""
