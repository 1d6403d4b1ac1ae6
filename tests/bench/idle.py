"""What an idle node costs, without PostgreSQL."""

import time
from pathlib import Path

from tests.bench.result import Result
from tests.harness.cluster import Cluster
from tests.harness.node import Node

IDLE_S = 30.0
CLOCK_TICKS = 100


def idle(cluster: Cluster) -> list[Result]:
    """CPU and memory of node process and guard, without clients, for half a minute."""
    time.sleep(3.0)
    before = {node.name: cpu_s(node) for node in cluster}
    time.sleep(IDLE_S)
    cpu = [(cpu_s(node) - before[node.name]) * 60 / IDLE_S for node in cluster]
    memory = [pss_mib(node) for node in cluster]
    roles = f"primary {cluster.primary().name}, raft leader {cluster['n1'].view()['raft']['leader']}"
    return [
        Result("idle-cpu", "idle, node process and guard, each of three nodes", "CPU s/min", tuple(cpu), roles),
        Result("idle-memory", "idle, node process and guard, each of three nodes", "MiB PSS", tuple(memory)),
    ]


def processes(node: Node) -> list[int]:
    """Node process and guard, without PostgreSQL."""
    return [
        pid for pid, line in node.everything().items() if "postgres" not in line.split(" ", 1)[0].rsplit("/", 1)[-1]
    ]


def cpu_s(node: Node) -> float:
    stats = (Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1].split() for pid in processes(node))
    return sum(int(stat[11]) + int(stat[12]) for stat in stats) / CLOCK_TICKS


def pss_mib(node: Node) -> float:
    rollups = (Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines() for pid in processes(node))
    return sum(int(line.split()[1]) for lines in rollups for line in lines if line.startswith("Pss:")) / 1024
