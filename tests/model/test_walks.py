"""Random walks through worlds that are too large to be searched; a fault names its seed and shows the way to it."""

from dataclasses import dataclass
from random import Random

import pytest

from tests.model.check import Checks
from tests.model.clauses import BOTH, NONE, ONE
from tests.model.model import Model
from tests.model.search import walk
from tests.model.world import Budget, agreed, running, sync_set

SEEDS, STEPS = 25, 200
PLENTY = Budget(writes=8, elections=6, changes=8, crashes=6, deaths=1, losses=1, copies=1, cuts=4, late=4)


@dataclass(frozen=True, slots=True)
class Large:
    nodes: int
    listed: tuple
    wanted_k: int = 1
    fencing: str = "quorum"
    mode: str = "quorum"
    late_reports: bool = False


WORLDS = {
    "three nodes": Large(3, (BOTH,)),
    "three nodes, late reports": Large(3, (BOTH,), late_reports=True),
    "three nodes, fencing by lease": Large(3, (BOTH,), fencing="lease"),
    "three nodes, from nobody": Large(3, (NONE,)),
    "three nodes, by priority": Large(3, (ONE,), mode="on"),
    "four nodes, two of them": Large(4, (sync_set(1, "n1", "n2", "n3"),), wanted_k=2),
    "five nodes, two of them": Large(5, (sync_set(2, "n1", "n2", "n3", "n4"),), wanted_k=2),
}


@pytest.mark.parametrize("name", WORLDS)
def test_a_walk_is_safe(name):
    large = WORLDS[name]
    start = agreed(large.nodes, *large.listed, fencing=large.fencing, wanted_k=large.wanted_k, mode=large.mode)
    model = Model(start, late_reports=large.late_reports)
    checks = Checks(model)
    for seed in range(SEEDS):
        story = []
        for step, world in walk(model, running(large.nodes, *large.listed, left=PLENTY), Random(seed), STEPS):
            story.append(step)
            fault = checks.fault(world)
            assert not fault, "\n".join((f"seed {seed}: {fault}", *story))
