"""One running replica: the real engine on the real journal, on a virtual disk, network and clock.

Everything that goes into it or comes out of it passes here, is told to the checks, and may kill it.
"""

from functools import partial

import msgpack

from raft.api import Applied, MembersChanged, Refused, ReplicaError, Settings, Unknown
from raft.compat import LEADER
from raft.engine import Engine
from raft.entries import members_in
from raft.journal import Journal
from raft.members import Members
from raft.messages import Append, Appended, AskVote, Vote, from_wire, to_wire
from tests.simulation.raft.checks import Held, Violation, changes_members, recovered
from tests.simulation.raft.machine import NEWEST, Recorder
from tests.simulation.raft.virtual_disk import Crash, VirtualDisk

CLUSTER = "simulated"
_SPIN_LIMIT = 5000
"""Steps in a virtual second; more is a loop that does not wait."""


class WatchedJournal(Journal):
    """The real journal; tells what it takes and commits, and what each file it writes stands for."""

    def __init__(self, disk, name, clock, draw_id, watch):
        self._watch = None
        self._terms = None
        self._members = []
        """(index, members) of the entries that change them, as far as they are in the log."""
        disk.describe = self.held
        super().__init__(disk, CLUSTER, name, clock=clock, draw_id=draw_id)
        self._count()
        self._watch = watch

    def add(self, command, index, term):
        previous_term = self.last_term
        super().add(command, index, term)
        self._terms.append(term)
        self._note_members(command, index)
        self._watch.added(index, term, command, previous_term)

    def truncate(self, index):
        self._watch.dropped(index)
        super().truncate(index)
        del self._terms[index - self.first_index :]
        self._members = [step for step in self._members if step[0] < index]

    def set_commit(self, index):
        begin = self.commit_index
        super().set_commit(index)
        self._watch.committed(begin + 1, index)

    def compact(self, snapshot, keep_from):
        self._terms = None
        super().compact(snapshot, keep_from)
        self._count()

    def install(self, snapshot):
        self._terms = None
        super().install(snapshot)
        self._count()
        self._watch.installed(snapshot)

    def held(self):
        if self._terms is None:
            self._count()
        return Held(
            self.identity.replica_id,
            self.cluster_id,
            self.incarnation,
            self.term,
            self.vote,
            self.base_index,
            tuple(self._terms),
            0 if self.snapshot is None else self.snapshot.index,
        )

    def members(self):
        """Who is in force by what is written here."""
        if self._members:
            return self._members[-1][1]
        return self.snapshot.members if self.snapshot is not None else self.founding or Members()

    def all_entries(self):
        return [self.entry(index) for index in range(self.first_index, self.last_index + 1)]

    def _count(self):
        self._terms, self._members = [term for _, _, term in self.all_entries()], []
        for content, index, _ in self.all_entries():
            if self.snapshot is None or index > self.snapshot.index:
                self._note_members(content, index)

    def _note_members(self, content, index):
        if (members := members_in(content)) is not None:
            self._members.append((index, members))


