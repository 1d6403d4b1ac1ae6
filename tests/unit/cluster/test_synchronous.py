"""R7a and R8 in `apply`: how a synchronous set changes, what an appointment starts with, and whom R13 keeps."""

from dataclasses import replace

import pytest

from appliance.cluster import synchronous as sets
from appliance.cluster.apply import apply
from appliance.cluster.commands import (
    ChangeSync,
    Depose,
    FinaliseSync,
    FinishBootstrap,
    OpenElection,
    Promoted,
    Rebuild,
    Release,
    SetConfig,
)
from appliance.cluster.config import Policy
from appliance.cluster.state import (
    ASYNCHRONOUS,
    BLOCKED,
    Bootstrap,
    ClusterState,
    Config,
    Grounds,
    LeaseStatus,
    NodeRole,
    Position,
    SyncSet,
    SyncVersion,
)

from .building import AT, LSN, appoint, contested, member, state, sync, synchronous, vote, with_members
from .test_apply import done, refused

BOTH = SyncSet(1, frozenset({"pg2", "pg3"}))
ONE = SyncSet(1, frozenset({"pg2"}))


def change(wanted, version=2, epoch=4):
    return ChangeSync(epoch, version, wanted)


# R8: changes


def test_r8_a_change_is_joint_until_it_is_finalised():
    joint = done(synchronous(sync(1, "pg2")), change(BOTH))

    assert [listed.wanted for listed in joint.sync] == [ONE, BOTH]
    assert not joint.settled
    after = done(joint, FinaliseSync(4, 2))
    assert (after.sync, after.settled) == ((SyncVersion(2, 4, BOTH),), True)
    assert refused(after, FinaliseSync(4, 2)) == "sync.final"


def test_r8_a_change_on_top_of_an_unfinished_one_keeps_all_that_may_still_count():
    """T8: the union of all S, the smallest k."""
    first = done(synchronous(sync(2, "pg2", "pg3")), change(SyncSet(1, frozenset({"pg3"}))))
    second = done(first, change(ONE, version=3))

    assert second.sync == (SyncVersion(2, 4, BOTH), SyncVersion(3, 4, ONE))
    assert sets.union(second.sync) == ({"pg2", "pg3"}, 1)
    assert refused(second, FinaliseSync(4, 2)) == "sync.version"


@pytest.mark.parametrize(
    ("before", "command", "code"),
    [
        (synchronous(sync(1, "pg2")), change(BOTH, epoch=3), "epoch.moved"),
        (synchronous(sync(1, "pg2")), change(BOTH, version=1), "sync.version"),
        (synchronous(sync(1, "pg2")), change(BOTH, version=3), "sync.version"),
        (synchronous(sync(1, "pg2")), change(ONE), "sync.same"),
        (synchronous(sync(1, "pg2"), lease=LeaseStatus.EXPIRED), change(BOTH), "lease.not_held"),
        (contested(sync(1, "pg2")), change(BOTH), "lease.not_held"),
        (synchronous(), change(SyncSet(1, frozenset({"pg1"}))), "sync.members"),
        (synchronous(), change(SyncSet(1, frozenset({"pg9"}))), "sync.members"),
        (with_members(synchronous(), member("pg3", rebuilding=True)), change(BOTH), "sync.members"),
        (with_members(synchronous(), member("pg3", NodeRole.WITNESS)), change(BOTH), "sync.members"),
        (synchronous(), change(SyncSet(3, BOTH.members)), "sync.k"),
        (synchronous(), change(SyncSet(0, BOTH.members)), "sync.k"),
        (synchronous(), change(SyncSet(1, BOTH.members, ("pg2",))), "sync.order"),
        (synchronous(), change(SyncSet(1, BOTH.members, ("pg2", "pg3", "pg3"))), "sync.order"),
        (synchronous(), change(ASYNCHRONOUS), "sync.on"),
        (state(), change(BOTH, version=1), "sync.off"),
        (synchronous(config=Config(1, {"synchronous_mode_strict": True})), change(SyncSet()), "sync.strict"),
        (synchronous(), change(BLOCKED), "sync.strict"),
        (synchronous(), change(replace(ONE, blocked=True)), "sync.blocked"),
        (synchronous(), FinaliseSync(3, 1), "epoch.moved"),
        (done(synchronous(sync(1, "pg2")), change(BOTH)), FinaliseSync(4, 1), "sync.version"),
        (state(appointment=None), change(BOTH), "epoch.moved"),
    ],
)
def test_t8_a_change_or_an_end_of_one_is_refused(before, command, code):
    assert refused(before, command) == code


