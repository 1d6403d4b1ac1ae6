"""Random faults on a real cluster with clients that write: `./dev chaos [--minutes N] [--seed S]`.

After every fault the cluster must come back whole, no two epochs may have acknowledged at one time, and all nodes must
have the same rows. A line for each fault; the seed chooses the faults, the machine's timing does the rest. Rows that
asynchronous replication may lose are counted and shown, not forbidden.
"""

import argparse
import signal
import sys
import time
from collections.abc import Callable
from random import Random

from tests.harness.cluster import Cluster
from tests.harness.ledger import Ledger, expect_same_everywhere
from tests.harness.node import Node
from tests.harness.processes import send

HEAL_LIMIT_S = 60.0
Fault = Callable[[Cluster, Random], Node]


def postmaster_killed(cluster: Cluster, rng: Random) -> Node:
    node = rng.choice(list(cluster))
    if node.postmaster is not None:
        send(node.postmaster, signal.SIGKILL)
    return node


def guard_killed(cluster: Cluster, rng: Random) -> Node:
    node = rng.choice(list(cluster))
    send(node.guard(), signal.SIGKILL)
    return node


def node_process_killed(cluster: Cluster, rng: Random) -> Node:
    node = rng.choice(list(cluster))
    node.end(signal.SIGKILL)
    time.sleep(rng.uniform(0, 9))
    node.start()
    return node


def node_process_frozen(cluster: Cluster, rng: Random) -> Node:
    node = rng.choice([*cluster, cluster.primary()])
    node.tell(signal.SIGSTOP)
    time.sleep(rng.uniform(1, 9))
    node.tell(signal.SIGCONT)
    return node


def primary_host_lost(cluster: Cluster, rng: Random) -> Node:
    node = cluster.primary()
    node.lose_host()
    time.sleep(rng.uniform(0, 9))
    node.start()
    return node


def two_lost(cluster: Cluster, rng: Random) -> Node:
    first, second = rng.sample(list(cluster), 2)
    first.lose_host()
    time.sleep(rng.uniform(0, 4))
    second.end(signal.SIGKILL)
    time.sleep(rng.uniform(0, 3))
    first.start()
    second.start()
    return first


def all_lost(cluster: Cluster, rng: Random) -> Node:
    for node in cluster:
        node.lose_host()
    nodes = rng.sample(list(cluster), len(cluster.nodes))
    for node in nodes:
        node.start()
        time.sleep(rng.uniform(0, 2))
    return nodes[0]


def switched_over(cluster: Cluster, _: Random) -> Node:
    node = cluster.primary()
    node.post("switchovers", {}, wait="20s")
    return node


FAULTS: tuple[Fault, ...] = (
    postmaster_killed,
    guard_killed,
    node_process_killed,
    node_process_frozen,
    primary_host_lost,
    primary_host_lost,
    two_lost,
    all_lost,
    switched_over,
)


def strike(cluster: Cluster, fault: Fault, rng: Random) -> str:
    """One fault under writes, and what it did; raises AssertionError when a promise is broken."""
    with Ledger(cluster) as ledger:
        before, began_s = cluster.primary(), time.monotonic()
        struck = fault(cluster, rng)
        primary = cluster.wait_whole(HEAL_LIMIT_S)
        healed_s = time.monotonic() - began_s
        ledger.wait_for_writes(20)
        audit = ledger.audit(primary)
    audit.expect_one_at_a_time()
    expect_same_everywhere(cluster)
    return (
        f"{fault.__name__:<20} {struck.name}  primary {before.name} -> {primary.name}  whole after {healed_s:4.1f} s"
        f"  writes stopped {audit.longest_gap_s():5.2f} s  rows {len(audit.acknowledged)}, lost {len(audit.lost)}"
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="./dev chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 1_000_000)
    options = parser.parse_args()
    rng, until_s, count = Random(options.seed), time.monotonic() + 60 * options.minutes, 0
    sys.stdout.write(f"seed {options.seed}\n")
    with Cluster() as cluster:
        cluster.up()
        while time.monotonic() < until_s:
            sys.stdout.write(strike(cluster, rng.choice(FAULTS), rng) + "\n")
            sys.stdout.flush()
            count += 1
    sys.stdout.write(f"{count} faults, no two primaries at a time, whole after each\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
