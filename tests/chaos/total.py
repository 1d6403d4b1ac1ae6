"""All recorded runs since the product's core last changed, added up: the table of docs/reliability.md."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.chaos.checks import percentiles
from tests.harness.record import EVIDENCE, REPOSITORY, changed_since

CORE = ("raft", "appliance/ha", "appliance/cluster", "appliance/postgres")
"""What a run is evidence of: one before its last change counts no more."""


@dataclass(slots=True)
class Total:
    runs: int = 0
    broken: int = 0
    seeds: set[int] = field(default_factory=set)
    took_s: float = 0.0
    rounds: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    writes: Counter[str] = field(default_factory=Counter)
    reads: int = 0
    lost: Counter[str] = field(default_factory=Counter)
    """acknowledged and gone, by mode"""
    appointments: Counter[str] = field(default_factory=Counter)
    gaps_s: dict[str, list[float]] = field(default_factory=dict)
    """of each round, by mode"""

    def add(self, run: Mapping[str, Any]) -> None:
        self.runs += 1
        self.broken += run["verdict"] != "ok"
        self.seeds.add(run["seed"])
        self.took_s += run["took_s"]
        self.rounds += run["rounds"]
        self.faults.update(run["faults"])
        self.writes.update(run["writes"])
        self.reads += run["reads"]
        self.lost[run["mode"]] += run["lost"]
        self.appointments.update(run["appointments"])
        self.gaps_s.setdefault(run["mode"], []).extend(run["rounds_gaps_s"])


def recorded() -> list[Mapping[str, Any]]:
    """The runs of chaos that count, oldest first; one of changed sources says nothing of a commit."""
    lines = [json.loads(line) for line in (REPOSITORY / EVIDENCE).read_text().splitlines()]
    runs = [line for line in lines if line.get("kind") == "chaos" and not line["commit"].endswith("+")]
    same = {commit: not changed_since(commit, *CORE) for commit in {run["commit"] for run in runs}}
    return [run for run in runs if same[run["commit"]]]


def table(runs: Sequence[Mapping[str, Any]]) -> str:
    total = Total()
    for run in runs:
        total.add(run)
    gaps = {mode: percentiles(gaps_s) for mode, gaps_s in sorted(total.gaps_s.items())}
    rows = [
        ("runs, of which broken", f"{total.runs}, {total.broken}"),
        ("time", f"{total.took_s / 3600:.1f} h"),
        ("seeds", f"{len(total.seeds)}"),
        ("rounds", f"{total.rounds}"),
        ("faults and operators' changes", _counted(total.faults)),
        ("writes", _counted(total.writes)),
        ("reads that were answered", f"{total.reads:,}"),
        ("acknowledged and lost, by mode", ", ".join(f"{mode} {lost}" for mode, lost in sorted(total.lost.items()))),
        ("primaries appointed", _counted(total.appointments)),
        *((f"longest gap of a round, {mode}", _shown(found)) for mode, found in gaps.items()),
    ]
    return "\n".join(["| | |", "| --- | --- |", *(f"| {what} | {value} |" for what, value in rows)])


def _counted(counts: Counter[str]) -> str:
    named = ", ".join(f"{what} {count:,}" for what, count in sorted(counts.items(), key=lambda item: -item[1]))
    return f"{counts.total():,}: {named}"


def _shown(gaps: Mapping[str, float]) -> str:
    return f"p50 {gaps['p50']:.1f} s, p95 {gaps['p95']:.1f} s, greatest {gaps['max']:.1f} s" if gaps else "none"
