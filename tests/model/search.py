"""All states of a small world, breadth first, or some of a larger one, by seed."""

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

from tests.model.check import Checks
from tests.model.model import Model
from tests.model.world import World

ORDERLY = 0.85
"""of the steps cost nothing of what a world may suffer"""


@dataclass(frozen=True, slots=True)
class Found:
    """What a search came to."""

    states: int
    fault: str = ""
    trace: tuple[str, ...] = ()
    """the shortest one to the fault"""
    complete: bool = True
    """every state was reached; not so when the search ended at its limit or at a fault"""

    def __str__(self) -> str:
        return "\n".join((f"{self.states} states", self.fault, *self.trace))


def every_state(model: Model, start: World, *, limit: int = 1_000_000) -> Found:
    """Breadth first, until a check fails."""
    checks = Checks(model)
    came: dict[World, tuple[World, str] | None] = {start: None}
    queue = [start]
    for world in queue:  # grows meanwhile
        if fault := checks.fault(world):
            return Found(len(came), fault, trace(came, world), complete=False)
        if len(came) >= limit:
            return Found(len(came), complete=False)
        for name, after in model.steps(world):
            if after not in came:
                came[after] = (world, name)
                queue.append(after)
    return Found(len(came))


def trace(came: dict[World, tuple[World, str] | None], world: World) -> tuple[str, ...]:
    names = []
    step = came[world]
    while step is not None:
        world, name = step
        names.append(name)
        step = came[world]
    return tuple(reversed(names))


def walk(model: Model, start: World, rng: Random, steps: int) -> Iterator[tuple[str, World]]:
    """One of many ways through. Mostly what should happen does: a world where everything fails at once gets nowhere."""
    world = start
    for _ in range(steps):
        possible = list(model.steps(world))
        orderly = [step for step in possible if step[1].left == world.left and "Depose" not in step[0]]
        if orderly and rng.random() < ORDERLY:
            possible = orderly
        if not possible:
            return
        name, world = possible[rng.randrange(len(possible))]
        yield name, world
