"""After a loss that a person has accepted (`failover --allow-data-loss`), all promises hold for what is left.

What counts as acknowledged is from there on what the named node had. Those who had more come back, and rebuild.
"""

from dataclasses import replace
from random import Random

import pytest

from appliance.cluster.apply import apply
from appliance.cluster.commands import Appoint, Depose, SetConfig, StartOperation
from appliance.cluster.state import AcceptedLoss, Config, Grounds, LeaseStatus, OperationKind, Position, Vote
from tests.model.check import Checks
from tests.model.clauses import BOTH
from tests.model.model import Model
from tests.model.play import OPENS, VOTES, named, of, play, run
from tests.model.search import every_state, walk
from tests.model.test_liveness import QUIET, _turn, healed, opened
from tests.model.world import Budget, agreed, running, sync_set

ANYTHING = AcceptedLoss(Position(0, 0), Position(99, 99))
BEGUN = Budget(writes=6, elections=3, changes=4, crashes=2, cuts=3)
AFTER = Budget(writes=4, elections=4, changes=6, crashes=4, cuts=2)


def given_up(model, world, rng):
    """All but one of the others are lost; a person goes on with one that is left, if it can be. None: it could not."""
    state = model.state(world.log)
    held = state.appointment
    able = [
        i
        for i, node in enumerate(world.nodes)
        if node.wal and node.incarnation == state.members[model.names[i]].incarnation != "" and node.up
        and model.names[i] != held.node
    ]  # fmt: skip
    if not able:
        return None
    chosen = rng.choice(able)
    kept = {chosen, rng.randrange(len(world.nodes))} - {model.names.index(held.node)}
    for i in set(range(len(world.nodes))) - kept:
        world = model._crashed(world, i)
    commands = [Depose(held.epoch, ""), accepting(model.names[chosen], held.epoch)]
    for command in commands if state.lease in {LeaseStatus.HELD, LeaseStatus.CONTESTED} else commands[1:]:
        world = model._propose(world, command)
    world = world._replace(left=QUIET, late=())
    for _ in range(20):
        for who in (model.names[i] for i in sorted(kept)):
            world = _turn(model, world, who)
        world = _turn(model, world, "raft leader")
        now = model.state(world.log).appointment
        if now.epoch > held.epoch:
            alone = Grounds(now.node, now.incarnation)
            lossy = now.node == model.names[chosen] and now.before == (alone,)
            return world._replace(acked=world.nodes[chosen].wal[: now.start.lsn]) if lossy else None
    return None


def accepting(name, epoch, stopped=""):
    accepted = replace(ANYTHING, stopped=stopped)
    return StartOperation(
        "op", OperationKind.FAILOVER, "", "", name, epoch, "", allow_data_loss=True, accepted=accepted
    )


@pytest.mark.parametrize("nodes", [3, 4])
def test_what_is_left_is_kept_from_there_on_and_who_had_more_rebuilds(nodes):
    listed = BOTH if nodes == 3 else sync_set(1, "n1", "n2", "n3")
    model, counted, healthy = Model(agreed(nodes, listed)), 0, 0
    checks = Checks(model)
    for seed in range(40):
        rng, story = Random(seed), []
        world = running(nodes, listed, left=BEGUN)
        for step, after in walk(model, world, rng, rng.randrange(5, 80)):
            world = after
            story.append(step)
        after = given_up(model, world, rng)
        if after is None:
            continue
        counted += 1
        world = after._replace(left=AFTER)
        for step, after in walk(model, world, rng, 100):
            world = after
            story.append(step)
            fault = checks.fault(world)
            assert not fault, "\n".join((f"seed {seed}: {fault}", *story, str(model.state(world.log)), str(world)))
        healthy += opened(model, healed(model, world._replace(left=QUIET)))
    assert counted >= 10, counted
    assert healthy == counted


# R16: n0 is the primary, S = {n1}, k = 1. Both are cut off from n2 and n3, who have the majority of Raft with a
# witness, say. n0 goes on with the promises of n1, so the lease has ended for the raft leader alone.

N2 = "raft leader: Appoint…node='n2'"


def cut_off():
    listed = replace(sync_set(1, "n1"), failsafe=True)
    present = agreed(4, listed, fencing="lease")
    model = Model(replace(present, config=Config(1, {**present.config.document, "failsafe_mode": True})))
    world = running(4, listed, left=Budget(writes=2, elections=2, crashes=1))
    return model, model._propose(world, Depose(1, ""))


def asked(model, world, stopped, votes=VOTES):
    world = play(model, model._propose(world, accepting("n2", 1, stopped)), "raft leader: OpenElection")
    return play(model, world, *of("n2", votes), *of("n3", votes), "raft leader: AdvanceOperation…electing")


def test_r16_nobody_is_forced_into_office_while_the_last_primary_may_go_on_by_promises():
    model, world = cut_off()
    world = play(model, asked(model, world, ""), "n0 writes", "n1 receives")

    assert len(world.acked) == 2, "n0 has acknowledged it: n1 has it"
    assert not named(model, world, "raft leader: Appoint")


def test_r16_nor_when_the_others_have_written_failsafe_mode_off_which_it_has_not_heard_of():
    model, world = cut_off()
    world = asked(model, world, "")
    votes = tuple(Vote(2, n, f"{n}-0", Position(1, 1)) for n in ("n2", "n3"))
    before = model.state(world.log)
    off = apply(before, SetConfig(1, {"failover": {"fencing": "lease"}}))

    assert off.refused is None
    appoint = Appoint(2, "n2", votes, 2, sync_set(1, "n3"), "", "")
    assert (apply(off.state, appoint).refused or "").startswith("failsafe.votes_missing: n0 may be writable")


def test_r16_with_the_last_primary_stopped_as_was_stated_there_are_never_two():
    """Whatever comes next: its host comes back as well, and n1, which has not heard of anything."""
    model, world = cut_off()
    world = play(model, world, "n0 writes", "n1 receives", "n0: host crashes")
    world = world._replace(acked=world.nodes[2].wal)
    world = play(model, asked(model, world, "n0", VOTES[:3]), N2, *of("n2", OPENS))
    assert world.nodes[2].running == "primary"
    world = world._replace(left=Budget(writes=1, crashes=1, elections=1))

    found = every_state(model, world, limit=6000)
    assert not found.fault, found
    assert found.states >= 6000, "its host comes back in some of them"


def test_r16_what_a_false_statement_costs():
    """Two that are writable: no rule can see that, which is why a person has to say it, in so many words."""
    model, world = cut_off()
    world, fault = run(model, asked(model, world, "n0"), N2, *of("n2", OPENS))
    assert fault == "alone: n0 and n2 are primaries at one time"
    world, fault = run(model, world, "n0 writes", "n1 receives")
    assert fault, "and n0 acknowledges what n2 does not have"
