"""`members list` and `members remove`: who votes, and when somebody is really gone."""

from dataclasses import replace

import pytest

from appliance.api.published import OperatorAnswer, ReplicaSeen
from appliance.ha.checks import Check
from tests.unit.api.building import VOTERS

RUNS = Check("member.running", "pg3", False, "its PostgreSQL runs: stop its node (SIGINT) first, or say --force")


def test_a_replica_that_has_not_announced_itself_is_listed_too(appliance, node, url):
    joining = {**VOTERS, "pg4": ReplicaSeen("joining", "10.0.0.4:7400")}
    node.value = replace(node.value, raft=replace(node.value.raft, members=joining))
    lines = appliance("members", "list", "--api", url, "-o", "tsv").out.splitlines()

    assert lines[1].split("\t") == ["pg1", "data", "running", "10.0.0.1:5432", "10.0.0.1:7400", "voter"]
    assert lines[4].split("\t") == ["pg4", "-", "-", "-", "10.0.0.4:7400", "joining"]


def test_a_removal_ends_when_consensus_goes_on_without_the_member(appliance, node, config):
    node.drop("pg3")
    found = appliance("members", "remove", "pg3", "--yes", "--force", "--config", config)

    assert (found.code, found.out) == (0, "✓ pg3 is no member any more\n")
    (asked,) = node.requests
    assert (asked.kind, asked.target, asked.force) == ("remove", "pg3", True)


def test_a_replica_that_stays_is_5_and_not_waiting_is_0(appliance, config):
    options = ("members", "remove", "pg3", "--yes", "--config", config)
    found = appliance(*options, "--timeout", "300ms")

    assert found.code == 5
    assert "its replica still belongs to consensus" in found.err
    assert appliance(*options, "--no-wait").code == 0


def test_a_node_that_removes_itself_learns_from_the_others_that_it_is_gone(appliance, node, config):
    """It has no quorum from then on, so its own view never shows that."""
    node.value = replace(node.value, raft=replace(node.value.raft, removed_by=("pg2", "pg3")))
    options = ("--yes", "--force", "--config", config, "--timeout", "300ms")

    assert appliance("members", "remove", node.value.seen.me.name, *options).code == 0
    assert appliance("members", "remove", "pg3", *options).code == 5


@pytest.mark.parametrize("options", [["--yes"], ["--dry-run"]])
def test_a_refused_removal_is_4_with_the_checks(appliance, node, config, options):
    node.answer = OperatorAnswer("refused", code="member.running", message="pg3: runs", checks=(RUNS,))
    found = appliance("members", "remove", "pg3", "--config", config, *options)

    assert found.code == 4
    assert "removal refused: pg3: runs (member.running)" in found.err
    assert "✗   pg3        member.running" in found.err


def test_without_a_terminal_nothing_is_removed(appliance, node, config, monkeypatch):
    monkeypatch.setattr("sys.stdin.isatty", lambda: False)
    assert appliance("members", "remove", "pg3", "--config", config).code == 4
    assert node.requests == []
