"""R2, R3, T13 on the raft leader: when a renewal is confirmed, when it is not, and when the epoch is deposed."""

from dataclasses import replace

import pytest

from appliance.cluster.apply import apply
from appliance.cluster.codec import Newer
from appliance.cluster.commands import ChangeSync, Depose, Recovered, RemoveMember
from appliance.cluster.config import Policy
from appliance.cluster.state import FORMAT, LeaseStatus, NodeRole, Position
from appliance.ha.leadership import KEEP_S, SUITED_S
from appliance.ha.membership import LEAVE_WAIT_S
from appliance.node import coordinator as module
from appliance.node.coordinator import CHANGE_PAUSE_S, PROMOTION_LIMIT_S, Coordinator
from appliance.node.messages import SendReport
from raft import Applied, Member, Members, Refused, Unknown
from tests.unit.cluster.building import LSN, member, state, synchronous, vacant, with_members
from tests.unit.ha.building import APPOINTED, report, senders

from .building import Clock, Consensus

POLICY = Policy(synchronous_mode="off", fencing="lease")
RENEWAL = SendReport(report("pg1", renew_epoch=4))


@pytest.fixture
def clock(monkeypatch):
    return Clock.of(monkeypatch, module)


@pytest.fixture
def consensus():
    return Consensus(state(), leads=True)


@pytest.fixture
def coordinator(consensus, clock):
    return Coordinator(consensus, lambda: None, lambda rule, because: None)


def step(coordinator, consensus):
    return coordinator.step(consensus.view(), POLICY)


def silence(coordinator, consensus, clock):
    """The epoch has been known for long, and nobody has renewed it for more than a ttl."""
    step(coordinator, consensus)
    clock.now_s += POLICY.depose_after_s + 0.01
    step(coordinator, consensus)


def test_r13a_a_recovery_that_the_state_does_not_know_of_is_told_to_it(coordinator, consensus):
    consensus.incarnation = 7
    step(coordinator, consensus)

    assert consensus.commands == [Recovered(7, {name: f"inc-{name}" for name in ("pg1", "pg2", "pg3")})]


def test_r3_a_renewal_is_confirmed_once_a_barrier_has_passed(coordinator, consensus):
    answer = coordinator.receive(RENEWAL)

    assert (answer.leader, answer.confirmed_epoch) == (True, 4)
    assert len(consensus.barriers) == 1


def test_a_report_that_asks_for_no_lease_costs_no_barrier(coordinator, consensus):
    answer = coordinator.receive(SendReport(report("pg2")))

    assert (answer.leader, answer.confirmed_epoch) == (True, None)
    assert set(answer.reports) == {"pg2"}
    assert consensus.barriers == []


@pytest.mark.parametrize("outcome", [Unknown("no quorum"), Refused("no leader", None)])
def test_r2_without_a_barrier_nothing_is_confirmed(coordinator, consensus, outcome):
    consensus.barrier_answer = outcome

    assert coordinator.receive(RENEWAL).confirmed_epoch is None


@pytest.mark.parametrize(
    "meanwhile",
    [
        state(lease=LeaseStatus.RELEASED),
        state(lease=LeaseStatus.EXPIRED),
        vacant(),
        vacant(lease=LeaseStatus.HELD),
        APPOINTED,
        replace(APPOINTED, appointment=replace(APPOINTED.appointment, node="pg1")),
        state(appointment=replace(state().appointment, node="pg2")),
        state(appointment=None),
    ],
    ids=["released", "expired", "election", "election first", "successor", "epoch", "node", "nobody"],
)
def test_r2_a_renewal_is_judged_by_what_was_agreed_on_until_its_barrier_returned(coordinator, consensus, meanwhile):
    """What the raft leader knew when the question came may be old: another may lead, and have agreed on more."""
    consensus.during_barrier = lambda: setattr(consensus, "state", meanwhile)

    assert coordinator.receive(RENEWAL).confirmed_epoch is None


