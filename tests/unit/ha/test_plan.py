"""Every rule of `plan` has its case; when it deposes, whom it appoints and waits for, and how a switchover goes."""

from dataclasses import replace
from random import Random

import pytest

from appliance.cluster.apply import apply
from appliance.cluster.commands import AdvanceOperation, Appoint, Depose, NotePosition, OpenElection, RaiseFormat
from appliance.cluster.config import policy_in_force
from appliance.cluster.state import (
    ASYNCHRONOUS,
    Election,
    LeaseStatus,
    NodeRole,
    OperationKind,
    Phase,
    Position,
    SyncSet,
    Timeline,
)
from appliance.ha.checks import FRESH_S
from appliance.ha.choice import TARGET_WAIT_S
from appliance.ha.electing import VOTES_WAIT_S
from appliance.ha.operating import CHECKPOINT_WAIT_S
from appliance.ha.plan import NOTE_EVERY_S, RULES, plan
from appliance.ha.seen import LeaderSeen, Notes, WatchdogSeen
from appliance.ha.situation import Plan
from tests.unit.cluster.building import (
    LSN,
    NAMES,
    Tape,
    appoint,
    contested,
    member,
    state,
    sync,
    synchronous,
    vacant,
    vote,
    with_members,
)

from .building import (
    ALL,
    APPOINTED,
    AT,
    HEARD_AT,
    POLICY,
    WAITING,
    heard,
    operation,
    report,
    situation,
    some_state,
    streaming,
)

EXPIRED = state(lease=LeaseStatus.EXPIRED)
DEPOSE_S = POLICY.depose_after_s


def voted(*votes, **ages):
    """Fresh reports of these voters."""
    reports = heard(*(report(v.node, vote=v, in_recovery=True, streaming=False) for v in votes))
    return {n: replace(r, age_s=ages.get(n, r.age_s)) for n, r in reports.items()}


def targeted(target="pg2", **changes):
    return vacant(
        election=Election(5, "switchover op1", target), operations=(operation(Phase.ELECTING, target),), **changes
    )


def knowing(*formats, **ages):
    """Fresh reports of members that know formats up to these."""
    reports = heard(*(report(name, format=number) for name, number in zip(NAMES, formats, strict=False)))
    return {n: replace(r, age_s=ages.get(n, r.age_s)) for n, r in reports.items()}


def commands(now):
    return list(plan(now).commands)


CASES = {
    "number_recovery": situation(log_incarnation=7),
    "depose_silent_primary": situation(confirmed_s=DEPOSE_S + 0.01),
    "open_election": situation(EXPIRED),
    "advance_operation": situation(replace(vacant(), operations=(operation(Phase.STOPPING),))),
    "drop_target": situation(targeted(), {}, election_s=TARGET_WAIT_S + 0.1),
    "appoint": situation(vacant(), voted(vote("pg2"), vote("pg3"))),
    "change_sync": situation(synchronous(sync(0)), streaming("pg2", "pg3"), policy=WAITING),
    "finish_removal": situation(with_members(state(), member("pg2", leaving=True))),
    "raise_format": situation(reports=knowing(2, 3, 2)),
    "note_position": situation(reports=heard(report("pg1", lsn=LSN + 1)), noted_s=NOTE_EVERY_S),
}


def test_every_rule_has_its_case():
    assert list(CASES) == [r.__name__ for r in RULES]


@pytest.mark.parametrize("name", CASES)
def test_each_rule_answers_its_own_case_with_a_command_that_apply_takes(name):
    now = CASES[name]
    answer = plan(now)

    assert answer.rule == name
    (command,) = answer.commands
    assert apply(now.state, command).refused is None


def test_a_healthy_cluster_needs_nothing():
    assert plan(situation()) == Plan("nothing to do")


# Deposing (R3, R10)


