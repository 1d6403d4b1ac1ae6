"""What `decide` never does, whatever it sees: states from walks of real commands, observations from choices."""

from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.cluster.commands import FinishBootstrap, Rebuild, Rebuilt, Release
from appliance.cluster.state import LeaseStatus, NodeRole
from appliance.ha.actions import (
    BeginNotes,
    Clone,
    Decision,
    EndStray,
    Follow,
    ForgetIncarnation,
    Initialise,
    MarkDirectory,
    NoteFenced,
    Pledge,
    Promote,
    Propose,
    Rewind,
    StartPrimary,
    StartStandby,
    StopPostgres,
)
from appliance.ha.decide import RULES, cast_vote, decide, wants_lease
from appliance.ha.seen import DirectoryKind
from appliance.node.report import make_report
from tests.unit.cluster.building import Tape

from .building import POLICY, is_open_primary, some_observation, some_state

NAMES_OF_RULES = {r.__name__ for r in RULES} | {"wait_for_log", "at_rest"}
tapes = st.binary(min_size=40, max_size=160)


def check(present, seen):
    decision = decide(present, seen, POLICY)
    assert decision == decide(present, seen, POLICY)
    assert isinstance(decision, Decision)
    assert decision.because
    assert decision.rule in NAMES_OF_RULES
    for promise in PROMISES:
        promise(present, seen, decision.actions)
    return decision


def may_be_primary(present, seen, enough_s=POLICY.fence_below_s):
    """R4, R5 in the words of docs/safety.md, apart from how the code asks."""
    held, lease = present.appointment, seen.lease
    return (
        held is not None
        and held.node == seen.me.name
        and present.lease is LeaseStatus.HELD
        and present.election is None
        and held.epoch > seen.notes.fenced_epoch
        and held.epoch >= seen.notes.pledge
        and lease is not None
        and lease.epoch == held.epoch
        and lease.left_s > enough_s
    )


def behind(present, seen):
    """Its notes say that more was decided, or its log that the cluster went on from a minority since."""
    if seen.log_incarnation > present.recovery.number:
        return True
    same_history = not present.initialised or seen.notes.recovery == present.recovery.number
    epoch = present.appointment.epoch if present.appointment else 0
    return same_history and (epoch < seen.notes.epoch or present.sync_now.version < seen.notes.sync_version)


def may_be_writable(seen):
    """One that gives no answer may be: then its signal file says what it was started as."""
    standby = seen.instance.in_recovery if seen.instance is not None else seen.directory.standby_signal
    return seen.postmaster is not None and not standby


def no_writable_primary_without_a_lease_keeps_running(present, seen, actions):
    """Behind its own notes a node waits for the log, and before its first contact for that; its guard does not."""
    if behind(present, seen):
        return
    enough_s = POLICY.fence_below_s if seen.contact_s is not None else POLICY.guard_margin_s
    held, answer = present.appointment, seen.instance
    writable = seen.postmaster is not None and answer is not None and not answer.in_recovery
    if writable and held is not None and not may_be_primary(present, seen, enough_s):
        assert any(isinstance(a, StopPostgres | EndStray) for a in actions)


def no_primary_begins_without_a_lease(present, seen, actions):
    for action in actions:
        if isinstance(action, StartPrimary | Promote):
            assert may_be_primary(present, seen)
            assert action.epoch == present.appointment.epoch
        if isinstance(action, Promote):
            start = present.appointment.start
            assert (seen.instance.timeline, seen.instance.lsn) >= (start.timeline, start.lsn)
            assert action.timeline == present.appointment.timeline
        if isinstance(action, StartPrimary):
            assert seen.directory.incarnation == present.appointment.incarnation
            assert seen.directory.system_identifier == present.system_identifier


