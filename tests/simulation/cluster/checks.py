"""What must be true of a whole cluster at all times: told what happened, raises `Violation`."""

from dataclasses import dataclass, field

from appliance.cluster.apply import apply
from appliance.cluster.commands import Appoint, FinishBootstrap
from appliance.cluster.config import read_policy
from tests.simulation.cluster.wal import lsn_of
from tests.simulation.raft.checks import Violation


@dataclass(frozen=True)
class Appointed:
    """What the agreed state said when a timeline was given away."""

    node: str
    synchronous: bool
    """nothing that was acknowledged may be missing there"""
    floor_lsn: int
    """asynchronous: what is at or below this position may not be missing either (R10)"""


@dataclass
class Checks:
    world: object
    appointed: dict = field(default_factory=dict)
    opened: dict = field(default_factory=dict)
    """timeline to the server that was promoted to it"""
    kept: list = field(default_factory=list)
    """(count, record) of every commit that was acknowledged, or read from a primary, and so has to be there"""
    known: set = field(default_factory=set)
    """the records of those"""
    newest_acknowledged: int = 0
    """highest timeline in which anything was acknowledged"""
    last_acknowledged_s: float = 0.0

    def judge(self, state, command):
        """`apply`, watched: the same answer on every node, so that the first one is noted."""
        applied = apply(state, command)
        if applied.refused is None and isinstance(command, Appoint):
            limit = read_policy(state.config.document).maximum_lag_on_failover_bytes
            known = state.last_known.lsn - limit if state.last_known is not None else 0
            appointed = Appointed(command.node, state.synchronous, known)
            if self.appointed.setdefault(command.timeline, appointed) != appointed:
                raise Violation(f"timeline {command.timeline} is assigned twice: {command}")
        elif applied.refused is None and isinstance(command, FinishBootstrap):
            self.appointed[1] = Appointed(command.node, False, 0)
        return applied

    def acknowledged(self, server, commit):
        """R9: what an older primary still acknowledges was there when the newer one was elected."""
        world, timeline = self.world, commit.record.timeline
        world.count("acknowledged")
        newest = max(self.opened, default=1)
        if timeline < newest:
            known = self.opened[newest].wal.records
            if commit.count > len(known) or known[commit.count - 1] is not commit.record:
                self._lost(f"{server.host.name} acknowledges {commit.value} in timeline {timeline}, {newest} is open")
            world.count("acknowledged late")
        if (
            timeline < self.newest_acknowledged
            and not world.profile.clocks_lie
            and not self.appointed[newest].synchronous
        ):
            raise Violation(
                f"{server.host.name} acknowledges {commit.value} in timeline {timeline} after others were in"
                f" {self.newest_acknowledged}"
            )
        self.newest_acknowledged = max(timeline, self.newest_acknowledged)
        self.last_acknowledged_s = world.now_s
        self._keep(commit.count, commit.record)

    def read(self, server):
        """Where the lease fences, whoever is writable shows everything that was acknowledged.

        R5a: what was committed before the server became a primary is seen, acknowledged or not, and must not be lost.
        What was not waited for any more by a client who was told so is not counted.
        """
        self.world.count("reads")
        if self.world.profile.lease_fences and (missing := self._missing(server.wal)):
            raise Violation(f"{server.host.name} is read and lacks {len(missing)} acknowledged commits")
        for count, record in enumerate(server.wal.records[: server.recovered], 1):
            if record.value is not None and record not in self.known:
                self.world.count("read before they were acknowledged")
                self._keep(count, record)

    def _keep(self, count, record):
        if record not in self.known:
            self.known.add(record)
            self.kept.append((count, record))

    def _lost(self, what):
        newest = self.appointed[max(self.opened)]
        if newest.synchronous or not self.world.profile.clocks_lie:
            raise Violation(what)

    def writable(self, server):
        """R4: where nothing but the lease fences, no other may be writable when one begins to be."""
        world = self.world
        others = [host.server for host in world.hosts.values() if host.server not in (None, server)]
        two = [other.host.name for other in others if other.writable]
        if two and world.profile.lease_fences:
            raise Violation(f"{server.host.name} is writable, and so is {two[0]}")

    def promoted(self, server, timeline):
        """R14, and R7 or R10: what the new primary must have."""
        given, name = self.appointed.get(timeline), server.host.name
        if given is None or given.node != name:
            raise Violation(f"{name} opens timeline {timeline}, which was given to {given}")
        if timeline in self.opened:
            raise Violation(f"{name} opens timeline {timeline} for the second time")
        self.opened[timeline] = server
        self.writable(server)
        self.world.count("promotions")
        if timeline < max(self.opened) and not self.world.profile.lease_fences:
            # R9: it was told to, and stood while others were elected. It need not have what came after, since it gets
            # nothing acknowledged any more: `acknowledged` sees to that.
            self.world.count("opened late")
            return
        self.world.faults.promoted(server.host)
        lost = self._missing(server.wal)
        self.kept = [item for item in self.kept if item not in lost]
        for count, record in lost:
            if given.synchronous:
                raise Violation(f"{name} opens timeline {timeline} without commit {record.value} of {record.timeline}")
            if lsn_of(count) <= given.floor_lsn:
                raise Violation(f"{name} lacks commit {record.value} at {lsn_of(count)}, below {given.floor_lsn}")
            self.world.count("lost asynchronously")

    def streams(self, target, source):
        """R14: whoever takes WAL from a node has a beginning of what that has."""
        mine, theirs = target.wal.records, source.wal.records
        if any(a is not b for a, b in zip(mine, theirs, strict=False)):
            raise Violation(f"{target.host.name} follows {source.host.name} with WAL of another history")

    def finish(self, primary):
        lost = self._missing(primary.wal)
        if lost:
            raise Violation(f"{len(lost)} acknowledged commits are not in {primary.host.name} at the end: {lost[:3]}")

    def _missing(self, wal):
        records = wal.records
        return [it for it in self.kept if it[0] > len(records) or records[it[0] - 1] is not it[1]]

    def missing_on_disk(self, wal):
        return [it for it in self.kept if it[0] > wal.flushed or wal.records[it[0] - 1] is not it[1]]
