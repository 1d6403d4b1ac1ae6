"""How long writes stop, and what an idle node costs: `./dev bench [--runs N] [--only NAME …] [--mode off] [-o json]`.

Unless a row says otherwise it is the longest time between two acknowledged commits of one client that writes all the
time through the DSN that applications use; `raft` is about replicas alone (tests/raft/measure.py), `load` watches a
cluster under pgbench for `--minutes`. Medians of N runs, with the smallest and the largest; real processes on loopback,
those of `partition` on hosts of their own (network namespaces), which needs root.
"""

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial

from tests.bench.events import EVENTS, PARTITION, Seen, form, host_lost, partition
from tests.bench.idle import idle
from tests.bench.load import load
from tests.bench.result import Result
from tests.harness.cluster import Cluster
from tests.harness.network import Network
from tests.raft import measure as raft

SHORTEST = {"failure_timeout": "500ms"}
HOST_LOST_FAST = {"host-lost": "host of the primary lost, failure_timeout 500 ms: writes stop for"}
NAMES = ("raft", "form", *EVENTS, "host-lost-500ms", "partition", "idle", "load")


def measure(options: argparse.Namespace) -> Iterator[Result]:
    runs, wanted = options.runs, options.only or [name for name in NAMES if name != "load"]
    settings = {"synchronous_mode": options.mode}
    config = {"tls": None} if options.clear else {}
    make = partial(Cluster, settings=settings, config=config)
    if "raft" in wanted:
        yield from raft.measure(runs)
    if "form" in wanted:
        yield Result("form", "three nodes from nothing to two streaming standbys", "s", tuple(_formed(make, runs)))
    if not {"idle", "load", *EVENTS}.isdisjoint(wanted):
        with make() as cluster:
            cluster.up()
            if "idle" in wanted:
                yield from idle(cluster)
            for name in [name for name in EVENTS if name in wanted]:
                event, rows = EVENTS[name]
                yield from repeated(cluster, lambda event=event: event(cluster), runs, rows)  # type: ignore[misc]
            if "load" in wanted:
                cluster.wait_whole()
                yield load(cluster, options.minutes)
    if "host-lost-500ms" in wanted and options.mode != "off":
        with Cluster(settings=settings | SHORTEST, config=config) as cluster:
            cluster.up()
            yield from repeated(cluster, lambda: host_lost(cluster), runs, HOST_LOST_FAST)
    if "partition" in wanted:
        yield from _partitions(runs, settings, config)


def _formed(make: Callable[[], Cluster], runs: int) -> Iterator[float]:
    for _ in range(runs):
        with make() as cluster:
            yield form(cluster)


def _partitions(runs: int, settings: Mapping[str, object], config: Mapping[str, object]) -> Iterator[Result]:
    if os.geteuid() != 0:
        sys.stderr.write("partition: left out, network namespaces need root\n")
        return
    network = Network(name="bench")
    with Cluster(network=network, settings=settings, config=config) as cluster:
        cluster.up()
        yield from repeated(cluster, lambda: partition(cluster, network), runs, PARTITION)


def repeated(cluster: Cluster, event: Callable[[], Seen], runs: int, rows: Mapping[str, str]) -> Iterator[Result]:
    seen = []
    for _ in range(runs):
        cluster.wait_whole()
        time.sleep(1.0)
        seen.append(event())
    lost = sum(len(each.audit.lost) for each in seen)
    rows_acknowledged = sum(len(each.audit.acknowledged) for each in seen)
    for name, what in rows.items():
        times = tuple(each.times[name] for each in seen)
        notes = f"{lost} of {rows_acknowledged} acknowledged rows lost, 0 conflicts"
        yield Result(name, what, "s", times, notes)


def main() -> int:
    parser = argparse.ArgumentParser(prog="./dev bench", description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--only", nargs="*", default=[], choices=NAMES)
    parser.add_argument("--mode", choices=["quorum", "on", "off"], default="quorum", help="synchronous_mode")
    parser.add_argument("--minutes", type=float, default=30.0, help="of `load`, which runs only when it is named")
    parser.add_argument("-o", "--output", choices=["table", "json"], default="table")
    parser.add_argument("--clear", action="store_true", help="nodes without certificates: nothing is encrypted")
    options = parser.parse_args()
    for result in measure(options):
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
