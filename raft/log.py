"""What a journal remembers, in memory: one log that is only ever changed by records, live and when it is read again.

No disk, no clock. A record that contradicts what is there is a ReplicaFailed, before it can reach a disk.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any, TypeAlias

from raft.api import ReplicaFailed
from raft.entries import Entry, members_entry
from raft.members import Members
from raft.snapshot import Snapshot

Record: TypeAlias = list[Any]
"""A kind and its values, as MessagePack has them."""


class Kind(IntEnum):
    """Written to disk: a number is never given another meaning."""

    ENTRY = 0
    TRUNCATE = 1
    TERM = 2
    COMMIT = 3
    BASE = 4
    SNAPSHOT = 5
    FOUNDED = 6
    ADOPTED = 7
    RECOVERED = 8


class Log:
    """Entries from `first_index` on, what stands for those before, and the replica's term and vote.

    Index 1 is an entry of term 0 that every log begins with and none stores.
    """

    def __init__(self) -> None:
        self.cluster_id = ""
        """Of the group this log belongs to; empty until it was founded or adopted."""
        self.incarnation = 0
        """Of that group: rises when it begins anew from what one member has left."""
        self.term = 0
        self.vote: str | None = None
        self.base_index = 1
        """The last entry that is not kept."""
        self.base_term = 0
        self.commit_index = 1
        self.snapshot: Snapshot | None = None
        """Holds what the entries up to `base_index` did, and maybe some more; None: they did nothing."""
        self.founding: Members | None = None
        """The members this log began with, until a snapshot says who they are."""
        self._kept: list[Entry] = []

    @property
    def first_index(self) -> int:
        return self.base_index + 1

    @property
    def last_index(self) -> int:
        return self.base_index + len(self._kept)

    @property
    def last_term(self) -> int:
        return self._kept[-1][2] if self._kept else self.base_term

    def term_at(self, index: int) -> int | None:
        """None for an entry that is not here: not yet, or not any more."""
        if index == self.base_index:
            return self.base_term
        return self._kept[index - self.first_index][2] if self.first_index <= index <= self.last_index else None

    def entry(self, index: int) -> Entry:
        if not self.first_index <= index <= self.last_index:
            raise ReplicaFailed(f"entry {index} is not among those kept, {self.first_index}..{self.last_index}")
        return self._kept[index - self.first_index]

    def entries(self, first: int, limit_bytes: int) -> list[Entry]:
        """Entries from `first` on until their commands come to the limit; at least one, if there is one."""
        if first < self.first_index:
            raise ReplicaFailed(f"entry {first} is not kept any more, the first is {self.first_index}")
        found: list[Entry] = []
        for index in range(first, self.last_index + 1):
            found.append(self._kept[index - self.first_index])
            limit_bytes -= len(found[-1][0])
            if limit_bytes <= 0:
                break
        return found

    def redo(self, record: Record) -> None:
        """Let one record have its effect; ValueError when it is none of this version's."""
        match record:
            case [Kind.ENTRY, bytes(command), int(index), int(term)]:
                self._add(command, index, term)
            case [Kind.TRUNCATE, int(index)]:
                self._truncate(index)
            case [Kind.TERM, int(term), str() | None as vote]:
                self._set_term(term, vote)
            case [Kind.COMMIT, int(index)]:
                self._set_commit(index)
            case [Kind.BASE, int(index), int(term)]:
                self._set_base(index, term)
            case [Kind.SNAPSHOT, bytes(packed)]:
                self._set_snapshot(Snapshot.unpack(packed))
            case [Kind.FOUNDED, str(cluster_id), list(members)]:
                self._belong_to(cluster_id, 0)
                self.founding = Members.unpack(members)
            case [Kind.ADOPTED, str(cluster_id), int(incarnation)]:
                self._belong_to(cluster_id, incarnation)
            case [Kind.RECOVERED, int(incarnation), list(members)]:
                self._begin_anew(incarnation, Members.unpack(members))
            case _:
                raise ValueError(f"{record!r:.60} is no record")

    def history(self) -> list[Record]:
        """The fewest records that make a new log equal to this one."""
        told: list[Record] = [[Kind.BASE, self.base_index, self.base_term], [Kind.TERM, self.term, self.vote]]
        if self.founding is not None:
            told.append([Kind.FOUNDED, "", self.founding.pack()])
        if self.cluster_id:
            told.append([Kind.ADOPTED, self.cluster_id, self.incarnation])
        told.extend([Kind.ENTRY, *entry] for entry in self._kept)
        if self.commit_index > self.base_index:
            told.append([Kind.COMMIT, self.commit_index])
        if self.snapshot is not None:
            told.append([Kind.SNAPSHOT, self.snapshot.pack()])
        return told

    def compact(self, snapshot: Snapshot, keep_from: int) -> None:
        """Let a snapshot of what is committed stand for the entries before `keep_from`."""
        base_index = max(keep_from - 1, self.base_index)
        if base_index > snapshot.index:
            raise ReplicaFailed(f"entry {snapshot.index + 1} would be lost: the snapshot ends before it")
        self._set_snapshot(snapshot)
        self._drop_up_to(base_index)

    def install(self, snapshot: Snapshot) -> None:
        """Put the leader's snapshot in the place of all entries up to its own.

        Those after it stay if they follow from it, that is, if the entry it ends with is here too; otherwise they
        are another log's.
        """
        if snapshot.index < self.commit_index:
            raise ReplicaFailed(
                f"a snapshot of entry {snapshot.index} is behind what is committed, {self.commit_index}"
            )
        if snapshot.term > self.term:
            raise ReplicaFailed(f"a snapshot of term {snapshot.term} in term {self.term}")
        if self.term_at(snapshot.index) != snapshot.term:
            self._replace_by(snapshot)
        self.commit_index = snapshot.index
        self._set_snapshot(snapshot)
        self._drop_up_to(snapshot.index)

    def _replace_by(self, snapshot: Snapshot) -> None:
        if snapshot.index == self.commit_index:
            raise ReplicaFailed(f"the snapshot has term {snapshot.term} at committed entry {snapshot.index}")
        self.base_index, self.base_term = snapshot.index, snapshot.term
        self._kept.clear()

    def _drop_up_to(self, index: int) -> None:
        term = self.term_at(index)
        assert term is not None
        del self._kept[: index - self.base_index]
        self.base_index, self.base_term = index, term

    def _add(self, command: bytes, index: int, term: int) -> None:
        if index != self.last_index + 1:
            raise ReplicaFailed(f"entry {index} does not follow entry {self.last_index}")
        if not self.last_term <= term <= self.term:
            raise ReplicaFailed(f"entry {index} has term {term}, which is not in {self.last_term}..{self.term}")
        self._kept.append((command, index, term))

    def _truncate(self, index: int) -> None:
        if index <= self.commit_index:
            raise ReplicaFailed(f"entry {index} is committed (up to {self.commit_index}) and cannot be dropped")
        del self._kept[index - self.first_index :]

    def _set_term(self, term: int, vote: str | None) -> None:
        if term < self.term:
            raise ReplicaFailed(f"term would fall from {self.term} to {term}")
        if term == self.term and self.vote not in {None, vote}:
            raise ReplicaFailed(f"the vote of term {term} was given to {self.vote} and would become {vote}")
        self.term, self.vote = term, vote

    def _set_commit(self, index: int) -> None:
        if not self.commit_index < index <= self.last_index:
            raise ReplicaFailed(f"commit index {index} is not in {self.commit_index + 1}..{self.last_index}")
        self.commit_index = index

    def _set_base(self, index: int, term: int) -> None:
        if self.last_index != 1:
            raise ReplicaFailed(f"a log that has entries up to {self.last_index} begins again")
        self.base_index, self.base_term, self.commit_index = index, term, index

    def _set_snapshot(self, snapshot: Snapshot) -> None:
        least = self.base_index if self.snapshot is None else self.snapshot.index
        if not least <= snapshot.index <= self.commit_index:
            raise ReplicaFailed(f"snapshot of entry {snapshot.index} is not in {least}..{self.commit_index}")
        if snapshot.term != (term := self.term_at(snapshot.index)):
            raise ReplicaFailed(f"snapshot has term {snapshot.term} at entry {snapshot.index}, here it is {term}")
        self.snapshot, self.founding = snapshot, None

    def _belong_to(self, cluster_id: str, incarnation: int) -> None:
        if self.cluster_id:
            raise ReplicaFailed(f"this log belongs to cluster id {self.cluster_id}, not to {cluster_id}")
        self.cluster_id, self.incarnation = cluster_id, incarnation

    def _begin_anew(self, incarnation: int, members: Members) -> None:
        """The entry is of a new term, in which nobody has voted."""
        if not self.cluster_id:
            raise ReplicaFailed("this log belongs to no cluster that could begin anew")
        if incarnation <= self.incarnation:
            raise ReplicaFailed(f"incarnation would go from {self.incarnation} to {incarnation}")
        self.incarnation = incarnation
        self._set_term(self.term + 1, None)
        self._add(members_entry(members), self.last_index + 1, self.term)