@pytest.mark.parametrize(
    ("leader", "deposed"),
    [
        ({"confirmed_s": DEPOSE_S}, False),
        ({"confirmed_s": DEPOSE_S + 0.01}, True),
        # A new raft leader forgets older notes and waits a full ttl from its own election.
        ({"confirmed_s": None, "leading_s": DEPOSE_S - 0.1, "epoch_s": 99.0}, False),
        ({"confirmed_s": None, "leading_s": DEPOSE_S + 0.1, "epoch_s": 99.0}, True),
        # Right after an appointment the new primary has had no time to renew.
        ({"confirmed_s": None, "leading_s": 99.0, "epoch_s": DEPOSE_S - 0.1}, False),
        ({"confirmed_s": None, "leading_s": 99.0, "epoch_s": DEPOSE_S + 0.1}, True),
        ({"confirmed_s": DEPOSE_S + 0.1, "leading_s": 0.0, "epoch_s": 0.0}, True),
    ],
    ids=str,
)
def test_r3_only_a_full_ttl_without_a_confirmation_deposes(leader, deposed):
    expected = [Depose] if deposed else []

    assert [type(c) for c in commands(situation(**leader))] == expected


def test_r3_what_the_reports_say_does_not_matter():
    assert commands(situation(reports={})) == []
    assert type(commands(situation(confirmed_s=DEPOSE_S + 1))[0]) is Depose


def test_a_lease_that_is_gone_is_not_deposed_again():
    assert commands(situation(vacant(), {}, confirmed_s=None)) == []


# Elections (R10)


def test_an_election_takes_the_next_number_and_the_last_report_of_the_primary():
    last = heard(report("pg1", lsn=LSN + 9), age_s=30.0)
    (command,) = commands(situation(replace(EXPIRED, epoch=7), last))

    position = Position(2, LSN + 9)
    assert command == OpenElection(8, 4, "the lease of epoch 4 is expired", "", position, HEARD_AT, AT)


@pytest.mark.parametrize("change", [{"in_recovery": True}, {"in_recovery": None}, {"timeline": 1}])
def test_only_what_it_reported_as_the_primary_counts_as_its_position(change):
    (command,) = commands(situation(EXPIRED, heard(report("pg1", lsn=LSN + 9, **change))))

    assert command.last_known is None


def test_an_election_has_the_target_of_the_operation_of_its_epoch_only():
    moving = replace(EXPIRED, operations=(operation(Phase.ELECTING),))
    stale = replace(EXPIRED, operations=(operation(Phase.PROMOTING, epoch=3),))

    assert commands(situation(moving))[0].target == "pg2"
    assert plan(situation(moving)).because.startswith("switchover op1")
    assert apply(state(), commands(situation(stale))[0]).refused is not None
    assert [c.target for c in commands(situation(stale)) if isinstance(c, OpenElection)] in ([], [""])


# Appointing


def winner(*votes, present=None, **leader):
    answer = plan(situation(present or vacant(), voted(*votes), **leader))
    return answer.commands[0].node if answer.commands else None


def test_the_highest_vote_wins():
    assert winner(vote("pg2"), vote("pg3", LSN + 1)) == "pg3"
    assert winner(vote("pg2", 5), vote("pg3", LSN, timeline=1), election_s=9.0) is None, "both lag too far"
    assert winner(vote("pg1", LSN + 5), vote("pg2"), vote("pg3")) == "pg1", "the old primary may have the most"


def test_of_equal_votes_priority_then_the_first_name_wins():
    preferred = with_members(vacant(), member("pg3", tags={"failover_priority": 2}))

    assert winner(vote("pg2"), vote("pg3"), present=preferred) == "pg3"
    assert (
        winner(vote("pg2"), vote("pg3"), present=with_members(vacant(), member("pg3", tags={"failover_priority": "9"})))
        == "pg2"
    )
    assert winner(vote("pg2"), vote("pg3")) == "pg2"
    assert winner(vote("pg2", LSN + 1), vote("pg3"), present=preferred) == "pg2", "a position is worth more"


