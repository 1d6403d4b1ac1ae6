"""`apply` is total, a refusal changes nothing, and what R5, R7, R10, R13 and R14 promise holds on any walk."""

from dataclasses import replace
from itertools import pairwise
from random import Random
from typing import get_args

import pytest
from hypothesis import given, settings

from appliance.cluster.apply import apply
from appliance.cluster.commands import (
    AbandonBootstrap,
    Announce,
    Appoint,
    BeginBootstrap,
    ChangeSync,
    Command,
    Depose,
    FinaliseSync,
    FinishBootstrap,
    NotePosition,
    OpenElection,
    Promoted,
    RaiseFormat,
    Rebuild,
    Rebuilt,
    Recovered,
    Release,
    RemoveMember,
    SetConfig,
    StartOperation,
)
from appliance.cluster.config import read_policy
from appliance.cluster.state import (
    UNENDED,
    Bootstrap,
    Change,
    ClusterState,
    Election,
    FailedBootstrap,
    Grounds,
    LeaseStatus,
    NodeRole,
    OperationKind,
    Position,
    SyncSet,
)
from appliance.cluster.synchronous import DEPTH, suffice

from .building import (
    AT,
    LIMIT,
    LSN,
    SWITCH,
    TAPES,
    Tape,
    appoint,
    contested,
    member,
    next_command,
    state,
    sync,
    synchronous,
    vacant,
    vote,
    with_members,
)


def done(before, command):
    applied = apply(before, command)
    assert applied.refused is None, applied.refused
    return applied.state


def refused(before, command):
    applied = apply(before, command)
    assert applied.refused is not None, "was applied"
    assert applied.state is before
    code, colon, reason = applied.refused.partition(": ")
    assert colon
    assert reason
    return code


# Any walk


def check_step(before, command, applied):
    after = applied.state
    if applied.refused is not None:
        assert after is before
        return
    assert after.epoch >= before.epoch
    assert (after.format > before.format) is isinstance(command, RaiseFormat)
    assert after.recovery.number > before.recovery.number or after.recovery is before.recovery
    if isinstance(command, Recovered):
        for member in after.members.values():
            assert member.incarnation in {command.kept.get(member.name), ""}
    if isinstance(command, Appoint):
        check_appointment(before, command, after)
    elif not isinstance(command, FinishBootstrap):
        assert (after.appointment and after.appointment.epoch) == (before.appointment and before.appointment.epoch)
        assert after.lease is before.lease or after.lease is not LeaseStatus.HELD
    check_state(after)


def check_appointment(before, command, after):
    new, old = after.appointment, before.appointment
    assert before.election is not None
    assert new.epoch == command.election == before.election.number
    assert old is None or new.epoch > old.epoch
    assert new.timeline > max(t.number for t in before.timelines)
    assert all(v.election == new.epoch for v in command.votes)
    assert not before.members[new.node].rebuilding
    assert new.incarnation == before.members[new.node].incarnation != ""
    running, lost = before.running_operation(), after.history[-1].lost
    assert before.lease is not LeaseStatus.HELD
    if not before.synchronous:
        assert before.lease is not LeaseStatus.CONTESTED
    if lost is not None:
        assert running.accepted is not None
        assert running.target == new.node
        assert before.lease not in UNENDED
        assert new.start >= running.accepted.candidate
        assert lost.known <= max(running.accepted.known, new.start)
        assert new.before in {(), (Grounds(new.node, new.incarnation),)}
        return
    assert new.start == max(v.position for v in command.votes)
    if before.synchronous:
        assert suffice(before.grounds, {v.node: v.incarnation for v in command.votes})
    elif before.last_known is not None:
        limit = read_policy(before.config.document).maximum_lag_on_failover_bytes
        assert before.last_known.lsn - new.start.lsn <= limit


def check_state(after):
    numbers = [t.number for t in after.timelines]
    assert len(set(numbers)) == len(numbers)
    assert all(t.parent < t.number for t in after.timelines)
    assert len({h.epoch for h in after.history}) == len(after.history)
    assert sum(not o.phase.ended for o in after.operations) <= 1
    held = after.appointment
    if held is not None:
        assert held.epoch <= after.epoch
        assert held.timeline == after.highest_timeline
        lost = after.recovery.number > 0 and held.incarnation != after.recovery.kept.get(held.node)
        assert after.members[held.node].incarnation in {held.incarnation, "" if lost else held.incarnation}
        assert not after.members[held.node].rebuilding
    if after.lease is LeaseStatus.HELD:
        assert after.election is None
    assert len(after.sync) <= 2
    assert all(one.version < other.version for one, other in pairwise(after.sync))
    for listed in after.sync:
        assert listed.wanted.k <= len(listed.wanted.members)
    assert len(after.grounds) <= DEPTH + 1
    if held is not None:
        assert held.node not in after.sync_now.wanted.members


