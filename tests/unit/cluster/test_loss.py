"""`failover --allow-data-loss` in `apply`: what it lifts, how far, and what is written down (R7, R7a, R9, R10)."""

from dataclasses import replace

import pytest

from appliance.cluster.apply import apply
from appliance.cluster.commands import Depose, OpenElection, Promoted, StartOperation
from appliance.cluster.elections import vouched_for
from appliance.cluster.loss import accepted, lacking
from appliance.cluster.state import (
    AcceptedLoss,
    Change,
    Config,
    Grounds,
    LeaseStatus,
    OperationKind,
    Position,
    SyncSet,
    Timeline,
)
from appliance.ha.explain import lost_in_words

from .building import AT, LIMIT, LSN, SWITCH, appoint, contested, member, state, sync, vacant, vote, with_members

BEHIND = LSN - 1000
NOBODY = SyncSet()


def asked(before, node="pg3", candidate=BEHIND, known=LSN, epoch=4, timeline=2):
    """Anna has seen these positions and accepts what is missing."""
    shown = AcceptedLoss(Position(timeline, candidate), Position(2, known))
    command = StartOperation(
        "op1", OperationKind.FAILOVER, "anna", "the hosts burnt", node, epoch, AT, allow_data_loss=True, accepted=shown
    )
    return done(before, command)


def stating(stopped):
    """Anna accepts it, and states of one that it is stopped."""
    shown = AcceptedLoss(Position(2, BEHIND), Position(2, LSN), stopped)
    return StartOperation(
        "op1", OperationKind.FAILOVER, "anna", "the hosts burnt", "pg3", 4, AT, allow_data_loss=True, accepted=shown
    )


def done(before, command):
    applied = apply(before, command)
    assert applied.refused is None, applied.refused
    return applied.state


def code(before, command):
    return (apply(before, command).refused or "").partition(":")[0]


def alone(lsn=BEHIND, **vote_changes):
    """Only pg3 is left: neither pg1, the last primary, nor two of pg2 and pg3 have voted."""
    return appoint("pg3", vote("pg3", lsn, **vote_changes), wanted=NOBODY)


def expired(**changes):
    return contested(lease=LeaseStatus.EXPIRED, **changes)


def test_r7_without_the_acceptance_the_votes_have_to_suffice():
    assert code(expired(), alone()) == "quorum.votes_missing"
    plain = StartOperation("op1", OperationKind.FAILOVER, "anna", "", "pg3", 4, AT)
    assert code(done(expired(), plain), alone()) == "quorum.votes_missing"


def test_a_person_lifts_r7_for_one_node_and_the_history_says_what_that_cost():
    after = done(asked(expired(last_known_at=AT)), alone())

    entry = after.history[-1]
    assert (entry.primary, entry.change, entry.start) == ("pg3", Change.FAILOVER, Position(2, BEHIND))
    assert entry.votes == {"pg3": Position(2, BEHIND)}
    lost = entry.lost
    assert (lost.known, lost.known_at, lost.bytes) == (Position(2, LSN), AT, 1000)
    assert (lost.refusal, lost.requester, lost.operation) == ("quorum.votes_missing", "anna", "op1")
    assert lost.reason == "the hosts burnt"


def test_r9_an_acceptance_waits_for_the_end_of_the_lease_because_the_votes_fence_nobody():
    """pg1 and an unpledged pg2 may go on: only the end of the lease is known to stop them."""
    before = asked(contested())

    assert code(before, alone()) == "lease.held"
    assert code(done(before, Depose(4, "silent")), alone()) == ""


def test_the_acceptance_covers_the_named_node_only():
    other = appoint("pg2", vote("pg2", BEHIND), wanted=NOBODY)

    assert code(asked(expired()), other) == "quorum.votes_missing"


def test_the_acceptance_ends_with_the_epoch_that_it_was_about():
    after = done(asked(expired()), alone())
    opened = done(done(after, Depose(5, "silent")), OpenElection(6, 5, "again"))
    again = appoint("pg3", vote("pg3", BEHIND, election=6), vote("pg2", LSN, election=6), election=6, timeline=4)

    assert code(opened, replace(again, wanted=NOBODY)) == "candidate.behind"


