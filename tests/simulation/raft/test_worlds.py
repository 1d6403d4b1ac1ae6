"""Safety while everything breaks, liveness once it stops breaking: real replicas in simulated clusters.

A run that fails is shown by `./dev simulate --trace SEED --profile PROFILE`.
"""

import pytest

from tests.simulation.raft.profiles import PROFILES, TABLES, draw
from tests.simulation.raft.story import lines
from tests.simulation.raft.world import World

SEEDS = 40
"""Of each profile."""
PORTION = 5


@pytest.mark.parametrize("first", range(0, SEEDS, PORTION))
@pytest.mark.parametrize("profile", PROFILES)
def test_safe_at_all_times_and_well_after_healing(profile, first):
    for seed in range(first, first + PORTION):
        result = World(seed, profile).run()
        assert result.violation is None, "\n".join(list(lines(result))[-80:])


def test_one_seed_is_one_run():
    once, again, other = World(1, "all").run(), World(1, "all").run(), World(2, "all").run()
    assert once == again
    assert once.digest != other.digest


def test_every_choice_of_a_profile_is_drawn_at_times():
    from random import Random

    drawn = {choice for seed in range(300) for choice in draw("all", Random(seed)).name.split("/")}
    assert drawn == {choice for table in TABLES.values() for choice in table}
