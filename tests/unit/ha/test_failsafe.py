"""R16: whom a primary without a quorum asks, who promises, and what an election needs then."""

from dataclasses import replace
from itertools import chain, combinations

import pytest

from appliance.cluster import synchronous as sets
from appliance.cluster.apply import apply
from appliance.cluster.commands import ChangeSync, FinaliseSync, SetConfig
from appliance.cluster.config import ConfigError, Policy, read_policy
from appliance.cluster.elections import vouched_for
from appliance.cluster.state import (
    ASYNCHRONOUS,
    AcceptedLoss,
    Config,
    LeaseStatus,
    NodeRole,
    OperationKind,
    Phase,
    Position,
    SyncSet,
)
from appliance.ha.decide import cast_vote
from appliance.ha.failsafe import objection, promise_s, to_ask
from appliance.ha.seen import LeaseSeen, Notes
from appliance.ha.standbys import wanted_next, wanted_now
from tests.unit.cluster.building import LSN, appoint, contested, member, sync, synchronous, vacant, vote, with_members
from tests.unit.cluster.test_apply import done, refused

from .building import operation, primary, standby, stopped, streaming, voter

POLICY = Policy(failsafe_mode=True)
ON = Config(1, {"ttl": "6s", "failsafe_mode": True})


def vouched(*listed, **changes):
    """Commits of pg1 wait for pg2, which may vouch for it."""
    return synchronous(*(listed or (sync(1, "pg2", failsafe=True),)), **{"config": ON, **changes})


def silent(**changes):
    """pg1 half a second after it should have begun to ask."""
    return primary(**{"lease": LeaseSeen(4, POLICY.lease_s - POLICY.ask_after_s - 0.5), "contact_s": 2.0, **changes})


ALONE = standby(contact_s=2.0)


def test_all_synchronous_members_are_asked_and_no_others():
    assert to_ask(vouched(), silent(), POLICY) == {"pg2"}
    assert to_ask(vouched(sync(1, "pg2", "pg3", failsafe=True)), silent(), POLICY) == {"pg2", "pg3"}


def test_r8_while_a_change_is_joint_the_union_is_asked():
    joint = (sync(1, "pg2", failsafe=True), sync(1, "pg3", version=2, failsafe=True))
    assert to_ask(vouched(*joint), silent(), POLICY) == {"pg2", "pg3"}


def test_whose_commits_wait_for_nobody_asks_everybody_with_data():
    present = with_members(vouched(sync(0, failsafe=True)), replace(member("pg9"), role=NodeRole.WITNESS))
    assert to_ask(present, silent(), POLICY) == {"pg2", "pg3"}


@pytest.mark.parametrize(
    ("present", "seen", "policy"),
    [
        (vouched(), primary(), POLICY),
        (vouched(), silent(), Policy()),
        (vouched(sync(1, "pg2")), silent(), POLICY),
        (vouched(sync(1, "pg2"), sync(1, "pg2", version=2, failsafe=True)), silent(), POLICY),
        (vouched(sync(1, "pg2", failsafe=True), sync(1, "pg2", version=2)), silent(), POLICY),
        (vouched(), silent(lease=LeaseSeen(4, 0.0)), POLICY),
        (vouched(), silent(lease=LeaseSeen(3, 1.0)), POLICY),
        (vouched(), silent(lease=None), POLICY),
        (vouched(), stopped(silent()), POLICY),
        (vouched(), silent(stopping_s=0.1), POLICY),
        (vouched(), silent(notes=Notes(4, 4, fenced_epoch=4)), POLICY),
        (vouched(), silent(notes=Notes(4, 5)), POLICY),
        (vouched(), silent(notes=Notes(4, 4, sync_version=2)), POLICY),
        (vouched(lease=LeaseStatus.EXPIRED), silent(), POLICY),
        (vouched(), standby(), POLICY),
    ],
    ids=[
        "renewed", "off", "set without it", "not yet final", "on its way out", "no lease left", "another lease", "none",
        "PostgreSQL is down", "it stops", "fenced", "pledged", "an old log", "lease is over", "a standby",
    ],
)  # fmt: skip
def test_nobody_is_asked_where_it_would_not_help(present, seen, policy):
    assert to_ask(present, seen, policy) is None