def test_r8_nothing_is_finalised_before_the_primary_has_opened():
    before = done(synchronous(sync(1, "pg2")), change(BOTH))
    unopened = replace(before, appointment=replace(before.appointment, opened=False))

    assert refused(unopened, FinaliseSync(4, 2)) == "sync.not_open"


# What votes have to show


def suffices(present, *voters):
    return sets.suffice(present.grounds, {name: present.members[name].incarnation for name in voters})


def test_r7_the_last_primary_counts_with_the_data_that_it_was_appointed_on():
    present = synchronous()
    assert sets.suffice(present.grounds, {"pg1": "inc-pg1"})
    assert not sets.suffice(present.grounds, {"pg1": "inc-other"})
    assert not sets.suffice((), {"pg1": "inc-pg1"})


def fail_over(present, node, *voters, wanted, timeline=3, lsn=LSN):
    number = present.epoch + 1
    held = present.appointment
    opened = done(present, OpenElection(number, held.epoch, "silent"))
    votes = tuple(vote(name, lsn, timeline=timeline - 1, election=number) for name in voters)
    return done(opened, appoint(node, *votes, election=number, timeline=timeline, wanted=wanted))


def promoted(present):
    held = present.appointment
    return done(present, Promoted(held.epoch, held.node, held.timeline, held.timeline - 1, LSN + 8))


def test_r7a_after_an_appointment_what_sufficed_before_still_counts():
    """T10: pg2 is appointed and dies for ever before anybody has its first commit; pg1 comes back."""
    after = fail_over(synchronous(), "pg2", "pg2", "pg3", wanted=SyncSet(1, frozenset({"pg3"})))

    assert after.appointment.before == (Grounds("pg1", "inc-pg1", (sync(1, "pg2", "pg3"),), frozenset({"pg1", "pg3"})),)
    assert after.appointment.holders == {"pg1", "pg2", "pg3"}
    assert suffices(after, "pg2")
    assert suffices(after, "pg1", "pg3")
    assert suffices(after, "pg3"), "it was level with pg2, and no commit of pg2 can be without it"
    assert not suffices(after, "pg1"), "pg3 alone may have confirmed a commit of pg2"
    settled = done(promoted(after), FinaliseSync(5, 2))
    assert settled.appointment.before == ()
    assert suffices(settled, "pg3")
    assert not suffices(settled, "pg1")


def test_r7a_who_was_behind_the_new_primary_does_not_stand_for_what_was_before():
    number, present = 5, contested()
    votes = (vote("pg2"), vote("pg3", LSN - 1))
    after = done(present, appoint("pg2", *votes, election=number, wanted=SyncSet(1, frozenset({"pg3"}))))

    assert after.appointment.holders == {"pg1", "pg2"}
    assert not suffices(after, "pg3")
    assert suffices(after, "pg1", "pg3")


def test_r7a_appointments_in_a_row_ask_for_everything_that_was_not_finalised():
    present = synchronous()
    for number, node in enumerate(("pg2", "pg3", "pg2"), 3):
        other = {"pg2": "pg3", "pg3": "pg2"}[node]
        present = fail_over(present, node, "pg2", "pg3", wanted=SyncSet(1, frozenset({other})), timeline=number)

    assert [grounds.node for grounds in present.grounds] == ["pg2", "pg3", "pg2", "pg1"]


def test_r7a_only_so_many_are_told_apart_and_then_less_suffices():
    present = synchronous()
    for number in range(3, 12):
        present = fail_over(present, "pg2", "pg2", "pg3", wanted=SyncSet(1, frozenset({"pg3"})), timeline=number)

    assert len(present.grounds) == sets.DEPTH + 1
    assert present.grounds[-1] == Grounds("pg2", "inc-pg2")
    assert not sets.suffice(present.grounds[-1:], {"pg1": "inc-pg1", "pg3": "inc-pg3"})


