"""Clients: each writes a value that nobody else writes, and learns that it was committed, or not, or nothing."""

from tests.simulation.cluster.server import Commit

RATE = 20.0
"""Writes per virtual second."""
READS = 0.5
KNOWING = 0.85
"""Share of the writes that go where a primary is: health checks lead there."""
PATIENCE_S = 6.0


class Clients:
    def __init__(self, world, random):
        self.world, self._random = world, random
        self._value = 0

    def begin(self):
        self._next()

    def _next(self):
        world, random = self.world, self._random
        world.schedule.after(random.expovariate(RATE), self._next)
        servers = [host.server for host in world.hosts.values() if host.server is not None]
        writable = [server for server in servers if server.writable]
        if not servers:
            return
        server = random.choice(writable if writable and random.random() < KNOWING else servers)
        self._value += 1
        if server.writable and server.answers and server.conf.admits and random.random() < READS:
            world.checks.read(server)
        commit = Commit(self._value, self._answered)
        server._run(self._write, (server, commit))

    def _write(self, server, commit):
        server.write(commit)
        random, schedule = self._random, self.world.schedule
        if not commit.done:
            if random.random() < 0.1:
                schedule.after(random.choice((0.01, 0.3, 2.0)), server.cancel, commit)
            schedule.after(PATIENCE_S, commit.end, "unknown")

    def _answered(self, commit, outcome):
        self.world.count(f"writes {outcome}")