STARTS = {
    "empty": ClusterState(),
    "announced": ClusterState(members=state().members),
    "bootstrapping": ClusterState(members=state().members, bootstrap=Bootstrap("pg1")),
    "healthy": state(),
    "vacant": vacant(),
    "synchronous": synchronous(),
    "contested": contested(),
    "joint": contested(sync(2, "pg2", "pg3"), sync(1, "pg2", version=2)),
}


@pytest.mark.parametrize("start", STARTS.values(), ids=STARTS)
@settings(max_examples=200, deadline=None)
@given(choices=TAPES)
def test_no_walk_breaks_a_promise(start, choices):
    present, tape = start, Tape(choices)
    while tape.left > 0:
        command = next_command(present, tape)
        applied = apply(present, command)
        assert applied == apply(present, command)
        check_step(present, command, applied)
        present = applied.state


def test_random_walks_get_everywhere_and_break_no_promise():
    applied_kinds = set()
    for seed in range(1600):
        present, tape = (state(), synchronous())[seed % 2], Tape(Random(seed).randbytes(600))
        while tape.left > 0:
            command = next_command(present, tape)
            applied = apply(present, command)
            check_step(present, command, applied)
            if applied.refused is None and present.initialised:
                applied_kinds.add(type(command))
            present = applied.state
    assert applied_kinds == set(get_args(Command)) - {BeginBootstrap, AbandonBootstrap, FinishBootstrap}


# Members


def test_a_node_announces_itself_and_changes_its_address():
    moved = member("pg2", raft="10.0.0.9:7400", tags={"nofailover": True})
    after = done(state(), Announce(moved))

    assert after.members["pg2"].raft == "10.0.0.9:7400"
    assert after.members["pg2"].tags == {"nofailover": True}


def test_an_announcement_does_not_touch_incarnation_or_rebuilding():
    before = with_members(state(), member("pg2", incarnation="", rebuilding=True))
    after = done(before, Announce(member("pg2", incarnation="mine", rebuilding=False)))

    assert after.members["pg2"].incarnation == ""
    assert after.members["pg2"].rebuilding


def test_r13_a_new_member_does_not_bring_its_own_incarnation():
    after = done(state(), Announce(member("pg4", incarnation="mine", rebuilding=True)))

    assert after.members["pg4"].incarnation == ""
    assert not after.members["pg4"].rebuilding


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (Announce(member("pg2", raft="10.0.0.1:7400")), "member.address_taken"),
        (Announce(replace(member("pg2"), name="")), "member.nameless"),
        (Announce(replace(member("pg5"), name="PG2")), "member.name_taken"),
        (Announce(member("pg2", NodeRole.WITNESS)), "member.role"),
        (Announce(member("pg4")), "member.removed"),
    ],
)
def test_an_announcement_is_refused(command, code):
    assert refused(state(removed=frozenset({"pg4"})), command) == code


def test_a_member_leaves_for_good():
    after = done(state(), RemoveMember("pg3"))

    assert set(after.members) == {"pg1", "pg2"}
    assert (after.removed, after.appointment.holders) == ({"pg3"}, {"pg1"})
    assert refused(after, Announce(member("pg3"))) == "member.removed"
    assert refused(after, RemoveMember("pg3")) == "member.unknown"


def test_r13_a_synchronous_standby_leaves_when_no_set_names_it_any_more():
    leaving = done(synchronous(), RemoveMember("pg2"))
    assert leaving.members["pg2"].leaving
    assert done(leaving, Announce(member("pg2"))).members["pg2"].leaving
    joint = done(leaving, ChangeSync(4, 2, SyncSet(1, frozenset({"pg3"}))))
    assert refused(joint, RemoveMember("pg2")) == "member.synchronous"
    assert set(done(done(joint, FinaliseSync(4, 2)), RemoveMember("pg2")).members) == {"pg1", "pg3"}


def test_the_vote_of_a_removed_member_counts_no_more():
    after = done(vacant(), RemoveMember("pg3"))

    assert refused(after, appoint("pg3", vote("pg3"))) == "member.unknown"
    assert refused(after, appoint("pg2", vote("pg2"), vote("pg3"))) == "member.unknown"


