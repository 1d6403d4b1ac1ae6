"""Replicas of one cluster, in this process, on loopback."""

import random
import socket
import time
from contextlib import suppress

import pytest

from raft import Refused, Replica, ReplicaConfig, Unknown
from tests.harness.certificates import Certificates
from tests.raft.appender import Appender


def free_ports(count):
    """Below the range that the kernel takes ports for outgoing connections from, so that none gets lost again."""
    ports = set()
    while len(ports) < count:
        port = random.randrange(20000, 32000)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            ports.add(port)
    return list(ports)


def eventually(claim, limit_s=10):
    """Wait until the claim answers something true, and answer it."""
    deadline_s = time.monotonic() + limit_s
    while not (answer := claim()):
        assert time.monotonic() < deadline_s, "it did not come to pass in time"
        time.sleep(0.01)
    return answer


class Cluster:
    """`certificates` None: in the clear."""

    def __init__(self, directory, names=("n1", "n2", "n3"), certificates=None):
        self.directory = directory
        self.certificates = certificates
        self.members = {name: f"127.0.0.1:{port}" for name, port in zip(names, free_ports(len(names)), strict=True)}
        self.running = {}
        self.events = {name: [] for name in names}

    def config(self, name, **other):
        settings = {
            "cluster": "c",
            "name": name,
            "directory": self.directory / name,
            "listen": self.members.get(name, ""),
            "members": self.members,
            "election_min_s": 0.3,
            "election_max_s": 0.6,
            "heartbeat_s": 0.05,
            "tls": self.certificates and self.certificates.member(name),
        }
        return ReplicaConfig(**(settings | other))

    def replica(self, name, **other):
        return Replica(
            self.config(name, **other),
            Appender(),
            on_event=self.events.setdefault(name, []).append,
            on_request=lambda peer, payload: b"%s to %s: %s" % (name.encode(), peer.encode(), payload),
        )

    def start(self, *names):
        for name in names or self.members:
            self.running[name] = self.replica(name)
            self.running[name].start()
        return self

    def unused_place(self):
        return f"127.0.0.1:{free_ports(1)[0]}"

    def stop(self, *names):
        for name in names or list(self.running):
            self.running.pop(name).stop()

    def leader(self):
        """The leader that all running replicas see, once they are all connected with each other."""

        def agreed():
            if not all(self.links()):
                return None
            views = {name: replica.view() for name, replica in self.running.items()}
            leaders = {view.leader for view in views.values()}
            name = leaders.pop()
            return name if not leaders and name in views and views[name].is_leader else None

        return eventually(agreed)

    def links(self):
        return [
            peer.connected
            for replica in self.running.values()
            for peer in replica.status().peers
            if peer.name in self.running
        ]

    def followers(self):
        leader = self.leader()
        return [name for name in self.running if name != leader]

    def propose(self, name, command, identity=None, timeout_s=5):
        """Until the answer is a definite one: a leader may just be changing."""
        identity = identity or command.decode()
        while True:
            outcome = self.running[name].propose(command, identity, timeout_s).result(timeout_s + 1)
            if not isinstance(outcome, Unknown) and not (isinstance(outcome, Refused) and outcome.index is None):
                return outcome
            time.sleep(0.05)

    def states(self):
        return [replica.view().state for replica in self.running.values()]


@pytest.fixture
def places():
    return {name: f"127.0.0.1:{port}" for name, port in zip(("n1", "n2", "n3"), free_ports(3), strict=True)}


@pytest.fixture(params=["tls", "clear"])
def certificates(request, tmp_path):
    """Whoever uses it runs with TLS and without."""
    return Certificates(tmp_path / "certificates") if request.param == "tls" else None


@pytest.fixture
def cluster(tmp_path, certificates):
    cluster = Cluster(tmp_path, certificates=certificates)
    yield cluster
    cluster.stop()


@pytest.fixture
def wait():
    return eventually
