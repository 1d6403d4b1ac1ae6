"""`failover --allow-data-loss` on the raft leader: what it waits for, whom it appoints, and how it ends."""

from dataclasses import replace

import pytest

from appliance.cluster.commands import AdvanceOperation, Appoint, Depose
from appliance.cluster.state import AcceptedLoss, Election, LeaseStatus, OperationKind, Phase, Position
from appliance.ha.electing import VOTES_WAIT_S
from appliance.ha.operating import ELECTING_LIMIT_S
from appliance.ha.plan import plan
from tests.unit.cluster.building import LSN, contested, member, sync, vote, with_members

from .building import WAITING, heard, operation, report, situation

BEHIND = LSN - 1000
SHOWN = AcceptedLoss(Position(2, BEHIND), Position(2, LSN))
OVER_S = WAITING.depose_after_s + 0.1


def asked(lease=LeaseStatus.EXPIRED, target="pg3", accepted=SHOWN, **changes):
    """A failover to pg3 that may lose data, while election 5 is open."""
    lossy = operation(
        Phase.ELECTING, target, kind=OperationKind.FAILOVER, source="", allow_data_loss=accepted is not None,
        accepted=accepted,
    )  # fmt: skip
    return contested(*changes.pop("sync", ()), lease=lease, operations=(lossy,), **changes)


def voted(*votes):
    return heard(*(report(v.node, vote=v, in_recovery=True, streaming=False) for v in votes))


def now(present, reports, **leader):
    return situation(present, reports, WAITING, **{"election_s": VOTES_WAIT_S + 0.1, **leader})


def commands(*arguments, **leader):
    return list(plan(now(*arguments, **leader)).commands)


def test_it_waits_until_the_lease_of_a_primary_that_the_votes_do_not_fence_is_over():
    ballot = voted(vote("pg3", BEHIND))

    assert commands(asked(LeaseStatus.CONTESTED), ballot, confirmed_s=OVER_S - 0.2) == []
    (command,) = commands(asked(LeaseStatus.CONTESTED), ballot, confirmed_s=OVER_S)
    assert isinstance(command, Depose)
    assert commands(contested(), ballot, confirmed_s=OVER_S) == [], "votes that suffice need not wait for that"


def test_then_it_appoints_whom_it_was_asked_for_and_says_what_was_in_the_way():
    (command,) = commands(asked(), voted(vote("pg3", BEHIND)))

    assert isinstance(command, Appoint)
    assert command.node == "pg3"
    assert "pg3 was asked for, and the loss accepted: quorum.votes_missing: no vote of pg1" in command.reason


def test_a_vote_that_may_make_the_loss_needless_is_waited_for():
    """Also in an election for that very node, which waits for nobody else as a rule."""
    alive = voted(vote("pg3", LSN + 1)) | heard(report("pg2"))
    present = asked(election=Election(5, "failover op1", "pg3"))

    waits = plan(now(present, alive, election_s=0.1))
    assert (waits.commands, waits.because) == ((), "election 5: waits for the votes of pg2")
    assert commands(present, alive)[0].node == "pg3"


def test_nobody_else_wins_by_it():
    assert commands(asked(target="pg2"), voted(vote("pg3", BEHIND))) == []


def test_a_target_tagged_nofailover_wins_an_election_that_was_open_before_it_was_asked_for():
    tagged = with_members(asked(), member("pg4", tags={"nofailover": True}))
    (operation,) = asked(target="pg4").operations

    assert commands(tagged, voted(vote("pg4", LSN))) == []
    assert commands(replace(tagged, operations=(operation,)), voted(vote("pg4", LSN)))[0].node == "pg4"


def test_who_is_ahead_of_an_accepted_loss_is_not_waited_for_by_commits():
    """It has to be rebuilt, and R13 would keep it from that."""
    present = with_members(asked(), member("pg4"))
    (command,) = commands(present, voted(vote("pg3", BEHIND), vote("pg4", LSN)))

    assert (command.node, command.wanted.members) == ("pg3", frozenset())
    level = commands(present, voted(vote("pg3", BEHIND), vote("pg4", BEHIND)))[0]
    assert (level.node, level.wanted.members) == ("pg3", {"pg4"})


def test_the_last_primary_is_appointed_if_it_comes_back_before_anything_was_given_up():
    ballot = voted(vote("pg3", BEHIND), vote("pg1", LSN))
    (command,) = commands(asked(), ballot)

    assert (command.phase, command.detail.partition(":")[0]) == (Phase.FAILED, "loss.needless")
    assert commands(replace(asked(), operations=()), ballot)[0].node == "pg1"


@pytest.mark.parametrize(
    ("ballot", "code"),
    [
        (voted(vote("pg3", BEHIND - 1)), "loss.candidate"),
        (voted(vote("pg3", BEHIND), vote("pg2", LSN + 1)), "loss.larger"),
    ],
)
def test_what_is_more_than_was_shown_ends_the_operation_at_once_with_the_reason(ballot, code):
    only_two = asked(sync=(sync(1, "pg2", "pg3", "pg4"),))
    (command,) = commands(with_members(only_two, member("pg4")), ballot)

    assert (type(command), command.phase) == (AdvanceOperation, Phase.FAILED)
    assert command.detail.startswith(code)


def test_one_that_finds_nobody_ends_so_that_something_else_can_be_asked_for():
    plain, ballot = asked(accepted=None), voted(vote("pg3", BEHIND))

    assert commands(plain, ballot, phase_s=ELECTING_LIMIT_S) == []
    (command,) = commands(plain, ballot, phase_s=ELECTING_LIMIT_S + 0.1)
    assert (command.id, command.phase) == ("op1", Phase.FAILED)
    assert command.detail.startswith("nobody was elected within 30 s: pg3: quorum.votes_missing: no vote of pg1")
    assert isinstance(plain.election, Election), "and the election stays open"
