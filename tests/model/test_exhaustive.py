"""Every state of small worlds: whatever the order in which things happen, all that must hold does.

Each world bounds how often something happens, not when. Their sizes are written down: a change that makes a world
smaller may have made the model blind, so it is to be looked at.
"""

import gc
from dataclasses import dataclass

import pytest

from tests.model.clauses import AGAIN, AHEAD, BOTH, FAILOVER, NONE, ONE, TWO
from tests.model.model import Model
from tests.model.play import play
from tests.model.search import every_state
from tests.model.world import Budget, agreed, running


@dataclass(frozen=True, slots=True)
class Small:
    nodes: int
    listed: tuple
    left: Budget
    at_least: int
    """states that it had when this was written, to two digits"""
    after: tuple[str, ...] = ()
    """steps that it begins with"""
    fencing: str = "quorum"
    wanted_k: int = 1


WORLDS = {
    "three nodes, any change of the set": Small(3, (BOTH,), Budget(changes=1), 12_000),
    "two nodes, two changes and a commit": Small(2, (ONE,), Budget(writes=1, changes=2), 19_000),
    "two nodes, from nobody, with a lost connection": Small(2, (NONE,), Budget(writes=1, changes=1, cuts=1), 3_900),
    "three nodes, a failover that nobody has read of": Small(3, (BOTH,), Budget(elections=1), 33_000, after=FAILOVER),
    "three nodes, a lost data directory": Small(3, (ONE,), Budget(crashes=1, losses=1), 2_400),
    "two nodes, a change that comes late": Small(2, (ONE,), Budget(writes=1, changes=1, late=1), 7_400),
    "two nodes, a change and a crash": Small(2, (ONE,), Budget(writes=1, changes=1, crashes=1), 19_000),
    "two nodes, an election, fencing by lease": Small(2, (ONE,), Budget(elections=1), 36_000, fencing="lease"),
    "two nodes, an election": Small(2, (ONE,), Budget(elections=1), 38_000),
    "two nodes, an election from nobody": Small(2, (NONE,), Budget(elections=1), 21_000),
    "three nodes, appointed again with a commit of its own": Small(
        3, (BOTH,), Budget(elections=1, writes=1, crashes=1), 18_000, after=AGAIN
    ),
    "three nodes, one is ahead of another that would do": Small(
        3, (TWO,), Budget(elections=1, writes=1), 90_000, after=AHEAD, wanted_k=2
    ),
}


@pytest.fixture
def no_collector():
    """Nothing here is garbage before the end, and looking for it takes half of the time."""
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize("name", WORLDS)
def test_every_state_of_a_small_world_is_safe(name, capsys):
    small = WORLDS[name]
    model = Model(agreed(small.nodes, *small.listed, fencing=small.fencing, wanted_k=small.wanted_k))
    start = play(model, running(small.nodes, *small.listed, left=small.left), *small.after)
    found = every_state(model, start)

    with capsys.disabled():
        print(f"\n{name}: {found.states} states", end=" ")
    assert not found.fault, str(found)
    assert found.complete
    assert found.states >= small.at_least
