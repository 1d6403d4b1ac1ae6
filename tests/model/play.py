"""Directed traces: which step comes next is said by how its name begins."""

from tests.model.check import Checks
from tests.model.model import Model
from tests.model.world import World

VOTES = ("reads the log", "pledge", "follow", "ends its receiver")
LEAVES = ("reads the log", "fence_newer_epoch", "pledge", "start_standby")
"""a primary that an election stops"""
OPENS = ("reads the log", "renews", "promote", "postmaster reads", "promote", "record_promotion")


def of(node: str, steps: tuple[str, ...]) -> tuple[str, ...]:
    """The same steps, of this node."""
    return tuple(f"{node}: {step}" if step.startswith("postmaster") else f"{node} {step}" for step in steps)


def named(model: Model, world: World, name: str) -> list[World]:
    """What may come next under this name; `…` stands for anything."""
    first, *rest = name.split("…")
    return [
        after for said, after in model.steps(world) if said.startswith(first) and all(part in said for part in rest)
    ]


def play(model: Model, world: World, *names: str) -> World:
    """Take these steps, each of which must be possible; nothing that must hold is broken on the way."""
    world, fault = run(model, world, *names)
    assert not fault, fault
    return world


def run(model: Model, world: World, *names: str) -> tuple[World, str]:
    """Until something does not hold any more: then say what."""
    checks = Checks(model)
    for name in names:
        found = named(model, world, name)
        if not found:
            possible = "\n".join(said for said, _ in model.steps(world))
            raise AssertionError(f"{name!r} cannot come next; possible:\n{possible}")
        world = found[0]
        if fault := checks.fault(world):
            return world, fault
    return world, ""
