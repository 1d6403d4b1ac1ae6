"""PySyncObj as the frame of a mended Raft: DESIGN.md lists what is wrong with it and where that is mended.

PySyncObj drives: its tick, its roles, its terms, its counting of commits. What replicas say to each other, and what
they make of it, is in `election`, `follower` and `leader`. All of it runs in the owner's one thread; clock and
randomness are arguments.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from pysyncobj import SyncObj, SyncObjConf
from pysyncobj.node import Node

from raft.api import ReplicaFailed, Settings
from raft.compat import FOLLOWER, LEADER, Internals, JournalAdapter, TransportAdapter, replaces, stock, use_clock
from raft.election import NEVER_S, Election
from raft.entries import members_entry, members_in
from raft.follower import Follower
from raft.journal import Journal
from raft.leader import Leader
from raft.members import Introduction, Members, MembersLog, founders, places_of
from raft.messages import (
    Append,
    Appended,
    AskPreVote,
    AskVote,
    Envelope,
    Message,
    Post,
    PreVote,
    SnapshotHeld,
    SnapshotPart,
    TimeoutNow,
    Vote,
)
from raft.snapshot import Snapshot

_INCARNATION_DIGITS = 19
"""So many might be more than a journal can hold."""


class Owner(Protocol):
    """What the consensus asks of whoever owns it, always in the owner's thread."""

    def apply(self, index: int, entry: bytes) -> None:
        """A committed entry, in order, each once. Must not raise on what an entry holds."""
        ...

    def applied(self) -> None:
        """All that is committed now has been applied."""
        ...

    def dump(self) -> bytes:
        """Everything that the applied entries have come to."""
        ...

    def restore(self, content: bytes) -> None:
        """Begin anew from what another owner dumped; ValueError, and nothing changed, when that cannot be read."""
        ...

    def leader_lost(self) -> None:
        """What was asked of the leader may never be answered."""
        ...

    def members_changed(self, members: Members) -> None: ...


@dataclass(frozen=True, slots=True)
class Facts:
    """Where the replica stands, as seen by its owner between two steps."""

    state: int
    term: int
    leader: str | None
    commit_index: int
    applied_index: int
    last_index: int
    contact_s: float | None
    match_index: dict[str, int]
    members: Members
    votes: bool
    """Whether the members in force count this replica as a voter."""


