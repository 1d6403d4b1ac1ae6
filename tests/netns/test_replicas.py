"""Replicas on hosts of their own whose links are cut, in one direction too: who has a majority is not deposed."""

import tempfile
import time
from pathlib import Path

import pytest

from tests.harness.certificates import Certificates
from tests.harness.network import Network
from tests.harness.sweeper import Sweeper
from tests.raft.conftest import eventually
from tests.raft.processes import Processes, Writers, lost_or_doubled

LONGEST_ELECTION_S = 1.0


@pytest.fixture
def hosts():
    """A network of its own, so that no node is in it."""
    network = Network(name="raft")
    directory = Path(tempfile.mkdtemp(prefix="raft-netns-", dir="/var/tmp"))
    sweeper = Sweeper(directory, network.namespaces)
    network.build()
    yield network, directory
    sweeper.sweep()


@pytest.fixture
def network(hosts):
    return hosts[0]


@pytest.fixture
def processes(hosts):
    network, directory = hosts
    places = {f"n{number}": place for number, place in enumerate(network.places, 1)}
    processes = Processes(
        directory,
        {name: f"{place.host}:{place.raft_port}" for name, place in places.items()},
        Certificates(directory / "certificates"),
        enter={name: ["nsenter", f"--net=/run/netns/{place.namespace}"] for name, place in places.items()},
    )
    processes.start()
    yield processes
    processes.close()


@pytest.fixture
def leader(processes):
    """Everybody follows it."""
    processes.leader()
    for name in processes.members:
        processes.state(name)
    return processes.leader()


def others(processes, name):
    return [other for other in processes.members if other != name]


@pytest.mark.parametrize("direction", ["hears nobody", "is heard by nobody", "is cut off"])
def test_a_leader_without_a_majority_is_replaced_and_follows_when_the_cut_is_mended(
    processes, network, leader, direction
):
    followers = others(processes, leader)
    writers = Writers(processes)
    for follower in followers:
        if direction != "is heard by nobody":
            network.deafen(leader, follower)
        if direction != "hears nobody":
            network.deafen(follower, leader)
    new = processes.leader(followers)
    assert processes.ask(new, "propose while-cut") == "Applied"
    eventually(lambda: processes.ask(leader, "leader") == "-")
    term = processes.status(new)["term"]
    network.heal()
    writers.stop()
    states = [processes.state(name) for name in processes.members]
    assert lost_or_doubled(states, [*writers.acknowledged, "while-cut"]) is None
    assert (processes.leader(), processes.status(new)["term"]) == (new, term)


@pytest.mark.parametrize("direction", ["hears nobody", "is heard by nobody", "is cut off"])
def test_a_follower_that_was_cut_off_deposes_nobody(processes, network, leader, direction):
    term = processes.status(leader)["term"]
    parted, rest = others(processes, leader)
    for other in (leader, rest):
        if direction != "is heard by nobody":
            network.deafen(parted, other)
        if direction != "hears nobody":
            network.deafen(other, parted)
    deadline_s = time.monotonic() + 4 * LONGEST_ELECTION_S  # long enough to stand for election again and again
    number = 0
    while time.monotonic() < deadline_s:
        number += 1
        assert processes.ask(leader, f"propose while-cut-{number}") == "Applied"
    network.heal()
    assert len(processes.state(parted)) == number
    assert [processes.status(name)["term"] for name in processes.members] == [term] * 3
    assert processes.leader() == leader
