"""Replicas on virtual disks, one virtual clock, and a network made of lists: everything happens when a test says so.

A `Bench` is one replica whose peers are played by the test. A `Group` is several replicas that hear each other.
"""

import itertools
import random
from dataclasses import replace
from typing import Any, NamedTuple

import msgpack

from raft.api import NewerVersionNeeded, Settings, Verdict
from raft.applier import Submission
from raft.engine import Engine
from raft.entries import COMMAND, members_entry
from raft.journal import Journal
from raft.members import Introduction, Member, Members, founders
from raft.messages import (
    Append,
    Appended,
    AskPreVote,
    AskVote,
    PreVote,
    SnapshotHeld,
    SnapshotPart,
    Vote,
    from_wire,
    to_wire,
)
from tests.simulation.raft.virtual_disk import Crash, Medium, VirtualDisk
from tests.unit.raft.journals import holding

CLUSTER = "c"
NAMES = ("n1", "n2", "n3")
ELECTION_MIN_S, ELECTION_MAX_S, HEARTBEAT_S = 0.5, 1.0, 0.1
TICK_S = 0.01


class Clock:
    def __init__(self):
        self.now_s = 1000.0

    def __call__(self):
        return self.now_s


class Words:
    """A state machine that keeps every command; `no` is refused and `raise` raises."""

    def initial(self):
        return ()

    def objection(self, state, command):
        return None

    def apply(self, state, command):
        if command == b"raise":
            raise ValueError("poison")
        if command.startswith(b"no"):
            return state, Verdict("said no")
        return (*state, command), Verdict()

    def dump(self, state):
        return msgpack.packb(state)

    def load(self, dumped):
        return tuple(msgpack.unpackb(dumped))


class OfVersion(Words):
    """`later` is a command of the second version."""

    def __init__(self, known):
        self.known = known

    def objection(self, state, command):
        return self.apply(state, command)[1].refused

    def apply(self, state, command):
        if command.startswith(b"later") and self.known < 2:
            raise NewerVersionNeeded("holds what is of version 2")
        return super().apply(state, command)

    def load(self, dumped):
        state = super().load(dumped)
        if b"later" in state and self.known < 2:
            raise NewerVersionNeeded("holds what is of version 2")
        return state


class Sent(NamedTuple):
    peer: str
    message: Any
    disk: bytes
    """The journal as a power cut at this moment would leave it."""


def replica_id(name):
    return f"id-{name}"


def address(name):
    return f"{name}:7000"


def voters(*names):
    return Members.of(Member(name, replica_id(name), address(name), "voter") for name in names)


def with_role(members, name, role, identity=None):
    return members.with_member(Member(name, identity or replica_id(name), address(name), role))


def entry(index, term, content=None):
    """A log entry; with no content of its own it differs from all others, and is applied to nothing."""
    return (COMMAND + b"%d in %d" % (index, term) if content is None else content, index, term)


def command(index, term, word):
    """A log entry that brings this word to the machine."""
    return entry(index, term, COMMAND + Submission(f"id of {word.decode()[:100]}", 1, word).pack())


def change(index, term, members):
    """A log entry that puts members in force."""
    return (members_entry(members), index, term)


