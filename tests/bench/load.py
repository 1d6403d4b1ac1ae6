"""pgbench at full load on the machine that all three nodes share: no epoch and no raft term may begin meanwhile."""

import re
import shutil
import subprocess
import time
from dataclasses import dataclass

from appliance.cluster.config import Policy
from appliance.postgres.binaries import find
from tests.bench.result import Result
from tests.harness.cluster import TTL_S, Cluster
from tests.harness.node import Node

CLIENTS = 8
THREADS = 2
SCALE = 10
LOOK_S = 0.05
TICKS_S = 20.0
"""A node remembers its latest tick for a minute."""
END_LIMIT_S = 60.0
_DONE = re.compile(r"number of transactions actually processed: (\d+)")
_FAILED = re.compile(r"number of failed transactions: (\d+)")


@dataclass
class Watched:
    """What the nodes said while pgbench ran."""

    longest_gap_s: float = 0.0
    """between two confirmed renewals of the primary's lease: the greatest age seen of the last one"""
    latest_tick_s: float = 0.0
    """of any node's raft thread"""


def load(cluster: Cluster, minutes: float) -> Result:
    """Raises AssertionError when the primary, its epoch or the raft leader changed, or a transaction failed."""
    seconds, before = round(60 * minutes), standing(cluster)
    pgbench(cluster, "-i", "-q", "-s", str(SCALE)).communicate()
    words = ("-n", "-c", str(CLIENTS), "-j", str(THREADS), "-T", str(seconds))
    watched = Watched()
    with pgbench(cluster, *words) as process:
        watch(cluster, process, watched)
        said = process.communicate(timeout=END_LIMIT_S)[0]
    after = standing(cluster)
    assert after == before, f"{before} became {after}\n{cluster.status()}"
    done, failed = _DONE.search(said), _FAILED.search(said)
    assert process.returncode == 0, said
    assert done is not None, said
    assert failed is None or failed[1] == "0", said
    notes = (
        f"{done[1]} transactions in {seconds} s; epoch {before['epoch']} and raft term {before['term']} stayed; longest"
        f" gap between renewals {watched.longest_gap_s:.2f} s; latest tick {1000 * watched.latest_tick_s:.0f} ms"
    )
    return Result(
        "load", f"pgbench, {CLIENTS} clients, on the nodes' machine", "tx/s", (int(done[1]) / seconds,), notes
    )


def pgbench(cluster: Cluster, *words: str) -> subprocess.Popen[str]:
    tool = shutil.which("pgbench") or find().tool("pgbench")
    command = [tool, *words, cluster.dsn([cluster.primary()])]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def standing(cluster: Cluster) -> dict[str, object]:
    view = cluster.primary().view()
    return {"primary": view["primary"], "epoch": view["epoch"], **{k: view["raft"][k] for k in ("leader", "term")}}


def watch(cluster: Cluster, process: "subprocess.Popen[str]", watched: Watched) -> None:
    primary, ticks_s = cluster.primary(), time.monotonic()
    lease_s = Policy(ttl_s=TTL_S).lease_s
    while process.poll() is None:
        left_s = primary.view()["lease"]["left_s"]
        if left_s is not None:
            watched.longest_gap_s = max(watched.longest_gap_s, lease_s - left_s)
        if time.monotonic() > ticks_s:
            ticks_s = time.monotonic() + TICKS_S
            watched.latest_tick_s = max(watched.latest_tick_s, *map(latest_tick_s, cluster))
        time.sleep(LOOK_S)
    watched.latest_tick_s = max(watched.latest_tick_s, *map(latest_tick_s, cluster))


def latest_tick_s(node: Node) -> float:
    return node.metrics()["appliance_raft_tick_late_seconds"]
