"""The raft leader's desk: what it waits to hear before it judges, and who leaves without ever having come."""

import threading
import time
from dataclasses import replace

import pytest

from appliance.api.published import OperatorRequest
from appliance.cluster.commands import RemoveMember, RevokeToken
from appliance.cluster.state import AcceptedLoss, ClusterState, Config, JoinToken, LeaseStatus, NodeRole, Position
from appliance.ha.checks import FRESH_S
from appliance.ha.seen import DirectoryKind, ReportSeen
from appliance.node.messages import Operate
from appliance.node.operator import HEAR_LIMIT_S, POSITION_LIMIT_S, Desk
from raft import Applied, Member, Members
from tests.unit.api.building import report
from tests.unit.cluster.building import LSN, NAMES, contested, state, sync, synchronous
from tests.unit.ha import building as decisions

from .building import Consensus, done

TOLD_AFTER_S = 0.3


class Deciding(Consensus):
    """A replica whose majority agrees to everything at once."""

    def __init__(self, agreed):
        super().__init__(agreed, leads=True)
        self.members = Members.of(Member(name, f"id-{name}", f"{name}:7400", "voter") for name in NAMES)

    def propose(self, command, command_id, limit_s):
        future = super().propose(command, command_id, limit_s)
        self.commit()
        return future

    def revise_members(self, revise, limit_s):
        self.members = revise(self.members)
        return done(Applied(self.index))


def everybody(*without):
    return {name: ReportSeen(report(name, primary=name == "pg1"), 0.1) for name in NAMES if name not in without}


@pytest.fixture
def heard():
    """What this raft leader was told; a node that is late tells it after a while."""
    return {}


def late(heard, told):
    timer = threading.Timer(TOLD_AFTER_S, lambda: heard.update(told))
    timer.start()
    return timer


def remove(consensus, heard, name="pg3", **options):
    return Desk(consensus, lambda: dict(heard)).handle(
        Operate(OperatorRequest("remove", "r1", "anna", target=name, **options))
    )


def test_a_member_that_runs_does_not_pass_for_dead_after_a_change_of_the_raft_leader(heard):
    consensus = Deciding(state())
    timer = late(heard, everybody())

    answer = remove(consensus, heard)

    timer.join()
    assert (answer.outcome, answer.code) == ("refused", "member.running")
    assert consensus.commands == []


def test_a_bootstrap_waits_for_the_word_of_its_node(heard):
    told = {name: ReportSeen(report(name, directory=DirectoryKind.MISSING, running=False), 0.1) for name in NAMES}
    consensus = Deciding(ClusterState(members=state().members))
    timer = late(heard, told)
    request = OperatorRequest("bootstrap", "b1", "anna", target="pg2")

    answer = Desk(consensus, lambda: dict(heard)).handle(Operate(request, {"ttl": "6s"}, "shop"))

    timer.join()
    assert answer.outcome == "accepted", answer
    assert consensus.state.bootstrap.node == "pg2"


def test_who_is_not_connected_is_not_waited_for(heard):
    consensus = Deciding(state())
    consensus.members = consensus.members.without("pg3")
    heard.update(everybody("pg3"))
    began_s = time.monotonic()

    answer = remove(consensus, heard)

    assert (answer.outcome, consensus.commands) == ("accepted", [RemoveMember("pg3")])
    assert time.monotonic() - began_s < HEAR_LIMIT_S / 2


def test_one_that_was_ended_a_moment_ago_does_not_pass_for_alive(heard):
    """`members remove` right after its node process has ended, as docs/operations.md says it."""
    consensus = Deciding(state())
    consensus.members = consensus.members.without("pg3")
    heard.update(everybody())
    timer = late(heard, {"pg3": ReportSeen(report("pg3"), FRESH_S + 0.1)})

    answer = remove(consensus, heard)

    timer.join()
    assert (answer.outcome, consensus.commands) == ("accepted", [RemoveMember("pg3")])


def test_who_is_connected_and_hangs_is_waited_for_in_bounds(heard):
    consensus = Deciding(state())
    heard.update(everybody("pg3"))
    began_s = time.monotonic()

    answer = remove(consensus, heard)

    assert answer.outcome == "accepted"
    assert next(check for check in answer.checks if check.code == "member.running").detail == "it does not report"
    assert HEAR_LIMIT_S <= time.monotonic() - began_s < HEAR_LIMIT_S + 1


def test_one_that_never_came_leaves_consensus_and_its_token_with_it(heard):
    token = JoinToken("t4", "digest", "pg4", NodeRole.DATA, time.time() + 60, "key")
    consensus = Deciding(replace(state(), tokens=(token,)))
    consensus.members = consensus.members.adding(Member("pg4", "", "pg4:7400", "joining"))
    heard.update(everybody())

    assert remove(consensus, heard, "pg4", dry_run=True).outcome == "accepted"
    assert "pg4" in consensus.members.names
    answer = remove(consensus, heard, "pg4")

    assert (answer.outcome, answer.code) == ("accepted", "")
    assert "pg4" not in consensus.members.names
    assert (consensus.commands, consensus.state.tokens) == ([RevokeToken("t4")], ())
    assert remove(consensus, heard, "pg4").code == "member.unknown"