def test_r3_a_renewal_is_not_confirmed_in_a_term_that_has_ended(coordinator, consensus):
    """A new term waits the whole ttl from its own beginning and knows nothing of a confirmation for the one before."""
    consensus.during_barrier = lambda: setattr(consensus, "term", 4)

    assert coordinator.receive(RENEWAL).confirmed_epoch is None


def test_r3_one_that_leads_no_more_when_its_barrier_returns_confirms_nothing(coordinator, consensus):
    consensus.during_barrier = lambda: setattr(consensus, "leads", False)

    assert coordinator.receive(RENEWAL).confirmed_epoch is None


def test_one_that_does_not_lead_says_so(coordinator, consensus):
    consensus.leads = False

    assert not coordinator.receive(RENEWAL).leader
    assert consensus.barriers == []


def test_r3_only_a_full_ttl_after_the_last_confirmation_is_the_epoch_deposed(coordinator, consensus, clock):
    step(coordinator, consensus)
    clock.now_s += 5.0
    coordinator.receive(RENEWAL)
    clock.now_s += POLICY.depose_after_s
    step(coordinator, consensus)
    assert consensus.commands == []
    clock.now_s += 0.01
    step(coordinator, consensus)

    assert [(type(c), c.epoch) for c in consensus.commands] == [(Depose, 4)]


def test_r9_the_next_look_is_due_as_soon_as_silence_means_more(coordinator, consensus, clock):
    """It may be the next report's turn half a second later only."""
    step(coordinator, consensus)
    clock.now_s += 5.0
    coordinator.receive(RENEWAL)
    clock.now_s += 1.9
    step(coordinator, consensus)
    assert coordinator.silence_left_s == pytest.approx(POLICY.failure_timeout_s - 1.9)
    clock.now_s += 0.2
    step(coordinator, consensus)
    assert coordinator.silence_left_s == pytest.approx(POLICY.depose_after_s - 2.1)


def test_r3_a_new_term_waits_the_whole_time_from_its_own_election(coordinator, consensus, clock):
    step(coordinator, consensus)
    clock.now_s += 100.0
    consensus.term, consensus.leading_since_s = 4, clock.now_s
    step(coordinator, consensus)
    clock.now_s += POLICY.depose_after_s
    step(coordinator, consensus)
    assert consensus.commands == []
    clock.now_s += 0.01
    step(coordinator, consensus)

    assert len(consensus.commands) == 1


def test_t13_from_the_moment_it_proposes_to_depose_it_confirms_no_more(coordinator, consensus, clock):
    silence(coordinator, consensus, clock)

    assert [type(c) for c in consensus.commands] == [Depose]
    assert coordinator.receive(RENEWAL).confirmed_epoch is None


@pytest.mark.parametrize(
    ("fate", "confirmed"),
    [
        (Consensus.refuse, 4),
        (Consensus.lose, None),
        (lambda consensus: consensus.proposed[-1][1].set_result(Refused("lease.not_held", 8)), None),
    ],
    ids=["never logged", "unknown", "refused in the log"],
)
def test_t13_it_confirms_again_only_when_the_deposition_never_entered_the_log(
    coordinator, consensus, clock, fate, confirmed
):
    silence(coordinator, consensus, clock)
    fate(consensus)

    assert coordinator.receive(RENEWAL).confirmed_epoch == confirmed


def test_t13_a_renewal_confirmed_between_plan_and_proposal_stops_the_deposition(
    coordinator, consensus, clock, monkeypatch
):
    planned = []

    def plan_then_renewal(situation):
        answer = real_plan(situation)
        if answer.commands:
            planned.append(answer.commands)
            coordinator.receive(RENEWAL)
        return answer

    real_plan = module.plan
    monkeypatch.setattr(module, "plan", plan_then_renewal)
    silence(coordinator, consensus, clock)

    assert [[type(c) for c in commands] for commands in planned] == [[Depose]]
    assert consensus.commands == []
    assert coordinator.receive(RENEWAL).confirmed_epoch == 4


