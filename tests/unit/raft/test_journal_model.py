"""The journal against a plain model: any operations in any order, kills and losses of power in and between them."""

import os
import random
from copy import deepcopy
from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from raft.entries import members_entry
from tests.simulation.raft.virtual_disk import Crash, Medium, VirtualDisk
from tests.unit.raft.journals import MEMBERS, REST, content, opened, snapshot

EXAMPLES = int(os.environ.get("JOURNAL_EXAMPLES", "60"))
"""Lives of a journal; a few thousand are a minute well spent after a change of it."""
SHARES = (0.0, 0.3, 0.6, 1.0)
"""How much of the call in which the process dies still happens."""


def crashes(calls):
    """None, or: in which call, how much of it happens, and the seed of the loss of power that follows, if one does."""
    return st.none() | st.tuples(st.integers(1, calls), st.sampled_from(SHARES), st.none() | st.integers(0, 99))


@dataclass
class Model:
    """What a journal should hold, said as plainly as can be."""

    term: int = 0
    vote: str | None = None
    cluster_id: str = ""
    incarnation: int = 0
    founding: object = None
    commit_index: int = 1
    base_index: int = 1
    terms: dict = field(default_factory=lambda: {1: 0})
    """Of the base and of every entry that is kept."""
    commands: dict = field(default_factory=dict)
    snapshot: object = None

    @property
    def last(self):
        return max(self.terms)

    def add(self, command, term):
        index = self.last + 1
        self.terms[index], self.commands[index] = term, command

    def drop(self, where):
        for index in [index for index in self.terms if where(index)]:
            del self.terms[index]
            self.commands.pop(index, None)

    def begin_at(self, index):
        self.drop(lambda other: other < index)
        self.commands.pop(index, None)
        self.base_index = index

    def content(self):
        return {
            "term": self.term,
            "vote": self.vote,
            "cluster_id": self.cluster_id,
            "incarnation": self.incarnation,
            "founding": self.founding,
            "commit_index": self.commit_index,
            "base": (self.base_index, self.terms[self.base_index]),
            "entries": [(self.commands[index], index, self.terms[index]) for index in sorted(self.commands)],
            "snapshot": self.snapshot,
        }


