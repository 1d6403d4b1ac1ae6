"""How fast replicas are: three processes on loopback, TLS and fsync on, timings as a node has them.

Times are taken at the other end of a pipe to the replica's process, so a pipe's round trip is in each.
"""

import os
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from appliance.node.config import RaftSection
from appliance.node.run import timings
from tests.bench.result import Result
from tests.harness.certificates import Certificates
from tests.raft.conftest import free_ports
from tests.raft.processes import Processes

NAMES = ("n1", "n2", "n3")
SAMPLES = 200
COMMAND_BYTES = 200
IDLE_S = 30.0
MANY = 10_000
_TICKS = os.sysconf("SC_CLK_TCK")
_numbers = count()


def measure(runs: int) -> Iterator[Result]:
    with replicas() as processes:
        yield from latencies(processes, runs)
        killed = tuple(killed_leader_ms(processes) for _ in range(runs))
        yield Result("raft-kill", "raft: leader killed (-9), until another leads", "ms", killed)
        moved = tuple(transferred_ms(processes) for _ in range(runs))
        yield Result("raft-transfer", "raft: leadership transferred, until the successor leads", "ms", moved)
        yield idle(processes)
    with replicas() as processes:
        yield from many_commands(processes)


@contextmanager
def replicas() -> Iterator[Processes]:
    directory = Path(tempfile.mkdtemp(prefix="raft-bench-", dir="/var/tmp"))
    members = {name: f"127.0.0.1:{port}" for name, port in zip(NAMES, free_ports(len(NAMES)), strict=True)}
    as_a_node = timings(RaftSection.model_fields["election_timeout"].default)
    processes = Processes(directory, members, Certificates(directory / "certificates"), machine="latest", **as_a_node)
    try:
        processes.start()
        settle(processes)
        yield processes
    finally:
        processes.close()
        shutil.rmtree(directory)


def settle(processes: Processes) -> str:
    """Wait until everybody takes commands; the leader."""
    for name in NAMES:
        deadline_s = time.monotonic() + 30
        while processes.ask(name, f"propose settle-{next(_numbers)}") != "Applied":
            assert time.monotonic() < deadline_s, f"{name} takes no command"
            time.sleep(0.02)
    return processes.leader()


def latencies(processes: Processes, runs: int) -> Iterator[Result]:
    leader = settle(processes)
    follower = next(name for name in NAMES if name != leader)
    for role, name in (("leader", leader), ("follower", follower)):
        for what, ask in (("commit", f"propose {{}} {COMMAND_BYTES}"), ("barrier", "barrier")):
            samples = [[asked_ms(processes, name, ask) for _ in range(SAMPLES)] for _ in range(runs)]
            medians = tuple(statistics.median(run) for run in samples)
            slowest = statistics.quantiles([each for run in samples for each in run], n=100)[-1]
            notes = f"{SAMPLES} each, one at a time; 99 % within {slowest:.1f} ms"
            yield Result(f"raft-{what}-{role}", f"raft: {what} asked of the {role}", "ms", medians, notes)


def asked_ms(processes: Processes, name: str, line: str) -> float:
    line = line.format(f"command-{next(_numbers)}")
    began_s = time.perf_counter()
    answer = processes.ask(name, line)
    took_ms = (time.perf_counter() - began_s) * 1000
    assert answer == "Applied", answer
    return took_ms


def killed_leader_ms(processes: Processes) -> float:
    old = settle(processes)
    others = [name for name in NAMES if name != old]
    began_s = time.perf_counter()
    processes.kill(old)
    await_leader(processes, others)
    took_ms = (time.perf_counter() - began_s) * 1000
    processes.start(old)
    return took_ms


def transferred_ms(processes: Processes) -> float:
    old = settle(processes)
    successor = next(name for name in NAMES if name != old)
    began_s = time.perf_counter()
    assert processes.ask(old, f"transfer {successor}") == "Applied"
    await_leader(processes, [successor])
    return (time.perf_counter() - began_s) * 1000


def await_leader(processes: Processes, names: list[str]) -> None:
    deadline_s = time.monotonic() + 30
    while not any(processes.ask(name, "leader") == name for name in names):
        assert time.monotonic() < deadline_s, "nobody leads"
        time.sleep(0.002)


def idle(processes: Processes) -> Result:
    leader = settle(processes)
    time.sleep(2.0)
    before = {name: cpu_s(processes, name) for name in NAMES}
    time.sleep(IDLE_S)
    cost = {name: (cpu_s(processes, name) - before[name]) * 60 / IDLE_S for name in NAMES}
    what = "raft: idle, each of three replicas"
    return Result("raft-idle", what, "CPU s/min", tuple(cost.values()), f"the leader {cost[leader]:.2f}")


def many_commands(processes: Processes) -> Iterator[Result]:
    """What a replica holds before, after ten thousand commands, and after as many again."""
    memory, disk = [memory_mib(processes)], [disk_mib(processes)]
    for _ in range(2):
        propose_many(processes)
        time.sleep(0.5)
        memory.append(memory_mib(processes))
        disk.append(disk_mib(processes))
    for name, what, found in (("memory", "memory (PSS)", memory), ("disk", "directory", disk)):
        middle = [statistics.median(values) for values in found]
        notes = f"before {middle[0]:.1f}, after {MANY} more {middle[2]:.1f}"
        yield Result(f"raft-{name}", f"raft: {what} after {MANY} commands, each replica", "MiB", tuple(found[1]), notes)


def propose_many(processes: Processes) -> None:
    def some(name: str) -> None:
        for _ in range(MANY // len(NAMES) + 1):
            asked_ms(processes, name, f"propose {{}} {COMMAND_BYTES}")

    threads = [threading.Thread(target=some, args=(name,)) for name in NAMES]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def cpu_s(processes: Processes, name: str) -> float:
    stat = Path(f"/proc/{processes.processes[name].pid}/stat").read_text().rsplit(") ", 1)[1].split()
    return (int(stat[11]) + int(stat[12])) / _TICKS


def memory_mib(processes: Processes) -> list[float]:
    rollups = [Path(f"/proc/{processes.processes[name].pid}/smaps_rollup").read_text() for name in NAMES]
    return [
        int(line.split()[1]) / 1024 for rollup in rollups for line in rollup.splitlines() if line.startswith("Pss:")
    ]


def disk_mib(processes: Processes) -> list[float]:
    return [sum(file.stat().st_size for file in (processes.directory / name).iterdir()) / 2**20 for name in NAMES]
