"""Hosts, network, clients and faults under one seed: `World(seed, profile).run()` tells what became of them.

A seed and a profile are one run, always the same on the same sources.
"""

import traceback
import zlib
from collections import Counter, deque
from contextlib import contextmanager
from dataclasses import dataclass, field
from random import Random

from appliance.cluster.codec import encode_command
from appliance.cluster.commands import BeginBootstrap, SetConfig
from appliance.cluster.names import slot_name
from appliance.cluster.state import LeaseStatus
from appliance.ha.seen import DirectoryKind, Notes
from tests.simulation.cluster import profiles
from tests.simulation.cluster.checks import Checks
from tests.simulation.cluster.clients import Clients
from tests.simulation.cluster.faults import Faults
from tests.simulation.cluster.node import Clock, Node, lent, member_of
from tests.simulation.cluster.wal import Directory
from tests.simulation.raft.checks import Violation
from tests.simulation.raft.network import Network
from tests.simulation.raft.schedule import Schedule
from tests.simulation.raft.virtual_disk import Crash, Medium

STORY_LINES = 300
FORM_LIMIT_S = 60.0
HEAL_LIMIT_S = 60.0
"""After the last fault a primary takes writes and everybody streams within this time."""
STEP_S = 0.25
LOOK_AGAIN_S = 0.5


@dataclass(eq=False)
class Host:
    """What survives a process, or a loss of power; and the processes that run."""

    world: object
    name: str
    addresses: dict
    random: Random
    rate: float = 1.0
    medium: Medium = field(default_factory=Medium)
    directory: Directory = field(default_factory=Directory)
    notes: Notes = field(default_factory=Notes)
    fenced_epoch: int = 0
    """the guard's record"""
    node: object = None
    guard: object = None
    server: object = None
    job: object = None
    guard_events: list = field(default_factory=list)
    off: bool = False
    agent_stands_until_s: float = 0.0
    guard_stands_until_s: float = 0.0
    postgres_stands_until_s: float = 0.0
    disk_stands_until_s: float = 0.0
    disk_slow_until_s: float = 0.0
    dies_in: int | None = None
    whole_until_s: float = 0.0
    """one part of it has just failed, and no other may fail with it before this time"""

    def __post_init__(self):
        self._offset_s = self.random.uniform(10, 100_000)

    def clock(self):
        return self._offset_s + self.world.now_s * self.rate

    def set_rate(self, rate):
        """The clock goes on from where it is, at another pace."""
        self._offset_s += self.world.now_s * (self.rate - rate)
        self.rate = rate
        if self.guard is not None:
            self.guard.look_later()

    def flush_s(self):
        slow = self.disk_slow_until_s > self.world.now_s
        return self.random.uniform(0.05, 0.6) if slow else self.random.uniform(0.0005, 0.004)

    def latency_s(self):
        return self.random.choice((0.0005, 0.001, 0.005, 0.05))


@dataclass(frozen=True)
class Result:
    seed: int
    profile: str
    drawn: str
    violation: str | None
    virtual_s: float
    digest: int
    counts: Counter
    story: tuple


