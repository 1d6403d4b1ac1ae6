"""Replicas as real processes on loopback, and clients that keep what was acknowledged to them."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]


class Processes:
    """`settings` are fields of ReplicaConfig; `certificates` None: in the clear.

    `enter` and `environment`: words before the command of a process, and variables for it, by name.
    """

    def __init__(self, directory, members, certificates, *, machine="all", enter=None, environment=None, **settings):
        self.directory = directory
        self.certificates = certificates
        self.members = members
        self.machine = machine
        self.enter = enter or {}
        self.environment = environment or {}
        self.settings = settings
        self.processes = {}
        self.mutexes = {name: threading.Lock() for name in members}

    def start(self, *names):
        for name in names or self.members:
            self.processes[name] = subprocess.Popen(
                [
                    *self.enter.get(name, ()),
                    sys.executable,
                    str(Path(__file__).with_name("replica_process.py")),
                    name,
                    str(self.directory / name),
                    json.dumps(self.members),
                    json.dumps(self.settings),
                    self.machine,
                    *self.certificate(name),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env={**os.environ, "PYTHONPATH": str(REPOSITORY), **self.environment.get(name, {})},
            )

    def certificate(self, name):
        if self.certificates is None:
            return []
        tls = self.certificates.tls(name)
        if not tls.cert.exists():
            self.certificates.member(name)
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

    def leader(self, among=None):
        deadline_s = time.monotonic() + 15
        while time.monotonic() < deadline_s:
            for name in among or self.members:
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

    def status(self, name):
        return json.loads(self.ask(name, "status"))

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
    """One thread per process proposes one command after the other and keeps what was acknowledged.

    What got no definite answer is proposed again under the same id, at the next process.
    """

    TRIES = 3

    def __init__(self, processes):
        self.processes = processes
        self.acknowledged = []
        self.repeated = 0
        self.over = threading.Event()
        self.threads = [threading.Thread(target=self.write, args=(name,)) for name in processes.members]
        for thread in self.threads:
            thread.start()

    def write(self, name):
        names = list(self.processes.members)
        at, number = names.index(name), 0
        while not self.over.is_set():
            identity = f"{name}-{number}"
            number += 1
            for turn in range(self.TRIES):
                if self.processes.ask(names[(at + turn) % len(names)], f"propose {identity}") == "Applied":
                    self.acknowledged.append(identity)
                    break
                self.repeated += 1
                time.sleep(0.02)

    def stop(self):
        self.over.set()
        for thread in self.threads:
            thread.join(30)
            assert not thread.is_alive()


def lost_or_doubled(states, acknowledged):
    """What is wrong with what the replicas hold, in words; None when nothing is.

    They may differ in length: what is on its way is applied at one before the other.
    """
    shortest = min(states, key=len)
    if any(state[: len(shortest)] != shortest for state in states):
        return "the replicas have applied different commands"
    longest = max(states, key=len)
    if len(set(longest)) != len(longest):
        twice = sorted({command for command in longest if longest.count(command) > 1})
        return f"applied twice: {', '.join(twice[:5])}"
    if lost := set(acknowledged) - set(shortest):
        return f"acknowledged and lost: {', '.join(sorted(lost)[:5])}"
    return None
