"""Random faults on real nodes with clients that write: `./dev chaos`, see docs/reliability.md.

Each node has a host of its own, a network namespace, with a wall clock and a small disk; PostgreSQL is real. The seed
is the schedule of faults; the machine's timing does the rest. Needs root. Exit 1 when a promise was broken: then a
directory is named that has the ledger, the schedule and all logs.
"""

import argparse
import sys
import time
from collections import Counter
from datetime import UTC, datetime

from tests.chaos.campaign import Campaign, Plan
from tests.chaos.checks import percentiles
from tests.chaos.total import recorded, table
from tests.harness.record import EVIDENCE, commit_of, record

SOURCES = ("appliance", "raft", "tests/chaos", "tests/harness")


def main() -> int:
    options = _parse()
    if options.total:
        print(table(recorded()))
        return 0
    plan = Plan(options.seed, options.nodes, options.mode, 60 * options.minutes, options.round)
    began_s, commit = time.monotonic(), commit_of(*SOURCES)
    print(f"seed {plan.seed}, {plan.nodes} nodes, synchronous_mode {plan.mode}, {commit}", flush=True)
    campaign = Campaign(plan)
    broken = campaign.run()
    report = _report(campaign, commit, broken, time.monotonic() - began_s)
    print(_line(report))
    if broken:
        print(f"{broken}\nkept: {campaign.directory}")
    if options.record:
        record(report)
    return 1 if broken else 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="./dev chaos", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=10.0, help="no round of faults begins later (default 10)")
    parser.add_argument("--seed", type=int, default=time.time_ns() % 1_000_000, help="default: a new one")
    parser.add_argument("--round", type=int, default=0, metavar="N", help="begin with this round of the schedule")
    parser.add_argument("--nodes", type=int, choices=(3, 5), default=3)
    parser.add_argument("--mode", choices=("quorum", "on", "off"), default="quorum", help="synchronous_mode")
    parser.add_argument("--record", action="store_true", help=f"append the verdict to {EVIDENCE}")
    parser.add_argument("--total", action="store_true", help="only add up what is recorded of the present sources")
    return parser.parse_args()


def _report(campaign: Campaign, commit: str, broken: str, took_s: float) -> dict[str, object]:
    plan, tally = campaign.plan, campaign.tally
    return {
        "kind": "chaos",
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit,
        "seed": plan.seed,
        "nodes": plan.nodes,
        "mode": plan.mode,
        "took_s": round(took_s),
        "verdict": "failed" if broken else "ok",
        "failed": broken[:500],
        "rounds": tally.rounds,
        "faults": dict(sorted(tally.struck.items())),
        "writes": dict(sorted(tally.outcomes.items())),
        "reads": tally.reads,
        "lost": tally.lost,
        "read_and_gone": tally.read_and_gone,
        "cancelled": tally.cancelled,
        "appointments": dict(sorted(Counter(tally.appointed.values()).items())),
        "node_restarts": tally.node_restarts,
        "gaps_s": percentiles(tally.gaps_s),
        "rounds_gaps_s": tally.gaps_s,
        "healed_s": percentiles(tally.healed_s),
    }


def _line(report: dict[str, object]) -> str:
    keys = (
        "rounds",
        "faults",
        "writes",
        "lost",
        "read_and_gone",
        "cancelled",
        "appointments",
        "gaps_s",
        "healed_s",
        "commit",
    )
    return f"{report['verdict']}: " + ", ".join(f"{key} {report[key]}" for key in keys)


if __name__ == "__main__":
    sys.exit(main())
