"""What breaks, and when: each kind of fault comes at its own rate, hits something at random, and passes."""


class Faults:
    def __init__(self, world, random):
        self.world = world
        self._random = random
        self._ended = False
        self._cuts = []

    def begin(self):
        profile = self.world.profile
        net, machines, clocks = profile.net, profile.machines, profile.clocks
        rates = (
            (net.cuts, self._cut),
            (net.resets, self._reset),
            (net.slows, self._slow),
            (machines.kills, self._kill),
            (machines.powers, self._power),
            (machines.blackouts, self._blackout),
            (machines.inner, self._crash_within),
            (machines.full, self._fill_disk),
            (machines.failed_syncs, self._fail_sync),
            (machines.failed_calls, self._fail_call),
            (machines.wipes, self._wipe),
            (machines.rots, self._rot),
            (clocks.stalls, self._stall),
        )
        for rate, fault in rates:
            if rate:
                self._again(rate, fault)

    def end(self):
        self._ended = True

    def restart_later(self, host):
        """A process that died comes back; sometimes it dies again at once, while it starts."""
        if self.world.healing:
            self.world.schedule.after(0.1, self.world.start, host.name)
            return
        random = self._random
        if self.world.profile.machines.inner and random.random() < 0.2:
            host.crash_at_start = (random.randint(1, 6), random.choice((0, 0.5, 1)))
        down_s = random.choice((0.05, 0.5, 3.0)) * random.uniform(0.5, 1.5)
        self.world.schedule.after(down_s, self.world.start, host.name)

    def _again(self, rate, fault):
        self.world.schedule.after(self._random.expovariate(rate), self._strike, rate, fault)

    def _strike(self, rate, fault):
        if not self._ended:
            fault()
            self._again(rate, fault)

    def _later(self, longest_s, action, *arguments):
        self.world.schedule.after(self._random.uniform(0.3, longest_s), self._unless_ended, action, arguments)

    def _unless_ended(self, action, arguments):
        """Healing mends everything at once, so that nothing must be mended again after it."""
        if not self._ended:
            action(*arguments)

    def _process(self):
        """A running process; the leader more often than others."""
        processes = [host.process for host in self.world.hosts.values() if host.up]
        leaders = [process for process in processes if process.leads]
        if leaders and self._random.random() < 0.4:
            return self._random.choice(leaders)
        return self._random.choice(processes) if processes else None

    def _pair(self):
        return self._random.sample(sorted(self.world.hosts), 2)

    # -- the network -------------------------------------------------------------------------------------

    def _cut(self):
        pairs = self._cut_pairs()
        self.world.count("cuts")
        self.world.tell("network", "cut: " + ", ".join(f"{begin} -> {end}" for begin, end in pairs))
        for begin, end in pairs:
            self.world.network.cut(begin, end)
        self._later(5.0, self._mend, pairs)

    def _mend(self, pairs):
        self.world.tell("network", "mended: " + ", ".join(f"{begin} -> {end}" for begin, end in pairs))
        for begin, end in pairs:
            self.world.network.mend(begin, end)

    def _cut_pairs(self):
        random, names = self._random, sorted(self.world.hosts)
        kind = random.choice(("one way", "between two", "one from all", "groups", "to one", "from one"))
        if kind == "one way":
            return [tuple(self._pair())]
        if kind == "between two":
            begin, end = self._pair()
            return [(begin, end), (end, begin)]
        if kind == "groups":
            group = set(random.sample(names, random.randint(1, len(names) - 1)))
        else:
            process = self._process()
            group = {process.name if process is not None else random.choice(names)}
        inward = [(name, inside) for inside in sorted(group) for name in names if name not in group]
        outward = [(end, begin) for begin, end in inward]
        return {"to one": inward, "from one": outward}.get(kind, inward + outward)

    def _reset(self):
        self.world.network.reset(*self._pair())

    def _slow(self):
        begin, end = self._pair()
        duration_s = self._random.uniform(0.5, 4)
        self.world.tell("network", f"{begin} -> {end} slow for {duration_s:.1f} s")
        self.world.network.slow(begin, end, duration_s)

    # -- machines ----------------------------------------------------------------------------------------

    def _kill(self):
        if (process := self._process()) is not None:
            self.world.count("kills")
            self.world.kill(process)

    def _power(self):
        if (process := self._process()) is not None:
            self.world.count("losses of power")
            self.world.power_off(process)

    def _blackout(self):
        self.world.count("blackouts")
        self.world.tell("world", "blackout")
        for host in self.world.hosts.values():
            if host.up:
                self.world.power_off(host.process)

    def _crash_within(self):
        if (process := self._process()) is not None:
            process.disk.crash_in(self._random.randint(1, 12), self._random.choice((0, 0.3, 0.5, 0.8, 1)))

    def _fill_disk(self):
        if (process := self._process()) is not None:
            medium = process.host.medium
            medium.capacity_bytes = medium.size_bytes() + self._random.choice((0, 10, 200, 2000))
            self.world.count("full disks")
            self.world.tell(process.name, "has a full disk")
            self._later(4.0, self._free, medium)

    def _free(self, medium):
        medium.capacity_bytes = None

    def _fail_sync(self):
        if (process := self._process()) is not None:
            self.world.count("failing syncs")
            process.disk.fail_sync_in(self._random.randint(1, 6))

    def _fail_call(self):
        """Any call that changes something on the disk, a rename or the sync of a directory as well."""
        if (process := self._process()) is not None:
            self.world.count("failing calls")
            process.disk.fail_in(self._random.randint(1, 12))

    def _stall(self):
        if (process := self._process()) is not None:
            duration_s = self._random.uniform(0.05, self.world.profile.clocks.stall_s)
            self.world.tell(process.name, f"stalls for {duration_s:.2f} s")
            process.host.stalled_until_s = self.world.now_s + duration_s

    # -- disks that are lost -----------------------------------------------------------------------------

    def _wipe(self):
        host = self._expendable()
        if host is not None:
            self.world.kill(host.process, restart=False)
            self.world.wipe(host)
            self.restart_later(host)

    def _rot(self):
        """A bit of the journal turns over while the machine is down."""
        host = self._expendable()
        if host is not None:
            self.world.power_off(host.process, restart=False)
            self.world.rot(host)
            self.restart_later(host)

    def _expendable(self):
        """A host that may lose its disk: all voters are there as the members say, so that only one is missing then."""
        leader = self.world.leader()
        if leader is None or not self.world.complete(leader.members):
            return None
        return self._random.choice([self.world.hosts[name] for name in sorted(leader.members.names)])
