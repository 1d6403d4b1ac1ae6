"""Which faults strike when: chosen by the seed alone, so that one seed is one schedule. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random

BEGIN_WITHIN_S = 5.0
MOST_AT_A_TIME = 3
TARGETS = ("primary", "primary", "standby", "raft leader", "any")
"""what a target is called; whom that is, is found when it is struck"""


@dataclass(frozen=True, slots=True)
class FaultKind:
    name: str
    hold_s: tuple[float, float] = (0.0, 0.0)
    """the shortest and the longest time that it lasts"""
    targets: tuple[str, ...] = TARGETS
    halts: bool = False
    """It stops a process that goes on later as if nothing had happened."""
    asynchronous: bool = True
    """Whether mode off promises anything about it."""


@dataclass(frozen=True, slots=True)
class Strike:
    at_s: float
    """after the round's begin"""
    kind: str
    target: str
    pick: float
    """0 to 1, among those that the target may mean, and for whatever else the fault has to choose"""
    hold_s: float


@dataclass(frozen=True, slots=True)
class Round:
    """Strikes that may overlap; the cluster heals before the next round."""

    number: int
    strikes: tuple[Strike, ...]


def rounds(seed: int, faults: Sequence[FaultKind], operations: Sequence[FaultKind], mode: str) -> Iterator[Round]:
    """Without an end. Every kind comes before any comes again."""
    rng = Random(f"chaos {seed} {mode}")
    promised, asked = ([kind for kind in kinds if kind.asynchronous or mode != "off"] for kinds in (faults, operations))
    bag, errands = _bag(rng, promised), _bag(rng, asked)
    number = 0
    while True:
        kinds = _allowed([next(bag) for _ in range(rng.randint(1, MOST_AT_A_TIME))], mode)
        if rng.random() < 0.5:
            kinds.append(next(errands))
        strikes = [_strike(rng, kind) for kind in kinds]
        yield Round(number, tuple(sorted(strikes, key=lambda strike: strike.at_s)))
        number += 1


def _allowed(kinds: list[FaultKind], mode: str) -> list[FaultKind]:
    """In mode off a primary is fenced by its own guard, or by its node for a guard that hangs: not both at a time."""
    if mode != "off":
        return kinds
    halting = [place for place, kind in enumerate(kinds) if kind.halts]
    return [kind for place, kind in enumerate(kinds) if place not in halting[1:]]


def _strike(rng: Random, kind: FaultKind) -> Strike:
    return Strike(
        at_s=round(rng.uniform(0, BEGIN_WITHIN_S), 3),
        kind=kind.name,
        target=rng.choice(kind.targets),
        pick=rng.random(),
        hold_s=round(rng.uniform(*kind.hold_s), 3),
    )


def _bag(rng: Random, kinds: Sequence[FaultKind]) -> Iterator[FaultKind]:
    while True:
        yield from rng.sample(kinds, len(kinds))