def test_of_equal_votes_a_node_that_was_appointed_and_did_not_open_comes_last():
    """Its disk may be full: it would win again and again, with healthy nodes standing by."""
    once = (*state().timelines, Timeline(3, 5, "pg2", 2))
    twice = (*once, Timeline(4, 6, "pg3", 2), Timeline(5, 7, "pg2", 2))
    opened = (*once, Timeline(4, 6, "pg3", 2, LSN))
    ballot = (vote("pg2"), vote("pg3"))

    assert winner(*ballot) == "pg2"
    assert winner(*ballot, present=vacant(timelines=once)) == "pg3"
    assert winner(*ballot, present=vacant(timelines=twice)) == "pg3", "who failed least often"
    assert winner(*ballot, present=vacant(timelines=opened)) == "pg2", "an opening since then ends the count"
    behind = (vote("pg2", LSN + 1), vote("pg3"))
    assert winner(*behind, present=vacant(timelines=once)) == "pg2", "what only it has is not lost for that"


def test_the_appointment_carries_all_votes_the_next_timeline_and_the_reason():
    (command,) = commands(situation(vacant(), voted(vote("pg3", LSN - 1), vote("pg2"))))

    reason = "the lease is expired; pg2 has the highest of 2 votes"
    assert command == Appoint(5, "pg2", (vote("pg2"), vote("pg3", LSN - 1)), 3, ASYNCHRONOUS, reason, AT)


def test_a_known_live_voter_is_waited_for_but_not_for_long():
    reports = voted(vote("pg2")) | heard(report("pg3"))

    assert commands(situation(vacant(), reports, election_s=VOTES_WAIT_S)) == []
    assert "waits for the votes of pg3" in plan(situation(vacant(), reports, election_s=0.1)).because
    assert commands(situation(vacant(), reports, election_s=VOTES_WAIT_S + 0.01))[0].node == "pg2"


@pytest.mark.parametrize(
    "absent",
    [
        {},
        heard(report("pg3"), age_s=2.1),
        heard(report("pg4")),
    ],
    ids=["never heard", "long silent", "no member"],
)
def test_nobody_waits_for_a_voter_that_is_not_known_to_live(absent):
    assert commands(situation(vacant(), voted(vote("pg2")) | absent, election_s=0.0))[0].node == "pg2"


@pytest.mark.parametrize("other", [member("pg3", NodeRole.WITNESS), member("pg3", rebuilding=True)])
def test_nobody_waits_for_a_node_without_data(other):
    present = with_members(vacant(), other)

    assert commands(situation(present, voted(vote("pg2")) | heard(report("pg3"))))[0].node == "pg2"


def test_nobody_waits_for_a_node_tagged_nofailover():
    present = with_members(vacant(), member("pg3", tags={"nofailover": True}))

    assert commands(situation(present, voted(vote("pg2"), vote("pg3")), election_s=0.0))[0].node == "pg2"


def test_a_vote_of_another_election_or_directory_does_not_count():
    assert winner(vote("pg2", election=4), vote("pg3"), election_s=2.0) == "pg3"
    assert winner(vote("pg2", LSN + 1, incarnation="older"), vote("pg3"), election_s=2.0) == "pg3"
    assert winner(vote("pg2", election=4), election_s=2.0) is None


def test_a_node_tagged_nofailover_neither_wins_nor_sets_the_mark():
    kept_out = with_members(vacant(), member("pg3", tags={"nofailover": True}))

    assert winner(vote("pg2"), vote("pg3", LSN + 1), present=kept_out, election_s=2.0) == "pg2"
    assert winner(vote("pg3", LSN + 1), present=kept_out, election_s=2.0) is None


def without_watchdog(name, *votes, required=True):
    heard_of = voted(*votes)
    watchdog = WatchdogSeen("/dev/watchdog", required, problem="/dev/watchdog: absent")
    return heard_of | {name: replace(heard_of[name], report=replace(heard_of[name].report, watchdog=watchdog))}