class JournalMachine(RuleBasedStateMachine):
    @initialize()
    def start(self):
        self.medium = Medium()
        self.now = Model()
        self.begin()
        self.durable = deepcopy(self.now)

    def begin(self):
        self.changed = False
        """Whether there is more to write than a commit index."""
        self.disk = VirtualDisk(self.medium)
        self.journal = opened(self.disk)

    def kept(self):
        return {name: value for name, value in content(self.journal).items() if name != "identity"}

    @invariant()
    def memory_is_as_the_model(self):
        if hasattr(self, "journal"):
            assert self.kept() == self.now.content()
            assert self.journal.last_index == self.now.last
            assert self.journal.last_term == self.now.terms[self.now.last]
            assert self.journal.first_index == self.now.base_index + 1

    @rule(sizes=st.lists(st.integers(0, 1500), min_size=1, max_size=4), data=st.data())
    def add(self, sizes, data):
        for size in sizes:
            index = self.now.last + 1
            term = data.draw(st.integers(self.now.terms[self.now.last], self.now.term))
            command = bytes([index % 256]) * size
            self.journal.add(command, index, term)
            self.now.add(command, term)
        self.changed = True

    @precondition(lambda self: self.now.last > self.now.commit_index)
    @rule(data=st.data())
    def truncate(self, data):
        first = data.draw(st.integers(self.now.commit_index + 1, self.now.last))
        self.journal.truncate(first)
        self.now.drop(lambda index: index >= first)
        self.changed = True

    @rule(more=st.integers(1, 3), vote=st.sampled_from([None, "n1", "n2"]))
    def set_term(self, more, vote):
        self.journal.set_term(self.now.term + more, vote)
        self.now.term, self.now.vote = self.now.term + more, vote
        self.changed = True

    @precondition(lambda self: not self.now.cluster_id)
    @rule(incarnation=st.integers(0, 2))
    def adopt(self, incarnation):
        self.journal.adopt("cafe", incarnation)
        self.now.cluster_id, self.now.incarnation = "cafe", incarnation
        self.changed = True

    @precondition(lambda self: not self.now.cluster_id and self.now.snapshot is None)
    @rule()
    def found(self):
        self.journal.found("beef", MEMBERS)
        self.now.cluster_id, self.now.founding = "beef", MEMBERS
        self.changed = True

    @precondition(lambda self: self.now.cluster_id)
    @rule(more=st.integers(1, 2))
    def begin_anew(self, more):
        self.now.incarnation += more
        self.journal.begin_anew(self.now.incarnation, REST)
        self.now.term, self.now.vote = self.now.term + 1, None
        self.now.add(members_entry(REST), self.now.term)
        self.changed = True

    @precondition(lambda self: self.changed)
    @rule(crash=crashes(2))
    def sync(self, crash):
        self.write(self.journal.sync, crash)

    @precondition(lambda self: not self.changed)
    @rule()
    def sync_nothing(self):
        """Or nothing but a commit index, which waits for a change."""
        calls = self.disk.calls
        self.journal.sync()
        assert self.disk.calls == calls

    @precondition(lambda self: self.now.last > self.now.commit_index)
    @rule(data=st.data())
    def commit(self, data):
        index = data.draw(st.integers(self.now.commit_index + 1, self.now.last))
        if self.changed:
            self.durable, self.changed = deepcopy(self.now), False
        self.journal.set_commit(index)
        self.now.commit_index = index

    @rule(data=st.data(), crash=crashes(6))
    def compact(self, data, crash):
        least = self.now.base_index if self.now.snapshot is None else self.now.snapshot.index
        index = data.draw(st.integers(least, self.now.commit_index))
        keep_from = data.draw(st.integers(1, index + 1))
        taken = snapshot(index, self.now.terms[index], b"%d" % index * 100)
        self.now.begin_at(max(keep_from - 1, self.now.base_index))
        self.now.snapshot, self.now.founding = taken, None
        self.write(lambda: self.journal.compact(taken, keep_from), crash)

    @rule(data=st.data(), crash=crashes(6))
    def install(self, data, crash):
        index = data.draw(st.integers(self.now.commit_index, self.now.last + 3))
        committed = self.now.terms.get(index) if index == self.now.commit_index else None
        term = data.draw(st.integers(self.now.terms[self.now.commit_index], self.now.term))
        taken = snapshot(index, term if committed is None else committed, b"%d" % index * 100)
        if self.now.terms.get(index) != taken.term:
            self.now.drop(lambda _: True)
            self.now.terms[index] = taken.term
        self.now.begin_at(index)
        self.now.commit_index, self.now.snapshot, self.now.founding = index, taken, None
        self.write(lambda: self.journal.install(taken), crash)

    @rule(power=st.none() | st.integers(0, 99), clean=st.booleans())
    def restart(self, power, clean):
        """Between two writes: what was synced is there, exactly; after a clean end the commit index as well."""
        if clean:
            self.journal.close()
            self.durable.commit_index = self.now.commit_index
            self.disk.close()
        if power is None:
            self.medium.kill()
        else:
            self.medium.lose_power(random.Random(power))
        self.begin()
        self.now = deepcopy(self.durable)

    def write(self, action, crash):
        """All that is in memory becomes durable, or the process dies in the middle of it."""
        if crash is not None:
            self.disk.crash_in(*crash[:2])
        try:
            action()
        except Crash:
            if crash[2] is not None:
                self.medium.lose_power(random.Random(crash[2]))
            self.begin()
            if self.kept() == self.durable.content():
                self.now = deepcopy(self.durable)
        else:
            self.disk.be_well()
        self.durable, self.changed = deepcopy(self.now), False


TestAgainstAModel = JournalMachine.TestCase
TestAgainstAModel.settings = settings(max_examples=EXAMPLES, stateful_step_count=40, deadline=None)
