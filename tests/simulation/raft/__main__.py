"""`./dev simulate`: seeds of simulated clusters, and a verdict in one line.

  --seeds A..B     these seeds
  --hours N        seeds that nobody has run yet, for so long
  --trace SEED     one seed with its last events, or all of them with --whole
  --cluster        whole clusters: nodes, guards and PostgreSQL, not replicas alone; has profiles of its own
A seed and a profile are one run, always the same on the same sources. Profiles: see `profiles.py`; `each` takes all of
them in turn.
"""

import argparse
import json
import os
import secrets
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from tests.harness.record import EVIDENCE, commit_of, record
from tests.simulation.cluster import runner as clusters
from tests.simulation.raft.profiles import PROFILES
from tests.simulation.raft.runner import EACH, profile_of, run_many, run_one
from tests.simulation.raft.story import lines
from tests.simulation.raft.world import World

FAILED = Path("failing-seeds.txt")
"""In the current directory; what is in it can be given back to `./dev simulate`."""


def main():
    options = parse()
    if options.trace is not None:
        return trace(options)
    first, last = seeds(options)
    began_s = time.monotonic()
    paths = ("appliance", "raft", "tests/simulation") if options.cluster else ("raft", "tests/simulation/raft")
    commit = commit_of(*paths)
    run = clusters.run_one if options.cluster else run_one
    limit_s = None if options.hours is None else options.hours * 3600
    tally = run_many(first, last, options.profile, options.jobs, limit_s=limit_s, on_failure=note, run=run)
    took_s = time.monotonic() - began_s
    report = {
        **({"kind": "cluster"} if options.cluster else {}),
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit,
        "profile": options.profile,
        "first_seed": first,
        "seeds": tally.seeds,
        "simulated_hours": round(tally.virtual_s / 3600, 2),
        "took_s": round(took_s),
        "failed": [f"{failure.profile} {failure.seed}" for failure in tally.failures],
        "verdict": "failed" if tally.failures else "ok",
        "counts": dict(sorted(tally.counts.items())),
    }
    if options.counts:
        print(json.dumps(report["counts"], indent=2))
    print(
        f"{report['verdict']}: {tally.seeds} seeds from {first} on ({options.profile}), {len(tally.failures)} failed,"
        f" {report['simulated_hours']} simulated hours, {tally.seeds * 3600 / max(took_s, 0.001):.0f} seeds/hour,"
        f" {commit}"
    )
    if options.record:
        record(report)
    return 1 if tally.failures or not tally.seeds else 0


def parse():
    parser = argparse.ArgumentParser(
        prog="./dev simulate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--seeds", metavar="A..B", help="from A to B, B not included (default 0..500)")
    what.add_argument("--hours", type=float, metavar="N")
    what.add_argument("--trace", type=int, metavar="SEED")
    parser.add_argument("--cluster", action="store_true", help="whole clusters")
    parser.add_argument("--profile", default=EACH, help="see profiles.py of either kind")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--whole", action="store_true", help="with --trace: all events")
    parser.add_argument("--counts", action="store_true", help="how often what happened")
    parser.add_argument("--record", action="store_true", help=f"append the verdict to {EVIDENCE}")
    options = parser.parse_args()
    if options.profile not in (EACH, *(clusters.PROFILES if options.cluster else PROFILES)):
        parser.error(f"there is no profile {options.profile!r} of {'clusters' if options.cluster else 'replicas'}")
    return options


def seeds(options):
    """First and last; without an end when it is the time that ends the run."""
    if options.hours is not None:
        return secrets.randbelow(2**40), None
    first, _, last = (options.seeds or "0..500").partition("..")
    return int(first), int(last or int(first) + 1)


def trace(options):
    if options.cluster:
        result, told = clusters.trace(options.trace, options.profile, whole=options.whole)
    else:
        result = World(options.trace, profile_of(options.trace, options.profile), full_story=options.whole).run()
        told = lines(result)
    for line in told:
        print(line)
    return 1 if result.violation is not None else 0


def note(failure):
    print(f"failed: {failure}", flush=True)
    with FAILED.open("a") as file:
        kind = "--cluster " if failure.profile in clusters.PROFILES else ""
        file.write(f"{kind}--trace {failure.seed} --profile {failure.profile}\n")


if __name__ == "__main__":
    sys.exit(main())