LEARNERS = with_members(state(), *(member(name, NodeRole.LEARNER) for name in ("pg1", "pg3")))


@pytest.mark.parametrize(
    ("present", "name", "code"),
    [
        (state(), "pg9", "member.unknown"),
        (state(), "pg1", "member.last_primary"),
        (vacant(), "pg1", "member.last_primary"),
        (done(synchronous(), RemoveMember("pg2")), "pg2", "member.synchronous"),
        (
            done(state(), StartOperation("op1", OperationKind.SWITCHOVER, "anna", "", "pg2", 4, AT)),
            "pg2",
            "operation.running",
        ),
        (replace(ClusterState(members=state().members), bootstrap=Bootstrap("pg2")), "pg2", "bootstrap.running"),
        (LEARNERS, "pg2", "member.last_voter"),
    ],
)
def test_a_member_does_not_leave(present, name, code):
    assert refused(present, RemoveMember(name)) == code


# Bootstrap

ANNOUNCED = ClusterState(members={n: member(n, incarnation="") for n in ("pg1", "pg2", "pg3")})
BEGIN = BeginBootstrap("shop", "pg1", {"ttl": "8s"}, "op1")
FINISH = FinishBootstrap("pg1", "7423", "inc-1", Position(1, 100), AT)


def test_a_bootstrap_becomes_epoch_1_on_timeline_1():
    after = done(done(ANNOUNCED, BEGIN), FINISH)

    assert (after.name, after.system_identifier, after.epoch, after.primary) == ("shop", "7423", 1, "pg1")
    assert after.appointment.opened
    assert after.highest_timeline == 1
    assert after.members["pg1"].incarnation == "inc-1"
    assert after.history[0].change is Change.BOOTSTRAP
    assert after.config.document == {"ttl": "8s"}


def test_a_rebuild_from_before_the_bootstrap_does_not_outlive_it():
    after = done(done(done(ANNOUNCED, BEGIN), Rebuild("pg1")), FINISH)

    assert not after.members["pg1"].rebuilding
    assert refused(after, Rebuilt("pg1", "inc-new")) == "rebuild.not_begun"


def test_a_bootstrap_that_is_given_up_can_begin_elsewhere():
    begun = done(ANNOUNCED, BEGIN)
    given_up = done(begun, AbandonBootstrap("pg1", "not empty"))

    assert given_up.failed_bootstrap == FailedBootstrap("pg1", "op1", "not empty")
    again = done(given_up, replace(BEGIN, node="pg2"))
    assert (again.bootstrap, again.failed_bootstrap) == (Bootstrap("pg2", "op1"), None)
    assert refused(begun, replace(BEGIN, node="pg2")) == "bootstrap.running"
    assert done(begun, BEGIN).bootstrap == Bootstrap("pg1", "op1"), "the same node may ask again"


@pytest.mark.parametrize(
    ("before", "command", "code"),
    [
        (state(), BEGIN, "bootstrap.done"),
        (state(), FINISH, "bootstrap.done"),
        (ANNOUNCED, replace(BEGIN, node="pg9"), "member.unknown"),
        (with_members(ANNOUNCED, member("pg1", NodeRole.WITNESS)), BEGIN, "bootstrap.witness"),
        (ANNOUNCED, replace(BEGIN, document={"ttl": "1s"}), "config.invalid"),
        (ANNOUNCED, FINISH, "bootstrap.not_yours"),
        (ANNOUNCED, AbandonBootstrap("pg1", ""), "bootstrap.not_yours"),
        (done(ANNOUNCED, BEGIN), replace(FINISH, node="pg2"), "bootstrap.not_yours"),
        (done(ANNOUNCED, BEGIN), AbandonBootstrap("pg2", ""), "bootstrap.not_yours"),
        (done(ANNOUNCED, BEGIN), replace(FINISH, system_identifier=""), "bootstrap.incomplete"),
        (done(ANNOUNCED, BEGIN), replace(FINISH, incarnation=""), "bootstrap.incomplete"),
        (done(ANNOUNCED, BEGIN), replace(FINISH, position=Position(2, 0)), "bootstrap.incomplete"),
    ],
)
def test_a_bootstrap_step_is_refused(before, command, code):
    assert refused(before, command) == code


# Lease