def test_r7_nobody_to_wait_for_leaves_only_the_primary():
    after = fail_over(synchronous(), "pg2", "pg2", "pg3", wanted=SyncSet())

    assert not suffices(after, "pg1", "pg3")
    assert suffices(after, "pg2")


# R9, R6


def test_r9_an_election_opens_while_the_lease_is_held_and_ends_it():
    after = done(synchronous(), OpenElection(5, 4, "pg1 is silent"))

    assert (after.lease, after.primary) == (LeaseStatus.CONTESTED, None)
    assert done(after, Release(4, "pg1", "stopped", Position(2, LSN))).lease is LeaseStatus.RELEASED
    assert done(after, Depose(4, "silent")).lease is LeaseStatus.EXPIRED


@pytest.mark.parametrize(
    "present",
    [
        state(),
        synchronous(config=Config(1, {"failover": {"fencing": "lease"}})),
        synchronous(SyncVersion(1, 4, ASYNCHRONOUS), sync(1, "pg2", version=2)),
        synchronous(SyncVersion(1, 4, ASYNCHRONOUS)),
    ],
)
def test_r10_without_fencing_votes_an_election_waits_for_the_lease(present):
    assert refused(present, OpenElection(5, 4, "pg1 is silent")) == "lease.held"


def test_t4_a_change_to_nobody_that_commits_just_before_the_appointment_counts():
    before = done(synchronous(), change(SyncSet()))
    after = done(before, OpenElection(5, 4, "pg1 is silent"))

    ballots = (vote("pg2"), vote("pg3"))
    assert refused(after, appoint("pg2", *ballots, wanted=SyncSet())) == "quorum.votes_missing"


def test_an_appointment_with_a_set_that_cannot_be_is_refused():
    ballots = (vote("pg2"), vote("pg3"))
    assert refused(contested(), appoint("pg2", *ballots, wanted=ONE)) == "sync.members"
    assert refused(contested(), appoint("pg2", *ballots, wanted=ASYNCHRONOUS)) == "sync.on"


# R13


def test_r13_a_synchronous_standby_leaves_its_sets_before_it_rebuilds():
    joint = done(synchronous(sync(1, "pg2", "pg3")), change(ONE))

    assert refused(joint, Rebuild("pg3")) == "rebuild.synchronous"
    assert done(done(joint, FinaliseSync(4, 2)), Rebuild("pg3")).members["pg3"].rebuilding


def test_r13_also_those_of_what_sufficed_before():
    after = fail_over(synchronous(), "pg2", "pg2", "pg3", wanted=SyncSet())

    assert refused(after, Rebuild("pg3")) == "rebuild.synchronous"
    rebuilding = done(after, Rebuild("pg1")).appointment
    assert rebuilding.holders == {"pg2", "pg3"}
    assert "pg1" in after.appointment.before[0].holders
    assert "pg1" not in rebuilding.before[0].holders


def test_t11_a_standby_that_rebuilds_cannot_become_synchronous():
    rebuilding = done(synchronous(sync(1, "pg2")), Rebuild("pg3"))

    assert refused(rebuilding, change(BOTH)) == "sync.members"


# Modes


def test_a_new_cluster_waits_for_nobody_until_there_is_somebody():
    members = {name: member(name, incarnation="") for name in ("pg1", "pg2", "pg3")}
    begun = ClusterState(members=members, bootstrap=Bootstrap("pg1"))
    finish = FinishBootstrap("pg1", "7423", "inc-1", Position(1, 100), AT)
    for document, wanted in (
        ({}, SyncSet()),
        ({"synchronous_mode": "off"}, ASYNCHRONOUS),
        ({"synchronous_mode_strict": True}, BLOCKED),
    ):
        made = done(replace(begun, config=Config(1, document)), finish)
        assert made.sync == (SyncVersion(1, 1, wanted),)
        assert made.settled