class Bench:
    """One replica, fed by hand. `sent` holds what it said, with the disk at that moment."""

    def __init__(self, name="n1", names=NAMES, *, clock=None, medium=None, identity=None, machine=None, **settings):
        self.name, self.names = name, names
        self.clock = clock or Clock()
        self.medium = medium or Medium()
        self.identity = identity or replica_id(name)
        self.machine = machine or Words()
        addresses = {each: address(each) for each in names}
        self.settings = Settings(name, addresses, ELECTION_MIN_S, ELECTION_MAX_S, HEARTBEAT_S, **settings)
        self.start()

    def start(self):
        self.sent, self.outcomes, self.events = [], [], []
        self.reachable = set()
        self.disk = VirtualDisk(self.medium)
        self.journal = Journal(self.disk, CLUSTER, self.name, clock=self.clock, draw_id=lambda: self.identity)
        self.engine = Engine(
            self.settings,
            self.machine,
            self.journal,
            clock=self.clock,
            draw=random.Random(self.identity),
            send=self._send,
            on_outcome=lambda key, outcome: self.outcomes.append((key, outcome)),
            on_event=self.events.append,
        )

    def restart(self, *, power_lost=True):
        """The process is killed, with or without the machine, and the replica begins anew."""
        if power_lost:
            self.medium.lose_power()
        else:
            self.medium.kill()
        self.start()

    def _send(self, peer, message):
        if peer not in self.reachable:
            return False
        durable = self.medium.durable_names.get("journal")
        self.sent.append(Sent(peer, message, b"" if durable is None else bytes(durable.synced)))
        return True

    # -- what happens to it ----------------------------------------------------------------------------

    def found(self):
        """All the others are there, and as new as this one."""
        for peer in self.names:
            if peer != self.name:
                self.meet(peer)
        return self

    def meet(self, peer, identity=None, cluster_id="", place=""):
        self.engine.introduced(peer, Introduction(identity or replica_id(peer), cluster_id, 0, place))
        self.engine.connected(peer)
        self.reachable.add(peer)

    def lose(self, peer):
        self.engine.disconnected(peer)
        self.reachable.discard(peer)

    def step(self):
        return self.engine.step()

    def wait(self, seconds):
        """Let time pass, and take one step."""
        self.clock.now_s += seconds
        return self.step()

    def hear(self, peer, kind, *, term=None, identity=None, group=None, **fields):
        """A peer says something, in this replica's group and term if no other is named. True: a step is due at once."""
        term = self.term if term is None else term
        message = kind(self.group if group is None else group, identity or replica_id(peer), term, **fields)
        return self.engine.deliver(peer, message)

    def hear_entries(self, *entries, leader="n2", term=1, previous=(1, 0), commit=1, sent=7):
        """A leader sends entries; answers what was said to that."""
        self.forget()
        fields = {"previous_index": previous[0], "previous_term": previous[1], "commit_index": commit}
        self.hear(leader, Append, term=term, sent=sent, entries=entries, **fields)
        answers = self.said(Appended)
        return answers[-1] if answers else None

    def hear_part(self, packed, offset, data, *, index, leader="n2", term=1, sent=7):
        """A leader sends a part of a snapshot; answers what was said to that."""
        self.forget()
        fields = {"index": index, "size": len(packed), "offset": offset, "data": data}
        self.hear(leader, SnapshotPart, term=term, sent=sent, **fields)
        return self.sent[-1].message

    def hear_snapshot(self, snapshot, **said):
        """A leader sends a whole snapshot in one part."""
        packed = snapshot.pack()
        return self.hear_part(packed, 0, packed, index=snapshot.index, **said)

    def asks_vote(self, peer, term, last=(1, 0), *, transfer=False, identity=None):
        """A peer asks for a vote: the answer, or None."""
        self.forget()
        fields = {"last_index": last[0], "last_term": last[1], "transfer": transfer}
        self.hear(peer, AskVote, term=term, identity=identity, **fields)
        return next(iter(self.said(Vote)), None)

    def asks_pre_vote(self, peer, term, last=(1, 0)):
        self.forget()
        self.hear(peer, AskPreVote, term=term, number=1, last_index=last[0], last_term=last[1])
        return self.said(PreVote)[-1].granted

    def votes_for_it(self, peer, *, for_term=None, identity=None, granted=True):
        self.hear(peer, Vote, for_term=self.term if for_term is None else for_term, granted=granted, identity=identity)

    def has(self, peer, up_to, *, sent=None, for_term=None, term=None, success=True, identity=None):
        """A peer answers that it has the log up to this index, or (without success) where to go on; as `hear`."""
        fields = {
            "for_term": self.term if for_term is None else for_term,
            "sent": self.last_sent_to(peer) if sent is None else sent,
            "next_index": up_to + 1 if success else up_to,
            "success": success,
        }
        return self.hear(peer, Appended, term=term, identity=identity, **fields)

    def holds(self, peer, part, held):
        """A peer answers a part of a snapshot."""
        fields = {"sent": part.sent, "index": part.index, "size": part.size, "held": held}
        self.hear(peer, SnapshotHeld, for_term=self.term, **fields)

    # -- roles -----------------------------------------------------------------------------------------

    def campaign(self):
        """Ask for votes, having won the pre-vote."""
        self.wait(ELECTION_MAX_S + TICK_S)
        for peer in sorted(self.engine.facts.members.voters - {self.name}):
            asked = self.said(AskPreVote, peer)
            if asked:
                self.hear(peer, PreVote, number=asked[-1].number, granted=True)
        self.step()
        return self

    def lead(self):
        """Win an election; nothing has been answered yet."""
        self.campaign()
        for peer in sorted(self.engine.facts.members.voters - {self.name}):
            if not self.leads:
                self.votes_for_it(peer)
        assert self.leads
        self.step()
        return self

    def settle(self):
        """As leader: have everything committed, by all."""
        for _ in range(4):
            self.answer_all()
        assert self.journal.commit_index == self.journal.last_index
        return self

    def answer_all(self):
        """Every other member answers, after a round of messages, that it has the whole log."""
        self.wait(HEARTBEAT_S + TICK_S)
        for peer in sorted(self.engine.facts.members.names & self.reachable):
            self.has(peer, self.journal.last_index)
        self.step()

    # -- what it has and said --------------------------------------------------------------------------

    @property
    def term(self):
        return self.journal.term

    @property
    def leads(self):
        return self.engine._core.leader is not None

    @property
    def members(self):
        return self.engine._core.members.current

    @property
    def group(self):
        return f"{self.journal.cluster_id}/{self.journal.incarnation}"

    def said(self, kind, peer=None):
        return [sent.message for sent in self.sent if isinstance(sent.message, kind) and peer in {None, sent.peer}]

    def last_sent_to(self, peer):
        """The number of the last message to this peer that it could answer."""
        numbers = [message.sent for message in self.said(Append | SnapshotPart, peer)]
        return numbers[-1] if numbers else 0

    def on_disk(self, sent):
        """The journal as it was on the disk when this was sent."""
        return Journal(VirtualDisk(holding(sent.disk)), CLUSTER, self.name, draw_id=lambda: "")

    def forget(self):
        self.sent.clear()

    def outcome(self, kind, name):
        return next((outcome for key, outcome in self.outcomes if key == (kind, name)), None)

    def log(self):
        """The terms of all entries that are kept."""
        return [self.journal.entry(index)[2] for index in range(self.journal.first_index, self.journal.last_index + 1)]