@pytest.mark.parametrize(
    ("candidate", "known", "ballot", "expected"),
    [
        (BEHIND, LSN, alone(BEHIND - 1), "loss.candidate"),
        (BEHIND, LSN, alone(timeline=1), "loss.candidate"),
        (BEHIND, LSN - 1, alone(), "loss.larger"),
        (BEHIND, LSN, alone(LSN + 50), ""),
        (BEHIND, LSN, appoint("pg3", vote("pg3", BEHIND), vote("pg4", LSN + 1), wanted=NOBODY), "loss.larger"),
        (BEHIND, LSN, appoint("pg3", vote("pg3", BEHIND), vote("pg4", LSN), wanted=NOBODY), ""),
        (BEHIND, LSN, appoint("pg3", vote("pg3", BEHIND), vote("pg1", BEHIND), wanted=NOBODY), ""),
        (BEHIND, LSN, appoint("pg3", vote("pg3", BEHIND), vote("pg1", LSN), wanted=NOBODY), "loss.needless"),
    ],
    ids=[
        "less than shown", "older timeline", "more was known", "more than known", "more came back", "as shown",
        "the last primary is no further", "the last primary is back",
    ],
)  # fmt: skip
def test_no_more_is_given_up_than_was_shown_and_nothing_without_need(candidate, known, ballot, expected):
    """pg4 is no synchronous standby: what it has shows nothing of what was acknowledged."""
    assert code(asked(with_members(expired(), member("pg4")), candidate=candidate, known=known), ballot) == expected


def test_r7a_afterwards_only_what_the_new_primary_has_counts():
    after = done(asked(expired()), replace(alone(), wanted=SyncSet()))

    held = after.appointment
    assert held.before == (Grounds("pg3", "inc-pg3"),)
    assert held.holders == {"pg3"}, "pg1 may have more, and is no measure any more"
    assert [g.node for g in after.grounds] == ["pg3", "pg3"]


def test_r7a_an_equal_of_the_new_primary_holds_what_it_has_and_who_was_ahead_does_not():
    before = asked(with_members(expired(), member("pg4"), member("pg5")))
    ballot = appoint("pg3", vote("pg3", BEHIND), vote("pg4", LSN - 10), vote("pg5", BEHIND), wanted=NOBODY)

    assert done(before, ballot).appointment.holders == {"pg3", "pg5"}


def test_what_the_rules_allow_anyway_is_no_loss():
    ballot = appoint("pg3", vote("pg3"), vote("pg2"), wanted=SyncSet(1, frozenset({"pg2"})))
    after = done(asked(expired()), ballot)

    assert after.history[-1].lost is None
    assert after.appointment.before == expired().grounds
    assert after.appointment.holders == {"pg1", "pg2", "pg3"}


VOUCHING = (sync(1, "pg2", failsafe=True),)
"""pg1 may go on as long as pg2 promises it not to vote (R16)."""


def vouched(**changes):
    return expired(**{"sync": VOUCHING, "config": Config(1, {"ttl": "6s", "failsafe_mode": True}), **changes})


def forced():
    return replace(alone(), wanted=SyncSet(failsafe=True))


def test_r16_a_loss_is_not_accepted_for_a_primary_that_may_be_writable_unless_it_is_stated_to_be_stopped():
    unsaid = done(vouched(), stating(""))
    refused = apply(unsaid, forced()).refused
    assert refused == (
        "failsafe.votes_missing: pg1 may be writable on the word of pg2, and their votes do not show that it is not;"
        " bring one of them back, or the host of pg1; or switch that host off, and state it:"
        " --allow-data-loss --stopped pg1"
    )
    after = done(done(vouched(), stating("pg1")), forced())

    assert (after.appointment.node, after.history[-1].lost.stopped) == ("pg3", "pg1")
    assert "given up by anna (the hosts burnt), who stated that pg1 was stopped: 1000 bytes" in (
        lost_in_words(after.history[-1])
    )
    assert done(asked(expired()), alone()).history[-1].lost.stopped == ""


