"""The way of an operator's request to the raft leader: it finds one, or says that there is none; it never hangs."""

import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from appliance.api.published import OperatorAnswer, OperatorRequest
from appliance.node.gateway import NodeGateway
from appliance.node.registrar import Registrar
from appliance.postgres.binaries import Binaries
from raft import PeerUnreachable, RequestTimeout
from tests.unit.cluster.building import state

from .building import Consensus

ASKED = OperatorRequest("switchover", "op1", "anna")
CONFIG = SimpleNamespace(
    name="pg1",
    cluster="shop",
    bootstrap=SimpleNamespace(config={"ttl": "8s"}),
    raft=SimpleNamespace(election_timeout=(0.5, 1.0)),
)
BINARIES = Binaries(Path("/nowhere"), "15.0", 15)
"""Without parameters nothing is asked of them."""


@pytest.fixture
def consensus():
    return Consensus(state())


@pytest.fixture
def gateway(consensus):
    gateway = NodeGateway(CONFIG, consensus, Registrar(CONFIG, consensus), BINARIES)
    yield gateway
    gateway.close()


def asked(consensus, number=1):
    until_s = time.monotonic() + 5
    while len(consensus.asked) < number:
        assert time.monotonic() < until_s
        time.sleep(0.005)
    return consensus.asked[number - 1]


def test_a_request_goes_to_the_raft_leader_and_its_answer_comes_back(consensus, gateway):
    answered = gateway.submit(ASKED, 5.0)
    leader, message, _ = asked(consensus)
    consensus.answer(OperatorAnswer("accepted", "op1"))

    assert (leader, message.request) == ("pg1", ASKED)
    assert answered.result(5).outcome == "accepted"


def test_a_bootstrap_carries_this_nodes_first_configuration(consensus, gateway):
    gateway.submit(OperatorRequest("bootstrap", "op1", "anna"), 5.0)
    _, message, _ = asked(consensus)
    consensus.answer(OperatorAnswer("accepted", "op1"))

    assert (message.request.target, message.cluster, message.document) == ("pg1", "shop", {"ttl": "8s"})


def test_a_raft_leader_that_is_away_is_asked_again_and_so_is_its_successor(consensus, gateway):
    answered = gateway.submit(ASKED, 5.0)
    asked(consensus)
    consensus.leader = "pg3"
    consensus.asked[-1][2].set_exception(PeerUnreachable("refused"))
    leader, message, _ = asked(consensus, 2)
    consensus.answer(OperatorAnswer("accepted", "op1"))

    assert (leader, message.request.id) == ("pg3", "op1"), "the same id makes asking again safe"
    assert answered.result(5).outcome == "accepted"


def test_an_answer_that_does_not_come_leaves_the_outcome_open(consensus, gateway):
    answered = gateway.submit(ASKED, 5.0)
    asked(consensus)
    consensus.asked[-1][2].set_exception(RequestTimeout("no answer"))

    assert (answered.result(5).outcome, answered.result().code) == ("unknown", "outcome.unknown")


def test_without_a_raft_leader_it_waits_to_its_limit_and_no_longer_than_the_node_lives(consensus, gateway):
    consensus.leader = None
    began_s = time.monotonic()
    assert gateway.submit(ASKED, 0.2).result(5).outcome == "no_quorum"
    assert time.monotonic() - began_s >= 0.2
    waiting = gateway.submit(ASKED, 60.0)
    time.sleep(0.1)
    gateway.close()

    assert waiting.result(5).outcome == "no_quorum"
