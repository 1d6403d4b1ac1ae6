"""R6: a vote is a fence, and it tells the end of the WAL. Each condition alone keeps a node from voting."""

from dataclasses import replace

import pytest

from appliance.cluster.state import LeaseStatus, Position, Vote
from appliance.ha.decide import cast_vote, wants_lease
from appliance.ha.seen import DirectoryKind, Notes
from tests.unit.cluster.building import LSN, member, state, vacant, with_members

from .building import directory, instance, primary, stopped, voter

VOTER = voter()


def answering(**changes):
    return replace(VOTER, instance=replace(VOTER.instance, **changes))


def test_a_pledged_and_detached_standby_votes_with_the_end_of_its_wal():
    assert cast_vote(vacant(), VOTER) == Vote(5, "pg2", "inc-pg2", Position(2, LSN))


@pytest.mark.parametrize(
    ("present", "seen"),
    [
        (state(), VOTER),
        (vacant(), voter(election=4)),
        (vacant(), voter(election=6)),
        (vacant(), answering(receiver_running=True)),
        (vacant(), answering(upstream="10.0.0.1:5432")),
        (vacant(), answering(replayed_lsn=LSN - 1)),
        (vacant(), answering(in_recovery=False)),
        (vacant(), replace(VOTER, instance=None)),
        (vacant(), stopped(VOTER)),
        (vacant(), primary(notes=Notes(4, 5))),
        (vacant(), replace(VOTER, directory=directory("pg2", incarnation="older"))),
        (vacant(), replace(VOTER, directory=directory("pg2", incarnation=""))),
        (with_members(vacant(), member("pg2", incarnation="")), VOTER),
        (with_members(vacant(), member("pg2", rebuilding=True)), VOTER),
        (vacant(), replace(VOTER, notes=Notes(4, 5, needs_clone=True))),
        (vacant(), replace(VOTER, directory=directory("pg2", kind=DirectoryKind.FOREIGN))),
        (vacant(), replace(VOTER, directory=directory("pg2", system_identifier="8"))),
    ],
    ids=[
        "no election", "another pledge", "a later pledge", "receiver runs", "source is set", "WAL not replayed",
        "still a primary", "no answer", "stopped", "primary with a pledge", "another directory", "no incarnation",
        "unknown incarnation", "rebuilding", "failed rewind", "unreadable",
        "another cluster",
    ],
)  # fmt: skip
def test_r6_no_vote_without_each_condition(present, seen):
    assert cast_vote(present, seen) is None


def test_r14_a_node_past_the_switch_point_has_no_vote_in_the_next_election():
    """Epoch 4 left timeline 1 at SWITCH; a node that wrote more on timeline 1 is not part of history."""
    diverged = answering(timeline=1, lsn=LSN, received_lsn=0, replayed_lsn=LSN)

    assert cast_vote(vacant(), diverged) is None


def test_a_node_asks_for_the_lease_of_its_own_standing_appointment_only():
    assert wants_lease(state(), primary()) == 4
    assert wants_lease(state(), stopped(primary())) == 4, "a crashed primary keeps its lease while it restarts"
    assert wants_lease(state(), VOTER) is None
    assert wants_lease(vacant(), primary()) is None
    assert wants_lease(state(lease=LeaseStatus.RELEASED), primary()) is None
    assert wants_lease(state(), primary(notes=Notes(4, 4, fenced_epoch=4))) is None


def test_r5_a_node_that_voted_does_not_ask_for_an_older_lease():
    assert wants_lease(state(), primary(notes=Notes(4, pledge=5))) is None


def test_the_position_of_a_vote_is_what_was_received_when_that_is_all_replayed():
    assert cast_vote(vacant(), replace(VOTER, instance=instance(upstream="", receiver_running=False))) is not None
