"""`failover --allow-data-loss`: what is shown, whose name is asked for, and what is sent; and `explain`."""

import json
import os
import pty
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from appliance.api.published import OperatorAnswer
from appliance.cluster.state import AcceptedLoss, Change, HistoryEntry, LeaseStatus, Lost, Position
from appliance.ha.candidates import prospect
from appliance.ha.checks import Check
from tests.unit.cluster.building import AT, LSN, contested, sync
from tests.unit.ha.building import WAITING, heard, report

ROOT = Path(__file__).parents[3]
SHOWN = prospect(contested(), heard(report("pg3", lsn=LSN - 500)), WAITING, "pg3", 41.0)
FINE = Check("candidate.reachable", "pg3", True, "reported 0.2 s ago, PostgreSQL running")
LOSSY = ("failover", "--to", "pg3", "--allow-data-loss")
LINES = (
    "Last known position of pg1, the last primary: 0/3000000 on timeline 2, reported 41.0 s ago. What it ",
    "pg3        2   0/2FFFE0C  500             yes        0.2 s  -",
    "With pg3 is given up: 500 bytes of what is known, and what is not. In the way is quorum.votes_missing: ",
)


@pytest.fixture
def shown(node):
    """The raft leader shows what is known, and accepts."""
    node.answer = OperatorAnswer("accepted", message="all checks pass", checks=(FINE,), prospect=SHOWN)
    return node


@pytest.fixture(autouse=True)
def _no_terminal(monkeypatch):
    with open(os.devnull) as nobody:
        monkeypatch.setattr("sys.stdin", nobody)
        yield


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((), "there is no terminal to ask on; pass --yes and --cluster NAME"),
        (("--cluster", "shop"), "there is no terminal to ask on; pass --yes and --cluster NAME"),
        (("--yes",), "--yes is not enough; pass --cluster NAME as well"),
    ],
)
def test_without_the_name_of_the_cluster_it_is_4_at_once(appliance, shown, config, options, words):
    found = appliance(*LOSSY, *options, "--config", config)

    assert (found.code, words in found.err) == (4, True)
    assert shown.requests == []


def test_what_is_known_is_shown_and_exactly_that_is_accepted(appliance, shown, config):
    found = appliance(*LOSSY, "--yes", "--cluster", "shop", "--no-wait", "--reason", "burnt", "--config", config)

    assert found.code == 5, found.err
    for line in LINES:
        assert line in found.err
    dry, sent = shown.requests
    assert (dry.dry_run, dry.allow_data_loss, dry.cluster) == (True, True, "")
    assert (sent.dry_run, sent.allow_data_loss, sent.cluster, sent.reason) == (False, True, "shop", "burnt")
    assert sent.accepts == AcceptedLoss(Position(2, LSN - 500), Position(2, LSN))


def test_a_dry_run_shows_the_same_and_asks_nothing(appliance, shown, config):
    found = appliance(*LOSSY, "--dry-run", "--config", config)

    assert found.code == 0
    for line in LINES:
        assert line in found.out
    assert [request.dry_run for request in shown.requests] == [True]
    document = json.loads(appliance(*LOSSY, "--dry-run", "--config", config, "-o", "json").out)
    assert document["prospect"]["lost_bytes"] == 500


def test_nothing_is_asked_where_a_check_stands_in_the_way(appliance, node, config):
    lives = Check("loss.needless", "", False, "pg1 is open")
    node.answer = OperatorAnswer("refused", code=lives.code, message=lives.detail, checks=(lives,), prospect=SHOWN)

    for options in (("--yes", "--cluster", "shop"), ("--dry-run",)):
        found = appliance(*LOSSY, *options, "--config", config)
        assert found.code == 4
        assert "failover refused: pg1 is open (loss.needless)" in found.err
    assert all(request.dry_run for request in node.requests)


MAY_WRITE = prospect(
    contested(sync(1, "pg2", failsafe=True), lease=LeaseStatus.EXPIRED), heard(report("pg3", lsn=LSN - 500)), WAITING,
    "pg3", 41.0,
)  # fmt: skip


@pytest.fixture
def vouched(shown):
    """The last primary may go on without the others."""
    shown.answer = replace(shown.answer, prospect=MAY_WRITE)
    return shown


def test_r16_where_the_last_primary_may_be_writable_a_yes_does_not_say_that_it_is_stopped(appliance, vouched, config):
    sure = ("--yes", "--cluster", "shop", "--no-wait", "--config", config)
    found = appliance(*LOSSY, *sure)

    assert (found.code, [request.dry_run for request in vouched.requests]) == (4, [True])
    assert "With --stopped pg1 you state that it is stopped, and that its host is off or gone" in found.err
    assert "Should it run after all, pg1 and pg3 are primaries at one time." in found.err
    assert "only you can know that pg1 is stopped: switch its host off, then pass --stopped pg1 too" in found.err
    stated = appliance(*LOSSY, *sure, "--stopped", "pg1")
    assert stated.code == 5, stated.err
    assert vouched.requests[-1].accepts == replace(MAY_WRITE.accepts, stopped="pg1")