def test_a_standby_of_this_very_primary_promises():
    assert objection(vouched(), ALONE, POLICY, "pg1", 4) is None
    assert promise_s(POLICY) > POLICY.lease_s


@pytest.mark.parametrize(
    ("present", "seen", "policy", "epoch", "why"),
    [
        (vouched(), ALONE, POLICY, 3, "knows pg1 as primary of epoch 4"),
        (vouched(), ALONE, Policy(), 4, "failsafe_mode is off"),
        (vouched(lease=LeaseStatus.RELEASED), ALONE, POLICY, 4, "released"),
        (contested(config=ON), ALONE, POLICY, 4, "contested"),
        (vouched(), replace(ALONE, notes=Notes(4, 5)), POLICY, 4, "pledged to election 5"),
        (vouched(), replace(ALONE, notes=Notes(6, 4)), POLICY, 4, "waits for the log"),
        (vouched(), replace(ALONE, contact_s=0.3), POLICY, 4, "has a quorum"),
        (vouched(), primary("pg2", contact_s=9.0), POLICY, 4, "no standby"),
    ],
)
def test_it_promises_nothing_else(present, seen, policy, epoch, why):
    assert why in (objection(present, seen, policy, "pg1", epoch) or "")


def test_r6_no_vote_while_a_promise_lasts():
    assert cast_vote(vacant(), voter()) is not None
    assert cast_vote(vacant(), voter(promised_left_s=0.1)) is None


# What an appointment needs


SOME = (
    frozenset(),
    frozenset({"pg2"}),
    frozenset({"pg3"}),
    frozenset({"pg2", "pg3"}),
    frozenset({"pg2", "pg3", "pg4"}),
)


def test_r7_votes_that_suffice_contain_somebody_who_was_asked_whatever_the_primary_knows_of_the_log():
    """Every list of at most two sets, every earlier view of it, every set of voters without the primary."""
    voters = [frozenset(v) for v in chain.from_iterable(combinations(("pg2", "pg3", "pg4"), n) for n in range(4))]
    tried = 0
    for old in SOME:
        for new in SOME:
            for old_k, new_k in ((min(1, len(old)), min(1, len(new))), (len(old), len(new))):
                first = sync(old_k, *old, failsafe=True)
                second = sync(new_k, *new, version=2, failsafe=True)
                for listed, views in (((first,), [(first,)]), ((first, second), [(first,), (first, second)])):
                    for view in views:
                        asked = sets.vouchers(view)
                        for some in voters:
                            tried += 1
                            if asked and sets.meets(listed, some):
                                assert asked & some, (listed, view, some)
                            if asked and sets.silences(listed, some):
                                assert asked & some, (listed, view, some)
    assert tried > 500


SHOWN = AcceptedLoss(Position(2, LSN), Position(2, LSN))


def forced(votes, *listed, lease=LeaseStatus.EXPIRED, config=ON, stopped=""):
    asked = operation(Phase.ELECTING, "pg3", kind=OperationKind.FAILOVER, accepted=replace(SHOWN, stopped=stopped))
    present = contested(*listed, lease=lease, config=config, operations=(asked,))
    wanted = SyncSet(failsafe=config is ON)
    return apply(present, appoint("pg3", *votes, wanted=wanted)).refused


def test_an_operator_forces_nobody_who_was_not_asked_while_the_primary_may_go_on():
    listed = (sync(1, "pg2", failsafe=True),)
    assert (forced([vote("pg3")], *listed) or "").startswith("failsafe.votes_missing: pg1 may be writable")
    assert forced([vote("pg2"), vote("pg3")], *listed) is None, "pg2 voted, so its promise has ended"
    both = sync(1, "pg2", "pg3", failsafe=True)
    assert forced([vote("pg3")], both) is None, "less than R7 asks for, but it was asked itself"
    assert forced([vote("pg1"), vote("pg3")], *listed) is None, "pg1 voted, so it has stopped"
    assert forced([vote("pg3")], *listed, lease=LeaseStatus.RELEASED) is None, "pg1 gave it back"


