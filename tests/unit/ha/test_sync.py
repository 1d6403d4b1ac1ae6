"""R8 on the primary: the four steps in their order, and what each of them waits for."""

from dataclasses import replace

import pytest

from appliance.cluster.commands import FinaliseSync
from appliance.cluster.state import ASYNCHRONOUS, BLOCKED, SyncSet, SyncVersion
from appliance.ha.actions import ApplySettings, Checkpoint, EndSenders, MarkWal, Promote, Propose, ShowSync
from appliance.ha.decide import decide
from appliance.ha.seen import FailedCheckpoint, Notes, SyncProgress
from appliance.ha.sync import to_load, waits_for
from tests.unit.cluster.building import LSN, SWITCH, sync, synchronous

from .building import APPOINTED, JOINT, WAITING, instance, primary, senders, standby, voter

FINALISE = [Propose(FinaliseSync(4, 2))]
MARKED = SyncProgress(2, checkpointed=True, first_lsn=LSN)
MARKED_TWICE = replace(MARKED, second_lsn=LSN + 8)


def answer(present, progress, *flushed, **changes):
    """What pg1 does when it has come so far and its walsenders said this."""
    running = instance(primary=True, senders=flushed)
    return decide(present, primary(instance=running, sync=progress, **changes), WAITING)


def actions(present, progress, *flushed, **changes):
    return list(answer(present, progress, *flushed, **changes).actions)


def all_at(lsn):
    return senders("pg2", "pg3", flushed_lsn=lsn)


def test_first_a_new_connection_has_to_show_it():
    assert actions(JOINT, SyncProgress()) == [ShowSync(2)]
    assert actions(JOINT, SyncProgress(1, checkpointed=True, first_lsn=LSN, second_lsn=LSN)) == [ShowSync(2)]


def test_it_is_loaded_before_anything_is_asked():
    assert actions(JOINT, SyncProgress(), settings_changed=True) == [ApplySettings()]


def test_t7_from_an_empty_set_a_checkpoint_comes_before_the_marks():
    empty = synchronous(sync(0), sync(1, "pg2", version=2))

    assert actions(empty, SyncProgress(2)) == [Checkpoint(sync_version=2)]
    assert actions(empty, SyncProgress(2), checkpointing=True) == []
    assert actions(empty, SyncProgress(2), failed_checkpoint=FailedCheckpoint(0.5, "full")) == []
    assert actions(empty, SyncProgress(2, checkpointed=True)) == [MarkWal(2, first=True)]
    assert actions(JOINT, SyncProgress(2)) == [MarkWal(2, first=True)], "commits have waited all the time"
    blocked = synchronous(SyncVersion(1, 4, BLOCKED), sync(1, "pg2", version=2))
    assert actions(blocked, SyncProgress(2)) == [MarkWal(2, first=True)], "also with nobody there"


def test_t5_every_walsender_of_a_listed_member_acknowledges_the_first_mark():
    assert actions(JOINT, MARKED, *senders("pg2"), *senders("pg3", flushed_lsn=LSN - 1)) == []
    assert actions(JOINT, MARKED, *senders("pg2"), *senders("pg2", flushed_lsn=LSN - 1)) == []
    assert actions(JOINT, MARKED, *senders("pg2", "pg3"), *senders("backup", flushed_lsn=0)) == [
        MarkWal(2, first=False)
    ]
    assert actions(JOINT, MARKED, *senders("pg2")) == [MarkWal(2, first=False)], "there is none of pg3"


def test_the_walsender_of_one_that_leaves_is_ended_and_not_waited_for():
    leaving = synchronous(sync(1, "pg2", "pg3"), sync(1, "pg2", version=2))
    old = senders("pg3", flushed_lsn=LSN - 1)

    assert actions(leaving, MARKED, *senders("pg2"), *old) == [EndSenders(("pg3",))]
    assert actions(leaving, MARKED, *senders("pg2", "pg3")) == [MarkWal(2, first=False)]