class Process:
    """Lives from the start of a replica to its end by crash, failure or order."""

    def __init__(self, world, host):
        """ReplicaError when the journal does not open; Crash when the machine dies meanwhile."""
        self.world, self.host, self.name = world, host, host.name
        self.version = host.version
        self.checks = world.checks
        self.alive = True
        self.members = Members()
        self.targets = set()
        self._callers = set()
        """Who has introduced itself: connected back, member or guest, so that answers get there."""
        self.led_term = 0
        """The last term in which it has sent entries."""
        self._asked = {}
        """Who waits for what at this process; a replica tells of every command that it applies."""
        self._inbox = []
        self._outbox = {}
        self._wake_s = None
        self._due_s = 0.0
        self._steps = (0, 0)
        self._beliefs = {}
        self.disk = VirtualDisk(host.medium)
        self.disk.on_call = partial(world.on_disk_call, self)
        if host.crash_at_start is not None:
            self.disk.crash_in(*host.crash_at_start)
            host.crash_at_start = None
        draw = world.fork_random()
        possible = host.medium.possible_meanings("journal")
        self.journal = WatchedJournal(self.disk, self.name, host.clock, lambda: f"{draw.getrandbits(32):08x}", self)
        self.replica_id = self.journal.identity.replica_id
        host.replica_ids.add(self.replica_id)
        self._check_recovery(possible)
        log = world.profile.log
        settings = Settings(
            name=self.name,
            addresses=host.addresses,
            compact_entries=log.compact_entries,
            compact_bytes=log.compact_bytes,
            keep_entries=log.keep_entries,
            batch_bytes=log.batch_bytes,
            part_bytes=log.chunk_bytes,
        )
        self.targets = set(host.addresses) - {self.name}
        self.engine = None
        self.engine = Engine(
            settings,
            Recorder(self._on_machine, self.version),
            self.journal,
            clock=host.clock,
            draw=draw,
            send=self._send,
            on_outcome=self._on_outcome,
            on_event=self._on_event,
        )
        self._observe()

    # -- what the world does with it ---------------------------------------------------------------------

    @property
    def leads(self):
        return self.alive and self.engine.facts.state == LEADER

    def introduction(self):
        return self.engine.introduction()

    def accepts(self, other):
        """Whether the transport would let this process connect: as a member, or as a guest of the same group."""
        mine, theirs = self.introduction().cluster_id, other.introduction().cluster_id
        if mine and theirs and mine != theirs:
            return False
        return other.name in self._named() or (theirs != "" and self.engine.admits(other.name))

    def _named(self):
        """Whom it knows by the members in force, or before there are any by its configuration."""
        return {member.name for member in self.members.all} or set(self.host.addresses)

    def _is_out(self, peer):
        return peer not in self._named() and not self.engine.admits(peer)

    def _turn_out(self, peer):
        """No member, and no news any more. What it says now is still heard: a late message can always come."""
        self._callers.discard(peer)
        self.targets.discard(peer)
        self.world.network.retarget(self)
        self.world.network.reset(peer, self.name)

    def post(self, kind, peer, content):
        """Something for its inbox. It is worked off in order, a moment later, or when a stall is over."""
        self._inbox.append((kind, peer, content))
        self.wake(self.world.lag_s())

    def ask(self, key, call):
        """Let the engine do something whose outcome somebody waits for: with others, if they asked for the same."""
        waiting = object()
        self._asked.setdefault(key, []).append(waiting)
        self.post("call", None, partial(self._begin, key, call))
        return waiting

    def give_up(self, key, waiting):
        """Wait no longer; False when it has been answered."""
        if waiting not in self._asked.get(key, []):
            return False
        self._asked[key].remove(waiting)
        return True

    def wake(self, delay_s):
        when_s = self.world.now_s + delay_s
        if self._wake_s is None or when_s < self._wake_s:
            self._wake_s = when_s
            self.world.schedule.at(when_s, self._work, when_s)

    def end(self):
        """Nothing of it may be used again."""
        self.alive = False
        self._inbox.clear()

    # -- its thread --------------------------------------------------------------------------------------

    def _work(self, when_s):
        if not self.alive or when_s != self._wake_s:
            return
        if self.host.stalled_until_s > self.world.now_s:
            self._wake_s = self.host.stalled_until_s
            self.world.schedule.at(self._wake_s, self._work, self._wake_s)
            return
        self._wake_s = None
        inbox, self._inbox = self._inbox, []
        errors = self.disk.errors
        try:
            stirred = [self._take(*item) for item in inbox]
            if not any(stirred) and self.world.now_s < self._due_s:
                self._post_all()
                self.wake(self._due_s - self.world.now_s)
                return
            wait_s = self.engine.step()
            if self.disk.errors != errors:
                raise Violation(f"{self.name} goes on after an error of its disk")
            self._observe()
            self._check_members()
        except Crash:
            self._post_all()
            self.world.crashed(self)
        except Exception as error:
            self._post_all()
            if is_outdated(self.host, error):
                self.world.outdated(self, str(error))
            elif isinstance(error, ReplicaError) and self.disk.errors > errors:
                self.world.failed(self, str(error))
            else:
                raise Violation(f"{self.name} fails: {type(error).__name__}: {error}") from error
        else:
            self._post_all()
            self._do_not_spin()
            self._due_s = self.world.now_s + max(wait_s / self.host.rate, 0.0) + self.world.lag_s()
            self.wake(self._due_s - self.world.now_s)

    def _take(self, kind, peer, content):
        """Whether a step must follow at once."""
        if kind == "message":
            message = from_wire(msgpack.unpackb(content, raw=False))
            self.world.note_message("<-", self.name, peer, message, content)
            if self._is_out(peer):
                self._turn_out(peer)
            return self.engine.deliver(peer, message)
        if kind == "call":
            content(self.engine)
        elif kind == "introduced":
            self.engine.introduced(peer, content)
            self._note_caller(peer)
        elif kind == "connected":
            self.engine.connected(peer)
        else:
            self.engine.disconnected(peer)
        return True

    def _begin(self, key, call, engine):
        """What nobody waits for any more is not asked, as in `Replica`."""
        if self._asked.get(key):
            call(engine)

    def _note_caller(self, peer):
        if peer not in self.targets:
            self._callers.add(peer)
            self.targets.add(peer)
            self.world.network.retarget(self)

    def _do_not_spin(self):
        second = int(self.world.now_s)
        self._steps = (second, self._steps[1] + 1) if self._steps[0] == second else (second, 1)
        self.world.steps += 1
        if self._steps[1] >= _SPIN_LIMIT:
            raise Violation(f"{self.name} takes {_SPIN_LIMIT} steps in a second")

    def _post_all(self):
        """Hand over what the step has sent: it has left, whatever happens next."""
        outbox, self._outbox = self._outbox, {}
        for peer in sorted(outbox):
            self.world.network.send(self, peer, outbox[peer])

    # -- what the engine does ----------------------------------------------------------------------------

    def _send(self, peer, message):
        if not self.world.network.connected(self.name, peer):
            return False
        self._check_said(peer, message)
        frame = msgpack.packb(to_wire(message), use_bin_type=True)
        self.world.note_message("->", self.name, peer, message, frame)
        self._outbox.setdefault(peer, []).append(frame)
        return True

    def _on_outcome(self, key, outcome):
        waiting = self._asked.pop(key, [])  # the first answer is the answer
        if not waiting:
            return
        self._observe()
        match outcome:
            case Applied(index) | Refused(_, int(index)):
                self.world.tell(self.name, f"{key[0]} {key[1]}: {type(outcome).__name__} at {index}")
            case Refused(reason, _) | Unknown(reason):
                self.world.tell(self.name, f"{key[0]} {key[1]}: {type(outcome).__name__}: {reason}")
        for _ in waiting:
            self.world.outcome(self, key, outcome)

    def _on_event(self, event):
        if isinstance(event, MembersChanged):
            self.members = event.members
            self.targets = (self._named() | self._callers) - {self.name}
            told = ", ".join(f"{member.name} {member.role} {member.replica_id}" for member in event.members.all)
            self.world.tell(self.name, f"members: {told}")
            if self.engine is not None:
                self.world.network.retarget(self)

    def _on_machine(self, state, command):
        if state is None:
            self.checks.states.raised(command)
        else:
            self.checks.states.applied(state.count, state.digest, command)

    # -- what the journal does ---------------------------------------------------------------------------

    def added(self, index, term, content, previous_term):
        if term == self.led_term and (members := members_in(content)) is not None:
            self._check_change(index, term, members)
        self.checks.entries.added(index, term, content, previous_term, self.name)

    def dropped(self, index):
        self.checks.answers.drops(self.replica_id, self.journal.term, index)

    def committed(self, first, last):
        for index in range(first, last + 1):
            self._committed(index, self.journal.term_at(index))

    def installed(self, snapshot):
        self.world.count("installs")
        self._committed(snapshot.index, snapshot.term)

    def _committed(self, index, term):
        commits = self.checks.commits
        if index > commits.last:
            self.world.check_later_leaders(index, term, self)
        commits.committed(index, term, self.journal.term, self.name, self.world.now_s, self._majority_has)

    def _majority_has(self, index, term):
        """Whether a majority of the voters in force here holds the entry on its disk.

        A follower may learn of a commit before the world has seen it at the leader, whose members may be others.
        """
        leads = self.led_term == self.journal.term
        return any(self.world.majority_holds(members, index, term) for members in self.world.members(self, leads))

    # -- checks ------------------------------------------------------------------------------------------

    def _check_recovery(self, possible):
        journal = self.journal
        if possible:
            recovered(journal.held(), possible, self.name)
        previous_term = journal.base_term
        for content, index, term in journal.all_entries():
            self.checks.entries.added(index, term, content, previous_term, self.name)
            previous_term = term

    def _check_said(self, peer, message):
        """What a message says must be on the disk before it leaves."""
        durable = self.host.medium.durable_meaning("journal")
        if durable is None:
            raise Violation(f"{self.name} sends {message} without a journal on its disk")
        if message.term > durable.term:
            raise Violation(f"{self.name} speaks of term {message.term}, on its disk is {durable.term}")
        match message:
            case Vote(granted=True, for_term=term):
                self._check_vote(durable, term, peer)
            case AskVote(term=term):
                self._check_vote(durable, term, self.name)
            case Appended(success=True, for_term=term, next_index=index):
                self.checks.answers.holds(self.replica_id, term, index - 1)
            case Append(term=term) if term != self.led_term:
                self._begins_to_lead(term)

    def _check_members(self):
        """Those in force are the last that are written, whether committed, taken back or from a snapshot."""
        if not self.members == self.engine.facts.members == self.journal.members():
            told = f"{self.members}, {self.engine.facts.members}"
            raise Violation(f"{self.name} goes by the members {told}; in its log are {self.journal.members()}")

    def _check_change(self, index, term, members):
        journal = self.journal
        pending = range(journal.commit_index + 1, index)
        changes_members(
            self.name,
            index,
            term,
            voters_of(self.members),
            voters_of(members),
            pending=any(members_in(journal.entry(place)[0]) is not None for place in pending),
            committed_term=journal.term_at(journal.commit_index),
        )

    def _check_vote(self, durable, term, candidate):
        names = {candidate, *self.world.hosts[candidate].replica_ids}
        if durable.term != term or durable.vote not in names:
            raise Violation(
                f"{self.name} votes for {candidate} in term {term}, on its disk is {durable.vote} in {durable.term}"
            )
        self.checks.votes.votes(self.replica_id, term, candidate)

    def _begins_to_lead(self, term):
        journal = self.journal
        self.led_term = term
        self.world.tell(self.name, f"leads term {term}, log {journal.base_index}..{journal.last_index}")
        self.world.count("leaders")
        self.checks.leaders.leads(term, self.replica_id)
        self.checks.votes.elected(self.name, self.replica_id, term, voters_of(self.members))

        def term_at(index):
            if index < journal.base_index:
                return None
            return journal.term_at(index) or 0

        self.checks.commits.leads(term, self.name, term_at)

    def _observe(self):
        """Look at what the engine shows; it must fit the rest."""
        engine, checks = self.engine, self.checks
        if engine is None:
            return
        view, facts = engine.view, engine.facts
        checks.states.at_index(view.index, view.state.count, view.state.digest, self.name)
        if view.index > checks.commits.last:
            raise Violation(f"{self.name} shows {view.index}, committed is {checks.commits.last}")
        if facts.state == LEADER:
            self._check_beliefs(facts)
            if view.contact_s is not None:
                checks.commits.in_contact(facts.term, self.name, self.host.world_time_s(view.contact_s))

    def _check_beliefs(self, facts):
        """The peers have what this leader counts on."""
        if facts.match_index == self._beliefs:
            return
        self._beliefs = facts.match_index
        for peer, index in facts.match_index.items():
            member, term = facts.members.get(peer), self.journal.term_at(index)
            held = self.world.held_by(member) if member is not None else None
            if held is not None and term is not None:
                self.checks.answers.believed(self.name, peer, index, term, held, facts.term)


def is_outdated(host, error):
    """It has met what only a newer version than its own understands."""
    return isinstance(error, ReplicaError) and host.version < NEWEST and f"of version {NEWEST}" in str(error)


def voters_of(members):
    return [member.replica_id for member in members.all if member.voter]
