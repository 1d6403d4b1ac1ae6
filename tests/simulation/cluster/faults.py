"""What breaks in a whole cluster, and when: each kind at its own rate, on a host of its choice, for a while."""

from appliance.cluster.commands import SetConfig, StartOperation
from appliance.cluster.state import OperationKind

ALONE_S = 8.0
"""Where the lease fences, agent or guard of a host has to do it (R4): they do not fail together."""


class Faults:
    def __init__(self, world, random):
        self.world, self._random = world, random
        self._ended = False
        self._operations = 0
        self._newcomer_dies = False
        self._kinds = {
            "agent": self._kill_agent,
            "agent within": self._kill_within,
            "postgres": self._kill_postgres,
            "guard": self._kill_guard,
            "host": self._power_off,
            "blackout": self._blackout,
            "freeze agent": self._freeze_agent,
            "freeze postgres": self._freeze_postgres,
            "freeze host": self._freeze_host,
            "isolate": self._isolate,
            "cut": self._cut,
            "one-way": self._one_way,
            "reset": self._reset,
            "slow": self._slow,
            "disk": self._hang_disk,
            "slow disk": self._slow_disk,
            "clock": self._clock,
            "switchover": self._switchover,
            "mode": self._mode,
            "newcomer": self._end_newcomer,
            "wipe": self._wipe,
            "majority": self._lose_majority,
        }

    def begin(self):
        for kind, rate in sorted(self.world.profile.faults.items()):
            if rate:
                self._again(kind, rate)

    def heal(self):
        """Everything that is broken is mended at once; clocks go right again."""
        self._ended = True
        world = self.world
        world.network.mend_all()
        for host in world.hosts.values():
            host.agent_stands_until_s = host.guard_stands_until_s = world.now_s
            host.postgres_stands_until_s = host.disk_stands_until_s = host.disk_slow_until_s = world.now_s
            host.dies_in = None
            host.set_rate(1.0)
            world.start(host.name)

    def promoted(self, host):
        """A second failure right after the first (R7a)."""
        if self._newcomer_dies and not self._ended:
            self._newcomer_dies = False
            self.world.schedule.after(self._random.uniform(0, 1), self._unless_ended, self._power_off, host)

    def _unless_ended(self, action, host):
        if not self._ended:
            action(host, 0.0)

    def restart_later(self, host):
        if self._ended:
            self.world.schedule.after(0.1, self.world.start, host.name)
        else:
            down_s = self._random.choice((0.2, 1.0, 4.0, 10.0)) * self._random.uniform(0.5, 1.5)
            self.world.schedule.after(down_s, self.world.start, host.name)

    def _again(self, kind, rate):
        self.world.schedule.after(self._random.expovariate(rate), self._strike, kind, rate)

    def _strike(self, kind, rate):
        if self._ended:
            return
        host = self._host()
        long_s = self._random.choice((0.3, 1.5, 4.0, 8.0, 15.0)) * self._random.uniform(0.7, 1.3)
        self.world.tell("fault", f"{kind}: {host.name}, {long_s:.1f} s")
        self.world.count(f"fault {kind}")
        self._kinds[kind](host, long_s)
        self._again(kind, rate)

    def _host(self):
        """Where the primary is more often than elsewhere."""
        hosts = list(self.world.hosts.values())
        writable = [host for host in hosts if host.server is not None and host.server.writable]
        return self._random.choice(writable if writable and self._random.random() < 0.5 else hosts)

    def _alone(self, host):
        """Whether the fence of this host may lose one of its two parts now."""
        world = self.world
        if not world.profile.lease_fences:
            return True
        whole = host.whole_until_s <= world.now_s and host.node is not None and host.guard is not None
        if whole:
            host.whole_until_s = world.now_s + ALONE_S
        return whole

    def _kill_agent(self, host, long_s):
        if self._alone(host):
            self.world.kill_node(host)

    def _kill_within(self, host, long_s):
        if self._alone(host):
            host.dies_in = self._random.randint(1, 3)
            host.whole_until_s = 1e9

    def _kill_postgres(self, host, long_s):
        if host.server is not None:
            host.server.end()

    def _kill_guard(self, host, long_s):
        if self._alone(host):
            self.world.kill_guard(host)

    def _power_off(self, host, long_s):
        self.world.power_off(host)

    def _blackout(self, host, long_s):
        for each in self.world.hosts.values():
            self.world.power_off(each)

    def _freeze_agent(self, host, long_s):
        host.agent_stands_until_s = self.world.now_s + long_s
        host.whole_until_s = max(host.whole_until_s, host.agent_stands_until_s + ALONE_S)

    def _freeze_postgres(self, host, long_s):
        host.postgres_stands_until_s = self.world.now_s + long_s

    def _freeze_host(self, host, long_s):
        """The guard is the first to run again. Where the lease fences no longer than that: see safety.md."""
        if self.world.profile.lease_fences:
            long_s = min(long_s, 1.5)
        until_s = self.world.now_s + long_s
        host.agent_stands_until_s = host.postgres_stands_until_s = until_s
        host.guard_stands_until_s = until_s - 0.01

    def _isolate(self, host, long_s):
        for other in self.world.hosts:
            if other != host.name:
                self._cut_pair(host.name, other, long_s)
                self._cut_pair(other, host.name, long_s)

    def _cut(self, host, long_s):
        other = self._other(host)
        self._cut_pair(host.name, other, long_s)
        self._cut_pair(other, host.name, long_s)

    def _one_way(self, host, long_s):
        pair = (host.name, self._other(host))
        self._cut_pair(*(pair if self._random.random() < 0.5 else reversed(pair)), long_s)

    def _cut_pair(self, begin, end, long_s):
        self.world.network.cut(begin, end)
        self.world.schedule.after(long_s, self._mend, begin, end)

    def _mend(self, begin, end):
        if not self._ended:
            self.world.network.mend(begin, end)

    def _reset(self, host, long_s):
        self.world.network.reset(host.name, self._other(host))

    def _slow(self, host, long_s):
        self.world.network.slow(host.name, self._other(host), long_s)

    def _hang_disk(self, host, long_s):
        """Of PostgreSQL alone, or of the whole host: then the node process stands as well, and the guard does not."""
        host.disk_stands_until_s = self.world.now_s + long_s
        if self._random.random() < 0.5:
            self._freeze_agent(host, long_s)

    def _slow_disk(self, host, long_s):
        host.disk_slow_until_s = self.world.now_s + long_s

    def _clock(self, host, long_s):
        if self.world.profile.clocks_lie:
            host.set_rate(self._random.choice((0.3, 0.6, 0.9, 1.0, 1.2, 1.6, 2.5)))

    def _switchover(self, host, long_s):
        leader = self.world.leader()
        if leader is None or leader.view().state.appointment is None:
            return
        self._operations += 1
        target = self._random.choice((host.name, self._other(host), ""))
        epoch = leader.view().state.appointment.epoch
        command = StartOperation(f"op{self._operations}", OperationKind.SWITCHOVER, "me", "", target, epoch, "")
        self.world.propose(leader, command)

    def _mode(self, host, long_s):
        leader = self.world.leader()
        if leader is not None and self.world.profile.modes:
            document = self._random.choice(self.world.profile.modes)
            self.world.propose(leader, SetConfig(leader.view().state.config.version, document))

    def _end_newcomer(self, host, long_s):
        """Whoever is promoted next loses power soon."""
        self._newcomer_dies = True

    def _wipe(self, host, long_s):
        """A standby's data directory is gone; only while all others have everything, so that nothing is lost by it."""
        world = self.world
        others = [other for other in world.hosts.values() if other is not host]
        has_all = all(not world.checks.missing_on_disk(other.directory.wal) for other in others)
        states = [other.node.replica.view().state for other in world.hosts.values() if other.node is not None]
        appointed = {state.appointment.node for state in states if state.appointment is not None}
        idle = (host.server is None or host.server.standby) and host.job is None
        if has_all and idle and appointed and host.name not in appointed:
            world.wipe(host)

    def _lose_majority(self, host, long_s):
        """All but the primary and whom its commits wait for are lost, or cut off. They come back one by one."""
        world = self.world
        leader, primary = world.leader(), world.primary()
        if leader is None or primary is None:
            return
        left = {primary.host.name, *leader.view().state.sync_now.wanted.members}
        cut = self._random.random() < 0.5
        for each in world.hosts.values():
            if each.name in left or each.off:
                continue
            if not cut:
                world.power_off(each, restart=False)
                world.schedule.after(long_s * self._random.uniform(0.5, 1.5), self._start, each.name)
        for one in sorted(left) if cut else ():
            back_s = long_s * self._random.uniform(0.5, 1.5)
            for other in sorted(world.hosts.keys() - left):
                self._cut_pair(one, other, back_s)
                self._cut_pair(other, one, back_s)

    def _start(self, name):
        if not self._ended:
            self.world.start(name)

    def _other(self, host):
        return self._random.choice([name for name in self.world.hosts if name != host.name])
