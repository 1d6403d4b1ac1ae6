"""Somebody who adds, promotes, demotes and removes members and moves the leadership, at bad moments too."""

from dataclasses import replace
from functools import partial

from raft.api import Applied, Refused
from raft.members import Member
from tests.simulation.raft.checks import Violation
from tests.simulation.raft.machine import NEWEST

LEAST_VOTERS = 3


class Administrator:
    def __init__(self, world, random):
        self.world = world
        self._random = random
        self._ended = False
        self._number = 0
        self._asked = {}
        """Name of a change to what it does when it is committed, and what must become of it."""

    def begin(self):
        changes = self.world.profile.changes
        actions = (
            (changes.transfers, self._transfer),
            (changes.members, self._change),
            (changes.upgrades, self._upgrade),
        )
        for rate, action in actions:
            if rate:
                self._again(rate, action)

    def end(self):
        self._ended = True

    def outcome(self, process, name, outcome):
        done, must_be_refused = self._asked[name]
        if must_be_refused and not isinstance(outcome, Refused):
            raise Violation(f"{process.name} took a change that it must refuse: {outcome}")
        if isinstance(outcome, Applied):
            self.world.count("transfers" if done is None else "changes")
            if done is not None:
                done()

    def dismiss(self, members):
        """Stop whoever is no member any more; every member must know that."""
        for host in self.world.hosts.values():
            if host.up and host.name not in members.names:
                self._retire(host)

    def _again(self, rate, action):
        self.world.schedule.after(self._random.expovariate(rate), self._act, rate, action)

    def _act(self, rate, action):
        if not self._ended:
            action()
            self._again(rate, action)

    def _ask(self, process, kind, done, ask, *, must_be_refused=False):
        self._number += 1
        name = f"o{self._number}"
        self._asked[name] = (done, must_be_refused)
        process.ask((kind, name), partial(ask, name))

    # -- what it does ------------------------------------------------------------------------------------

    def _transfer(self):
        leader = self.world.leader()
        if leader is not None:
            to = self._random.choice(sorted(self.world.hosts))
            self.world.tell("administrator", f"asks {leader.name} to hand over to {to}")
            self._ask(leader, "transfer", None, lambda name, engine: engine.transfer(name, to))

    def _upgrade(self):
        """Host by host, and one back at times; when all members run the newest version, the step to its format."""
        leader = self.world.leader()
        hosts = [host for host in self.world.hosts.values() if host.up and not host.retired]
        if leader is not None and leader.members.all and self._random.random() < 0.5:
            running = {host.name: host.process.version for host in hosts}
            if all(running.get(name) == NEWEST for name in leader.members.names):
                self.world.clients.step(leader)
            return
        old = [host for host in hosts if host.version < NEWEST]
        back = not old or self._random.random() < 0.15
        host = self._random.choice(hosts if back else old) if hosts else None
        if host is not None:
            host.version = 1 if back else NEWEST
            self.world.count("upgrades" if host.version == NEWEST else "put back to the old version")
            self.world.tell("administrator", f"installs version {host.version} on {host.name}")
            self.world.kill(host.process)

    def _change(self):
        leader = self.world.leader()
        if leader is None or not leader.members.all:
            return
        members = leader.members
        self._random.choice((self._add, self._add, self._promote, self._demote, self._remove, self._move, self._bad))(
            leader, members
        )

    def _add(self, leader, members):
        spares = [host for host in self.world.hosts.values() if host.name not in members.names]
        if not spares:
            return
        host = self._random.choice(spares)
        if not host.up:
            if host.medium.names:
                return  # it still runs at times, or is about to
            host.retired = False
            host.addresses = {member.name: member.address for member in members.all}
        role = self._random.choice(("learner", "joining"))
        if self._random.random() < 0.5:
            # by its name alone, as `Replica.add_member` does: who it is, the leader hears from itself
            self.world.schedule.after(self._random.uniform(0, 2), self.world.start, host.name)
            self._write(leader, members.adding(Member(host.name, "", f"{host.name}:1", role)))
            return
        self.world.start(host.name)
        if host.up:
            self._write(leader, members.with_member(Member(host.name, host.process.replica_id, f"{host.name}:1", role)))

    def _promote(self, leader, members):
        self._reassign(leader, members, members.learners, self._random.choice(("joining", "joining", "voter")))

    def _demote(self, leader, members):
        if len(members.voters) > LEAST_VOTERS:
            self._reassign(leader, members, members.voters - {leader.name}, "learner")

    def _reassign(self, leader, members, names, role):
        if names:
            member = members.get(self._random.choice(sorted(names)))
            self._write(leader, members.with_member(replace(member, role=role)))

    def _remove(self, leader, members):
        names = set(members.learners)
        if len(members.voters) > LEAST_VOTERS:
            names |= members.voters - {leader.name}
        if names:
            name = self._random.choice(sorted(names))
            host = self.world.hosts[name]
            late_s = self._random.uniform(0, 3)
            done = partial(self.world.schedule.after, late_s, self._retire_removed, host, members.get(name).replica_id)
            self._write(leader, members.without(name), done)

    def _move(self, leader, members):
        member = members.get(self._random.choice(sorted(members.names)))
        self._write(leader, members.with_member(replace(member, address=f"{member.name}:{self._random.randint(2, 9)}")))

    def _bad(self, leader, members):
        """Two voters at once: no majority need be common to both."""
        others = sorted(members.voters - {leader.name})
        wanted = members
        for name in others[:2]:
            wanted = wanted.without(name)
        if len(others) > 1:
            self._write(leader, wanted, must_be_refused=True)

    def _write(self, leader, wanted, done=lambda: None, *, must_be_refused=False):
        told = " ".join(f"{member.name}={member.role}" for member in wanted.all)
        self.world.tell("administrator", f"asks {leader.name} for {told}")
        self._ask(
            leader,
            "change",
            done,
            lambda name, engine: engine.change_members(name, wanted),
            must_be_refused=must_be_refused,
        )

    def _retire_removed(self, host, replica_id):
        """A removed replica is stopped at some time, and its disk put to other use."""
        if host.up and host.process.replica_id == replica_id and host.name not in self._named():
            self._retire(host)

    def _named(self):
        """Whoever is a member as anybody sees it."""
        processes = [host.process for host in self.world.hosts.values() if host.up]
        return {name for process in processes for name in process.members.names if process.name != name}

    def _retire(self, host):
        self.world.kill(host.process, restart=False)
        self.world.retire(host)
