"""The leader's side, for one term: what peers are sent, what they have, who asks whether it still leads.

One object a leadership: what is left of it when it ends is answered by `end()` and gone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pysyncobj.node import Node

from raft.api import COMMAND_LIMIT_BYTES, ReplicaFailed
from raft.entries import Entry
from raft.members import Member, Members, mended
from raft.messages import Append, Appended, SnapshotHeld, SnapshotPart, TimeoutNow
from raft.progress import Parts, Progress, confirmed, majority_of

if TYPE_CHECKING:
    from raft.core import Core

_PROBE_BYTES = 64 * 1024
_CAUGHT_UP_ENTRIES = 16
_ENTRY_LIMIT_BYTES = COMMAND_LIMIT_BYTES + 1024
"""Room for the largest command and what is around it; one message must hold it whole."""


@dataclass(slots=True)
class _Read:
    stamp: int
    """Confirmed when a majority has answered a message that is no older."""
    done: Callable[[int | None], None]


@dataclass(slots=True)
class _Handover:
    to: str
    until_s: float
    done: Callable[[str | None], None]
    told: bool = False


class Leader:
    """Sends the log to the other members, and knows who has followed when."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._journal = core.journal
        self._inside = core.inside
        self._settings = core.settings
        self._clock = core.clock
        self._envelope = core.envelope
        self._post = core.post
        self._term = core.inside.term
        self._handover: _Handover | None = None
        self._reads: list[_Read] = []
        self._packed: tuple[int, bytes] = (0, b"")
        self.flush = False
        """Entries wait to be sent."""
        self.announce = False
        """Somebody waits for a round of messages."""
        self.progress: dict[str, Progress] = {}
        self.track_members()

    def end(self) -> None:
        """The leadership is over: say so to all who wait for something of it."""
        for read in self._reads:
            read.done(None)
        if (handover := self._handover) is not None:
            handover.done(None if handover.told else "the leadership was lost before it could be handed over")

    def append(self, content: bytes) -> int | str:
        """Put an entry into the log: its index, or why not. It leaves with the next step."""
        if self._handover is not None:
            return f"leadership is being handed over to {self._handover.to}"
        if len(content) > _ENTRY_LIMIT_BYTES:
            return f"an entry of {len(content)} bytes is over {_ENTRY_LIMIT_BYTES}"
        index = self._journal.last_index + 1
        self._journal.add(content, index, self._inside.term)
        self.flush = True
        return index

    def change_members(self, wanted: Members) -> int | str:
        """Put other members in force: the index of that entry, or why not.

        One change at a time, and none before an entry of the own term is committed (raft-dev, July 2015).
        """
        if self._handover is not None:
            return f"leadership is being handed over to {self._handover.to}"
        if not self._settled():
            return "the leader has not committed an entry of its term yet, or another change of members is under way"
        own = wanted.get(self._core.name)
        if own is None or not own.voter or own.replica_id != self._journal.identity.replica_id:
            return "the leader stays a voter: transfer the leadership first"
        if (objection := self._core.members.current.objection(wanted)) is not None:
            return objection
        if len(wanted.voters & self._present()) < majority_of(wanted.voters):
            return f"too few of the voters {', '.join(sorted(wanted.voters))} can be heard: there would be no majority"
        return self._core.write_members(wanted)

    def confirm(self, done: Callable[[int | None], None]) -> None:
        """Ask a majority whether it still is: then `done(index)`, with all that was committed before.

        R2, R3: costs a round of messages and nothing on disk. `done(None)` when the leadership was lost meanwhile.
        """
        self._reads.append(_Read(self._core.stamp + 1, done))
        self.announce = True

    def transfer(self, to: str, done: Callable[[str | None], None]) -> None:
        """Hand the leadership over to a voter: `done(None)` when it is gone, or why it is not.

        No entry is taken meanwhile; given up after one election timeout.
        """
        if to == self._core.name or to not in self._core.members.current.voters:
            done(f"{to!r} is no other voter of this group")
        elif self._handover is not None:
            done(f"leadership is being handed over to {self._handover.to}")
        else:
            self._handover = _Handover(to, self._clock() + self._settings.election_max_s, done)

    def before_tick(self) -> None:
        """What a leader does before each tick."""
        self._hand_over()
        if self._handover is None and self._settled():
            self._tend_members()
        if self.announce:
            self.announce = self.flush = False
            self.send_to_all()
        elif self.flush:
            self.flush = False
            for peer, progress in self.progress.items():
                self._send_to(peer, progress, heartbeat=False)

    def _settled(self) -> bool:
        """An entry of the own term is committed, and so are the members in force."""
        inside = self._inside
        own_term = self._journal.term_at(inside.commit_index) == inside.term
        return own_term and self._core.members.index <= inside.commit_index

    def _tend_members(self) -> None:
        members = self._core.members.current
        if self._core.members.index <= 1:
            # the founders' addresses are each one's own: from here on they are the same everywhere
            self._core.write_members(members)
            return
        own, known = self._core.name, self._core.introductions
        present = {peer: said for peer, said in known.items() if peer in self._core.connected_peers}
        present[own] = self._core.introduction()
        if (wanted := mended(members, own, present, self._caught_up())) is not None:
            self._core.write_members(wanted)

    def _caught_up(self) -> set[str]:
        near = self._inside.commit_index - _CAUGHT_UP_ENTRIES
        present = self._present()
        return {peer for peer, known in self.progress.items() if peer in present and known.match_index >= near}

    def _present(self) -> set[str]:
        """Who has answered just now, and this replica."""
        since = (self._clock() - self._settings.election_min_s) * 1e9
        return {self._core.name, *(peer for peer, known in self.progress.items() if known.answered > since)}

    def _hand_over(self) -> None:
        handover = self._handover
        if handover is None:
            return
        if self._clock() > handover.until_s:
            self._handover = None
            handover.done(f"{handover.to} has not taken the leadership over in time")
            return
        progress = self.progress.get(handover.to)
        if progress is not None and progress.match_index == self._journal.last_index and not handover.told:
            handover.told = self._reaches(handover.to) and self._post(handover.to, TimeoutNow(*self._envelope()))

    def _reaches(self, peer: str) -> bool:
        """There is a connection, and it leads to the replica that the members name."""
        said, member = self._core.introductions.get(peer), self._core.members.current.get(peer)
        same = said is not None and member is not None and said.replica_id == member.replica_id
        return same and peer in self._core.connected_peers

    def send_to_all(self) -> None:
        self._inside.next_heartbeat = self._clock() + self._settings.heartbeat_s
        for peer, progress in self.progress.items():
            self._send_to(peer, progress, heartbeat=True)

    def _send_to(self, peer: str, progress: Progress, *, heartbeat: bool) -> None:
        if not self._reaches(peer):
            return
        if progress.parts is not None or progress.next_index <= self._journal.base_index:
            self._send_part(peer, progress)
            return
        if progress.probing and progress.probed and not heartbeat:
            return  # one at a time, until its answer shows what the peer has
        limit = _PROBE_BYTES if progress.probing else self._settings.batch_bytes
        entries = tuple(self._journal.entries(progress.next_index, limit))
        if not entries and not heartbeat:
            return
        if self._post(peer, self._append_message(progress.next_index - 1, entries)):
            if progress.probing:
                progress.probed = True
            elif entries:
                progress.next_index = entries[-1][1] + 1

    def _append_message(self, previous: int, entries: tuple[Entry, ...]) -> Append:
        term = self._journal.term_at(previous)
        if term is None:
            raise ReplicaFailed(f"entry {previous} is to be followed, and is not in the log")
        return Append(*self._envelope(), self._core.next_stamp(), previous, term, self._inside.commit_index, entries)

    def _send_part(self, peer: str, progress: Progress) -> None:
        """One part at a time; again when it has not been answered for an election timeout."""
        now_s = self._clock()
        parts = progress.parts
        if parts is None:
            snapshot = self._journal.snapshot
            if snapshot is None:
                raise ReplicaFailed(f"entry {progress.next_index} is neither in the log nor in a snapshot")
            if self._packed[0] != snapshot.index:
                self._packed = (snapshot.index, snapshot.pack())
            parts = progress.parts = Parts(*self._packed)
        if parts.sent_s is not None and now_s - parts.sent_s < self._settings.election_min_s:
            return
        part = parts.packed[parts.held : parts.held + self._settings.part_bytes]
        message = SnapshotPart(
            *self._envelope(), self._core.next_stamp(), parts.index, len(parts.packed), parts.held, part
        )
        if self._post(peer, message):
            parts.sent_s = now_s

    def receive(self, peer: str, message: Appended | SnapshotHeld) -> bool:
        """Take an answer, if it is one to this leader in this term, of the replica that the members name.

        False when no step has to follow at once, as after most answers to heartbeats.
        """
        progress = self.progress.get(peer)
        if progress is None or progress.replica != message.replica:
            self._core.strangers += 1
            return False
        matched = progress.match_index
        if message.for_term == self._term:
            progress.answered = max(progress.answered, min(message.sent, self._core.stamp))
            self._inside.last_response_time[Node(peer)] = progress.answered / 1e9
            if isinstance(message, Appended):
                self._on_appended(peer, progress, message)
            else:
                self._on_snapshot_held(peer, progress, message)
        return progress.match_index != matched or bool(self._reads) or self._handover is not None

    def _on_appended(self, peer: str, progress: Progress, message: Appended) -> None:
        last_index = self._journal.last_index
        if message.success:
            progress.accept(message.next_index, last_index)
        else:
            progress.refuse(message.next_index, message.sent, self._core.next_stamp(), last_index)
        self._inside.match_index[Node(peer)] = progress.match_index
        if progress.next_index <= last_index:
            self._send_to(peer, progress, heartbeat=False)

    def _on_snapshot_held(self, peer: str, progress: Progress, message: SnapshotHeld) -> None:
        parts = progress.parts
        if parts is None:
            return
        if (message.index, message.size) == (parts.index, len(parts.packed)) and message.held <= message.size:
            advanced, parts.held = message.held > parts.held, message.held
            if advanced:
                # not when it begins again: a snapshot that it cannot read would be sent over and over without pause
                parts.sent_s = None
                self._send_part(peer, progress)

    def finish_reads(self) -> None:
        inside = self._inside
        if not self._reads or self._journal.term_at(inside.commit_index) != inside.term:
            return
        reached = self._confirmed_stamp()
        finished = sum(read.stamp <= reached for read in self._reads)  # they were asked in this order
        reads, self._reads = self._reads[:finished], self._reads[finished:]
        for read in reads:
            read.done(inside.commit_index)

    def _confirmed_stamp(self) -> int:
        voters = self._core.members.current.voters
        if majority_of(voters) == 1:
            return self._core.stamp + 1
        peers = (progress for peer, progress in self.progress.items() if peer in voters)
        return confirmed(peers, majority_of(voters)) or 0

    def contact_s(self) -> float | None:
        """Since when, at least, a majority has been with this leader."""
        if majority_of(self._core.members.current.voters) == 1:
            return self._clock()
        return self._confirmed_stamp() / 1e9 or None

    def track_members(self) -> None:
        """Know of each other member what it has; of a new replica, nothing."""
        inside, own = self._inside, self._core.name
        others = [member for member in self._core.members.current.all if member.name != own]
        self.progress = {member.name: self._progress_of(member) for member in others}
        for peer, progress in self.progress.items():
            inside.match_index[Node(peer)] = progress.match_index
            inside.last_response_time.setdefault(Node(peer), self._clock())

    def _progress_of(self, member: Member) -> Progress:
        known = self.progress.get(member.name)
        if known is not None and known.replica == member.replica_id:
            return known
        return Progress(member.replica_id, self._journal.last_index + 1)
