"""The raft leader's desk: what it waits to hear before it judges, and who leaves without ever having come."""

import threading
import time
from dataclasses import replace

import pytest

from appliance.api.published import OperatorRequest
from appliance.cluster.commands import RemoveMember, RevokeToken
from appliance.cluster.state import ClusterState, JoinToken, NodeRole
from appliance.ha.checks import FRESH_S
from appliance.ha.seen import DirectoryKind, ReportSeen
from appliance.node.messages import Operate
from appliance.node.operator import HEAR_LIMIT_S, Desk
from raft import Applied, Member, Members
from tests.unit.api.building import report
from tests.unit.cluster.building import NAMES, state

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
