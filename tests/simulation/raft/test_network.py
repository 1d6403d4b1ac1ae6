"""The virtual network keeps order within a connection and breaks it everywhere else."""

from dataclasses import replace
from random import Random

import pytest

from tests.simulation.raft.network import Network
from tests.simulation.raft.profiles import Net
from tests.simulation.raft.schedule import Schedule

NET = Net(latency_s=(0.001, 0.05))


class Process:
    def __init__(self, name, *targets):
        self.name = name
        self.targets = set(targets)
        self.alive = True
        self.mail = []

    def introduction(self):
        return f"I am {self.name}"

    def accepts(self, other):
        return True

    def post(self, kind, peer, content):
        self.mail.append((kind, peer, content))

    def received(self):
        return [content for kind, _, content in self.mail if kind == "message"]


class Two:
    """Two processes with connections both ways."""

    def __init__(self, seed=0, **changes):
        self.schedule = Schedule()
        self.network = Network(self.schedule, Random(seed), replace(NET, **changes), lambda who, text: None)
        self.a, self.b = Process("a", "b"), Process("b", "a")
        self.network.add(self.a)
        self.network.add(self.b)
        self.wait(2)
        assert self.network.connected("a", "b")

    def wait(self, duration_s):
        self.schedule.run(self.schedule.now_s + duration_s)

    def send(self, *frames):
        for frame in frames:
            self.network.send(self.a, "b", [frame])


def test_each_is_introduced_before_the_connection_is_there():
    two = Two()
    assert ("introduced", "a", "I am a") in two.b.mail
    own = [(kind, content) for kind, peer, content in two.a.mail if peer == "b"]
    assert own.index(("introduced", "I am b")) < own.index(("connected", None))


@pytest.mark.parametrize("seed", range(20))
def test_a_connection_keeps_the_order(seed):
    two = Two(seed)
    two.send(*range(10))
    two.wait(1)
    assert two.b.received() == list(range(10))


def test_a_cut_holds_back_until_it_heals():
    two = Two()
    two.network.cut("a", "b")
    two.send(1, 2)
    two.wait(0.5)
    assert two.b.received() == []
    two.network.mend("a", "b")
    two.send(3)
    two.wait(0.5)
    assert two.b.received() == [1, 2, 3]


def test_a_long_cut_ends_the_connection_and_what_it_held_is_lost_from_somewhere_on():
    seen = set()
    for seed in range(30):
        two = Two(seed)
        two.network.cut("a", "b")
        two.send(1, 2, 3)
        two.wait(6)
        assert ("disconnected", "b", None) in two.a.mail
        assert not two.network.connected("a", "b")
        seen.add(tuple(two.b.received()))
        two.network.mend("a", "b")
        two.wait(2)
        assert two.network.connected("a", "b")
    assert seen == {(), (1,), (1, 2), (1, 2, 3)}


def test_data_of_a_dead_connection_may_arrive_after_that_of_its_successor():
    orders = set()
    for seed in range(40):
        two = Two(seed, linger=1.0)
        two.send("old")
        two.network.reset("a", "b")
        two.wait(1)
        two.send("new")
        two.wait(5)
        orders.add(tuple(two.b.received()))
    assert ("new", "old") in orders
    assert ("old", "new") in orders
    assert ("new",) in orders


def test_data_of_a_process_that_died_may_still_arrive_and_data_to_one_does_not():
    arrived = set()
    for seed in range(20):
        two = Two(seed)
        two.send("last words")
        two.a.alive = False
        two.network.remove(two.a)
        two.wait(1)
        arrived.add(tuple(two.b.received()))
    assert arrived == {(), ("last words",)}
    two = Two()
    two.send("too late")
    two.b.alive = False
    two.network.remove(two.b)
    two.wait(5)
    assert two.b.received() == []
    assert ("disconnected", "b", None) in two.a.mail


def test_a_restarted_process_gets_nothing_that_was_sent_to_the_one_before():
    two = Two(linger=1.0)
    two.send("to the old one")
    two.b.alive = False
    two.network.remove(two.b, silently=True)
    new = Process("b", "a")
    two.network.add(new)
    two.wait(8)
    assert new.received() == []
    assert two.network.connected("a", "b")


def test_frames_are_doubled_when_asked_for():
    two = Two(duplicates=1.0)
    two.send(1)
    two.wait(4)
    assert two.b.received() == [1, 1]
