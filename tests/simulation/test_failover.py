"""Safety while things break, liveness once they stop breaking: the real `apply`, `plan` and `decide` among faults."""

from random import Random

import pytest

from .world import STEP_S, World

SEEDS = 100
HURT_S = 60.0
HEALED_S = 30.0


def run(seed, hurt_s=HURT_S):
    world = World(Random(seed))
    while world.now_s < hurt_s:
        if world.rng.random() < STEP_S / 4:
            world.hurt()
        step(world)
    world.tell("world", "healed")
    world.heal()
    return world


def step(world):
    try:
        world.step()
        assert len(world.writable()) <= 1, f"writable: {world.writable()}"
    except AssertionError as error:
        raise AssertionError(f"{error}\n" + "\n".join(world.story[-60:])) from error


@pytest.mark.parametrize("seed", range(SEEDS))
def test_never_two_writable_primaries_and_one_soon_after_healing(seed):
    world = run(seed)
    healed_s = world.now_s
    while not world.writable() and world.now_s < healed_s + HEALED_S:
        step(world)
    assert world.writable(), "\n".join(world.story[-60:])
    while not world.healthy() and world.now_s < healed_s + 2 * HEALED_S:
        step(world)
    assert world.healthy(), "\n".join(world.story[-60:])