def test_a_lease_is_deposed_released_and_not_taken_back():
    expired = done(state(), Depose(4, "silent"))
    released = done(state(), Release(4, "pg1", "stopped", Position(2, LSN + 7)))

    assert (expired.lease, expired.primary) == (LeaseStatus.EXPIRED, None)
    assert (released.lease, released.last_known) == (LeaseStatus.RELEASED, Position(2, LSN + 7))
    for gone in (expired, released):
        assert refused(gone, Depose(4, "")) == "lease.not_held"
        assert refused(gone, Release(4, "pg1", "")) == "lease.not_held"


def test_a_release_without_a_position_or_with_an_older_one_keeps_the_last_known():
    assert done(state(), Release(4, "pg1", "")).last_known == Position(2, LSN)
    assert done(state(), Release(4, "pg1", "", Position(2, 5))).last_known == Position(2, LSN)


@pytest.mark.parametrize(
    "command",
    [Depose(3, ""), Depose(5, ""), Release(3, "pg1", ""), Release(4, "pg2", ""), NotePosition(3, Position(2, LSN + 9))],
    ids=str,
)
def test_a_step_for_another_epoch_is_refused(command):
    assert refused(state(), command) == "epoch.moved"


def test_the_last_known_position_never_goes_back():
    assert done(state(), NotePosition(4, Position(2, LSN + 1))).last_known == Position(2, LSN + 1)
    assert refused(state(), NotePosition(4, Position(2, LSN - 1))) == "position.old"
    assert refused(state(), NotePosition(4, Position(1, LSN + 1))) == "position.old"


# Elections


def test_an_election_takes_a_new_number_and_the_later_last_known_position():
    before = state(lease=LeaseStatus.EXPIRED)
    after = done(before, OpenElection(5, 4, "why", "pg2", Position(2, LSN + 5)))

    assert (after.epoch, after.election, after.last_known) == (5, Election(5, "why", "pg2"), Position(2, LSN + 5))
    assert done(before, OpenElection(5, 4, "why", "", Position(2, 0))).last_known == Position(2, LSN)
    assert done(after, OpenElection(6, 4, "again")).election.number == 6


@pytest.mark.parametrize(
    ("before", "command", "code"),
    [
        (state(), OpenElection(5, 4, ""), "lease.held"),
        (ANNOUNCED, OpenElection(1, 0, ""), "cluster.uninitialised"),
        (vacant(), OpenElection(6, 3, ""), "epoch.moved"),
        (vacant(), OpenElection(5, 4, ""), "election.number"),
        (vacant(), OpenElection(4, 4, ""), "election.number"),
    ],
)
def test_an_election_is_refused(before, command, code):
    assert refused(before, command) == code


def test_an_appointment_ends_the_election_and_assigns_the_timeline():
    after = done(vacant(), appoint("pg2", vote("pg2"), vote("pg3", LSN - 1)))

    assert (after.primary, after.epoch, after.election) == ("pg2", 5, None)
    assert after.appointment.start == Position(2, LSN)
    assert not after.appointment.opened
    assert after.appointment.holders == {"pg1", "pg2"}, "the voters at the winning position, and the previous primary"
    assert after.timelines[-1].number == 3
    assert after.timelines[-1].switch_lsn is None
    assert (after.history[-1].change, after.history[-1].previous) == (Change.FAILOVER, "pg1")


def test_the_same_node_may_be_appointed_again_under_a_new_epoch():
    after = done(vacant(), appoint("pg1", vote("pg1")))

    assert (after.primary, after.appointment.epoch, after.appointment.timeline) == ("pg1", 5, 3)
    assert after.history[-1].change is Change.REAPPOINTED


