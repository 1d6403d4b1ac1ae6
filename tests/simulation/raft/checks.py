"""What must be true of all replicas together, at all times. Each check is told what happened and raises `Violation`.

They know terms, indexes and digests, and nothing of how the replicas come to them.
"""

from bisect import bisect_right
from dataclasses import dataclass, field


class Violation(BaseException):
    """A promise was broken. Not an `Exception`, so that the replica under test cannot swallow it."""


class Leaders:
    """One leader a term."""

    def __init__(self):
        self.by_term = {}

    def leads(self, term, who):
        other = self.by_term.setdefault(term, who)
        if other != who:
            raise Violation(f"two leaders in term {term}: {other} and {who}")


class Votes:
    """One vote a term, of each replica, whatever it has lost."""

    def __init__(self):
        self._cast = {}

    def votes(self, voter, term, candidate):
        other = self._cast.setdefault((voter, term), candidate)
        if other != candidate:
            raise Violation(f"{voter} voted twice in term {term}: for {other} and for {candidate}")

    def elected(self, candidate, own, term, voters):
        """`candidate`, itself the voter `own`, leads the term: a majority of the voters has voted for it."""
        given = [voter for voter in voters if voter == own or self._cast.get((voter, term)) == candidate]
        if len(given) <= len(voters) // 2:
            raise Violation(f"{candidate} leads term {term} with the votes of {len(given)} of {len(voters)}")


class Entries:
    """Log matching: an entry with the same index and term is the same everywhere, and so is all before it.

    Every entry is compared together with the term of the one before it; the rest follows by induction.
    """

    def __init__(self):
        self._known = {}

    def added(self, index, term, content, previous_term, who):
        known = self._known.setdefault((index, term), (content, previous_term))
        if known != (content, previous_term):
            raise Violation(
                f"{who} has another entry {index} of term {term}: after term {previous_term},"
                f" elsewhere after {known[1]} ({content!r:.60}, elsewhere {known[0]!r:.60})"
            )

    def content(self, index, term):
        return self._known[index, term][0]


class Answers:
    """What a follower has told a leader that it holds, it holds for as long as that leader's term lasts."""

    def __init__(self):
        self._told = {}

    def holds(self, replica, term, index):
        """The replica tells the leader of this term that its log is the leader's up to this index."""
        if index > self._told.get(replica, (term, 0))[1] or self._told[replica][0] != term:
            self._told[replica] = (term, index)

    def drops(self, replica, term, index):
        """The replica, in this term, drops its entries from this index on."""
        told_term, told_index = self._told.get(replica, (term, 0))
        if told_term == term and index <= told_index:
            raise Violation(f"{replica} drops entry {index}, and has told the leader of term {term} that it has it")

    def believed(self, leader, peer, index, term, held, leading):
        """The leader of a term counts on a peer for its own log up to this entry; `held` is what the peer has on disk.

        A peer that is in a later term may have dropped what it had told this leader, whose answer was late: it is no
        commit, since whoever leads the later term was elected by a majority that did not have it.
        """
        if held.term <= leading and not held.has(index, term):
            raise Violation(
                f"{leader} believes that {peer} has entry {index} of term {term};"
                f" it has {held.base_index + 1}..{held.last_index}, or of another term"
            )


class Commits:
    """State-machine safety: one entry at an index, for ever, and a majority has it on disk when it is committed."""

    def __init__(self):
        self.terms = [0, 0]
        """Term of each committed entry; the places 0 and 1 come before every log."""
        self._in_terms = [0, 0]
        """In which term each was committed: that of the leader that counted it, which the entry may be older than."""
        self._first_commit_s = []
        """(term, when something was first committed in it), terms rising."""

    @property
    def last(self):
        return len(self.terms) - 1

    def committed(self, index, term, in_term, who, now_s, majority_has):
        """The entry of `term`, by whoever is in `in_term`.

        `majority_has(index, term)` is asked when nobody has committed this index before.
        """
        if index <= self.last:
            if self.terms[index] != term:
                raise Violation(
                    f"{who} commits entry {index} of term {term}, elsewhere it is of term {self.terms[index]}"
                )
            return
        if index != self.last + 1:
            raise Violation(f"{who} commits entry {index}, nobody has committed {self.last + 1}")
        if term < self.terms[-1]:
            raise Violation(f"{who} commits term {term} at {index}, after term {self.terms[-1]}")
        if in_term < self._in_terms[-1]:
            raise Violation(f"{who} commits {index} in term {in_term}, after term {self._in_terms[-1]} had committed")
        if not majority_has(index, term):
            raise Violation(f"{who} commits entry {index} of term {term} without a majority's disks")
        self.terms.append(term)
        self._in_terms.append(in_term)
        if not self._first_commit_s or self._first_commit_s[-1][0] < in_term:
            self._first_commit_s.append((in_term, now_s))

    def leads(self, term, who, term_at):
        """Leader completeness: it has what was committed in earlier terms. `term_at(index)` is None in its snapshot.

        One that was elected and noticed it late may lack what was committed in a later term, of however old an entry.
        """
        for index in range(2, bisect_right(self._in_terms, term - 1)):
            found = term_at(index)
            if found not in (None, self.terms[index]):
                raise Violation(
                    f"{who} leads term {term} with {found} at entry {index}, committed with term {self.terms[index]}"
                )

    def in_contact(self, term, who, contact_s):
        """A leader's proof of contact: nothing of a later term was committed before that moment."""
        if self._first_commit_s and self._first_commit_s[-1][0] > term:
            later, when_s = next(first for first in self._first_commit_s if first[0] > term)
            if when_s < contact_s:
                raise Violation(
                    f"{who} claims that a majority followed term {term} at {contact_s:.3f},"
                    f" but term {later} had committed at {when_s:.3f}"
                )