def crashed(begin, act):
    """The replica that `begin` makes, after its process or its machine died in each call to the disk in `act`.

    Before that call has done anything, and after it has done all.
    """
    for calls in itertools.count(1):
        for share, power_lost in itertools.product((0.0, 1.0), (False, True)):
            bench = begin()
            bench.disk.crash_in(calls, share)
            try:
                act(bench)
            except Crash:
                bench.restart(power_lost=power_lost)
                yield bench
            else:
                return


class Group:
    """Several replicas that hear each other at once, unless they are cut off."""

    def __init__(self, *names, machine=None, others=(), late=(), **settings):
        """`names` found the group, though those in `late` are not there yet; `others` wait to be added to it."""
        self.clock = Clock()
        self.cuts = set()
        self.replicas = {}
        self._machine, self._settings, self._names = machine, settings, names
        for name in (*names, *others):
            if name not in late:
                self.add(name)

    def __getitem__(self, name):
        return self.replicas[name]

    def add(self, name, *, medium=None, identity=None):
        """Start a replica and connect it with all others, as far as there is no cut."""
        self.replicas[name] = Bench(
            name,
            self._names,
            clock=self.clock,
            medium=medium,
            identity=identity,
            machine=self._machine,
            **self._settings,
        )
        self._connect(name)
        return self.replicas[name]

    def restart(self, name, *, place=None):
        """A loss of power; with `place` it comes back at another address."""
        for other in self._others(name):
            other.lose(name)
        replica = self.replicas[name]
        if place is not None:
            replica.settings = replace(replica.settings, addresses={**replica.settings.addresses, name: place})
        replica.restart()
        self._connect(name)

    def stop(self, name):
        self.replicas[name].medium.lose_power()
        del self.replicas[name]
        for other in self._others(name):
            other.lose(name)

    def cut_off(self, name):
        """What it says and what is said to it waits for ever, and no connection is seen to break."""
        self.cuts |= {pair for other in self._others(name) for pair in ((name, other.name), (other.name, name))}

    def cut(self, begin, end):
        """What one says to the other is lost."""
        self.cuts.add((begin, end))

    def heal(self):
        """Every connection that was cut is made anew."""
        cuts, self.cuts = self.cuts, set()
        for begin, end in sorted(cuts):
            if begin in self.replicas and end in self.replicas:
                self.replicas[begin].lose(end)
                self._introduce(begin, end)

    def run(self, seconds):
        for _ in range(round(seconds / TICK_S)):
            self.clock.now_s += TICK_S
            self.tick()

    def until(self, claim, limit_s=10.0):
        """Let time pass until something holds."""
        for _ in range(round(limit_s / TICK_S)):
            if claim():
                return
            self.clock.now_s += TICK_S
            self.tick()
        raise AssertionError(f"it does not hold after {limit_s:g} s")

    def tick(self):
        """One moment: everybody steps, and everything that is said arrives, until nothing is said."""
        for _ in range(100):
            for replica in self.replicas.values():
                replica.step()
            if not self.carry():
                return
        raise AssertionError("they talk without end while no time passes")

    def carry(self):
        """Bring what was said to whom it was said to; True when there was something."""
        letters = [(replica.name, sent) for replica in self.replicas.values() for sent in replica.sent]
        for replica in self.replicas.values():
            replica.forget()
        for begin, sent in letters:
            if (begin, sent.peer) not in self.cuts and sent.peer in self.replicas:
                wire = msgpack.unpackb(msgpack.packb(to_wire(sent.message)), raw=False)
                self.replicas[sent.peer].engine.deliver(begin, from_wire(wire))
        return bool(letters)

    def leader(self):
        """Who leads; with a few seconds' patience. An old one that is cut off does not count."""
        self.until(lambda: self._leaders() != [])
        return max(self._leaders(), key=lambda replica: replica.term)

    def led_by(self, name):
        """Let this one lead."""
        self.leader()
        self.until(lambda: self.leader().journal.commit_index > 2)
        if self.leader().name != name:
            self.run(0.2)
            self.leader().engine.transfer("to begin with", name)
            self.until(lambda: [leader.name for leader in self._leaders()] == [name])
        self.run(0.3)
        return self.replicas[name]

    def propose(self, word, name=None, identity=None):
        """Propose to a replica, or to the leader, and wait for the outcome."""
        replica = self.leader() if name is None else self.replicas[name]
        identity = identity or f"{word[:40]!r} at {self.clock.now_s}"
        replica.engine.propose(word, identity)
        self.until(lambda: replica.outcome("command", identity) is not None)
        return replica.outcome("command", identity)

    def agree(self):
        """Let time pass until all have applied the same log."""
        self.until(lambda: len({replica.engine.view.index for replica in self.replicas.values()}) == 1)
        states = {replica.engine.view.state for replica in self.replicas.values()}
        assert len(states) == 1
        return states.pop()

    def _leaders(self):
        return [replica for replica in self.replicas.values() if replica.leads]

    def _others(self, name):
        return [replica for replica in self.replicas.values() if replica.name != name]

    def _connect(self, name):
        for other in self._others(name):
            for begin, end in ((name, other.name), (other.name, name)):
                self._introduce(begin, end)

    def _introduce(self, begin, end):
        """`begin` has connected to `end`, and each has said who it is."""
        first, second = self.replicas[begin], self.replicas[end]
        second.engine.introduced(begin, first.engine.introduction())
        first.engine.introduced(end, second.engine.introduction())
        first.engine.connected(end)
        first.reachable.add(end)


def founding_of(*names):
    """The id and members of the group that these found."""
    return founders(CLUSTER, {name: replica_id(name) for name in names}, {name: address(name) for name in names})