def test_an_appointed_node_that_does_not_come_to_open_is_renewed_for_a_while_only(coordinator, consensus, clock):
    consensus.state = APPOINTED
    asks = SendReport(report("pg2", renew_epoch=5))
    step(coordinator, consensus)
    clock.now_s += PROMOTION_LIMIT_S

    assert coordinator.receive(asks).confirmed_epoch == 5
    clock.now_s += 0.01
    assert coordinator.receive(asks).confirmed_epoch is None
    consensus.state = replace(APPOINTED, appointment=replace(APPOINTED.appointment, opened=True))
    assert coordinator.receive(asks).confirmed_epoch == 5


def test_a_standby_that_stands_still_while_the_primary_writes_is_waited_for_no_more(coordinator, clock):
    """It is connected all the while; what the others confirm, and what it confirmed before, does not help."""
    consensus, policy = Consensus(synchronous(), leads=True), Policy()
    coordinator._replica = consensus

    def look(passed_s, written, confirmed):
        clock.now_s += passed_s
        flushed = (*senders("pg2", flushed_lsn=LSN + written), *senders("pg3", flushed_lsn=LSN + confirmed))
        for told in (report("pg1", lsn=LSN + written, senders=flushed, renew_epoch=4), report("pg2"), report("pg3")):
            coordinator.receive(SendReport(told))
        before = len(consensus.commands)
        coordinator.step(consensus.view(), policy)
        if len(consensus.commands) > before:
            consensus.commit()
        return [command for command in consensus.commands if isinstance(command, ChangeSync)]

    assert not look(10.0, 0, 0), "who has everything may stand for as long as nothing is written"
    assert not look(1.0, 10, 0)
    assert not look(1.9, 20, 10), "it is slow, and moves"
    assert not look(1.9, 30, 10)
    (change,) = look(0.2, 40, 10)
    assert change.wanted.members == {"pg2"}


def test_nothing_is_planned_before_it_is_seen_what_became_of_the_last_proposal(coordinator, consensus, clock):
    silence(coordinator, consensus, clock)
    old = consensus.view()
    step(coordinator, consensus)
    assert len(consensus.proposed) == 1, "one at a time"
    consensus.commit()
    coordinator.step(old, POLICY)
    assert len(consensus.proposed) == 1, "this state does not show it yet"
    step(coordinator, consensus)

    assert [type(c).__name__ for c in consensus.commands] == ["Depose", "OpenElection"]


# Members


@pytest.fixture
def three(consensus):
    consensus.members = Members.of(Member(n, f"id-{n}", f"{n}:7400", "voter") for n in ("pg1", "pg2", "pg3"))
    return consensus


def settle(consensus):
    members, future = consensus.changes[-1]
    consensus.members = members
    future.set_result(Applied(9))


def test_a_removed_member_leaves_consensus_and_one_change_is_under_way_at_a_time(coordinator, three):
    coordinator.receive(SendReport(report("pg2")))
    three.state = apply(three.state, RemoveMember("pg3")).state
    assert step(coordinator, three) == "pg3 was removed"
    step(coordinator, three)
    assert [members.names for members, _ in three.changes] == [{"pg1", "pg2"}]
    settle(three)
    assert step(coordinator, three) == "nothing to do"
    assert len(three.changes) == 1


def test_who_joins_while_another_one_leaves_is_not_dropped_with_it(coordinator, three):
    coordinator.receive(SendReport(report("pg2")))
    three.state = apply(three.state, RemoveMember("pg3")).state
    newcomer = Member("pg4", "", "pg4:7400", "joining")
    three.before_change = lambda: setattr(three, "members", three.members.with_member(newcomer))
    step(coordinator, three)
    assert [members.names for members, _ in three.changes] == [{"pg1", "pg2", "pg4"}]


