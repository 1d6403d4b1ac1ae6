"""Three real processes and kill -9: no acknowledged command is lost, none is applied twice."""

import resource
import signal
import time

import pytest

from tests.raft.processes import Processes, Writers, lost_or_doubled


@pytest.fixture
def processes(cluster, tmp_path):
    processes = Processes(tmp_path, cluster.members, cluster.certificates)
    processes.start()
    yield processes
    processes.close()


def check(processes, writers):
    assert lost_or_doubled([processes.state(name) for name in processes.members], writers.acknowledged) is None
    assert len(writers.acknowledged) > 50


def test_r1_killing_the_leader_loses_nothing(processes):
    processes.leader()
    writers = Writers(processes)
    for _ in range(3):
        time.sleep(0.5)
        leader = processes.leader()
        processes.kill(leader)
        processes.start(leader)
        processes.leader()
    time.sleep(0.5)
    writers.stop()
    check(processes, writers)


def test_r1_killing_all_at_once_loses_nothing(processes):
    processes.leader()
    writers = Writers(processes)
    for _ in range(3):
        time.sleep(0.7)
        processes.kill(*processes.members)
        processes.start()
        processes.leader()
    time.sleep(0.5)
    writers.stop()
    check(processes, writers)


def test_r1_a_full_disk_stops_the_leader_and_the_others_go_on(processes):
    """A limit on file size stands in for the full disk: writing fails, the process lives."""
    old = processes.leader()
    for number in range(5):
        assert processes.ask(old, f"propose a{number}") == "Applied"
    size_bytes = (processes.directory / old / "journal").stat().st_size
    resource.prlimit(processes.processes[old].pid, resource.RLIMIT_FSIZE, (size_bytes + 10, size_bytes + 10))
    assert processes.ask(old, "propose lost") in ("Unknown", "Refused")  # a late note of the commit may fail first
    assert processes.ask(old, "propose later") == "Refused"
    assert processes.ask(old, "leader") == "-"
    new = processes.leader()
    assert processes.ask(new, "propose b") == "Applied"
    processes.kill(old)
    processes.start(old)
    state = processes.state(old)
    assert [command for command in state if command != "lost"] == ["a0", "a1", "a2", "a3", "a4", "b"]


def test_a_stopped_leader_is_replaced_and_follows_when_it_goes_on(processes):
    old = processes.leader()
    for number in range(5):
        assert processes.ask(old, f"propose a{number}") == "Applied"
    processes.processes[old].send_signal(signal.SIGSTOP)
    try:
        others = [name for name in processes.members if name != old]
        deadline_s = time.monotonic() + 10
        while not any(processes.ask(name, "leader") == name for name in others):
            assert time.monotonic() < deadline_s
            time.sleep(0.02)
        state = processes.state(others[0])
    finally:
        processes.processes[old].send_signal(signal.SIGCONT)
    assert processes.state(old)[: len(state)] == state


def test_a_stopped_follower_that_goes_on_deposes_nobody(processes):
    leader = processes.leader()
    for name in processes.members:
        processes.state(name)
    term = processes.status(leader)["term"]
    stopped = next(name for name in processes.members if name != leader)
    processes.processes[stopped].send_signal(signal.SIGSTOP)
    try:
        time.sleep(2.5)  # over all timeouts
        assert processes.ask(leader, "propose a") == "Applied"
    finally:
        processes.processes[stopped].send_signal(signal.SIGCONT)
    assert processes.state(stopped) == ["a"]
    time.sleep(1.5)
    assert (processes.leader(), processes.status(stopped)["term"]) == (leader, term)