def changes_members(leader, index, term, before, after, *, pending, committed_term):
    """A leader writes other members at this index: the single-server rule, with the mend of July 2015.

    `before` and `after` are the voters; `pending` says whether members written earlier are not committed yet.
    """
    if len(set(before) ^ set(after)) > 1:
        raise Violation(f"{leader} changes more than one voter at entry {index}: {before} to {after}")
    if pending:
        raise Violation(f"{leader} changes the members at entry {index} before the last change is committed")
    if committed_term != term:
        raise Violation(f"{leader} changes the members at entry {index} before it has committed one of term {term}")


class States:
    """Every replica's state is one of a single chain of states, and at an index it is always the same one."""

    def __init__(self):
        self._chain = {}
        self._commands = {}
        self._at_index = {}
        self._raised = set()

    def applied(self, count, digest, command):
        """A state machine has gone to its `count`-th state by this command."""
        known = self._chain.setdefault(count, (digest, command))
        if known != (digest, command):
            raise Violation(f"state {count} by {command!r:.60}, elsewhere by {known[1]!r:.60}")
        place = self._commands.setdefault(command, count)
        if place != count:
            raise Violation(f"{command!r:.60} is applied twice: at {place} and at {count}")

    def at_index(self, index, count, digest, who):
        known = self._at_index.setdefault(index, (count, digest))
        if known != (count, digest):
            raise Violation(f"{who} at index {index} is at state {count}, elsewhere at state {known[0]}")
        if count != 0 and self._chain.get(count, (None,))[0] != digest:
            raise Violation(f"{who} has a state {count} that nobody applied")

    def raised(self, command):
        """The state machine raised an exception at this command: that is its refusal."""
        self._raised.add(command)

    def has_applied(self, command):
        return command in self._commands or command in self._raised


@dataclass(slots=True)
class Operation:
    """One command or barrier of a client, with everything that it was told about it."""

    number: int
    command: bytes | None
    """None: a barrier."""
    floor: int
    """What was acknowledged, or seen, before it was first asked."""
    asked: int = 1
    """How often it was submitted."""
    refused: int = 0
    """How many of the submissions will never enter the log."""
    index: int | None = None
    answers: list = field(default_factory=list)

    def __str__(self):
        return f"operation {self.number}" if self.command is not None else f"barrier {self.number}"


class History:
    """Linearizability: the order of acknowledged operations in the log agrees with their order in real time.

    Each operation has a place in the log; so it is enough that it lies after everything that had been acknowledged or
    read before the operation began.
    """

    def __init__(self):
        self.floor = 1
        """The latest place that anybody has been told of."""
        self.operations = []
        self.acknowledged = 0
        self.barriers = 0
        self.unknown = 0

    def begin(self, command):
        operation = Operation(len(self.operations), command, self.floor)
        self.operations.append(operation)
        return operation

    def retry(self, operation):
        operation.asked += 1

    def applied(self, operation, index, view_index, content):
        """It was acknowledged at this index, where the log has `content`, by a replica whose view has `view_index`."""
        if view_index < index:
            raise Violation(f"{operation} is acknowledged at {index}, the view is at {view_index}")
        if operation.command is None:
            if view_index < operation.floor:
                raise Violation(
                    f"{operation} shows index {view_index}, {operation.floor} had been acknowledged before it was asked"
                )
            self.barriers += 1
            self.floor = max(self.floor, view_index)
            return
        if operation.command not in content:
            raise Violation(f"{operation} is acknowledged at {index}, which holds {content!r:.60}")
        self._at(operation, index)
        self.acknowledged += 1

    def denied(self, operation, index, content):
        """The state machine has refused it at this index."""
        if operation.command not in content:
            raise Violation(f"{operation} is refused at {index}, which holds {content!r:.60}")
        self._at(operation, index)

    def never(self, operation):
        """One submission of it will never enter the log."""
        operation.refused += 1

    def _at(self, operation, index):
        if index <= operation.floor:
            raise Violation(
                f"{operation} is at index {index}, {operation.floor} had been acknowledged before it was asked"
            )
        if operation.index not in (None, index):
            raise Violation(f"{operation} is at index {operation.index} and at {index}")
        operation.index = index
        self.floor = max(self.floor, index)

    def finish(self, states):
        """When all replicas have applied everything: nothing acknowledged is lost, nothing refused has happened."""
        for operation in self.operations:
            if operation.command is None:
                continue
            applied = states.has_applied(operation.command)
            if not applied and operation.index is not None:
                raise Violation(f"{operation} was acknowledged and is lost")
            never = operation.refused == operation.asked
            if applied and never:
                raise Violation(f"{operation} was said to never enter the log, and was applied")


@dataclass(frozen=True, slots=True)
class Held:
    """What one journal holds: in memory, or on the disk. Without the commit index, which is a hint."""

    replica_id: str = ""
    cluster_id: str = ""
    incarnation: int = 0
    term: int = 0
    vote: str | None = None
    base_index: int = 1
    terms: tuple = ()
    """Of the entries after `base_index`."""
    snapshot_index: int = 0

    @property
    def last_index(self):
        return self.base_index + len(self.terms)

    def has(self, index, term):
        if index <= self.base_index:
            return True  # committed, and part of the snapshot
        return index <= self.last_index and self.terms[index - self.base_index - 1] == term


def recovered(found, possible, who):
    """A journal that was opened again holds what was on the disk, or what was on its way there: whole, no mixture."""
    if found not in possible:
        raise Violation(
            f"{who} came back with {found}, which is none of what it can have had: {'; '.join(map(str, possible))}"
        )
