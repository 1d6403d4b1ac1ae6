"""Switchover, failover and bootstrap: asking, refusing, following, and the exit code of every ending."""

import json
import os
import pty
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from threading import Thread, Timer

import pytest

from appliance.api.published import OperatorAnswer
from appliance.cli import change
from appliance.cluster.state import FailedBootstrap, Phase, PhaseMark
from appliance.ha.checks import Check

from .conftest import TOKEN

ROOT = Path(__file__).parents[3]
LAGGING = Check("candidate.lagging", "pg3", False, "5000000 bytes behind, maximum_lag_on_failover is 1048576")
FINE = Check("candidate.reachable", "pg2", True, "reported 0.2 s ago, PostgreSQL running")
NO_QUORUM = OperatorAnswer("no_quorum", code="quorum.none", message="the raft leader has no quorum")


@pytest.fixture(autouse=True)
def _no_terminal(monkeypatch):
    with open(os.devnull) as nobody:
        monkeypatch.setattr("sys.stdin", nobody)
        yield


@pytest.fixture
def walking(node):
    """The operation walks through its phases as soon as it has begun."""
    submit = node.submit

    def and_walk(request, limit_s):
        answered = submit(request, limit_s)
        if not request.dry_run and node.value.state.running_operation() is not None:
            Thread(target=walk, args=(node,)).start()
        return answered

    node.submit = and_walk
    node.ending = Phase.DONE
    return node


def walk(node):
    for number, phase in enumerate((Phase.STOPPING, Phase.PROMOTING, node.ending)):
        operation = node.value.state.running_operation()
        mark = PhaseMark(phase, f"2026-11-23T06:00:0{number}Z", f"step {number}")
        node.put(replace(operation, phase=phase, marks=(*operation.marks, mark), message="so it went"))


def test_without_a_terminal_and_without_yes_it_is_4_at_once(appliance, node, config):
    for command in (["switchover"], ["failover", "--to", "pg2"]):
        found = appliance(*command, "--config", config)
        assert found.code == 4
        assert "there is no terminal to ask on; pass --yes" in found.err
    assert node.requests == []


def test_a_switchover_streams_its_phases_and_says_who_is_primary(appliance, walking, config):
    found = appliance("switchover", "--to", "pg2", "--yes", "--reason", "kernel", "--config", config)

    assert found.code == 0
    assert [line.split()[1] for line in found.err.splitlines()] == ["requested", "stopping", "promoting", "done"]
    assert found.out == "✓ switchover done: so it went\n"
    request = walking.requests[0]
    assert (request.kind, request.target, request.reason) == ("switchover", "pg2", "kernel")


def test_json_is_the_operation(appliance, walking, config):
    found = appliance("switchover", "--to", "pg2", "--yes", "--config", config, "-o", "json")

    assert json.loads(found.out)["phase"] == "done"


def test_a_failed_operation_is_1(appliance, walking, config):
    walking.ending = Phase.FAILED
    found = appliance("switchover", "--yes", "--config", config)

    assert found.code == 1
    assert "failed: so it went" in found.err


@pytest.mark.parametrize("options", [["--no-wait"], ["--timeout", "0.2s"]])
def test_an_end_that_was_not_seen_is_5_with_the_id(appliance, node, config, options):
    found = appliance("switchover", "--yes", "--config", config, *options)

    assert found.code == 5
    assert node.requests[0].id in found.out + found.err