@pytest.mark.parametrize(
    ("before", "command", "code"),
    [
        (state(), appoint("pg2", vote("pg2")), "election.moved"),
        (vacant(), appoint("pg2", vote("pg2", election=4), election=4), "election.moved"),
        (vacant(), appoint("pg2", vote("pg2", election=4)), "election.other"),
        (vacant(), appoint("pg2", vote("pg2"), timeline=2), "timeline.used"),
        (vacant(), appoint("pg2", vote("pg2"), timeline=4), "timeline.used"),
        (vacant(), appoint("pg2", vote("pg3")), "candidate.no_vote"),
        (vacant(), appoint("pg2"), "candidate.no_vote"),
        (vacant(), appoint("pg2", vote("pg2"), vote("pg2")), "election.double_vote"),
        (vacant(), appoint("pg2", vote("pg2", LSN - 1), vote("pg3")), "candidate.behind"),
        (vacant(), appoint("pg2", vote("pg2", timeline=1), vote("pg3", 0)), "candidate.behind"),
        (vacant(), appoint("pg2", vote("pg2", LSN - LIMIT - 1)), "candidate.lagging"),
        (vacant(), appoint("pg2", vote("pg2", SWITCH + 1, timeline=1)), "candidate.timeline"),
        (vacant(), appoint("pg2", vote("pg2", incarnation="older")), "candidate.incarnation"),
        (vacant(), appoint("pg2", vote("pg2", incarnation="")), "candidate.incarnation"),
        (vacant(), appoint("pg2", vote("pg2", timeline=3)), "candidate.timeline"),
        (vacant(), appoint("pg9", vote("pg9")), "member.unknown"),
        (with_members(vacant(), member("pg2", rebuilding=True)), appoint("pg2", vote("pg2")), "candidate.no_data"),
        (with_members(vacant(), member("pg2", NodeRole.WITNESS)), appoint("pg2", vote("pg2")), "candidate.no_data"),
        (vacant(lease=LeaseStatus.HELD), appoint("pg2", vote("pg2")), "lease.held"),
        # T4: a change of S commits just before the appointment.
        (vacant(sync=(sync(1, "pg3"),)), appoint("pg2", vote("pg2")), "quorum.votes_missing"),
        # T5: while a change is joint the smallest k counts, and 0 means that the primary alone may have acknowledged.
        (vacant(sync=(sync(1, "pg2"), sync(0, version=2))), appoint("pg2", vote("pg2")), "quorum.votes_missing"),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_an_appointment_is_refused(before, command, code):
    assert refused(before, command) == code


def test_r10_the_limit_of_lag_is_inclusive():
    assert done(vacant(), appoint("pg2", vote("pg2", LSN - LIMIT))).primary == "pg2"


def test_r10_a_node_at_the_end_of_the_previous_timeline_lacks_only_what_came_after():
    short = vacant(last_known=Position(2, SWITCH + LIMIT))

    assert done(short, appoint("pg2", vote("pg2", SWITCH, timeline=1))).primary == "pg2"
    assert refused(short, appoint("pg2", vote("pg2", SWITCH - 1, timeline=1))) == "candidate.lagging"


# Promotion


APPOINTED = done(vacant(), appoint("pg2", vote("pg2")))


def test_a_promotion_is_recorded_once_with_its_switch_point():
    after = done(APPOINTED, Promoted(5, "pg2", 3, 2, LSN + 8))

    assert after.appointment.opened
    assert after.timelines[-1].switch_lsn == LSN + 8
    assert after.timelines[-1].parent == 2
    assert after.last_known == Position(3, LSN + 8)
    assert after.history[-1].lsn == LSN + 8
    assert refused(after, Promoted(5, "pg2", 3, 2, LSN + 9)) == "timeline.recorded"


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (Promoted(4, "pg2", 3, 2, LSN), "epoch.moved"),
        (Promoted(5, "pg1", 3, 2, LSN), "epoch.moved"),
        (Promoted(5, "pg2", 4, 2, LSN), "timeline.wrong"),
        (Promoted(5, "pg2", 3, 3, LSN), "timeline.parent"),
        (Promoted(5, "pg2", 3, 7, LSN), "timeline.parent"),
    ],
)
def test_a_promotion_is_refused(command, code):
    """A parent at or above its child would make a circle of history, and every walk along it endless."""
    assert refused(APPOINTED, command) == code


# Rebuilding (R13)


def test_r13_a_rebuild_takes_the_vote_and_the_hold_until_it_is_complete():
    begun = done(state(), Rebuild("pg3"))

    assert begun.members["pg3"].rebuilding
    assert begun.members["pg3"].incarnation == ""
    assert begun.appointment.holders == {"pg1"}
    complete = done(begun, Rebuilt("pg3", "inc-new"))
    assert not complete.members["pg3"].rebuilding
    assert complete.members["pg3"].incarnation == "inc-new"
    assert complete.appointment.holders == {"pg1"}, "a clone may lack what this very node had acknowledged (T11)"


def test_t11_a_vote_cast_before_the_rebuild_counts_no_more():
    rebuilt = done(done(vacant(), Rebuild("pg2")), Rebuilt("pg2", "inc-new"))

    assert refused(rebuilt, appoint("pg2", vote("pg2"))) == "candidate.incarnation"