def test_r4_a_node_without_its_required_watchdog_neither_wins_nor_sets_the_mark():
    both = without_watchdog("pg3", vote("pg2"), vote("pg3", LSN + 1))
    assert commands(situation(vacant(), both, election_s=2.0))[0].node == "pg2"
    alone = plan(situation(vacant(), without_watchdog("pg3", vote("pg3")), election_s=9.0))
    assert alone.commands == ()
    assert "pg3: candidate.watchdog: /dev/watchdog: absent" in alone.because
    automatic = without_watchdog("pg3", vote("pg2"), vote("pg3", LSN + 1), required=False)
    assert commands(situation(vacant(), automatic, election_s=2.0))[0].node == "pg3"


def test_r4_a_synchronous_standby_without_its_required_watchdog_votes_and_is_not_chosen():
    """R7: its vote shows what was acknowledged. If it alone has everything, everybody waits for its watchdog."""
    present = synchronous(election=Election(5, "pg1 is silent"), lease=LeaseStatus.EXPIRED, epoch=5)
    ahead = without_watchdog("pg2", vote("pg2", LSN + 1), vote("pg3"))
    waits = plan(situation(present, ahead, election_s=9.0))
    assert waits.commands == ()
    assert "pg2: candidate.watchdog" in waits.because
    assert "pg3: candidate.behind" in waits.because
    level = without_watchdog("pg2", vote("pg2"), vote("pg3"))
    (command,) = commands(situation(present, level, election_s=9.0))
    assert command.node == "pg3"
    assert {v.node for v in command.votes} == {"pg2", "pg3"}


def test_an_election_that_nobody_can_win_says_why():
    assert plan(situation(vacant(), {})).because == "election 5: no vote has arrived"
    stuck = plan(situation(vacant(), voted(vote("pg2", 0)), election_s=9.0))
    assert stuck.commands == ()
    assert "pg2: candidate.lagging: 50331648 bytes behind the last known position" in stuck.because


def test_failover_with_a_dead_primary_step_by_step():
    """Silence, a full ttl, an election, two votes, an appointment: pg1 is never asked."""
    others = heard(report("pg2", vote=None), report("pg3"))
    present = state()
    for leader, reports, kind in (
        ({"confirmed_s": DEPOSE_S + 0.1}, others, Depose),
        ({}, others, OpenElection),
        ({"election_s": 0.2}, voted(vote("pg2"), vote("pg3", LSN - 9)), Appoint),
    ):
        (command,) = commands(situation(present, reports, **leader))
        assert type(command) is kind
        applied = apply(present, command)
        assert applied.refused is None
        present = applied.state
    assert present.primary == "pg2"
    assert commands(situation(present, others, confirmed_s=None, epoch_s=0.1)) == []


# Switchovers


def steps(present, reports, **leader):
    return [(type(c), getattr(c, "phase", None)) for c in commands(situation(present, reports, **leader))]


def requested(**changes):
    return state(operations=(operation(**changes),))


def test_a_switchover_waits_for_the_checkpoint_then_stops_elects_and_promotes():
    checkpointed = ALL | heard(report("pg1", checkpointed_operation="op1"))
    stopping = apply(requested(), AdvanceOperation("op1", Phase.STOPPING, AT)).state
    down = replace(stopping, lease=LeaseStatus.RELEASED)
    ballot = voted(vote("pg2", LSN + 1), vote("pg3", LSN + 1))
    open_election = apply(down, commands(situation(down))[0]).state
    electing = apply(open_election, AdvanceOperation("op1", Phase.ELECTING, AT)).state
    appointed = apply(electing, commands(situation(electing, ballot))[0]).state
    promoting = apply(appointed, commands(situation(appointed, ballot))[0]).state
    opened = replace(promoting, appointment=replace(promoting.appointment, opened=True))

    assert steps(requested(), ALL, phase_s=1.0) == []
    assert steps(requested(), checkpointed) == [(AdvanceOperation, Phase.STOPPING)]
    assert steps(requested(), ALL, phase_s=CHECKPOINT_WAIT_S + 0.1) == [(AdvanceOperation, Phase.STOPPING)]
    assert steps(stopping, ALL) == []
    assert steps(open_election, ALL) == [(AdvanceOperation, Phase.ELECTING)], "nobody waits for the telling"
    assert open_election.election.target == "pg2"
    assert appointed.primary == "pg2"
    assert promoting.running_operation().phase is Phase.PROMOTING
    assert steps(promoting, ALL, epoch_s=1.0, confirmed_s=None) == []
    assert steps(opened, ALL) == [(AdvanceOperation, Phase.DONE)]