def test_an_interrupted_wait_leaves_the_operation_alone(appliance, node, config, monkeypatch):
    def interrupt(_seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr(change.time, "sleep", interrupt)
    found = appliance("switchover", "--yes", "--config", config)

    assert found.code == 130
    assert f"the operation goes on: appliance operations show {node.requests[0].id}" in found.err


@pytest.mark.parametrize("options", [["--yes"], ["--dry-run"]])
def test_a_refusal_is_4_with_every_check(appliance, node, config, options):
    node.answer = OperatorAnswer(
        "refused", code="candidate.lagging", message="pg3: too far behind", hint="wait", checks=(FINE, LAGGING)
    )
    found = appliance("switchover", "--config", config, *options)

    assert found.code == 4
    assert found.err.splitlines() == [
        "appliance: switchover refused: pg3: too far behind (candidate.lagging); wait",
        "OK  CANDIDATE  CHECK                DETAIL",
        "✓   pg2        candidate.reachable  reported 0.2 s ago, PostgreSQL running",
        "✗   pg3        candidate.lagging    5000000 bytes behind, maximum_lag_on_failover is 1048576",
    ]


def test_the_checks_of_a_refused_dry_run_are_data(appliance, node, config):
    node.answer = OperatorAnswer("refused", code="candidate.lagging", message="pg3: no", checks=(FINE, LAGGING))
    for command in (["switchover"], ["failover", "--to", "pg3"], ["bootstrap"]):
        found = appliance(*command, "--dry-run", "--config", config, "-o", "json")
        assert found.code == 4
        assert [check["ok"] for check in json.loads(found.out)["checks"]] == [True, False]
    tsv = appliance("switchover", "--dry-run", "--config", config, "-o", "tsv").out.splitlines()
    assert [line.split("\t")[:3] for line in tsv[1:]] == [
        ["candidate.reachable", "pg2", "true"],
        ["candidate.lagging", "pg3", "false"],
    ]


def test_a_dry_run_that_would_go_ahead_is_0_and_starts_nothing(appliance, node, config):
    node.answer = OperatorAnswer("accepted", message="all checks pass", checks=(FINE,))
    found = appliance("failover", "--to", "pg2", "--dry-run", "--config", config)

    assert found.code == 0
    assert "✓   pg2        candidate.reachable" in found.out
    assert [request.dry_run for request in node.requests] == [True]


@pytest.mark.parametrize(
    ("answer", "code", "words"),
    [
        (NO_QUORUM, 3, "the raft leader has no quorum"),
        (OperatorAnswer("unknown", code="outcome.unknown", message="no answer in 5 s"), 5, "outcome not known: no ans"),
    ],
)
def test_no_quorum_is_3_and_unknown_is_5(appliance, node, config, answer, code, words):
    node.answer = answer
    found = appliance("switchover", "--yes", "--config", config)

    assert found.code == code
    assert words in found.err
    assert code == 3 or node.requests[0].id in found.err


def test_a_node_without_a_quorum_is_not_said_to_be_silent(appliance, node, config):
    node.answer = NO_QUORUM
    found = appliance("switchover", "--yes", "--config", config)

    assert found.err.startswith("appliance: no quorum, nothing was changed: ")
    assert "is the node running" not in found.err


@pytest.fixture
def frozen():
    """The API of a stopped process: the kernel takes connections, nobody answers."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


def test_a_change_passes_by_a_node_that_hangs(appliance, walking, url, frozen):
    found = appliance("switchover", "--yes", "--api", f"{frozen},{url}", "--token", TOKEN)

    assert found.code == 0, found.err
    assert len(walking.requests) == 1


def test_a_dry_run_without_an_answer_is_no_unknown_outcome(appliance, frozen, monkeypatch):
    monkeypatch.setattr("appliance.cli.client.CHANGE_LIMIT_S", 0.3)
    found = appliance("switchover", "--dry-run", "--api", frozen)

    assert found.code == 3
    assert "no node answers" in found.err


def test_over_tcp_a_token_is_needed(appliance, walking, url, monkeypatch):
    assert appliance("switchover", "--yes", "--api", url).code == 6
    assert appliance("switchover", "--yes", "--api", url, "--token", "wrong").code == 6
    monkeypatch.setenv("APPLIANCE_TOKEN", TOKEN)

    assert appliance("switchover", "--yes", "--api", url).code == 0


@pytest.mark.parametrize(("typed", "code"), [(b"y\n", 0), (b"n\n", 4), (b"\n", 4), (b"\x04", 4)])
def test_on_a_terminal_it_shows_the_checks_and_asks(walking, config, typed, code):
    walking.answer = None
    controller, terminal = pty.openpty()
    command = [sys.executable, "-m", "appliance.cli.main", "switchover", "--to", "pg2", "--config", str(config)]
    process = subprocess.Popen(
        command, cwd=ROOT, stdin=terminal, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    os.write(controller, typed)
    _, errors = process.communicate(timeout=30)
    os.close(controller)
    os.close(terminal)

    assert process.returncode == code, errors
    assert "make pg2 the primary? [y/N]" in errors
    assert len(walking.requests) == (2 if code == 0 else 1)


def test_bootstrap_waits_for_an_open_primary(appliance, node, config):
    found = appliance("bootstrap", "--config", config)

    assert found.code == 0
    assert found.out == "✓ cluster shop is initialised: primary pg1, system identifier 7423474350493388827\n"
    assert node.requests[0].kind == "bootstrap"


def test_bootstrap_again_is_4(appliance, node, config):
    done = Check("bootstrap.done", "", False, "cluster shop is initialised already")
    node.answer = OperatorAnswer("refused", code="bootstrap.done", message=done.detail, checks=(done,))
    found = appliance("bootstrap", "--config", config)

    assert found.code == 4
    assert "bootstrap refused: cluster shop is initialised already (bootstrap.done)" in found.err


def test_a_bootstrap_that_was_given_up_is_1_with_the_reason(appliance, node, config, monkeypatch):
    submit = node.submit

    def fails(request, limit_s):
        earlier, now = FailedBootstrap("pg1", "another", "of yesterday"), FailedBootstrap("pg1", request.id, "no room")
        blank = replace(node.value.state, appointment=None, system_identifier="", failed_bootstrap=earlier)
        node.value = replace(node.value, state=blank)
        later = replace(node.value, state=replace(blank, failed_bootstrap=now))
        Timer(0.3, lambda: setattr(node, "value", later)).start()
        return submit(request, limit_s)

    monkeypatch.setattr(node, "submit", fails)
    found = appliance("bootstrap", "--config", config)

    assert found.code == 1
    assert "bootstrap on pg1 was given up: no room (bootstrap.failed)" in found.err
    assert "yesterday" not in found.err


def test_bootstrap_without_a_primary_in_time_is_5(appliance, node, config):
    node.value = replace(node.value, state=replace(node.value.state, appointment=None))
    found = appliance("bootstrap", "--timeout", "0.3s", "--config", config)

    assert found.code == 5
    assert "has no open primary after 0.3 s" in found.err


def test_a_request_that_got_no_answer_is_unknown_and_not_sent_elsewhere(appliance, node, config, monkeypatch):
    monkeypatch.setattr("appliance.cli.client.CHANGE_LIMIT_S", 2.0)
    node.stuck.clear()
    found = appliance("switchover", "--yes", "--config", config)
    until_s = time.monotonic() + 5
    while not node.requests and time.monotonic() < until_s:  # the node may be slower than its client is patient
        time.sleep(0.01)
    node.stuck.set()

    assert found.code == 5
    assert len(node.requests) == 1
    assert node.requests[0].id in found.err
