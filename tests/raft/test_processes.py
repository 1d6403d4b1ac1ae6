"""Three real processes and kill -9: no acknowledged command is lost, none is applied twice."""

import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]


class Processes:
    def __init__(self, directory, members, certificates):
        self.directory = directory
        self.certificates = certificates
        self.members = members
        self.processes = {}
        self.mutexes = {name: threading.Lock() for name in members}

    def start(self, *names):
        for name in names or self.members:
            self.processes[name] = subprocess.Popen(
                [
                    sys.executable,
                    str(Path(__file__).with_name("replica_process.py")),
                    name,
                    str(self.directory / name),
                    json.dumps(self.members),
                    *self.certificate(name),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
            )

    def certificate(self, name):
        if self.certificates is None:
            return []
        tls = self.certificates.member(name)
        return [str(path) for path in (tls.ca, tls.cert, tls.key)]

    def ask(self, name, line):
        """The process's answer; None when it has none any more."""
        with self.mutexes[name]:
            process = self.processes[name]
            try:
                process.stdin.write(line + "\n")
                process.stdin.flush()
                return process.stdout.readline().strip() or None
            except (OSError, ValueError):
                return None

    def kill(self, *names):
        for name in names:
            self.processes[name].send_signal(signal.SIGKILL)
        for name in names:
            process = self.processes[name]
            process.wait(5)
            with self.mutexes[name]:
                close_pipes(process)

    def leader(self):
        deadline_s = time.monotonic() + 15
        while time.monotonic() < deadline_s:
            for name in self.members:
                if self.ask(name, "leader") == name:
                    return name
            time.sleep(0.02)
        raise AssertionError("no leader")

    def state(self, name):
        deadline_s = time.monotonic() + 15
        while time.monotonic() < deadline_s:
            answer = json.loads(self.ask(name, "state") or "[null, null]")
            if answer[0] == "Applied":
                return answer[1]
            time.sleep(0.05)
        raise AssertionError(f"{name} confirms no state")

    def close(self):
        for process in self.processes.values():
            if process.poll() is None:
                process.kill()
            process.wait(5)
            close_pipes(process)


def close_pipes(process):
    for pipe in (process.stdin, process.stdout):
        with suppress(OSError):  # what was still to be written has no reader any more
            pipe.close()


class Writers:
    """One thread per process proposes one command after the other and keeps what was acknowledged."""

    def __init__(self, processes):
        self.processes = processes
        self.acknowledged = []
        self.over = threading.Event()
        self.threads = [threading.Thread(target=self.write, args=(name,)) for name in processes.members]
        for thread in self.threads:
            thread.start()

    def write(self, name):
        number = 0
        while not self.over.is_set():
            identity = f"{name}-{number}"
            number += 1
            if self.processes.ask(name, f"propose {identity}") == "Applied":
                self.acknowledged.append(identity)
            else:
                time.sleep(0.02)

    def stop(self):
        self.over.set()
        for thread in self.threads:
            thread.join(10)


@pytest.fixture
def processes(cluster, tmp_path):
    processes = Processes(tmp_path, cluster.members, cluster.certificates)
    processes.start()
    yield processes
    processes.close()


def check(processes, writers):
    states = [processes.state(name) for name in processes.members]
    shortest = min(states, key=len)
    assert all(state[: len(shortest)] == shortest for state in states)
    assert len(set(shortest)) == len(shortest)
    assert len(writers.acknowledged) > 50
    assert not set(writers.acknowledged) - set(shortest)


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