def test_a_voter_that_never_came_stays_where_the_others_are_no_majority(heard):
    consensus = Deciding(state())
    consensus.members = consensus.members.adding(Member("pg4", "id-pg4", "pg4:7400", "voter"))
    heard.update(everybody("pg2", "pg3"))

    assert remove(consensus, heard, "pg4").code == "quorum.kept"
    assert "pg4" in consensus.members.names


# What a person accepts to lose

BEHIND = AcceptedLoss(Position(2, LSN - 500), Position(2, LSN))


def lossy(consensus, heard, **words):
    """The two others are gone; pg3 is asked for."""
    heard.update(decisions.heard(decisions.report("pg3", lsn=LSN - 500)))
    consensus.members = consensus.members.without("pg1").without("pg2")
    request = OperatorRequest("failover", "f1", "anna", "burnt", "pg3", allow_data_loss=True, **words)
    return Desk(consensus, lambda: dict(heard)).handle(Operate(request))


def lonely():
    return Deciding(contested(lease=LeaseStatus.EXPIRED))


def test_a_loss_is_shown_by_a_dry_run_and_accepted_with_the_name_of_the_cluster(heard):
    consensus = lonely()
    shown = lossy(consensus, heard, dry_run=True)
    answer = lossy(consensus, heard, cluster="shop", accepts=shown.prospect.accepts)

    assert (shown.outcome, shown.prospect.accepts, shown.prospect.lost_bytes) == ("accepted", BEHIND, 500)
    assert answer.outcome == "accepted", answer
    (operation,) = consensus.state.operations
    assert (operation.accepted, operation.requester, operation.reason) == (BEHIND, "anna", "burnt")


def test_without_what_was_shown_that_is_accepted_which_is_known(heard):
    consensus = lonely()
    assert lossy(consensus, heard, cluster="shop").outcome == "accepted"
    assert consensus.state.operations[0].accepted == BEHIND


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ({}, "loss.confirmed"),
        ({"cluster": "y"}, "loss.confirmed"),
        ({"cluster": "shop", "accepts": AcceptedLoss(Position(2, LSN), Position(2, LSN))}, "loss.candidate"),
        (
            {"cluster": "shop", "accepts": AcceptedLoss(Position(2, LSN - 500), Position(2, LSN - 400))},
            "loss.larger",
        ),
        ({"cluster": "shop", "accepts": AcceptedLoss(Position(-1, -(1 << 70)), Position(0, -1))}, "loss.larger"),
    ],
)
def test_a_loss_that_nobody_has_named_the_cluster_for_or_that_is_larger_now_is_refused(heard, words, code):
    consensus = lonely()
    answer = lossy(consensus, heard, **words)

    assert (answer.outcome, answer.code) == ("refused", code)
    assert consensus.commands == []


def failsafe(consensus=None):
    """The last primary may go on with the promise of pg2; both are gone."""
    listed = sync(1, "pg2", failsafe=True)
    config = Config(1, {"ttl": "6s", "failsafe_mode": True})
    return consensus or Deciding(contested(listed, lease=LeaseStatus.EXPIRED, config=config))


def test_r16_a_dry_run_says_who_may_be_writable_and_states_nothing(heard):
    shown = lossy(failsafe(), heard, dry_run=True)

    assert (shown.outcome, shown.prospect.accepts.stopped) == ("accepted", "")
    assert shown.prospect.may_write.startswith("pg1 may be writable on the word of pg2")
    assert lossy(lonely(), heard, dry_run=True).prospect.may_write == ""


@pytest.mark.parametrize(
    ("stated", "words"),
    [
        ("", "pg1 may be writable on the word of pg2, and their votes do not show that it is not"),
        ("pg2", "pg2 is not the last primary, pg1 is"),
        ("pg9", "pg9 is no member; the last primary is pg1"),
    ],
)
def test_r16_that_the_last_primary_is_stopped_has_to_be_stated_where_only_a_person_can_know(heard, stated, words):
    consensus = failsafe()
    answer = lossy(consensus, heard, cluster="shop", accepts=replace(BEHIND, stopped=stated))

    assert (answer.outcome, answer.code, consensus.commands) == ("refused", "loss.stopped", [])
    assert answer.message.startswith(words)
    unsaid = lossy(consensus, heard, cluster="shop")
    assert (unsaid.outcome, unsaid.code) == ("refused", "loss.stopped"), "what is known on arrival states nothing"

    assert lossy(consensus, heard, cluster="shop", accepts=replace(BEHIND, stopped="pg1")).outcome == "accepted"
    assert consensus.state.operations[0].accepted.stopped == "pg1"


