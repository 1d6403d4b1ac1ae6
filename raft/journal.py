"""The durable log of one replica: one file, in which a batch of changes is whole or not there at all.

Nothing may be sent or counted that depends on a change before `sync()` has returned; after any write error the journal
takes nothing more (fail-stop).
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from raft.api import JournalDamaged, NewerVersionNeeded, ReplicaError, ReplicaFailed
from raft.disk import Disk, File
from raft.journal_format import Damage, Header, Identity, UnknownFormat, begin_file, frame, read_header, replay
from raft.log import Kind, Log, Record
from raft.members import Members
from raft.snapshot import Snapshot

__all__ = ["Identity", "Journal", "SyncTimes"]

FILE_NAME = "journal"
NEW_NAME = "journal.new"
RESERVE_NAME = "reserve"
FAILED_NAME = "failed"

# Bytes that no file system can store in fewer, so that the room they take is really there when they go.
_RESERVE = hashlib.shake_128(b"room for last words").digest(64 * 1024)


@dataclass(slots=True)
class SyncTimes:
    """How long the disk took, for status and metrics."""

    count: int = 0
    last_s: float = 0.0
    longest_s: float = 0.0
    total_s: float = 0.0

    def note(self, took_s: float) -> None:
        self.count += 1
        self.last_s = took_s
        self.longest_s = max(self.longest_s, took_s)
        self.total_s += took_s


class Journal(Log):
    """The log of one replica, in memory and on disk. One owner thread.

    Changes are in memory at once and on disk after `sync()`: all since the last one, or none of them. The commit
    index is a hint that rides along with the next change: after a crash it may be lower than it was, never too high.
    The file grows with every change until `compact()` or `install()` writes it anew.
    """

    def __init__(
        self,
        disk: Disk,
        cluster: str,
        name: str,
        *,
        clock: Callable[[], float] = time.monotonic,
        draw_id: Callable[[], str],
    ) -> None:
        """Read the journal on this disk, or begin one; the disk stays the caller's to close.

        JournalDamaged when acknowledged entries may be lost, ReplicaError when it is another replica's, of an unknown
        format, or the disk says no. What the file holds is then left as it is.

        The file is written anew at every start. So a torn end is gone, and what was read is on disk: without that, a
        batch that a killed process had not synced yet, or one whose sync had failed, would be read from the operating
        system's memory, relied on, and lost by the next power cut.
        """
        super().__init__()
        self.path = disk.path / FILE_NAME
        self.sync_times = SyncTimes()
        self.cut_bytes = 0
        """Length of the unfinished batch that was found at the end and dropped."""
        self._disk = disk
        self._clock = clock
        self._buffer: list[Record] = []
        self._hint: list[Record] = []
        """The newest commit index, until a write takes it along."""
        self._failure: str | None = None
        try:
            header = self._read(cluster, name) or Header(Identity(cluster, name, draw_id()))
            self.identity = header.identity
            self._generation = header.generation
            _keep_reserve(disk)
            self._file = self._write_anew()
        except OSError as error:
            raise ReplicaError(f"cannot open journal {self.path}: {self._explained(error)}") from error

    @property
    def size_bytes(self) -> int:
        return self._end

    def add(self, command: bytes, index: int, term: int) -> None:
        """Put an entry behind the last one."""
        self._note([Kind.ENTRY, command, index, term])

    def truncate(self, index: int) -> None:
        """Drop the entries from this index on; they must not be committed."""
        self._note([Kind.TRUNCATE, index])

    def set_term(self, term: int, vote: str | None) -> None:
        """A term never falls, and within a term a vote never changes."""
        self._note([Kind.TERM, term, vote])

    def set_commit(self, index: int) -> None:
        """Note what is committed, after everything written before is on disk."""
        if index == self.commit_index:
            return
        self.sync()
        record = [Kind.COMMIT, index]
        self.redo(record)
        # Not worth a write of its own, a second one for each command on each replica: a follower that comes back with
        # an older index is told the present one by the leader, and a new leader counts anew.
        self._hint = [record]

    def found(self, cluster_id: str, members: Members) -> None:
        """Belong to a group that begins now, with these members; once, and never to another."""
        self._note([Kind.FOUNDED, cluster_id, members.pack()])

    def adopt(self, cluster_id: str, incarnation: int) -> None:
        """Belong to a group that is there already; once, and never to another."""
        self._note([Kind.ADOPTED, cluster_id, incarnation])

    def begin_anew(self, incarnation: int, members: Members) -> None:
        """Let the group go on from this log alone, with these members, in a higher incarnation.

        They stand in an entry at the end, of a term of its own, and are in force; all that is in the log stays. For a
        replica that does not run: whoever asks for this knows that no majority will come back. What is added before
        the next `sync()` is there exactly when this is.
        """
        self._note([Kind.RECOVERED, incarnation, members.pack()])

    def compact(self, snapshot: Snapshot, keep_from: int) -> None:
        """Let a snapshot of what is committed stand for the entries before `keep_from`; durable, with all before it.

        Entries from `keep_from` on stay, as far as they are there. A crash leaves the journal as before or as after.
        """
        super().compact(snapshot, keep_from)
        self._durably(self._replace)

    def install(self, snapshot: Snapshot) -> None:
        """Put the leader's snapshot in the place of the entries up to its own; durable, with all before it.

        Entries after it stay only if the entry it ends with is here. It is committed, by the leader's word.
        """
        super().install(snapshot)
        self._durably(self._replace)

    def sync(self) -> None:
        """Return when every change so far is on disk; raise, now and ever after, when that cannot be."""
        if self._buffer or self._failure is not None:
            self._durably(lambda: self._append(self._hint + self._buffer))

    def close(self) -> None:
        """Close without a last sync: what nobody was told may be lost.

        Only a commit index that still waits is written, if the disk takes it: a replica that comes back alone then
        knows all that it knew.
        """
        if self._hint and self._failure is None:
            with contextlib.suppress(OSError):
                self._append(self._hint)
        self._file.close()

    def _note(self, record: Record) -> None:
        """Change the log as reading it again will."""
        self.redo(record)
        self._buffer.append(record)

    def _durably(self, write: Callable[[], None]) -> None:
        if self._failure is not None:
            raise ReplicaFailed(self._failure)
        began_s = self._clock()
        try:
            write()
        except OSError as error:
            self._failure = f"cannot write journal {self.path}: {self._explained(error)}"
            self._say_last_words(error)
            raise ReplicaFailed(self._failure) from error
        self.sync_times.note(self._clock() - began_s)
        self._buffer.clear()
        self._hint.clear()

    def _explained(self, error: OSError) -> str:
        """In the system's words, with what would do."""
        said = error.strerror or str(error)
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            return f"{said}: make room there, then start this replica again; what it has answered is on disk"
        if isinstance(error, PermissionError):
            return f"{said}: {self.path.parent} and what is in it must belong to the replica's user"
        return said

    def _append(self, records: list[Record]) -> None:
        batch = frame(records, self._end, self._seed)
        self._file.write(batch, self._end)
        self._file.sync()
        self._end += len(batch)

    def _replace(self) -> None:
        old, self._file = self._file, self._write_anew()
        old.close()

    def _write_anew(self) -> File:
        """Put a file that holds the whole log in the place of the old one, at once, and go on in it."""
        header, seed = begin_file(self.identity, self._generation + 1)
        data = header + frame(self.history(), len(header), seed)
        file = self._disk.create(NEW_NAME)
        try:
            file.write(data, 0)
            file.sync()
            self._disk.rename(NEW_NAME, FILE_NAME)
            self._disk.sync_directory()
        except OSError:
            file.close()
            with contextlib.suppress(OSError):
                self._disk.remove(NEW_NAME)  # a full disk has no room for half a file
            raise
        self._generation += 1
        self._seed, self._end = seed, len(data)
        return file

    def _read(self, cluster: str, name: str) -> Header | None:
        if not self._disk.exists(FILE_NAME):
            return None
        file = self._disk.open(FILE_NAME)
        try:
            data = file.read()
        finally:
            file.close()
        with explained(self.path):
            header = read_header(data)
            self._check_owner(header.identity, cluster, name)
            self.cut_bytes = len(data) - replay(data, header, self)
        return header

    def _check_owner(self, owner: Identity, cluster: str, name: str) -> None:
        if (owner.cluster, owner.name) != (cluster, name):
            raise ReplicaError(
                f"journal {self.path} belongs to replica {owner.name!r} of cluster {owner.cluster!r},"
                f" this is {name!r} of {cluster!r}: correct the name, or give this replica"
                " a directory of its own"
            )

    def _say_last_words(self, error: OSError) -> None:
        """Leave a note of what happened in the room that was kept for it, as far as the disk still takes one."""
        words = {
            "failure": self._failure,
            "errno": error.errno,
            "term": self.term,
            "commit_index": self.commit_index,
            "last_index": self.last_index,
        }
        with contextlib.suppress(OSError):
            self._disk.remove(RESERVE_NAME)
        with contextlib.suppress(OSError):
            self._disk.sync_directory()  # what was removed may be free only now
            write_file(self._disk, FAILED_NAME, json.dumps(words).encode() + b"\n")
            self._disk.sync_directory()


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """What is wrong with the bytes of this journal, as what it means and what would do."""
    try:
        yield
    except NewerVersionNeeded as error:
        raise ReplicaError(f"the snapshot in journal {path} {error}") from error
    except UnknownFormat as error:
        raise ReplicaError(
            f"journal {path} has {error}, which this version does not read: start the version that wrote it"
        ) from error
    except Damage as error:
        raise JournalDamaged(
            f"journal {path} is damaged {error}; entries that were acknowledged may be lost."
            f" While a majority of the others is up, remove the directory {path.parent} and start this replica"
            " again: it joins anew, without a vote until it has caught up"
        ) from error


def _keep_reserve(disk: Disk) -> None:
    """Have the reserve, whole, and no note of a failure that is over; durable with the journal's name after it."""
    if not disk.exists(RESERVE_NAME) or read_file(disk, RESERVE_NAME) != _RESERVE:
        write_file(disk, RESERVE_NAME, _RESERVE)
    if disk.exists(FAILED_NAME):
        disk.remove(FAILED_NAME)


def read_file(disk: Disk, name: str) -> bytes:
    file = disk.open(name)
    try:
        return file.read()
    finally:
        file.close()


def write_file(disk: Disk, name: str, data: bytes) -> None:
    file = disk.create(name)
    try:
        file.write(data, 0)
        file.sync()
    finally:
        file.close()