def test_a_change_that_came_to_nothing_is_made_again_after_a_pause(coordinator, three, clock):
    coordinator.receive(SendReport(report("pg2")))
    three.state = apply(three.state, RemoveMember("pg3")).state
    step(coordinator, three)
    three.changes[-1][1].set_result(Unknown("no answer in time"))
    step(coordinator, three)
    clock.now_s += CHANGE_PAUSE_S - 0.1
    step(coordinator, three)
    assert len(three.changes) == 1
    clock.now_s += 0.2
    coordinator.receive(SendReport(report("pg2")))
    step(coordinator, three)
    assert len(three.changes) == 2


def test_a_learner_gives_its_vote_back_and_gets_it_again_by_catching_up(coordinator, three):
    for node in ("pg2", "pg3"):
        coordinator.receive(SendReport(report(node)))
    before, three.state = three.state, with_members(three.state, member("pg3", NodeRole.LEARNER))
    step(coordinator, three)
    settle(three)
    assert (three.members.voters, three.members.learners) == ({"pg1", "pg2"}, {"pg3"})
    three.state = before
    step(coordinator, three)
    settle(three)
    assert three.members.get("pg3") == Member("pg3", "id-pg3", "pg3:7400", "joining")


def test_a_raft_leader_that_was_removed_hands_over(coordinator, three):
    coordinator.receive(SendReport(report("pg2")))
    coordinator.receive(SendReport(report("pg3")))
    three.state = apply(state(appointment=replace(state().appointment, node="pg2")), RemoveMember("pg1")).state
    step(coordinator, three)
    assert three.changes[-1][0] == "pg2"


def test_who_does_not_lead_changes_nothing(coordinator, three):
    three.leads, three.leading_since_s = False, None
    three.state = apply(three.state, RemoveMember("pg3")).state
    step(coordinator, three)
    assert three.changes == []


def test_the_step_to_a_higher_format_waits_for_replicas_that_have_not_announced_themselves(coordinator, three):
    three.members = three.members.with_member(Member("pg4", "", "pg4:7400", "joining"))
    for name in ("pg1", "pg2", "pg3"):
        coordinator.receive(SendReport(report(name, format=FORMAT + 1)))
    step(coordinator, three)
    assert three.proposed == []
    three.members = three.members.without("pg4")
    step(coordinator, three)
    assert three.commands == [Newer(f"the step to format {FORMAT + 1}", FORMAT)]


# The raft leadership


@pytest.fixture
def leads(three, coordinator, clock):
    """Three voters that have the whole log; pg1 leads, and becomes the primary only now."""
    three.have_all = {"pg2", "pg3"}
    before, three.state = three.state, APPOINTED
    step(coordinator, three)
    three.state = before
    clock.now_s += 0.1
    three.leading_since_s = 0.0
    return three


def pass_by(coordinator, consensus, clock, seconds):
    """Everybody reports, the lease is renewed, and the loop looks."""
    until_s = clock.now_s + seconds
    while clock.now_s < until_s:
        for node in consensus.members.names:
            coordinator.receive(SendReport(report(node)) if node != "pg1" else RENEWAL)
        step(coordinator, consensus)
        clock.now_s += 0.5


def test_the_raft_leader_that_becomes_the_primary_hands_over_once_it_is_calm(coordinator, leads, clock):
    pass_by(coordinator, leads, clock, SUITED_S)
    assert leads.changes == []
    pass_by(coordinator, leads, clock, 0.5)
    assert [to for to, _ in leads.changes] == ["pg3"]
    assert step(coordinator, leads) == "pg1 is the primary: the raft leadership goes to pg3"


