"""A replica that does not run: what its journal holds, whose holds most, and how the group goes on from one alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from raft.api import Machine, NewerVersionNeeded, ReplicaError
from raft.applier import Applier, Submission
from raft.disk import Disk, OsDisk, read_undisturbed
from raft.entries import COMMAND, members_in
from raft.journal import FILE_NAME, Journal, explained, read_file, write_file
from raft.journal_format import Identity, read_header, replay
from raft.log import Log
from raft.members import Member, Members

S = TypeVar("S")

KEPT_NAME = "journal.before-incarnation-{}"


@dataclass(frozen=True, slots=True)
class Copy:
    """One replica's copy of the log, in numbers."""

    cluster: str
    name: str
    replica_id: str
    cluster_id: str
    """Empty: it has never belonged to a group."""
    incarnation: int
    term: int
    vote: str | None
    last_term: int
    last_index: int
    commit_index: int
    """At least so much is committed: a hint, which may be lower than what was."""
    snapshot_index: int
    """0: there is none."""
    members: Members
    """In force by this copy, committed or not."""

    @property
    def reach(self) -> tuple[int, int, int]:
        """How copies of one group compare.

        Of two logs of an incarnation the one with the later (last term, last index) is what Raft would elect: it
        holds all that is committed, if one of them does.
        """
        return self.incarnation, self.last_term, self.last_index


def furthest(copies: Iterable[Copy]) -> Copy:
    """The most complete; of equals the first by name, so that every host says the same."""
    return max(sorted(copies, key=lambda copy: copy.name), key=lambda copy: copy.reach)


def read_copy(directory: Path, machine: Machine[S]) -> tuple[Copy, S]:
    """A copy, and the state that all its entries come to; changes nothing.

    DirectoryInUse, JournalDamaged, ReplicaError, or OSError as it comes, when that cannot be said.
    """
    path, log = directory / FILE_NAME, Log()
    data = read_undisturbed(directory, FILE_NAME)
    with explained(path):
        header = read_header(data)
        replay(data, header, log)
    try:
        return copy_of(header.identity, log), _state(log, machine)
    except NewerVersionNeeded as error:
        raise ReplicaError(f"the snapshot in journal {path} {error}") from error
    except ValueError as error:
        raise ReplicaError(f"journal {path} holds what this version does not read: {error}") from error


def going_on(copy: Copy, address: str) -> Members:
    """Who belongs to the group that goes on from this copy: its replica as the only voter.

    The others stay as members without a vote, so that they need no more than an empty journal to come back: a voter
    becomes one again when it has caught up. By their old replica ids they take part in nothing.
    """
    others = (
        replace(member, role="joining" if member.voter else member.role)
        for member in copy.members.all
        if member.name != copy.name
    )
    return Members.of([*others, Member(copy.name, copy.replica_id, address, "voter")])


def begin_anew(
    directory: Path, copy: Copy, address: str, now_s: float, command: Callable[[int], bytes] | None = None
) -> Path:
    """Let the group of this copy go on from it alone, in a new incarnation. Answers where the old journal is kept.

    `now_s` is the wall clock, in seconds since 1970. `command` makes, of the new incarnation's number, what the state
    machine is told of it: it stands in the log before anything else of that incarnation does.

    DirectoryInUse or ReplicaError when that cannot be; the journal is then as it was.
    """
    disk = OsDisk(directory)
    try:
        return directory / begin_anew_on(disk, copy, address, now_s, command)
    except OSError as error:
        raise ReplicaError(f"cannot write in {directory}: {error}") from error
    finally:
        disk.close()


def begin_anew_on(
    disk: Disk, copy: Copy, address: str, now_s: float, command: Callable[[int], bytes] | None = None
) -> str:
    """The same on a disk that is held. Answers the name of the file that the old journal is kept in.

    All entries stay, and are committed once the replica runs. A crash leaves the journal as before or as after, and
    the old one is kept whole before the new one can be there.
    """
    if not copy.cluster_id:
        raise ReplicaError(f"journal {disk.path / FILE_NAME} never belonged to a group: there is nothing to go on from")
    # Not just the next one: if another replica begins anew from the same incarnation, by mistake or in need, the two
    # groups must be told apart.
    incarnation = max(copy.incarnation + 1, int(now_s))
    kept = KEPT_NAME.format(incarnation)
    write_file(disk, kept, read_file(disk, FILE_NAME))
    disk.sync_directory()
    journal = Journal(disk, copy.cluster, copy.name, draw_id=lambda: copy.replica_id)
    try:
        if copy_of(journal.identity, journal) != copy:
            raise ReplicaError(f"journal {journal.path} has changed since it was read: look at it again")
        journal.begin_anew(incarnation, going_on(copy, address))
        if command is not None:
            told = Submission(f"incarnation {incarnation}", journal.last_index, command(incarnation))
            journal.add(COMMAND + told.pack(), journal.last_index + 1, journal.term)
        journal.sync()
    finally:
        journal.close()
    return kept


def copy_of(identity: Identity, log: Log) -> Copy:
    return Copy(
        cluster=identity.cluster,
        name=identity.name,
        replica_id=identity.replica_id,
        cluster_id=log.cluster_id,
        incarnation=log.incarnation,
        term=log.term,
        vote=log.vote,
        last_term=log.last_term,
        last_index=log.last_index,
        commit_index=log.commit_index,
        snapshot_index=0 if log.snapshot is None else log.snapshot.index,
        members=_members(log),
    )


def _members(log: Log) -> Members:
    for index in range(log.last_index, log.base_index, -1):
        if (members := members_in(log.entry(index)[0])) is not None:
            return members
    return log.snapshot.members if log.snapshot is not None else log.founding or Members()


def _state(log: Log, machine: Machine[S]) -> S:
    applier, first = Applier(machine), log.first_index
    if log.snapshot is not None:
        applier.restore(log.snapshot.content)
        first = log.snapshot.index + 1
    for index in range(first, log.last_index + 1):
        content = log.entry(index)[0]
        if content[:1] == COMMAND:
            applier.apply(index, content[1:])
    return applier.state