class World:
    def __init__(self, seed, profile_name, *, profile=None, full_story=False):
        """`profile`: this very one, whatever the name would draw."""
        self.seed, self.profile_name = seed, profile_name
        self.random = Random(f"cluster {profile_name} {seed}")
        self.profile = profile or profiles.draw(profile_name, self.random)
        self.schedule = Schedule()
        self.clock = Clock()
        self.checks = Checks(self)
        self.counts, self.digest, self._number = Counter(), 0, 0
        self.story = deque(maxlen=None if full_story else STORY_LINES)
        self.healing = False
        self.network = Network(self.schedule, self.fork_random(), self.profile.net, self.tell)
        names = [f"n{number}" for number in range(1, self.profile.hosts + 1)]
        addresses = {name: member_of(name).raft for name in names}
        self.hosts = {name: Host(self, name, addresses, self.fork_random()) for name in names}
        for host in self.hosts.values():
            host.set_rate(1.0 + self.random.uniform(-0.0045, 0.0045))
        self.slots = frozenset(slot_name(name) for name in names)
        self.clients = Clients(self, self.fork_random())
        self.faults = Faults(self, self.fork_random())

    @property
    def now_s(self):
        return self.schedule.now_s

    def run(self):
        violation = None
        try:
            with self.formed():
                self.faults.begin()
                self.schedule.run(self.now_s + self.profile.hurt_s)
                self._heal()
                self.checks.finish(self.primary())
        except Violation as error:
            violation = str(error)
        except Exception:
            violation = f"an exception: {traceback.format_exc()}"
        if violation is not None:
            self.tell("check", violation)
        return Result(
            self.seed,
            self.profile_name,
            str(self.profile.document),
            violation,
            self.now_s,
            self.digest,
            self.counts,
            tuple(self.story),
        )

    @contextmanager
    def formed(self):
        """The cluster is there and well; what happens then is up to whoever asked."""
        with lent(self.clock):
            self._form()
            yield

    def until(self, holds, limit_s):
        self._until(lambda: "" if holds() else "it did not come to it", limit_s)

    # -- acts of a run -----------------------------------------------------------------------------------

    def _form(self):
        for name in self.hosts:
            self.schedule.after(self.random.uniform(0, 0.3), self.start, name)
        self._until(self._unfounded, FORM_LIMIT_S)
        self.clients.begin()
        self._until(self.problem, FORM_LIMIT_S)
        self.propose(self.leader(), SetConfig(self.leader().view().state.config.version, self.profile.document))
        self.tell("world", "formed")

    def _unfounded(self):
        leader = self.leader()
        if leader is None:
            return "there is no raft leader"
        state = leader.view().state
        if not state.initialised and state.bootstrap is None and len(state.members) == len(self.hosts):
            document = {**self.profile.document, "synchronous_mode_strict": False}
            command = BeginBootstrap("shop", "n1", document)
            self.propose(leader, command)
        return "" if state.initialised else "the cluster is not bootstrapped"

    def _until(self, problem, limit_s):
        end_s = self.now_s + limit_s
        while (what := problem()) != "":
            if self.now_s >= end_s:
                raise Violation(f"after {limit_s:.0f} s: {what}")
            self.schedule.run(self.now_s + STEP_S)

    def _heal(self):
        self.tell("world", "heals")
        self.healing = True
        self.faults.heal()
        begin_s = self.now_s
        self._until(self.problem, HEAL_LIMIT_S)
        self.count("healed ms", int(1000 * (self.now_s - begin_s)))

    def problem(self):
        """What is not as it should be when nothing breaks; empty when all is well."""
        leader, primary = self.leader(), self.primary()
        if leader is None or primary is None:
            return f"raft leader {leader and leader.name}, writable {primary and primary.host.name}"
        state = leader.view().state
        if state.primary != primary.host.name or not state.appointment.opened or state.lease is not LeaseStatus.HELD:
            return f"{primary.host.name} is writable, {state.primary} is primary, lease {state.lease}"
        for host in self.hosts.values():
            server = host.server
            if server is None or (server is not primary and server.receiver is None):
                return f"{host.name} does not stream: {host.node and host.node.loop._said}"
            if server.wal.records[: primary.wal.flushed][:-50] != primary.wal.records[: primary.wal.flushed][:-50]:
                return f"{host.name} has other WAL than {primary.host.name}"
        others = {name for name in self.hosts if name != primary.host.name}
        wanted = state.sync_now.wanted
        if state.synchronous and (not state.settled or not wanted.members or not wanted.members <= others):
            return f"synchronous set {state.sync}"
        if self.checks.newest_acknowledged != primary.wal.timeline or self.checks.last_acknowledged_s < self.now_s - 2:
            return f"{primary.host.name} acknowledges nothing"
        return ""

    def primary(self):
        """The one that is writable, when it is one."""
        writable = [host.server for host in self.hosts.values() if host.server is not None and host.server.writable]
        return writable[0] if len(writable) == 1 else None

    def leader(self):
        replicas = [host.node.replica for host in self.hosts.values() if host.node is not None]
        leading = [replica for replica in replicas if replica.view().is_leader]
        return max(leading, key=lambda replica: replica.view().term, default=None)

    def propose(self, replica, command):
        replica.propose(encode_command(command), "", 2.0).add_done_callback(
            lambda done: self.tell("operator", f"{type(command).__name__}: {done.result()}")
        )

    # -- processes ---------------------------------------------------------------------------------------

    def start(self, name):
        """The node process, and what a host starts with it."""
        host = self.hosts[name]
        if host.node is not None:
            return
        host.off = False
        host.node = Node(self, host)
        self.tell(name, "node process starts")
        try:
            host.node.begin()
        except Crash:
            self.tell(name, "node process dies while it starts")
            self.kill_node(host)

    def kill_node(self, host):
        if host.node is not None:
            host.node.end()
            self.network.remove(host.node.replica)
            host.node = None
            self.faults.restart_later(host)

    def kill_guard(self, host):
        if host.guard is not None:
            host.guard.alive = False
            host.guard = None
            host.guard_stands_until_s = 0.0
            self.woken(host)

    def power_off(self, host, *, restart=True):
        node = host.node
        host.off = True
        if host.job is not None:
            host.job.kill()
            host.job = None
        if host.server is not None:
            host.server.end()
        if host.guard is not None:
            host.guard.alive, host.guard = False, None
        host.guard_events.clear()
        host.agent_stands_until_s = host.guard_stands_until_s = host.postgres_stands_until_s = 0.0
        host.dies_in = None
        if node is not None:
            node.end()
            self.network.remove(node.replica, silently=True)
            host.node = None
        host.medium.lose_power(self.random)
        if restart:
            self.faults.restart_later(host)

    def wipe(self, host):
        if host.server is not None:
            host.server.end()
        directory = host.directory
        fresh = Directory()
        directory.__dict__.update(fresh.__dict__)
        directory.kind = DirectoryKind.MISSING

    def server_ended(self, server):
        host = server.host
        if host.server is server:
            host.server = None
        if host.guard is not None:
            host.guard.lost_child(server)
        self.tell(host.name, f"PostgreSQL has ended, WAL {len(server.wal.records)} on {server.wal.timeline}")
        self.woken(host)

    def woken(self, host):
        if host.node is not None:
            host.node.wake()

    # -- small things ------------------------------------------------------------------------------------

    def reach(self, one, other):
        """A connection between two hosts works, both ways."""
        off = self.hosts[one].off or self.hosts[other].off
        return not (off or self.network.is_cut(one, other) or self.network.is_cut(other, one))

    def address(self, name):
        return member_of(name).postgres

    def at_latest(self, when_s, action, *arguments):
        """Look again then, or sooner: what stands may be mended before its time."""
        self.schedule.at(min(when_s, self.now_s + LOOK_AGAIN_S), action, *arguments)

    def next_number(self):
        self._number += 1
        return self._number

    def fork_random(self):
        return Random(self.random.getrandbits(64))

    def count(self, what, number=1):
        self.counts[what] += number

    def tell(self, who, text):
        self.story.append((self.now_s, who, text))
        self.digest = zlib.crc32(f"{self.now_s:.6f} {who} {text}".encode(), self.digest)


def lines(result):
    """One line an event: virtual time, who, what."""
    yield f"seed {result.seed}, profile {result.profile} {result.drawn}, trace {result.digest:08x}"
    for when_s, who, what in result.story:
        yield f"{when_s:9.4f} {who:<9} {what}"
    yield f"violation: {result.violation}" if result.violation is not None else "no violation"