def test_a_switchover_to_nobody_in_particular_goes_to_the_best_other_node():
    anybody = targeted("")
    ballot = voted(vote("pg1", LSN), vote("pg2"), vote("pg3"))

    assert commands(situation(anybody, ballot))[0].node == "pg2"
    assert commands(situation(anybody, voted(vote("pg1")), election_s=2.0)) == []
    assert commands(situation(anybody, voted(vote("pg1")), election_s=TARGET_WAIT_S + 0.1))[0].node == "pg1"


@pytest.mark.parametrize(
    ("reports", "code"),
    [
        (ALL | heard(report("pg2", lsn=0)), "candidate.lagging"),
        (ALL | heard(report("pg2", streaming=False)), "candidate.streaming"),
        (ALL | heard(report("pg2"), age_s=2.5), "candidate.reachable"),
        (ALL | heard(report("pg2", running=False)), "candidate.reachable"),
        ({n: r for n, r in ALL.items() if n != "pg2"}, "candidate.reachable"),
    ],
)
def test_a_target_that_is_not_fit_fails_the_switchover_before_anything_was_changed(reports, code):
    (command,) = commands(situation(requested(), reports))

    assert command.phase is Phase.FAILED
    assert command.detail.startswith(code)


def test_a_switchover_whose_primary_falls_silent_fails_but_a_failover_waits_for_its_lease():
    silent = {n: r for n, r in ALL.items() if n != "pg1"}

    assert steps(requested(), silent, phase_s=CHECKPOINT_WAIT_S) == []
    assert steps(requested(), silent, phase_s=CHECKPOINT_WAIT_S + 1) == [(AdvanceOperation, Phase.FAILED)]
    assert steps(requested(kind=OperationKind.FAILOVER), silent, phase_s=CHECKPOINT_WAIT_S + 1) == []


def test_the_target_waits_for_the_last_record_of_the_old_primary_for_a_second():
    level = voted(vote("pg2", LSN), vote("pg3", LSN))

    assert "waits for pg2" in plan(situation(targeted(), level, election_s=0.5)).because
    assert commands(situation(targeted(), level, election_s=VOTES_WAIT_S + 0.1))[0].node == "pg2"
    assert commands(situation(targeted(), voted(vote("pg2", LSN + 1)), election_s=0.0))[0].node == "pg2"


def test_who_is_shut_down_neither_wins_nor_is_waited_for_by_the_next_commits():
    present = contested(sync(1, "pg2", "pg3"))
    ballot = [report(v.node, vote=v) for v in (vote("pg1"), vote("pg2"), vote("pg3"))]
    ends = heard(*(replace(said, ending=said.node in {"pg1", "pg2"}) for said in ballot))

    (chosen,) = commands(situation(present, ends, WAITING))
    assert (chosen.node, chosen.wanted) == ("pg3", SyncSet())
    assert len(chosen.votes) == 3, "its vote counts"
    everybody = heard(*(replace(said, ending=True) for said in ballot))
    assert commands(situation(present, everybody, WAITING)) == []
    (late,) = commands(situation(present, everybody, WAITING, election_s=TARGET_WAIT_S + 0.1))
    assert late.node == "pg1"


def test_a_switchovers_reason_is_in_the_history_of_what_came_of_it():
    released = replace(requested(), lease=LeaseStatus.RELEASED, operations=(operation(Phase.ELECTING),))
    (opened,) = commands(situation(released))

    assert opened.reason == "switchover op1 (patching): the lease of epoch 4 is released"


