"""The traces of docs/safety.md that broke earlier wordings, as far as asynchronous mode has them, by their numbers.

All but T2 and T12 are in tests/model/test_traces, with synchronous sets. T9 is in test_findings too, T11 in
cluster/test_apply, T12 in tests/postgres/instance/test_follow, T13 in node/test_ledger and node/test_coordinator; what
T2 rests on in PostgreSQL is in tests/postgres/instance/test_observed.
"""

from dataclasses import replace

import pytest

from appliance.cluster.apply import apply
from appliance.cluster.commands import OpenElection
from appliance.ha.actions import (
    NoteFenced,
    Pledge,
    Promote,
    Propose,
    StartPrimary,
    StartStandby,
    StopMode,
    StopPostgres,
)
from appliance.ha.decide import cast_vote, decide, wants_lease
from appliance.ha.plan import plan
from appliance.ha.seen import LeaseSeen, Notes
from tests.unit.cluster.building import LSN, appoint, state, vacant, vote

from .building import APPOINTED, POLICY, heard, primary, report, situation, standby, stopped, voter

PLEDGED = Notes(epoch=4, pledge=5)
FULL_LEASE = LeaseSeen(4, 5.0)


def actions(present, seen):
    return decide(present, seen, POLICY).actions


def test_t1_a_primary_that_runs_has_no_vote_it_stops():
    running = primary(lease=FULL_LEASE)

    assert actions(vacant(), running) == (StopPostgres(StopMode.IMMEDIATE),)
    for seen in (running, replace(running, notes=PLEDGED), replace(running, notes=PLEDGED, stopping_s=0.1)):
        assert cast_vote(vacant(), seen) is None


@pytest.mark.parametrize("present", [state(), vacant(), APPOINTED], ids=["older log", "election", "successor"])
def test_t1_a_node_that_voted_does_not_restart_in_place_for_the_old_epoch(present):
    """Also not with the log as it was before the election, and not with a lease that has not run out."""
    down = stopped(primary(notes=PLEDGED, lease=FULL_LEASE), shut_down=False)

    assert not [a for a in actions(present, down) if isinstance(a, StartPrimary | Promote)]
    assert wants_lease(present, down) is None


def test_t2_a_crashed_node_has_no_vote_before_all_of_its_wal_is_replayed():
    """Its control file names an earlier place; only recovery finds the end, and then waits for more."""
    crashed = stopped(primary(notes=PLEDGED), shut_down=False, checkpoint_lsn=LSN - 1000)
    ended = voter("pg1")
    recovering = replace(ended, instance=replace(ended.instance, lsn=LSN - 500, replayed_lsn=LSN - 500, received_lsn=0))
    recovering = replace(recovering, instance=replace(recovering.instance, replay_waits=False))

    assert cast_vote(vacant(), crashed) is None
    assert cast_vote(vacant(), replace(ended, instance=None)) is None
    assert cast_vote(vacant(), recovering) is None
    assert cast_vote(vacant(), ended) == vote("pg1", LSN)


def test_t2_a_laggard_is_not_appointed_while_a_node_that_lives_recovers():
    ballots = heard(report("pg3", vote=vote("pg3", LSN - 500), in_recovery=True), report("pg1", in_recovery=None))

    assert "waits for the votes of pg1" in plan(situation(vacant(), ballots, election_s=0.5)).because


def test_t3_a_pledge_is_on_the_disk_before_there_is_a_vote_and_a_restart_does_not_lose_it():
    attached = standby(notes=Notes(epoch=4, pledge=4))
    assert actions(vacant(), attached) == (Pledge(5),)
    detached = voter(election=4)
    assert actions(vacant(), detached) == (Pledge(5),)
    assert cast_vote(vacant(), detached) is None

    assert cast_vote(vacant(), voter()) == vote("pg2")
    assert actions(state(), stopped(voter())) == (StartStandby(""),), "no WAL from the old primary"


def test_t3_a_vote_of_an_abandoned_election_does_not_count_in_a_later_one():
    abandoned = vacant()
    assert apply(abandoned, OpenElection(5, 4, "again")).refused.startswith("election.number")
    later = apply(abandoned, OpenElection(6, 4, "the target could not win")).state
    assert later.election.number == 6

    stale = (vote("pg2", LSN + 100, election=5), vote("pg3", election=6))
    assert apply(later, appoint("pg2", *stale, election=6)).refused.startswith("election.other")
    assert apply(later, appoint("pg2", vote("pg2", election=5), election=5)).refused.startswith("election.moved")
    chosen = plan(situation(later, heard(*(report(v.node, vote=v, in_recovery=True) for v in stale)), election_s=9.0))
    assert [c.node for c in chosen.commands] == ["pg3"]
    assert [v.node for c in chosen.commands for v in c.votes] == ["pg3"]


def test_t9_an_appointed_node_that_lost_wal_of_its_vote_does_not_open():
    winner = voter("pg2", lease=LeaseSeen(5, 5.0))
    lost = replace(winner, instance=replace(winner.instance, lsn=LSN - 1, received_lsn=LSN - 1, replayed_lsn=LSN - 1))

    assert actions(APPOINTED, winner) == (Promote(5, 3),)
    assert actions(APPOINTED, lost) == ()


def test_t9_an_appointed_node_whose_directory_was_replaced_gives_the_epoch_up():
    there = voter("pg2", lease=LeaseSeen(5, 5.0))
    gone = stopped(replace(there, directory=replace(there.directory, incarnation="inc-other")))
    fenced, proposed = actions(APPOINTED, gone)

    assert fenced == NoteFenced(5)
    assert isinstance(proposed, Propose)