def a_pledged_node_takes_wal_from_nobody(present, seen, actions):
    for action in actions:
        if isinstance(action, Follow | StartStandby) and action.upstream:
            assert present.election is None
            assert seen.notes.pledge <= present.appointment.epoch
            assert action.upstream == present.appointment.node != seen.me.name
            assert present.appointment.opened
            assert present.members[action.upstream].incarnation == present.appointment.incarnation, "R13a"


def data_is_replaced_only_after_rebuild_and_from_another_open_primary(present, seen, actions):
    for action in actions:
        if isinstance(action, Clone | Rewind):
            assert present.members[seen.me.name].rebuilding
            assert is_open_primary(present)
            assert action.source == present.appointment.node != seen.me.name
            assert present.members[action.source].incarnation == present.appointment.incarnation, "R13a"
            assert seen.postmaster is None
            assert not seen.directory.incarnation
            assert seen.directory.kind is not DirectoryKind.FOREIGN


def initdb_never_meets_data(present, seen, actions):
    if Initialise() in actions:
        assert seen.directory.kind in {DirectoryKind.MISSING, DirectoryKind.EMPTY}
        assert not present.initialised
        assert present.bootstrap.node == seen.me.name


def the_appointed_primary_never_rebuilds(present, seen, actions):
    rebuilds = [a for a in actions if isinstance(a, Clone | Rewind | ForgetIncarnation)]
    rebuilds += [a for a in actions if isinstance(a, Propose) and isinstance(a.command, Rebuild)]
    if rebuilds:
        assert present.appointment.node != seen.me.name


def the_incarnation_is_forgotten_before_others_hear_of_the_rebuild(present, seen, actions):
    for n, action in enumerate(actions):
        if isinstance(action, Propose) and isinstance(action.command, Rebuild):
            assert ForgetIncarnation() in actions[:n]


def a_lease_is_given_back_only_of_an_epoch_that_is_noted_as_over(present, seen, actions):
    for n, action in enumerate(actions):
        if isinstance(action, Propose) and isinstance(action.command, Release):
            epoch = action.command.epoch
            assert seen.notes.fenced_epoch >= epoch or NoteFenced(epoch) in actions[:n]
            assert not may_be_writable(seen)
            assert not seen.directory.stray_pid


def a_node_behind_its_notes_or_its_log_does_nothing(present, seen, actions):
    if behind(present, seen):
        assert actions == ()


def another_history(present, seen):
    """R13a in the words of docs/safety.md: neither written after the last recovery nor kept by it."""
    directory, last = seen.directory, present.recovery
    if not present.initialised or directory.kind is not DirectoryKind.CLUSTER or directory.problem:
        return False
    return directory.recovery != last.number and directory.incarnation not in last.kept.values()


def what_is_of_another_history_serves_nobody(present, seen, actions):
    if behind(present, seen) or not another_history(present, seen) or seen.directory.stray_pid:
        return
    if seen.postmaster is not None:
        stops = any(isinstance(action, StopPostgres) for action in actions)
        assert stops or seen.stopping_s is not None
        assert all(isinstance(action, StopPostgres | NoteFenced) for action in actions)
    never = StartPrimary | StartStandby | Promote | Follow | Clone | Rewind | ForgetIncarnation | MarkDirectory
    assert not [action for action in actions if isinstance(action, never)]
    for action in actions:
        assert not isinstance(action, BeginNotes) or not action.keep
        if isinstance(action, Propose):
            assert not isinstance(action.command, Rebuild | Rebuilt | FinishBootstrap)
            assert not isinstance(action.command, Release) or action.command.position is None


def notes_hold_on_with_the_data_that_was_kept_and_only_then(present, seen, actions):
    for action in actions:
        if isinstance(action, BeginNotes):
            assert action.recovery == present.recovery.number != seen.notes.recovery
            kept = seen.directory.incarnation != "" and seen.directory.incarnation in present.recovery.kept.values()
            assert action.keep == kept
            assert kept or seen.postmaster is None, "nothing runs that the guard would have to end"
    if present.initialised and seen.notes.recovery != present.recovery.number:
        assert not [action for action in actions if isinstance(action, Pledge | StartPrimary | Promote | StartStandby)]


