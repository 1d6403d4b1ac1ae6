"""Runs of whole clusters for `./dev simulate --cluster`."""

from tests.simulation.cluster.profiles import PROFILES
from tests.simulation.cluster.world import World, lines
from tests.simulation.raft.runner import Failure, Tally, profile_of


def run_one(seed, profile):
    """One seed, as a tally."""
    result = World(seed, profile_of(seed, profile, PROFILES)).run()
    failures = [Failure(seed, result.profile, result.violation)] if result.violation is not None else []
    return Tally(1, result.virtual_s, failures, result.counts, seed)


def trace(seed, profile, *, whole):
    result = World(seed, profile_of(seed, profile, PROFILES), full_story=whole).run()
    return result, lines(result)
