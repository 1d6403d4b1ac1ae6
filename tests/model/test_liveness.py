"""With one node dead for ever and one that has everything alive, somebody can be appointed, and opens."""

from random import Random

import pytest

from appliance.cluster import elections
from appliance.cluster.state import LeaseStatus
from tests.model.clauses import BOTH
from tests.model.model import Model
from tests.model.search import walk
from tests.model.world import Budget, agreed, running, sync_set

ROUNDS = 60
FAULTS = ("host crashes", "PostgreSQL dies", "its clock", "agent restarts", "dies for ever", "loses", "lost", "killed",
          "late", "writes")  # fmt: skip
BEGUN = Budget(writes=4, elections=4, changes=4, crashes=4, deaths=0, cuts=3, late=2)
QUIET = Budget(elections=30, changes=30)


def healed(model, world):
    """Nothing fails any more and everybody who lives comes: each in turn does what it can, until nobody has to."""
    for _ in range(ROUNDS):
        before = world
        for turn in (*(f"{name}" for name in model.names), "at last", "raft leader"):
            world = _turn(model, world, turn)
        if opened(model, world) or world == before:
            return world
    return world


def _turn(model, world, who):
    for _ in range(8):
        possible = [
            (said, after)
            for said, after in model.steps(world)
            if said.startswith(who) and not any(fault in said for fault in FAULTS)
            and not ("Depose" in said and alive(model, world))
        ]  # fmt: skip
        if who == "raft leader":
            # the most votes that there are: whoever plans has heard everybody
            possible = possible[-1:]
        if not possible:
            return world
        world = possible[0][1]
    return world


def alive(model, world):
    held = model.state(world.log).appointment
    return world.nodes[model.names.index(held.node)].up


def opened(model, world):
    state = model.state(world.log)
    held = state.appointment
    node = world.nodes[model.names.index(held.node)]
    return state.lease is LeaseStatus.HELD and held.opened and node.up and node.running == "primary"


def excused(model, world):
    """R7, R7a: the last primary is gone, and it, or one before it that is still asked about, was to wait for nobody:
    then it alone may have a commit, and what others have proves nothing."""
    state = model.state(world.log)
    gone = world.nodes[model.names.index(state.appointment.node)].dead
    return gone and any(listed.wanted.k == 0 for each in state.grounds for listed in each.sync)


@pytest.mark.parametrize("nodes", [3, 4])
def test_somebody_is_appointed_and_opens_though_one_is_dead_for_ever(nodes):
    listed = BOTH if nodes == 3 else sync_set(1, "n1", "n2", "n3")
    model = Model(agreed(nodes, listed))
    counted = 0
    for seed in range(30):
        rng, world, story = Random(seed), running(nodes, listed, left=BEGUN), []
        for step, after in walk(model, world, rng, rng.randrange(10, 120)):
            world = after
            story.append(step)
        i = rng.randrange(nodes)
        world = dead(model, world, i)
        if excused(model, world):
            continue
        counted += 1
        end = healed(model, world._replace(left=QUIET))
        assert opened(model, end), "\n".join((f"seed {seed}, dead {i}", *story, str(model.state(end.log)), str(end)))
    assert counted >= 10


def dead(model, world, i):
    """For ever; everybody else comes back."""
    name = f"{model.names[i]}: dies for ever"
    if world.nodes[i].up:
        world = next(w for said, w in model.steps(world._replace(left=Budget(deaths=1))) if said == name)
    else:
        nodes = (*world.nodes[:i], world.nodes[i]._replace(dead=True), *world.nodes[i + 1 :])
        world = world._replace(nodes=nodes)
    return world


def test_nobody_can_be_appointed_where_the_primary_alone_may_have_a_commit():
    """The price of a set that is empty, said in docs/safety.md (R7): the check above would notice a wrong excuse."""
    empty = sync_set(0)
    model = Model(agreed(3, empty))
    world = dead(model, running(3, empty, left=BEGUN), 0)

    assert excused(model, world)
    assert not opened(model, healed(model, world._replace(left=QUIET)))
    assert elections.votes_suffice(model.state(world.log), ()) is not None