def test_leadership_that_came_to_the_primary_by_hand_stays_for_a_minute(coordinator, leads, clock):
    leads.leads = False
    step(coordinator, leads)
    clock.now_s += 5.0
    leads.leads, leads.leading_since_s, leads.term = True, clock.now_s, 4
    pass_by(coordinator, leads, clock, KEEP_S)
    assert leads.changes == []
    pass_by(coordinator, leads, clock, 1.0)
    assert [to for to, _ in leads.changes] == ["pg3"]


def test_a_primary_that_opens_only_now_was_none_when_the_leadership_came(coordinator, leads, clock):
    opened = leads.state
    leads.leads, leads.state = False, replace(opened, appointment=replace(opened.appointment, opened=False))
    step(coordinator, leads)
    clock.now_s += 1.0
    leads.leads, leads.leading_since_s, leads.term = True, clock.now_s, 4
    pass_by(coordinator, leads, clock, 1.0)
    leads.state = opened
    pass_by(coordinator, leads, clock, SUITED_S + 0.5)
    assert [to for to, _ in leads.changes] == ["pg3"]


def test_a_hand_over_that_came_to_nothing_is_tried_again_later_each_time(coordinator, leads, clock):
    pass_by(coordinator, leads, clock, SUITED_S + 0.5)
    for n, wait_s in enumerate((KEEP_S, 2 * KEEP_S), 1):
        leads.changes[-1][1].set_result(Refused("pg3 has not taken the leadership over in time", None))
        pass_by(coordinator, leads, clock, wait_s - 1.0)
        assert len(leads.changes) == n
        pass_by(coordinator, leads, clock, 2.0)
        assert len(leads.changes) == n + 1


def test_with_another_epoch_the_count_of_hand_overs_begins_anew(coordinator, leads, clock):
    pass_by(coordinator, leads, clock, SUITED_S + 0.5)
    leads.changes[-1][1].set_result(Refused("pg3 has not taken the leadership over in time", None))
    leads.state = replace(leads.state, epoch=5, appointment=replace(leads.state.appointment, epoch=5))
    pass_by(coordinator, leads, clock, CHANGE_PAUSE_S + SUITED_S + 1.0)
    assert len(leads.changes) == 2


def test_nothing_is_handed_over_while_an_entry_is_on_its_way(coordinator, leads, clock):
    leads.commit_index = 0
    pass_by(coordinator, leads, clock, 5.0)
    assert leads.changes == []
    leads.commit_index = 1
    pass_by(coordinator, leads, clock, SUITED_S + 0.5)
    assert len(leads.changes) == 1


def test_nothing_is_handed_over_before_it_is_known_what_became_of_a_proposal(coordinator, leads, clock):
    pass_by(coordinator, leads, clock, SUITED_S)
    leads.state = replace(leads.state, last_known=Position(2, 1))
    pass_by(coordinator, leads, clock, 3.0)
    assert [type(command).__name__ for command in leads.commands] == ["NotePosition"]
    assert leads.changes == []
    leads.commit()
    pass_by(coordinator, leads, clock, SUITED_S + 0.5)
    assert len(leads.changes) == 1


def test_the_leadership_stays_while_members_change(coordinator, leads, clock):
    leads.members = leads.members.with_member(Member("pg4", "id-pg4", "pg4:7400", "voter"))
    leads.state = replace(leads.state, removed=frozenset({"pg4"}))
    pass_by(coordinator, leads, clock, LEAVE_WAIT_S)
    assert leads.changes == []
    pass_by(coordinator, leads, clock, 5.0)
    assert [members.names for members, _ in leads.changes] == [{"pg1", "pg2", "pg3"}]
    settle(leads)
    pass_by(coordinator, leads, clock, SUITED_S + 0.5)
    assert [to for to, _ in leads.changes[1:]] == ["pg3"]


def test_a_voter_that_comes_and_goes_does_not_get_the_leadership(coordinator, leads, clock):
    for n in range(20):
        leads.have_all = {"pg3"} if n % 2 else set()
        pass_by(coordinator, leads, clock, 0.5)
    assert leads.changes == []