@replaces(
    applyLogEntries="_apply_committed",
    connectedToAnyone="_may_campaign",
    generateRaftTimeout="_never_s",
    onBecomeLeader="_become_leader",
    onLeaderChanged="_leader_lost",
    sendAppendEntries="_send_to_all",
    tryLogCompaction="_compact",
)
class Core(SyncObj):
    """The consensus of one replica: `step()` and `deliver()` are called over and over by its owner."""

    def __init__(
        self,
        settings: Settings,
        journal: Journal,
        owner: Owner,
        *,
        clock: Callable[[], float],
        draw: random.Random,
        post: Post,
    ) -> None:
        self.settings = settings
        self.name = settings.name
        self.journal = journal
        self.owner = owner
        self.clock = clock
        self.draw = draw
        self._send = post
        self.connected_peers: set[str] = set()
        self.introductions: dict[str, Introduction] = {}
        self.heard_s: float | None = None
        """When the last message of a leader arrived."""
        self.contact_s: float | None = None
        self.stamp = 0
        self.strangers = 0
        """Messages of other groups, or of replicas that are no members: none of them changed anything."""
        self._compacted_bytes = journal.size_bytes
        self.members = self._recorded_members()
        self.inside = Internals(self)
        self.leader: Leader | None = None
        use_clock(clock)
        settled = _stock_settings(settings, journal, self._on_state)
        super().__init__(Node(settings.name), (), settled, transport=TransportAdapter(self._ask_vote))
        self.inside.close_descriptors()
        self.election = Election(self)
        self._follower = Follower(self)
        self.begin_at_snapshot()
        self._consider_founding()

    # -- the owner's calls -----------------------------------------------------------------------------

    def step(self) -> float:
        """One tick. Answers in how many seconds the next one is due, below zero if it should have been meanwhile; other
        calls make one due at once.
        """
        use_clock(self.clock)
        self.journal.sync()  # own entries are on disk before the tick counts them (R1)
        if self.leader is not None:
            self.leader.before_tick()
        else:
            self.election.consider()
        self.doTick(0.0)
        self.election.transferred = False
        if self.leader is not None:
            self.leader.finish_reads()
        self.journal.sync()
        return self._due_s() - self.clock()

    def deliver(self, peer: str, message: Message) -> bool:
        """Take a message from a peer's connection; one of another group is dropped, and counted.

        False when no step has to follow at once.
        """
        use_clock(self.clock)
        if not self._of_this_group(message):
            self.strangers += 1
        elif isinstance(message, Append | SnapshotPart):
            self._follower.receive(peer, message)
        elif isinstance(message, Appended | SnapshotHeld):
            return self._receive_answer(peer, message)
        elif isinstance(message, AskPreVote | PreVote | AskVote | Vote | TimeoutNow):
            self.election.receive(peer, message)
        return True

    def connected(self, peer: str) -> None:
        """What is sent to this peer from now on may arrive."""
        self.connected_peers.add(peer)
        if self.leader is not None and (progress := self.leader.progress.get(peer)) is not None:
            progress.restart()

    def disconnected(self, peer: str) -> None:
        self.connected_peers.discard(peer)
        if self.members.current.all and peer not in self.members.current.names:
            self.introductions.pop(peer, None)
        if self.leading_peer == peer:
            self.owner.leader_lost()  # what was forwarded on that connection may be lost

    def introduced(self, peer: str, introduction: Introduction) -> None:
        """A peer has said who it is; told before anything else of that connection."""
        self.introductions[peer] = introduction
        self._consider_founding()

    def introduction(self) -> Introduction:
        journal, own_address = self.journal, self.settings.addresses.get(self.name, "")
        return Introduction(journal.identity.replica_id, journal.cluster_id, journal.incarnation, own_address)

    def places(self) -> dict[str, tuple[str, ...]]:
        """Where each member may be found, the likeliest first."""
        return places_of(self.members.current, self.settings.addresses, self.introductions)

    def facts(self) -> Facts:
        inside, leader = self.inside, self.leader
        if leader is not None:
            self.contact_s = leader.contact_s() or self.contact_s
        return Facts(
            state=inside.state,
            term=inside.term,
            leader=self.leading_peer,
            commit_index=inside.commit_index,
            applied_index=inside.last_applied,
            last_index=self.journal.last_index,
            contact_s=self.contact_s,
            match_index={} if leader is None else {peer: known.match_index for peer, known in leader.progress.items()},
            members=self.members.current,
            votes=self.votes,
        )

    # -- what the roles share --------------------------------------------------------------------------

    @property
    def group(self) -> str:
        return f"{self.journal.cluster_id}/{self.journal.incarnation}"

    @property
    def leading_peer(self) -> str | None:
        leader = self.inside.leader
        return None if leader is None else leader.id

    @property
    def votes(self) -> bool:
        """The members in force count this replica, with this journal, as a voter (R1)."""
        own = self.members.current.get(self.name)
        return own is not None and own.voter and own.replica_id == self.journal.identity.replica_id

    def envelope(self) -> tuple[str, str, int]:
        """How every message begins."""
        return self.group, self.journal.identity.replica_id, self.inside.term

    def post(self, peer: str, message: Message) -> bool:
        """The way out: what a message says is on disk before it leaves (R1)."""
        self.journal.sync()
        return self._send(peer, message)

    def next_stamp(self) -> int:
        """A number above all before, and at the same time the clock in nanoseconds."""
        self.stamp = max(self.stamp + 1, int(self.clock() * 1e9))
        return self.stamp

    def is_voter(self, peer: str, message: Envelope) -> bool:
        """The members in force count the sender, this replica of that name, as a voter."""
        member = self.members.current.get(peer)
        return member is not None and member.voter and member.replica_id == message.replica

    def step_down(self, term: int) -> None:
        """Somebody is in a newer term: follow whoever leads it."""
        inside = self.inside
        inside.set_term(term, None)
        inside.leader = None
        inside.set_state(FOLLOWER)
        self.election.call_off()
        self.owner.leader_lost()

    def write_members(self, members: Members) -> int:
        """As leader: they are in force from here on, committed or not."""
        index = self.journal.last_index + 1
        self.journal.add(members_entry(members), index, self.inside.term)
        self.members.write(index, members)
        self.enforce_members()
        if self.leader is not None:
            self.leader.flush = True
        return index

    def enforce_members(self) -> None:
        """Count and send by the members in force."""
        members = self.members.current
        self.inside.voters = {Node(name) for name in members.voters if name != self.name}
        if self.leader is not None:
            self.leader.track_members()
        self.owner.members_changed(members)

    def begin_at_snapshot(self) -> None:
        """Go on from where the journal begins: at its snapshot, if it has one."""
        snapshot = self.journal.snapshot
        if snapshot is not None:
            self.inside.last_applied = snapshot.index
            self.inside.commit_index = max(self.journal.commit_index, snapshot.index)
        self.members = self._recorded_members()
        self._compacted_bytes = self.journal.size_bytes
        self.enforce_members()

    # -- what PySyncObj calls --------------------------------------------------------------------------

    def _never_s(self) -> float:
        return NEVER_S

    def _may_campaign(self) -> bool:
        return self.votes

    def _ask_vote(self, peer: str) -> None:
        self.election.ask_vote(peer)

    def _become_leader(self) -> None:
        self.leader = Leader(self)
        stock("onBecomeLeader")(self)

    def _leader_lost(self) -> None:
        self.owner.leader_lost()

    def _on_state(self, old: int, new: int) -> None:
        if old == LEADER and new != LEADER:
            leader, self.leader = self.leader, None
            self.election.postpone()
            self.owner.leader_lost()
            if leader is not None:
                leader.end()

    def _send_to_all(self) -> None:
        if self.leader is not None:
            self.leader.send_to_all()

    def _apply_committed(self) -> bool:
        """True when something was applied: then the leader tells the new commit index at once."""
        inside, journal = self.inside, self.journal
        if inside.last_applied >= inside.commit_index:
            return False
        while inside.last_applied < inside.commit_index:
            content, index, _ = journal.entry(inside.last_applied + 1)
            self.owner.apply(index, content)
            inside.last_applied = index
        self.owner.applied()
        return True

    def _checkCommandsToApply(self) -> None:  # noqa: N802  PySyncObj's name
        """Entries come through the leader's `append`, not through PySyncObj's queue."""

    def _compact(self) -> None:
        """Replace the oldest entries by a snapshot, and keep some of them for followers that lag a little (D30)."""
        journal, settings, index = self.journal, self.settings, self.inside.last_applied
        since = journal.snapshot.index if journal.snapshot is not None else 1
        grown = journal.size_bytes - self._compacted_bytes
        if index <= since or (index - since < settings.compact_entries and grown < settings.compact_bytes):
            return
        term = journal.term_at(index)
        if term is None:
            raise ReplicaFailed(f"entry {index} is applied, and is not in the log")
        journal.compact(Snapshot(index, term, self.members.at(index), self.owner.dump()), self._keep_from(index))
        self.members.forget_before(index)
        self._compacted_bytes = journal.size_bytes

    # -- its own ---------------------------------------------------------------------------------------

    def _due_s(self) -> float:
        if self.leader is None:
            return self.election.deadline_s
        heartbeat_s: float = self.inside.next_heartbeat
        return min(heartbeat_s, self.clock()) if self.leader.flush or self.leader.announce else heartbeat_s

    def _receive_answer(self, peer: str, message: Appended | SnapshotHeld) -> bool:
        if message.term > self.inside.term:
            self.step_down(message.term)
        return self.leader is None or self.leader.receive(peer, message)

    def _of_this_group(self, message: Envelope) -> bool:
        if message.group == self.group:
            return True
        cluster_id, _, incarnation = message.group.rpartition("/")
        written = incarnation.isascii() and incarnation.isdecimal() and len(incarnation) < _INCARNATION_DIGITS
        adoptable = isinstance(message, Append | SnapshotPart) and cluster_id != "" and written
        if not adoptable or self.journal.cluster_id != "":
            return False
        # it has never belonged to any group, and a leader counts it to its own
        self.journal.adopt(cluster_id, int(incarnation))
        return True

    def _recorded_members(self) -> MembersLog:
        """The members in force by what the journal holds; entries count although they may not be committed (D9)."""
        journal = self.journal
        if journal.snapshot is not None:
            log = MembersLog(journal.snapshot.index, journal.snapshot.members)
        else:
            log = MembersLog(1, journal.founding or Members())
        for index in range(max(journal.first_index, log.index + 1), journal.last_index + 1):
            if (members := members_in(journal.entry(index)[0])) is not None:
                log.write(index, members)
        return log

    def _consider_founding(self) -> None:
        """Empty journals among nothing but empty journals found a group; each computes the same one."""
        journal, addresses = self.journal, self.settings.addresses
        if journal.cluster_id != "" or journal.last_index > 1 or self.name not in addresses:
            return
        said = {**self.introductions, self.name: self.introduction()}
        if not all(name in said for name in addresses):
            return
        replicas = {name: said[name].replica_id for name in addresses}
        cluster_id, members = founders(journal.identity.cluster, replicas, addresses)
        if any(said[name].cluster_id not in {"", cluster_id} for name in addresses):
            return
        journal.found(cluster_id, members)
        self.members = MembersLog(1, members)
        self.enforce_members()
        self.election.postpone()

    def _keep_from(self, index: int) -> int:
        journal, settings = self.journal, self.settings
        first = max(journal.first_index, index + 1 - settings.keep_entries)
        kept_bytes, place = 0, index + 1
        while place > first and kept_bytes < settings.compact_bytes // 4:
            place -= 1
            kept_bytes += len(journal.entry(place)[0])
        return place


def _stock_settings(settings: Settings, journal: Journal, on_state: Callable[[int, int], None]) -> SyncObjConf:
    return SyncObjConf(
        autoTick=False,  # it swallows the exceptions that must end the replica
        useFork=False,
        appendEntriesUseBatch=False,  # batching costs 100-200 ms for each command
        appendEntriesPeriod=settings.heartbeat_s,
        raftMinTimeout=settings.election_min_s,
        raftMaxTimeout=settings.election_max_s,
        leaderFallbackTimeout=settings.election_max_s,
        connectionTimeout=max(3.5, settings.election_max_s),
        dynamicMembershipChange=False,  # members are ours, see `enforce_members`
        journalFile=JournalAdapter(journal),
        onStateChanged=on_state,
    )