def test_t6_the_second_mark_is_made_after_the_first_is_acknowledged_and_k_members_have_it():
    two = synchronous(sync(1, "pg2", "pg3"), SyncVersion(2, 4, SyncSet(2, frozenset({"pg2", "pg3"}))))

    assert actions(two, MARKED_TWICE, *all_at(LSN)) == []
    assert actions(two, MARKED_TWICE, *senders("pg2", flushed_lsn=LSN + 8), *senders("pg3")) == []
    assert actions(two, MARKED_TWICE, *all_at(LSN + 8)) == FINALISE
    assert actions(JOINT, MARKED_TWICE, *senders("pg2", flushed_lsn=LSN + 8), *senders("pg3")) == FINALISE


def test_two_walsenders_of_one_member_are_one_member():
    two = synchronous(sync(1, "pg2", "pg3"), SyncVersion(2, 4, SyncSet(2, frozenset({"pg2", "pg3"}))))
    twice = senders("pg2", "pg2", flushed_lsn=LSN + 8)

    assert actions(two, MARKED_TWICE, *twice, *senders("pg3")) == []


def test_for_nobody_the_first_mark_is_enough():
    nobody = synchronous(sync(1, "pg2"), sync(0, version=2))
    assert actions(nobody, SyncProgress(2)) == [MarkWal(2, first=True)]
    assert actions(nobody, MARKED, *senders("pg2", flushed_lsn=LSN - 1)) == [EndSenders(("pg2",))]
    assert actions(nobody, MARKED) == FINALISE


@pytest.mark.parametrize(
    "present",
    [
        synchronous(),
        replace(JOINT, appointment=replace(JOINT.appointment, node="pg3")),
        replace(JOINT, appointment=replace(JOINT.appointment, opened=False)),
    ],
    ids=["final", "of another", "not open"],
)
def test_nothing_is_asked_of_who_is_not_the_open_primary_or_of_what_is_final(present):
    assert decide(present, primary(), WAITING).rule != "settle_sync"


def test_a_wait_says_for_whom_and_for_what():
    because = answer(JOINT, MARKED, *senders("pg2"), *senders("pg3", flushed_lsn=LSN - 1)).because
    assert because == "synchronous set 2: waits until pg3 flushed 0/3000000"


# Loading


def test_only_the_appointed_node_loads_the_agreed_set():
    assert to_load(JOINT, "pg1") == JOINT.sync[-1]
    assert to_load(JOINT, "pg2") is None


def test_t7_an_empty_set_is_loaded_by_a_primary_and_never_by_a_standby():
    alone, both = synchronous(sync(0)), synchronous(sync(1, "pg2", "pg3"))

    assert waits_for(alone, "pg1", in_recovery=False) == SyncSet()
    assert waits_for(alone, "pg1", in_recovery=True) is None
    assert waits_for(both, "pg1", in_recovery=True) == SyncSet(1, frozenset({"pg2", "pg3"}))
    assert waits_for(both, "pg2", in_recovery=False) is None
    assert waits_for(synchronous(SyncVersion(1, 4, BLOCKED)), "pg1", in_recovery=False) is None
    asynchronous = synchronous(SyncVersion(1, 4, ASYNCHRONOUS))
    assert waits_for(asynchronous, "pg1", in_recovery=True) is None
    assert waits_for(asynchronous, "pg1", in_recovery=False) == ASYNCHRONOUS


def test_r5_t9_a_promotion_waits_for_the_set_of_its_appointment():
    appointed = replace(APPOINTED, sync=(SyncVersion(7, 5, SyncSet(1, frozenset({"pg3"}))),))
    winner = replace(voter(), lease=replace(primary().lease, epoch=5))
    ready = replace(winner, instance=replace(winner.instance, sync_version=7, admits=False))

    assert list(decide(appointed, winner, WAITING).actions) == [ApplySettings()]
    assert list(decide(appointed, ready, WAITING).actions) == [Promote(5, 3)]


def test_t8_a_node_that_loaded_a_newer_set_waits_for_its_log():
    seen = primary(notes=Notes(epoch=4, pledge=4, sync_version=3))

    assert decide(JOINT, seen, WAITING).rule == "wait_for_log"
    assert decide(JOINT, replace(seen, notes=Notes(4, 4, sync_version=2)), WAITING).rule == "settle_sync"


def test_a_standby_finalises_nothing():
    assert decide(JOINT, standby(), WAITING).rule == "at_rest"
    assert SWITCH < LSN
