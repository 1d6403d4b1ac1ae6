"""`raft status` and `raft transfer-leader`: what is printed, asked and answered."""

import json
import os
from dataclasses import replace

import pytest

from appliance.api.published import OperatorAnswer
from appliance.ha.checks import Check
from tests.unit.api.building import raft_view

from .conftest import TOKEN


@pytest.fixture(autouse=True)
def _no_terminal(monkeypatch):
    with open(os.devnull) as nobody:
        monkeypatch.setattr("sys.stdin", nobody)
        yield


def test_status_shows_replica_members_and_what_is_wrong(appliance, url):
    found = appliance("raft", "status", "--api", url)
    assert found.code == 0, found.err
    assert found.out.splitlines() == [
        "pg1 is leader; term 7, leader pg1",
        "group cafe, incarnation 1, replica id-pg1",
        "log 2..42 (8.0 kB), committed 41, applied 41",
        "fsync 2.1 ms, longest 30.4 ms of 120; tick late 0.4 ms, lately at most 12.1 ms",
        "certificate valid until 2027-02-21T06:00:00+00:00",
        "",
        "MEMBER  ROLE          REPLICA  ADDRESS   LINK  MATCH  LAG",
        "pg1     voter, leads  id-pg1   pg1:7400  -     42     0",
        "pg2     voter         id-pg2   pg2:7400  up    41     1",
        "pg3     joining       id-pg3   pg3:7400  down  4      38",
        "",
        "pg3: peer pg3 at pg3:7400: connection refused",
        "refused connections since the start: cluster 2",
    ]


def test_status_without_tls_leader_or_vote_says_so(appliance, url, node):
    node.replica = raft_view(role="follower", leader=None, votes=False, certificate=None, failure="disk full")
    found = appliance("raft", "status", "--api", url).out
    assert "pg1 is follower, has no vote; term 7, no leader" in found
    assert "certificate none: connections between members are in the clear" in found
    assert "failed: disk full" in found


def test_status_of_a_node_that_was_removed_says_by_whose_word(appliance, url, node):
    node.replica = raft_view(removed_by=("pg2", "pg3"))
    assert "removed from the group, by the word of pg2, pg3" in appliance("raft", "status", "--api", url).out


def test_status_says_how_long_ago_a_peer_refused_unless_that_is_its_present_problem(appliance, url, node):
    one, two, three = raft_view().members
    words = "'pg1' is no other member"
    two = replace(two, refused_us=words, refused_us_age_s=0.3, problem=f"peer pg2 refused us: {words}")
    three = replace(three, refused_us=words, refused_us_age_s=90.4)
    node.replica = raft_view(members=(one, two, three))
    found = appliance("raft", "status", "--api", url).out.splitlines()
    assert "pg3: refused us 90 s ago: 'pg1' is no other member" in found
    assert [line for line in found if line.startswith("pg2: ")] == [f"pg2: peer pg2 refused us: {words}"]


def test_status_in_other_formats(appliance, url):
    document = json.loads(appliance("raft", "status", "--api", url, "-o", "json").out)
    assert (document["fsyncs"]["count"], document["members"][2]["lag"]) == (120, 38)
    assert appliance("raft", "status", "--api", url, "-o", "name").out == "pg1\npg2\npg3\n"


def test_the_last_leader_is_not_shown_as_one_that_is_heard(appliance, url, node):
    known = raft_view().members
    silent = tuple(replace(member, leads=member.name == "pg3") for member in known)
    node.replica = raft_view(role="follower", leader="pg3", members=silent)
    assert "term 7, leader pg3, to which there is no connection" in appliance("raft", "status", "--api", url).out


def test_a_transfer_goes_to_the_raft_leader_and_its_words_come_back(appliance, node, url):
    found = appliance("raft", "transfer-leader", "--to", "pg2", "--yes", "--api", url, "--token", TOKEN)
    assert (found.code, found.out) == (0, "✓ as you say\n"), found.err
    request = node.requests[0]
    assert (request.kind, request.target, request.dry_run) == ("raft_transfer", "pg2", False)


def test_a_transfer_asks_first(appliance, node, url):
    found = appliance("raft", "transfer-leader", "--api", url, "--token", TOKEN)
    assert found.code == 4
    assert "there is no terminal to ask on; pass --yes" in found.err
    assert node.requests == []


def test_a_dry_run_of_a_transfer_changes_nothing(appliance, node, url):
    found = appliance("raft", "transfer-leader", "--dry-run", "--api", url, "--token", TOKEN)
    assert found.code == 0, found.err
    assert [request.dry_run for request in node.requests] == [True]


@pytest.mark.parametrize(
    ("answer", "code", "words"),
    [
        (OperatorAnswer("refused", code="raft.voter", message="pg3: is no voter"), 4, "pg3: is no voter (raft.voter)"),
        (OperatorAnswer("no_quorum", code="quorum.none", message="no raft leader is known"), 3, "no quorum"),
        (OperatorAnswer("unknown", message="no answer"), 5, "look with `appliance raft status`"),
    ],
)
def test_every_other_end_of_a_transfer_has_its_code(appliance, node, url, answer, code, words):
    node.answer = answer
    found = appliance("raft", "transfer-leader", "--yes", "--api", url, "--token", TOKEN)
    assert found.code == code
    assert words in found.err


def test_the_checks_of_a_refusal_are_a_table(appliance, node, url):
    check = Check("raft.connected", "pg3", False, "connection refused")
    node.answer = OperatorAnswer("refused", code=check.code, message="pg3: connection refused", checks=(check,))
    found = appliance("raft", "transfer-leader", "--to", "pg3", "--yes", "--api", url, "--token", TOKEN)
    assert "✗   pg3        raft.connected  connection refused" in found.err