def test_r16_a_dry_run_tells_so_too(appliance, vouched, config):
    found = appliance(*LOSSY, "--dry-run", "--config", config)
    assert (found.code, "pg1 may be writable on the word of pg2" in found.out) == (0, True)


def test_nothing_is_said_of_the_last_primary_where_the_votes_or_its_lease_say_it(appliance, shown, config):
    found = appliance(*LOSSY, "--yes", "--cluster", "shop", "--no-wait", "--config", config)
    assert ("--stopped" in found.err, shown.requests[-1].accepts.stopped) == (False, "")


@pytest.mark.parametrize("option", ["--cluster", "--stopped"])
def test_what_is_for_a_loss_only_is_not_taken_without_one(appliance, shown, config, option):
    found = appliance("failover", "--to", "pg3", "--yes", option, "shop", "--config", config)
    assert (found.code, f"{option} is for --allow-data-loss only" in found.err) == (2, True)
    assert shown.requests == []


@pytest.mark.parametrize(("typed", "sent"), [(b"shop\npg1\n", "pg1"), (b"shop\ny\n", None), (b"shop\n\n", None)])
def test_r16_on_a_terminal_the_last_primary_is_typed_too(vouched, config, typed, sent):
    code, errors = at_a_terminal(config, typed)

    assert "Type the name of the last primary to state that its host is off (pg1): " in errors
    assert [request.accepts.stopped for request in vouched.requests[1:]] == ([sent] if sent else [])
    assert code == (5 if sent else 4), errors
    assert ("nobody stated that pg1 is stopped; nothing was changed" in errors) is (sent is None)


def at_a_terminal(config, typed):
    """Exit code and what was said."""
    controller, terminal = pty.openpty()
    command = [sys.executable, "-m", "appliance.cli.main", *LOSSY, "--no-wait", "--config", str(config)]
    process = subprocess.Popen(
        command, cwd=ROOT, stdin=terminal, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    os.write(controller, typed)
    _, errors = process.communicate(timeout=60)
    os.close(controller)
    os.close(terminal)
    return process.returncode, errors


@pytest.mark.parametrize(("typed", "sent"), [(b"shop\n", "shop"), (b"y\n", "y"), (b"\n", None), (b"\x04", None)])
def test_on_a_terminal_the_name_is_typed_and_a_yes_is_none(shown, config, typed, sent):
    """Whether it is the right one the raft leader says."""
    code, errors = at_a_terminal(config, typed)

    assert "Type the name of the cluster to give that up for good: " in errors
    assert [request.cluster for request in shown.requests[1:]] == ([sent] if sent else [])
    assert code == (5 if sent else 4), errors


def test_the_history_shows_what_was_given_up(appliance, node, config):
    lost = Lost(Position(2, LSN), AT, 500, "quorum.votes_missing", "uid 0", "op1", "burnt")
    entry = HistoryEntry(AT, Change.FAILOVER, 5, 3, 0, "pg1", "pg3", "why", start=Position(2, LSN - 500), lost=lost)
    node.value = replace(node.value, state=replace(node.value.state, history=(entry,)))
    found = appliance("history", "--config", config)

    assert ">= 500 B by uid 0" in found.out
    assert json.loads(appliance("history", "--config", config, "-o", "json").out)[0]["lost"]["bytes"] == 500
    explained = appliance("explain", "--config", config)
    assert "given up by uid 0 (burnt): 500 bytes of WAL" in explained.out


def test_explain_names_the_primary_everybody_and_the_numbers(appliance, node, config):
    node.value = replace(node.value, leader_says="nothing to do")
    found = appliance("explain", "--config", config)

    assert found.code == 0, found.err
    lines = found.out.splitlines()
    assert lines[0] == "shop as pg1 knows it"
    assert any(
        line.startswith("Primary     pg1, since 2026-11-23T05:00:00+00:00: primary of epoch 4") for line in lines
    )
    assert any(line.endswith("and is open: nothing to fail over from (primary.open)") for line in lines)
    assert "Raft leader pg1: nothing to do" in lines
    assert "    ✓ candidate.behind  0/3000060 on timeline 2: nobody who can vote has more" in lines
    assert any("failover from pg3 to pg1: pg3 was silent" in line for line in lines)


def test_explain_one_member(appliance, config):
    found = appliance("explain", "pg3", "--config", config, "-o", "json")
    assert [m["member"] for m in json.loads(found.out)["explanation"]["members"]] == ["pg3"]
    assert appliance("explain", "pg3", "--config", config, "-o", "name").out == "pg3\n"

    unknown = appliance("explain", "pg9", "--config", config)
    assert (unknown.code, "no member 'pg9'; known: pg1, pg2, pg3 (member.unknown)" in unknown.err) == (1, True)


def test_explain_without_a_quorum_says_what_was_known_and_how_old_it_is_and_is_3(appliance, node, config):
    node.clock_s += 9.0
    found = appliance("explain", "--config", config)

    assert found.code == 3
    assert found.out.splitlines()[0] == "shop as pg1 knows it, 9.2 s old: it has no contact with a majority"
    assert "no contact with a majority for 9.2 s: alone it decides nothing (quorum.none)" in found.out