def test_others_wait_for_the_target_but_not_for_ever():
    others = voted(vote("pg1", LSN + 1), vote("pg3"))

    assert commands(situation(targeted(), others, election_s=TARGET_WAIT_S)) == []
    (again,) = commands(situation(targeted(), others, election_s=TARGET_WAIT_S + 0.1))
    assert again == OpenElection(6, 4, again.reason, at=AT)
    assert again.target == ""


@pytest.mark.parametrize(
    "ballot",
    [
        voted(vote("pg2", LSN), vote("pg3", LSN + 1)),
        voted(vote("pg2", LSN), vote("pg1", LSN + 1)),
        voted(vote("pg2", 0)),
    ],
    ids=["another standby is ahead", "the old primary is ahead", "it lags too far"],
)
def test_a_target_that_votes_but_cannot_win_does_not_keep_the_cluster_without_a_primary(ballot):
    assert commands(situation(targeted(), ballot, election_s=2.0)) == []
    (again,) = commands(situation(targeted(), ballot, election_s=TARGET_WAIT_S + 0.1))
    assert isinstance(again, OpenElection)
    assert again.target == ""


def test_a_switchover_that_ended_elsewhere_has_failed():
    elsewhere = replace(
        APPOINTED,
        appointment=replace(APPOINTED.appointment, opened=True),
        operations=(operation(Phase.PROMOTING, "pg3"),),
    )
    (command,) = commands(situation(elsewhere))

    assert (command.phase, command.detail) == (Phase.FAILED, "pg2 is primary on timeline 3, not pg3")


# Positions


@pytest.mark.parametrize(
    ("present", "reports", "noted_s", "expected"),
    [
        (state(), heard(report("pg1", lsn=LSN + 1)), NOTE_EVERY_S, [NotePosition(4, Position(2, LSN + 1), HEARD_AT)]),
        (state(), heard(report("pg1", lsn=LSN + 1)), NOTE_EVERY_S - 0.1, []),
        (state(), heard(report("pg1", lsn=LSN)), 99.0, []),
        (state(), heard(report("pg1", lsn=LSN - 1)), 99.0, []),
        (state(), heard(report("pg1", lsn=LSN + 1, timeline=1)), 99.0, []),
        (state(), heard(report("pg1", lsn=LSN + 1, in_recovery=True)), 99.0, []),
        (state(), heard(report("pg2", lsn=LSN + 1)), 99.0, []),
        (state(last_known=None), heard(report("pg1")), 99.0, [NotePosition(4, Position(2, LSN), HEARD_AT)]),
    ],
)
def test_the_position_of_the_primary_is_noted_while_it_moves(present, reports, noted_s, expected):
    assert commands(situation(present, reports, noted_s=noted_s)) == expected


# The step to a higher format


@pytest.mark.parametrize(
    ("present", "reports", "replicas", "expected"),
    [
        (state(), knowing(2, 3, 2), NAMES, [RaiseFormat(2)]),
        (state(format=2), knowing(4, 3, 5), NAMES, [RaiseFormat(3)]),
        (state(format=2), knowing(2, 3, 2), NAMES, []),
        (state(), knowing(2, 1, 2), NAMES, []),
        # Who is away may come back as it was: it is waited for, until it is removed.
        (state(), knowing(2, 2), NAMES, []),
        (state(), knowing(2, 2, 2, pg3=FRESH_S + 0.1), NAMES, []),
        (state(members={n: member(n) for n in ("pg1", "pg2")}), knowing(2, 2), ("pg1", "pg2"), [RaiseFormat(2)]),
        # Who joins belongs to consensus before it has announced itself.
        (state(), knowing(2, 2, 2), (*NAMES, "pg4"), []),
        (state(members={}), {}, (), []),
    ],
)
def test_the_format_is_raised_when_every_member_has_just_said_that_it_knows_it(present, reports, replicas, expected):
    now = situation(present, reports, replicas=frozenset(replicas), noted_s=0.0)

    assert [c for c in commands(now) if isinstance(c, RaiseFormat)] == expected