@pytest.mark.parametrize(
    ("before", "command", "code"),
    [
        (state(), Rebuild("pg1"), "rebuild.last_primary"),
        (vacant(), Rebuild("pg1"), "rebuild.last_primary"),
        (state(), Rebuild("pg9"), "member.unknown"),
        (state(sync=(sync(1, "pg2", "pg3"),)), Rebuild("pg3"), "rebuild.synchronous"),
        (state(sync=(sync(1, "pg3"), sync(1, "pg2", version=2))), Rebuild("pg3"), "rebuild.synchronous"),
        (state(), Rebuilt("pg3", "inc-new"), "rebuild.not_begun"),
        (state(), Rebuilt("pg9", "inc-new"), "member.unknown"),
    ],
)
def test_r13_a_rebuild_is_refused(before, command, code):
    assert refused(before, command) == code


# Recovery of a lost majority (R13a)

KEPT = {"pg2": "inc-pg2"}


def test_r13a_whose_data_was_not_kept_has_none_and_the_lease_stays_as_it_was():
    after = done(state(), Recovered(7, {**KEPT, "pg9": ""}))

    assert (after.recovery.number, after.recovery.kept) == (7, KEPT)
    assert {m.name: m.incarnation for m in after.members.values()} == {"pg1": "", "pg2": "inc-pg2", "pg3": ""}
    assert (after.appointment.holders, after.appointment.node, after.lease) == (frozenset(), "pg1", LeaseStatus.HELD)
    assert after.epoch == state().epoch


def test_r13a_a_vote_of_data_that_was_not_kept_counts_no_more():
    after = done(vacant(), Recovered(7, KEPT))

    assert refused(after, appoint("pg3", vote("pg3", LSN + 100))) == "candidate.incarnation"
    assert refused(after, appoint("pg2", vote("pg2"), vote("pg3"))) == "candidate.incarnation"
    assert done(after, appoint("pg2", vote("pg2"))).appointment.node == "pg2"


def test_r13a_a_directory_counts_by_its_number_or_by_having_been_kept():
    after = done(state(), Recovered(7, KEPT))

    assert [after.counts("inc-new", number) for number in (0, 6, 7, 8)] == [False, False, True, False]
    assert after.counts("", 7), "without an id it can be rebuilt"
    assert after.counts("inc-pg2", 0)
    assert not after.counts("", 0)
    assert state().counts("", 0), "where there was no recovery nothing has changed"
    assert not state().counts("inc-new", 7), "of a cluster that was recovered: this one was not"


def test_r13a_a_second_recovery_keeps_what_it_says_and_forgets_the_first():
    first = done(done(state(), Recovered(7, KEPT)), Rebuild("pg3"))
    whole = done(first, Rebuilt("pg3", "inc-new"))
    second = done(whole, Recovered(9, {"pg3": "inc-new"}))

    assert {m.name: m.incarnation for m in second.members.values()} == {"pg1": "", "pg2": "", "pg3": "inc-new"}
    assert second.counts("inc-new", 7)
    assert not second.counts("inc-pg2", 7)
    for number in (7, 8, 9):
        assert refused(second, Recovered(number, KEPT)) == "recovery.old"


# Configuration


def test_a_configuration_is_replaced_by_version():
    after = done(state(), SetConfig(1, {"ttl": "9s"}))

    assert (after.config.version, after.config.document) == (2, {"ttl": "9s"})
    assert refused(after, SetConfig(1, {"ttl": "8s"})) == "config.version"
    assert refused(after, SetConfig(2, {"tttl": "8s"})) == "config.invalid"


def zoned(**zones):
    return {**state().members, **{name: member(name, tags={"zone": zone}) for name, zone in zones.items()}}


def test_a_zone_that_the_configuration_does_not_name_is_refused_wherever_it_is_said():
    """Misspelt it would pass for a place that nothing else shares."""
    two = done(state(members=zoned(pg1="east", pg2="west")), SetConfig(1, {"zones": ["east", "west"]}))
    refusal = apply(two, Announce(member("pg3", tags={"zone": "wst"}))).refused
    assert refusal.startswith(
        "member.zone: zone 'wst' of pg3 is none of the configuration's zones: east, west; did you"
    )
    assert done(two, Announce(member("pg3", tags={"zone": "west"}))).members["pg3"].tags == {"zone": "west"}
    assert apply(two, Announce(member("pg3"))).refused is None
    assert "zone 'west' of pg2" in apply(two, SetConfig(2, {"zones": ["east"]})).refused
    assert apply(two, SetConfig(2, {})).refused is None, "without the setting they are what members say"
    for strange in ("east", ["a b"], [1], {"east": 1}):
        assert refused(two, SetConfig(2, {"zones": strange})) == "config.invalid"
