"""How long writes stop, and what an idle node costs: `./dev bench [--runs N] [--only NAME …] [--clear] [-o json]`.

Each figure of nodes is the longest time between two acknowledged commits of one client that writes all the time through
the DSN that applications use; `raft` is about replicas alone (tests/raft/measure.py). Medians of N runs, with the
smallest and the largest; real processes, on loopback.
"""

import argparse
import json
import signal
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from tests.bench.result import Result
from tests.harness.cluster import Cluster
from tests.harness.ledger import Audit, Ledger
from tests.harness.node import Node
from tests.harness.processes import send
from tests.raft import measure as raft

IDLE_S = 30.0
CLOCK_TICKS = 100


def form(make: Callable[[], Cluster]) -> float:
    """Three node processes from nothing to two streaming standbys."""
    with make() as cluster:
        began_s = time.monotonic()
        cluster.start()
        while not bootstrapped(cluster["n1"]):
            time.sleep(0.02)
        while streaming(cluster["n1"]) < 2:
            time.sleep(0.02)
        return time.monotonic() - began_s


def bootstrapped(node: Node) -> bool:
    try:
        return len(node.view()["members"]) == 3 and node.post("bootstrap").status in {200, 202}
    except OSError:
        return False


def streaming(node: Node) -> int:
    try:
        return sum(m["state"] == "streaming" for m in node.view()["members"])
    except OSError:
        return 0


@contextmanager
def writing(cluster: Cluster) -> Iterator[Ledger]:
    with Ledger(cluster, sides=[list(cluster)]) as ledger:
        time.sleep(0.5)
        yield ledger


def audited(cluster: Cluster, ledger: Ledger, *, not_by: str = "") -> Audit:
    """A second of writes after the event (by somebody else), then what was acknowledged and what is there."""
    cluster.wait_until(lambda: ledger.last().node != not_by, 60, f"writes by another node than {not_by}")
    ledger.wait_for_writes(30)
    time.sleep(1.0)
    ledger.stop()
    audit = ledger.audit(cluster.primary())
    audit.expect_one_at_a_time()
    return audit


def switchover(cluster: Cluster) -> Audit:
    with writing(cluster) as ledger:
        primary = cluster.primary()
        target = cluster.standbys()[0]
        answer = primary.post("switchovers", {"to": target.name}, wait="30s")
        assert answer.status == 200, answer.body
        return audited(cluster, ledger, not_by=primary.name)


def postmaster_killed(cluster: Cluster) -> Audit:
    with writing(cluster) as ledger:
        pid = cluster.primary().postmaster
        assert pid is not None
        send(pid, signal.SIGKILL)
        return audited(cluster, ledger)


def host_lost(cluster: Cluster) -> Audit:
    with writing(cluster) as ledger:
        lost = cluster.primary()
        lost.lose_host()
        audit = audited(cluster, ledger, not_by=lost.name)
    lost.start()
    return audit


def node_restarted(cluster: Cluster) -> Audit:
    with writing(cluster) as ledger:
        node = cluster.primary()
        node.end(signal.SIGKILL)
        time.sleep(1.5)
        node.start()
        time.sleep(3.0)
        return audited(cluster, ledger)


def node_stopped(cluster: Cluster) -> Audit:
    with writing(cluster) as ledger:
        node = cluster.primary()
        node.tell(signal.SIGSTOP)
        audit = audited(cluster, ledger, not_by=node.name)
        node.tell(signal.SIGCONT)
        return audit


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


EVENTS: dict[str, tuple[str, Callable[[Cluster], Audit]]] = {
    "switchover": ("planned switchover", switchover),
    "postmaster-killed": ("postmaster killed (-9): restart in place", postmaster_killed),
    "host-lost": ("host lost (everything of it killed), ttl 6 s", host_lost),
    "node-restarted": ("node process killed (-9), started again after 1.5 s", node_restarted),
    "node-stopped": ("node process stopped (SIGSTOP) for good", node_stopped),
}


def measure(runs: int, only: list[str], make: Callable[[], Cluster]) -> Iterator[Result]:
    wanted = only or ["raft", "form", *EVENTS, "idle"]
    if "raft" in wanted:
        yield from raft.measure(runs)
    if "form" in wanted:
        yield Result(
            "form", "three nodes from nothing to two streaming standbys", "s", tuple(form(make) for _ in range(runs))
        )
    events = [name for name in EVENTS if name in wanted]
    if not events and "idle" not in wanted:
        return
    with make() as cluster:
        cluster.up()
        if "idle" in wanted:
            yield from idle(cluster)
        for name in events:
            what, event = EVENTS[name]
            audits = [repeated(cluster, event) for _ in range(runs)]
            lost = sum(len(audit.lost) for audit in audits)
            gaps = tuple(audit.longest_gap_s() for audit in audits)
            yield Result(name, f"{what}: writes stop for", "s", gaps, f"{lost} acknowledged rows lost, 0 conflicts")


def repeated(cluster: Cluster, event: Callable[[Cluster], Audit]) -> Audit:
    cluster.wait_whole()
    time.sleep(1.0)
    return event(cluster)


def main() -> int:
    parser = argparse.ArgumentParser(prog="./dev bench", description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--only", nargs="*", default=[], choices=["raft", "form", *EVENTS, "idle"])
    parser.add_argument("-o", "--output", choices=["table", "json"], default="table")
    parser.add_argument("--clear", action="store_true", help="nodes without certificates: nothing is encrypted")
    options = parser.parse_args()
    for result in measure(
        options.runs, options.only, partial(Cluster, config={"tls": None}) if options.clear else Cluster
    ):
        if options.output == "json":
            median = statistics.median(result.runs)
            fields = {"name": result.name, "unit": result.unit, "median": median, "runs": result.runs}
            sys.stdout.write(json.dumps({**fields, "notes": result.notes}) + "\n")
        else:
            sys.stdout.write(result.line() + "\n")
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