def test_r16_who_reports_is_not_stopped_whatever_anybody_states(heard):
    heard.update(decisions.heard(decisions.report("pg1", status="stopped", in_recovery=None)))
    consensus = failsafe()
    answer = lossy(consensus, heard, cluster="shop", accepts=replace(BEHIND, stopped="pg1"))

    assert (answer.outcome, answer.code, consensus.commands) == ("refused", "loss.stopped", [])
    assert answer.message.startswith("pg1 reported 0.2 s ago, so it is not: wait for its vote")


def test_a_living_primary_is_not_given_up(heard):
    heard.update(everybody())
    answer = lossy(Deciding(synchronous()), heard, cluster="shop")

    assert (answer.outcome, answer.code) == ("refused", "loss.needless")


def test_a_position_that_one_look_has_left_unknown_is_waited_for(heard):
    timer = late(heard, decisions.heard(decisions.report("pg3", lsn=LSN - 500)))
    heard.update(decisions.heard(decisions.report("pg3", lsn=0)))
    consensus = lonely()
    consensus.members = consensus.members.without("pg1").without("pg2")
    request = OperatorRequest("failover", "f1", "anna", "", "pg3", allow_data_loss=True, dry_run=True)

    answer = Desk(consensus, lambda: dict(heard)).handle(Operate(request))

    timer.join()
    assert (answer.outcome, answer.prospect.accepts) == ("accepted", BEHIND)


def test_a_position_that_nobody_tells_is_waited_for_in_bounds(heard):
    heard.update(decisions.heard(decisions.report("pg3", lsn=0)))
    consensus = lonely()
    consensus.members = consensus.members.without("pg1").without("pg2")
    request = OperatorRequest("failover", "f1", "anna", "", "pg3", allow_data_loss=True, cluster="shop")
    began_s = time.monotonic()

    answer = Desk(consensus, lambda: dict(heard)).handle(Operate(request))

    assert (answer.outcome, answer.code) == ("refused", "candidate.no_vote")
    assert time.monotonic() - began_s < HEAR_LIMIT_S + POSITION_LIMIT_S + 1


def configure(consensus, patch, **options):
    request = OperatorRequest("config", "c1", "anna", patch=patch, **options)
    return Desk(consensus, dict).handle(Operate(request))


def test_the_configuration_is_changed_by_what_is_said_and_by_whoever_knows_the_present_one():
    consensus = Deciding(state())
    assert configure(consensus, {"synchronous_mode": "on"}, version=1, dry_run=True).outcome == "accepted"
    assert consensus.commands == []

    assert configure(consensus, {"synchronous_mode": "on"}, version=1).outcome == "accepted"
    assert (consensus.state.config.version, consensus.state.config.document["synchronous_mode"]) == (2, "on")
    late = configure(consensus, {"ttl": "9s"}, version=1)
    assert (late.outcome, late.code, late.message) == (
        "refused",
        "config.version",
        "version 2 is current, not 1: look again",
    )
    assert configure(consensus, {"ttl": "9s", "synchronous_mode": None}).outcome == "accepted"
    assert consensus.state.config.document["ttl"] == "9s"
    assert "synchronous_mode" not in consensus.state.config.document


@pytest.mark.parametrize(
    ("patch", "code", "words"),
    [
        (
            {"synchronous_mode": "on", "synchronous_node_count": 3},
            "config.invalid",
            "3 is more than the standbys that there are, 2",
        ),
        ({"synchronous_mode": "of"}, "config.invalid", "synchronous_mode: 'of' is not one of off, on, quorum"),
        ({"synchronous_mode": "off", "synchronous_mode_strict": True}, "config.invalid", "cannot be made to wait"),
        ({"syncronous_mode": "on"}, "config.invalid", "did you mean synchronous_mode?"),
        ({"postgresql": {"parameters": {"work_mem": "1MB"}}}, "config.fixed", "postgresql.parameters: what PostgreSQL"),
        ({"postgresql": None}, "config.fixed", "postgresql: what PostgreSQL"),
    ],
)
def test_what_will_not_do_is_refused_with_the_reason_and_changes_nothing(patch, code, words):
    consensus = Deciding(state())
    answer = configure(consensus, patch)
    assert (answer.outcome, answer.code) == ("refused", code)
    assert words in answer.message
    assert consensus.commands == []


def test_without_a_cluster_there_is_nothing_to_configure():
    assert configure(Deciding(ClusterState()), {"ttl": "9s"}).code == "cluster.initialised"


def test_in_strict_mode_the_last_standby_is_not_removed(heard):
    strict = Config(1, {"synchronous_mode_strict": True})
    two = {name: member for name, member in state().members.items() if name != "pg2"}
    heard.update(everybody("pg3"))
    assert remove(Deciding(replace(state(), config=strict)), heard).outcome == "accepted"
    answer = remove(Deciding(replace(state(), config=strict, members=two)), heard)
    assert (answer.code, answer.outcome) == ("sync.strict", "refused")