# Whatever the reports say


def test_plan_always_answers_and_the_same_twice():
    refusals = set()
    for seed in range(5000):
        tape = Tape(Random(seed).randbytes(120))
        present = some_state(tape)
        policy = policy_in_force(present)
        now = situation(present, some_reports(present, tape), policy, **some_ages(tape))
        answer = plan(now)
        assert answer == plan(now)
        assert answer.because
        for command in answer.commands:
            refused = apply(present, command).refused
            refusals |= {refused.partition(":")[0]} if refused else set()
    assert not refusals, "a plan from the newest state is never refused"


def some_reports(present, tape):
    number = present.election.number if present.election else present.epoch
    reports = {}
    for name in NAMES:
        known = present.members[name].incarnation if name in present.members else ""
        ballot = vote(name, tape.pick(LSN, LSN + 1, 0), tape.pick(2, 2, 3, 1), tape.pick(number, number - 1), known)
        given = report(
            name,
            in_recovery=tape.pick(True, False, None),
            lsn=tape.pick(LSN, LSN + 1, 0),
            timeline=tape.pick(2, 3, 1),
            streaming=tape.pick(True, False),
            running=tape.pick(True, True, False),
            notes=Notes(),
            vote=tape.pick(ballot, ballot, None),
            checkpointed_operation=tape.pick("", "op0", "op1"),
        )
        if tape.pick(True, True, False):
            reports |= heard(given, age_s=tape.pick(0.1, 0.1, 5.0))
    return reports


def some_ages(tape):
    ages = {"confirmed_s": tape.pick(0.2, 0.2, None, 9.0)}
    for name in ("leading_s", "epoch_s", "election_s", "phase_s", "noted_s"):
        ages[name] = tape.pick(0.1, 2.0, 6.5, 99.0)
    assert LeaderSeen(**ages)
    return ages


def test_the_appointments_here_are_those_that_apply_takes():
    assert apply(vacant(), appoint("pg2", vote("pg2"))).refused is None


def test_a_new_raft_leader_takes_nobody_for_gone_who_has_not_reported_to_it_yet():
    """Seen: commits waited for nobody for 0.3 s after the raft leadership had gone to a witness."""
    heard_first = {"pg1": streaming("pg2", "pg3")["pg1"]}
    led = {"reports": heard_first, "policy": WAITING}

    assert commands(situation(synchronous(), **led, leading_s=WAITING.all_heard_after_s)) == []
    (change,) = commands(situation(synchronous(), **led, leading_s=WAITING.all_heard_after_s + 0.01))
    assert change.wanted.members == frozenset()


def test_r9_a_primary_that_said_it_is_restarted_has_its_whole_lease():
    def silent(**said):
        reports = heard(report("pg2"), report("pg3")) | heard(report("pg1", **said), age_s=3.0)
        return commands(situation(synchronous(), reports, confirmed_s=3.0))

    assert [type(command) for command in silent()] == [OpenElection]
    assert OpenElection not in map(type, silent(restarting=True))


@pytest.mark.parametrize(
    ("age_s", "said", "opens"),
    [
        (0.1, {"renew_epoch": 4}, False),
        (WAITING.failure_timeout_s + 0.01, {"renew_epoch": 4}, True),
        (0.1, {"renew_epoch": 3}, True),
        (0.1, {"renew_epoch": None}, True),
    ],
    ids=["it asks", "it asked before it fell silent", "for another epoch", "it reports and asks for nothing"],
)
def test_r9_a_primary_that_asks_for_a_renewal_which_is_on_its_way_is_not_suspected(age_s, said, opens):
    """Seen: the first report of a node process that was back in time opened the election that ended its PostgreSQL."""
    reports = heard(report("pg2"), report("pg3")) | heard(report("pg1", primary=True, **said), age_s=age_s)
    asked = commands(situation(synchronous(), reports, confirmed_s=3.0))
    assert (OpenElection in map(type, asked)) is opens