@pytest.mark.parametrize("named", ["pg2", "pg3", "pg9"])
def test_r16_only_of_the_last_primary_is_it_any_use_to_state_that_it_is_stopped(named):
    """A promise of pg2 outlives it: pg1 goes on for up to a ttl after pg2 was switched off."""
    assert apply(vouched(), stating(named)).refused == f"loss.stopped: {named} is not the last primary, pg1 is"


def test_r16_the_statement_ends_with_the_epoch_that_it_was_about():
    """It is pg3 now that may go on, with pg2's promise."""
    after = done(done(vouched(), stating("pg1")), forced())
    listed = replace(after, sync=(sync(1, "pg2", version=2, epoch=5, failsafe=True),))
    opened = with_members(done(done(listed, Depose(5, "silent")), OpenElection(6, 5, "again")), member("pg4"))

    assert opened.running_operation().accepted.stopped == "pg1", "the operation has not ended"
    assert accepted(opened, "pg3") is None
    refused = vouched_for(opened, [vote("pg4", election=6)], opened.running_operation().accepted) or ""
    assert refused.startswith("failsafe.votes_missing: pg3 may be writable on the word of pg2")


def test_r10_in_asynchronous_mode_it_lifts_the_bound():
    far = LSN - LIMIT - 1
    lossy, ballot = asked(vacant(), "pg2", candidate=0), appoint("pg2", vote("pg2", far))
    after = done(lossy, ballot)

    assert (after.history[-1].lost.refusal, after.history[-1].lost.bytes) == ("candidate.lagging", LIMIT + 1)
    assert code(vacant(), ballot) == "candidate.lagging"
    assert code(lossy, appoint("pg1", vote("pg1", far))) == "candidate.lagging"
    assert code(lossy, appoint("pg2", vote("pg2", far), vote("pg3"))) == "loss.needless"
    assert code(replace(lossy, lease=LeaseStatus.HELD), ballot) == "lease.held"


def test_the_history_has_the_times_of_election_and_opening():
    before = done(state(lease=LeaseStatus.EXPIRED), OpenElection(5, 4, "silent", at="10:00:01Z"))
    after = done(before, appoint("pg2", vote("pg2"), vote("pg3")))
    opened = done(after, Promoted(5, "pg2", 3, 2, LSN + 8, "10:00:02Z"))

    assert after.history[-1].election_at == "10:00:01Z"
    assert (opened.history[-1].opened_at, opened.last_known_at) == ("10:00:02Z", "10:00:02Z")


def test_why_a_lease_is_over_is_kept_until_the_next_one():
    over = done(state(), Depose(4, "pg1 was silent for 6.1 s"))
    assert over.lease_over == "pg1 was silent for 6.1 s"
    after = done(done(over, OpenElection(5, 4, "expired")), appoint("pg2", vote("pg2"), vote("pg3")))
    assert after.lease_over == ""


FORKS = (Timeline(1, 1, "pg1", 0, 0), Timeline(2, 4, "pg1", 1, SWITCH), Timeline(3, 5, "pg2", 2, LSN),
         Timeline(4, 6, "pg3", 2, BEHIND), Timeline(5, 7, "pg3", 4, None))  # fmt: skip


@pytest.mark.parametrize(
    ("known", "kept", "expected"),
    [
        (Position(2, LSN), Position(2, BEHIND), 1000),
        (Position(2, LSN), Position(2, LSN + 5), 0),
        (Position(3, LSN + 70), Position(2, BEHIND), 1070),
        # Past the place where timeline 3 left: what is there is of no use for it.
        (Position(3, LSN + 70), Position(2, LSN + 50), 70),
        (Position(3, LSN + 70), Position(1, SWITCH - 5), LSN + 75 - SWITCH),
        (Position(3, LSN + 70), Position(4, LSN + 50), 1070),
        (Position(2, LSN), Position(4, LSN + 50), 1000),
        # Nobody has said where timeline 5 left its parent.
        (Position(4, LSN), Position(5, LSN + 50), None),
        (Position(2, LSN), Position(5, LSN + 50), 1000),
        (Position(9, LSN), Position(2, LSN), None),
    ],
)
def test_what_is_lacking_is_counted_from_where_the_histories_parted(known, kept, expected):
    assert lacking(FORKS, known, kept) == expected
