"""The follower's side: entries and snapshots of whoever leads the term, and what they make of the own log."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pysyncobj.node import Node

from raft.api import NewerVersionNeeded, ReplicaFailed
from raft.compat import FOLLOWER, LEADER
from raft.entries import Entry, members_in
from raft.messages import Append, Appended, SnapshotHeld, SnapshotPart
from raft.snapshot import Intake, Snapshot

if TYPE_CHECKING:
    from raft.core import Core


class Follower:
    """Takes what the leader sends, and says what it has of it."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._journal = core.journal
        self._inside = core.inside
        self._clock = core.clock
        self._intake = Intake()

    def receive(self, peer: str, message: Append | SnapshotPart) -> None:
        if not self._follows(peer, message):
            self._answer(peer, message, 1, success=False)  # of an older term: it learns of the newer one
        elif isinstance(message, Append):
            self._on_append(peer, message)
        else:
            self._on_snapshot_part(peer, message)

    def _on_append(self, peer: str, message: Append) -> None:
        begin = self._place_for(message.previous_index, message.previous_term)
        if begin is not None:
            self._answer(peer, message, begin, success=False)
            return
        self._take_entries(message.entries)
        verified = message.previous_index + len(message.entries)
        self._answer(peer, message, verified + 1, success=True)
        self._commit(min(message.commit_index, verified))

    def _follows(self, peer: str, message: Append | SnapshotPart) -> bool:
        """Follow the leader of the message's term; False when that term is over."""
        inside = self._inside
        if message.term < inside.term:
            return False
        rival = inside.state == LEADER or (inside.leader is not None and inside.leader.id != peer)
        if message.term == inside.term and rival:
            raise ReplicaFailed(f"{peer} claims to lead term {message.term} as well: two raft leaders in one term")
        if message.term > inside.term:
            inside.set_term(message.term, None)
            inside.leader = None  # even if it is the same again: what it was asked before may be gone
            self._core.election.transferred = False
        inside.set_state(FOLLOWER)
        if inside.leader is None or inside.leader.id != peer:
            inside.leader = Node(peer)
            self._core.owner.leader_lost()
        self._core.heard_s = self._core.contact_s = self._clock()
        if not self._core.election.transferred:
            self._core.election.stay()
        return True

    def _place_for(self, index: int, term: int) -> int | None:
        """None when the log holds this entry; otherwise from where the leader should send.

        On a conflict a whole term is skipped at a time, never what is committed.
        """
        journal = self._journal
        if index > journal.last_index:
            return journal.last_index + 1
        if index < journal.base_index:
            return None  # part of what the snapshot holds, which is committed
        other_term = journal.term_at(index)
        if other_term == term:
            return None
        if index <= journal.commit_index:
            raise ReplicaFailed(f"the raft leader has term {term} at committed entry {index}, here it is {other_term}")
        while index - 1 > journal.commit_index and journal.term_at(index - 1) == other_term:
            index -= 1
        return index

    def _take_entries(self, entries: tuple[Entry, ...]) -> None:
        """Add what is missing; drop own entries only where they conflict, never for being repeated (D5)."""
        journal, enforced = self._journal, False
        for content, index, term in entries:
            if index <= journal.last_index:
                if index <= journal.base_index or journal.term_at(index) == term:
                    continue
                journal.truncate(index)
                enforced |= self._core.members.truncate(index)
            journal.add(content, index, term)
            if (members := members_in(content)) is not None:
                self._core.members.write(index, members)
                enforced = True
        if enforced:
            self._core.enforce_members()

    def _answer(self, peer: str, message: Append | SnapshotPart, next_index: int, *, success: bool) -> None:
        """Say which message is answered, so that an answer counts for that one only (D6)."""
        self._core.post(peer, Appended(*self._core.envelope(), message.term, message.sent, next_index, success))

    def _commit(self, index: int) -> None:
        if index > self._inside.commit_index:
            self._inside.commit_index = index
            self._journal.set_commit(index)

    def _on_snapshot_part(self, peer: str, message: SnapshotPart) -> None:
        if message.index <= self._inside.commit_index:
            # what is committed here is in every leader's log: nothing is taken, nothing goes back (D16)
            self._intake.drop()
            self._answer(peer, message, self._inside.commit_index + 1, success=True)
            return
        size, offset = message.size, message.offset
        packed = self._intake.take(peer, message.term, message.index, size, offset, message.data)
        if packed is not None and self._install(packed, message.index):
            self._answer(peer, message, message.index + 1, success=True)
        else:
            held = self._intake.held
            self._core.post(
                peer, SnapshotHeld(*self._core.envelope(), message.term, message.sent, message.index, size, held)
            )

    def _install(self, packed: bytes, index: int) -> bool:
        """Verify all of it before any of it is stored or acknowledged (D16)."""
        try:
            snapshot = Snapshot.unpack(packed)
            if snapshot.index != index:
                raise ValueError(f"it is at {snapshot.index}, {index} was announced")
            self._core.owner.restore(snapshot.content)
        except NewerVersionNeeded as error:
            raise ReplicaFailed(f"the raft leader's snapshot of entry {index} {error}") from error
        except ValueError:
            return False  # asked for again, from the beginning
        self._journal.install(snapshot)
        self._core.begin_at_snapshot()
        self._core.owner.applied()
        return True