OFF = Config(2, {"ttl": "6s"})


def test_a_configuration_without_failsafe_mode_does_not_end_a_primary_that_has_not_heard_of_it():
    """pg1 and pg2 are cut off and go on with failsafe_mode; the others write failsafe_mode off, and elect by force."""
    listed = (sync(1, "pg2", failsafe=True),)
    assert to_ask(vouched(), silent(), POLICY) == {"pg2"}, "what pg1 knows"
    assert objection(vouched(), ALONE, POLICY, "pg1", 4) is None, "what pg2 knows"
    assert (forced([vote("pg3")], *listed, config=OFF) or "").startswith("failsafe.votes_missing")
    joint = (*listed, sync(1, "pg2", version=2))
    assert (forced([vote("pg3")], *joint, config=OFF) or "").startswith("failsafe.votes_missing")
    assert forced([vote("pg3")], sync(1, "pg2", version=2), config=OFF) is None, "pg1 has loaded a set without it"


def test_who_knows_that_the_last_primary_is_stopped_states_that_and_of_nobody_else():
    listed = (sync(1, "pg2", failsafe=True),)
    assert forced([vote("pg3")], *listed, stopped="pg1") is None
    assert forced([vote("pg3")], *listed, stopped="pg1", config=OFF) is None
    assert (forced([vote("pg3")], *listed, stopped="pg2") or "").startswith("failsafe.votes_missing")
    contested_still = forced([vote("pg3")], *listed, stopped="pg1", lease=LeaseStatus.CONTESTED) or ""
    assert contested_still.startswith("lease.held"), "it lifts R16 and nothing else"


def test_r13a_who_went_on_without_the_data_of_the_primary_said_that_it_never_runs_again():
    present = contested(sync(1, "pg2", failsafe=True), lease=LeaseStatus.EXPIRED, config=ON)
    assert vouched_for(present, [vote("pg3")]) is not None
    assert vouched_for(with_members(present, member("pg1", incarnation="")), [vote("pg3")]) is None


# How it comes into force, and goes


def test_r8_it_comes_with_the_synchronous_set():
    present = vouched(sync(1, "pg2", "pg3"))
    wanted = wanted_now(present, POLICY, streaming("pg2", "pg3"), {})
    assert wanted == SyncSet(1, frozenset({"pg2", "pg3"}), failsafe=True)
    joint = done(present, ChangeSync(4, 2, wanted))
    assert sets.vouchers(joint.sync) is None
    assert sets.vouchers(done(joint, FinaliseSync(4, 2)).sync) == {"pg2", "pg3"}
    assert wanted_next(present, POLICY, "pg2", ("pg1", "pg2")).failsafe


def test_r10_commits_wait_for_nobody_only_when_the_primary_knows_that_it_must_not_go_on():
    off = {"ttl": "6s", "synchronous_mode": "off"}
    present = done(vouched(), SetConfig(1, off))
    policy = read_policy(off)
    assert refused(present, ChangeSync(4, 2, ASYNCHRONOUS)) == "sync.failsafe"
    step = wanted_now(present, policy, {}, {})
    assert step == SyncSet(1, frozenset({"pg2"}))
    joint = done(present, ChangeSync(4, 2, step))
    assert wanted_now(joint, policy, {}, {}) is None
    assert refused(joint, ChangeSync(4, 3, ASYNCHRONOUS)) == "sync.failsafe"
    final = done(joint, FinaliseSync(4, 2))
    assert wanted_now(final, policy, {}, {}) == ASYNCHRONOUS
    assert done(final, ChangeSync(4, 3, ASYNCHRONOUS)).sync_now.wanted == ASYNCHRONOUS


def test_without_synchronous_standbys_nobody_could_vouch():
    with pytest.raises(ConfigError, match="failsafe_mode: without synchronous standbys"):
        read_policy({"synchronous_mode": "off", "failsafe_mode": True})
