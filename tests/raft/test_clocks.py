"""Wall clocks that step under real replicas: nothing of the consensus hangs on them, only certificates have dates."""

import time

import pytest

from tests.harness.certificates import Certificates
from tests.harness.skew_clock import SkewClock
from tests.raft.conftest import free_ports
from tests.raft.processes import Processes

NAMES = ("n1", "n2", "n3")
HOUR_S, DAY_S = 3600, 86400
LONGEST_ELECTION_S = 1.0


@pytest.fixture
def clock(tmp_path):
    return SkewClock(tmp_path)


@pytest.fixture
def processes(tmp_path, clock):
    members = {name: f"127.0.0.1:{port}" for name, port in zip(NAMES, free_ports(len(NAMES)), strict=True)}
    everywhere = dict.fromkeys(NAMES, clock.environment)
    processes = Processes(tmp_path, members, Certificates(tmp_path / "certificates"), environment=everywhere)
    processes.start()
    yield processes
    processes.close()


def settled(processes):
    """A leader that everybody follows, and its term."""
    processes.leader()
    for name in NAMES:
        processes.state(name)
    leader = processes.leader()
    return leader, processes.status(leader)["term"]


def test_the_clock_of_the_test_is_the_one_that_replicas_see(processes, clock):
    clock.step(HOUR_S)
    assert float(processes.ask("n1", "time")) - time.time() == pytest.approx(HOUR_S, abs=5)


@pytest.mark.parametrize("seconds", [400 * DAY_S, -400 * DAY_S])
def test_a_step_of_the_wall_clock_changes_neither_leader_nor_term(processes, clock, seconds):
    """Also one that makes the certificates invalid: connections that are up stay up."""
    leader, term = settled(processes)
    clock.step(seconds)
    deadline_s = time.monotonic() + 2 * LONGEST_ELECTION_S
    number = 0
    while time.monotonic() < deadline_s:
        assert processes.ask(NAMES[number % len(NAMES)], f"propose after-{number}") == "Applied"
        number += 1
    assert [processes.status(name)["leader"] for name in NAMES] == [leader] * len(NAMES)
    assert processes.status(leader)["term"] == term
    assert all(len(processes.state(name)) == number for name in NAMES)


def test_who_starts_while_certificates_are_not_valid_yet_comes_in_when_the_clock_is_right(processes, clock):
    leader, term = settled(processes)
    late = next(name for name in NAMES if name != leader)
    processes.kill(late)
    clock.step(-DAY_S)
    processes.start(late)
    time.sleep(2 * LONGEST_ELECTION_S)
    assert processes.ask(late, "propose too-early") == "Refused"
    assert processes.ask(leader, "propose without-it") == "Applied"
    clock.step(0)
    assert processes.state(late) == ["without-it"]
    assert (processes.leader(), processes.status(leader)["term"]) == (leader, term)