@pytest.mark.parametrize(
    ("document", "told"),
    [
        ({"synchronous_node_count": 3}, "synchronous_node_count: 3 is more than the standbys that there are, 2"),
        ({"synchronous_mode_strict": True}, None),
        ({"synchronous_node_count": 3, "synchronous_mode": "off"}, None),
    ],
)
def test_what_the_members_cannot_give_is_refused(document, told):
    reason = apply(state(), SetConfig(1, document)).refused
    assert reason is None if told is None else told in reason


def test_strict_mode_without_a_standby_is_refused():
    alone = state(members={"pg1": member("pg1"), "pg2": member("pg2", NodeRole.WITNESS)})
    problem = sets.too_much(alone, Policy(synchronous_mode_strict=True))
    assert problem.startswith("synchronous_mode_strict: there is no standby")


@pytest.mark.parametrize("tag", ["nosync", "nofailover"])
def test_who_is_never_waited_for_does_not_count(tag):
    tagged = state(members={**state().members, "pg3": member("pg3", tags={tag: True})})
    assert sets.too_much(tagged, Policy(synchronous_node_count=1, synchronous_mode_strict=True)) is None
    problem = sets.too_much(tagged, Policy(synchronous_node_count=2))
    assert "2 is more than the standbys that there are, 1 (not pg3, by tag); write 1 at most" in problem
    of_primary = state(members={**state().members, "pg1": member("pg1", tags={tag: True})})
    assert sets.too_much(of_primary, Policy(synchronous_node_count=2)) is None


def test_turned_off_r10_decides_at_once_and_turned_on_only_when_it_is_finalised():
    off = Config(2, {"synchronous_mode": "off"})
    leaving = done(synchronous(config=off), change(ASYNCHRONOUS))
    assert (leaving.synchronous, leaving.settled) == (False, True)
    assert leaving.sync == (SyncVersion(2, 4, ASYNCHRONOUS),)

    coming = done(replace(leaving, config=Config(3, {})), change(BOTH, version=3))
    assert not coming.synchronous
    assert done(coming, FinaliseSync(4, 3)).synchronous


# R7 after the loss of a majority


KEPT = {name: f"inc-{name}" for name in ("pg1", "pg2", "pg3")}


@pytest.mark.parametrize(
    ("present", "left", "says"),
    [
        (synchronous(sync(1, "pg2")), ("pg2",), None),
        (synchronous(sync(1, "pg2")), ("pg1",), None),
        (synchronous(sync(1, "pg2")), ("pg3",), "waited for 1 of pg2, so 1 of them"),
        (synchronous(sync(1, "pg2", "pg3")), ("pg2", "pg3"), None),
        (synchronous(sync(1, "pg2", "pg3")), ("pg2",), "so 2 of them would show each one, and kept is the data of pg2"),
        (synchronous(sync(2, "pg2", "pg3")), ("pg2",), None),
        (synchronous(sync(1, "pg2"), sync(1, "pg3", version=2)), ("pg3",), "waited for 1 of pg2, pg3"),
        (synchronous(sync(0)), ("pg2", "pg3"), "its commits waited for nobody else"),
        (state(), ("pg2", "pg3"), "commits waited for no standby"),
        (state(), ("pg1",), None),
        (ClusterState(), (), None),
    ],
)
def test_r7_what_is_left_shows_each_commit_or_it_is_said_why_not(present, left, says):
    kept = {name: KEPT[name] for name in left}
    found = sets.may_lack(present.grounds, kept, synchronous=present.synchronous)
    assert (found is None) if says is None else (says in (found or "")), found


def test_r13_another_directory_of_the_last_primary_shows_nothing():
    present = synchronous(sync(1, "pg2"))
    assert "pg1" in (sets.may_lack(present.grounds, {"pg1": "another"}, synchronous=True) or "")


def test_r7a_a_set_that_was_not_final_needs_a_holder_too():
    present = synchronous(sync(1, "pg2"))
    before = (Grounds("pg3", "inc-pg3"),)
    held = replace(present.appointment, holders=frozenset({"pg3"}), before=before)
    said = sets.may_lack(replace(present, appointment=held).grounds, {"pg2": "inc-pg2"}, synchronous=True)
    assert "none of who had all before is kept: pg3" in (said or "")