def a_pledge_never_goes_back(present, seen, actions):
    for action in actions:
        if isinstance(action, Pledge):
            assert action.election == present.election.number > seen.notes.pledge


def a_witness_runs_no_postgresql(present, seen, actions):
    known = present.members.get(seen.me.name)
    if known is not None and known.role is NodeRole.WITNESS and present.initialised:
        assert not [a for a in actions if isinstance(a, StartStandby | Clone | Rewind | Follow | Pledge | Initialise)]


def a_job_is_not_disturbed(present, seen, actions):
    if seen.job is not None and seen.job.running:
        assert not [a for a in actions if isinstance(a, StartStandby | StartPrimary | Clone | Rewind | Initialise)]


def nobody_opens_without_a_required_watchdog(present, seen, actions):
    """A promotion under way is the guard's to refuse; without contact it refuses a start too."""
    watchdog = seen.watchdog
    if watchdog is not None and watchdog.required and watchdog.problem and seen.contact_s is not None:
        assert not [a for a in actions if isinstance(a, StartPrimary)]
        assert seen.promoting_s is not None or not [a for a in actions if isinstance(a, Promote)]


PROMISES = (
    nobody_opens_without_a_required_watchdog,
    no_writable_primary_without_a_lease_keeps_running,
    no_primary_begins_without_a_lease,
    a_pledged_node_takes_wal_from_nobody,
    data_is_replaced_only_after_rebuild_and_from_another_open_primary,
    initdb_never_meets_data,
    the_appointed_primary_never_rebuilds,
    the_incarnation_is_forgotten_before_others_hear_of_the_rebuild,
    a_lease_is_given_back_only_of_an_epoch_that_is_noted_as_over,
    a_node_behind_its_notes_or_its_log_does_nothing,
    what_is_of_another_history_serves_nobody,
    notes_hold_on_with_the_data_that_was_kept_and_only_then,
    a_pledge_never_goes_back,
    a_witness_runs_no_postgresql,
    a_job_is_not_disturbed,
)


@settings(max_examples=1000, deadline=None)
@given(tapes)
def test_decide_keeps_every_promise(choices):
    tape = Tape(choices)
    present = some_state(tape)
    check(present, some_observation(present, tape))


def test_decide_keeps_every_promise_over_many_random_situations():
    spoke = set()
    for seed in range(60_000):
        tape = Tape(Random(seed).randbytes(176))
        present = some_state(tape)
        spoke.add(check(present, some_observation(present, tape)).rule)
    assert spoke >= NAMES_OF_RULES - {"initialise"}, "a rule that never spoke was not tried"


@settings(max_examples=500, deadline=None)
@given(tapes)
def test_a_vote_and_a_renewal_are_consistent_with_the_state(choices):
    tape = Tape(choices)
    present = some_state(tape)
    seen = some_observation(present, tape)
    vote, epoch = cast_vote(present, seen), wants_lease(present, seen)

    awaits = seen.log_incarnation > present.recovery.number
    if another_history(present, seen) or awaits:
        assert vote is None
        assert epoch is None or awaits
        report = make_report(present, seen, None, "")
        assert (report.vote, report.incarnation, report.timeline, report.lsn) == (None, "", 0, 0)
        assert report.in_recovery is None
    if vote is not None:
        assert seen.directory.system_identifier == present.system_identifier
        assert vote.election == present.election.number == seen.notes.pledge
        assert seen.instance.in_recovery
        assert not seen.instance.receiver_running
        assert vote.incarnation == seen.directory.incarnation == present.members[seen.me.name].incarnation
    if epoch is not None:
        assert present.primary == seen.me.name
        assert epoch == present.appointment.epoch > seen.notes.fenced_epoch
