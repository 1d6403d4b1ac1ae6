"""PySyncObj with its defects mended where this version of raft/ mends them (DESIGN.md lists all of them).

Everything here runs in the replica's one owner thread.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass

from pysyncobj import FAIL_REASON, SyncObj, SyncObjConf
from pysyncobj.monotonic import monotonic
from pysyncobj.node import Node
from pysyncobj.poller import POLL_EVENT_TYPE

from raft.api import COMMAND_LIMIT_BYTES, Outcome, Refused, ReplicaConfig, ReplicaFailed, Unknown
from raft.codec import Message
from raft.compat import (
    COMMAND,
    FOLLOWER,
    LEADER,
    Internals,
    JournalAdapter,
    TransportAdapter,
    replaces,
    stock,
)
from raft.journal import Journal

_NEVER = 2**62

_REFUSED = {
    FAIL_REASON.QUEUE_FULL: "the replica has too many commands waiting",
    FAIL_REASON.MISSING_LEADER: "there is no raft leader, or no connection to it",
    FAIL_REASON.NOT_LEADER: "the raft leader has changed before it took the command",
    FAIL_REASON.REQUEST_DENIED: "the raft leader refused the command",
    FAIL_REASON.DISCARDED: "a new raft leader has put another entry in its place",
}
_UNKNOWN = {
    FAIL_REASON.LEADER_CHANGED: "the raft leader, or the connection to it, was lost before it answered",
    FAIL_REASON.UNKNOWN_OUTCOME: "the raft leader answered too late to follow the command",
}


def boottime_s() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _boottime_ns() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


@dataclass(frozen=True, slots=True)
class Facts:
    """Where the replica stands, as seen by its owner thread between two steps."""

    state: int
    term: int
    leader: str | None
    commit_index: int
    applied_index: int
    contact_s: float | None
    match_index: dict[str, int]


@replaces(
    onMessageReceived="_receive",
    doApplyCommand="_apply_entry",
    applyLogEntries="_apply_committed",
    connectedToAnyone="_may_campaign",
    tryLogCompaction="_compact_never",
)
class Core(SyncObj):
    """The consensus of one replica. `step()` is called over and over by the owner thread, and by nobody else."""

    def __init__(
        self,
        config: ReplicaConfig,
        journal: Journal,
        send: Callable[[str, Message], bool],
        *,
        apply: Callable[[int, bytes], None],
        on_applied: Callable[[], None],
    ) -> None:
        self._journal = journal
        self._send = send
        self._apply = apply
        self._on_applied = on_applied
        self._peers = {name: Node(name) for name in config.members if name != config.name}
        self._majority = len(config.members) // 2 + 1
        self._fresh_peers: set[str] = set()
        self._voters: tuple[int, set[str]] = (0, set())
        self._leading_term = 0
        self._answered_ns: dict[str, int] = {}
        self._rewound_ns: dict[str, int] = {}
        self._contact_s: float | None = None
        self._inside = Internals(self)
        self._wire = TransportAdapter(self._post)
        super().__init__(
            Node(config.name), self._peers.values(), _settings(config, journal, self._on_state), transport=self._wire
        )
        # answers are matched by number alone, so a restarted replica must not begin at 1 again (D20)
        self._inside.local_counter = secrets.randbits(48)
        self._consider_founding()

    def step(self, wait_s: float) -> None:
        """One tick; own entries are on disk before the tick counts them."""
        self._journal.sync()
        self.doTick(wait_s)

    def wake_on(self, descriptor: int, callback: Callable[[], None]) -> None:
        """Call back in the owner thread, and end a step early, when the descriptor is readable."""
        self._poller.subscribe(descriptor, lambda *_: callback(), POLL_EVENT_TYPE.READ)

    def submit(self, envelope: bytes, on_lost: Callable[[Outcome], None]) -> None:
        """Put an envelope on its way into the log. Success shows when it is applied; `on_lost` tells the rest."""

        def answered(_: object, reason: int) -> None:
            if reason in _REFUSED:
                on_lost(Refused(_REFUSED[reason], None))
            elif reason in _UNKNOWN:
                on_lost(Unknown(_UNKNOWN[reason]))

        self._applyCommand(COMMAND + envelope, answered)

    def deliver(self, peer: str, message: Message) -> None:
        self._wire.received(self._peers[peer], message)

    def connected(self, peer: str) -> None:
        self._wire.connected(self._peers[peer])

    def disconnected(self, peer: str) -> None:
        node = self._peers[peer]
        self._wire.disconnected(node)
        if node == self._inside.leader:
            # what was forwarded on that connection may be lost: its proposers are told that they do not know
            self._inside.on_leader_changed()

    def heard_fresh(self, peer: str, fresh: bool) -> None:
        """A peer has said whether its log is empty."""
        if fresh:
            self._fresh_peers.add(peer)
        else:
            self._fresh_peers.discard(peer)
        self._consider_founding()

    def facts(self) -> Facts:
        inside = self._inside
        leading = inside.state == LEADER
        if leading:
            self._contact_s = self._majority_contact_s() or self._contact_s
        leader = inside.leader
        return Facts(
            state=inside.state,
            term=inside.term,
            leader=None if leader is None else leader.id,
            commit_index=inside.commit_index,
            applied_index=inside.last_applied,
            contact_s=self._contact_s,
            match_index={node.id: index for node, index in inside.match_index.items()} if leading else {},
        )

    def close(self) -> None:
        """Give back what PySyncObj opened and would leave open (D27)."""
        for descriptor in self._inside.pipe():
            self._poller.unsubscribe(descriptor)
            os.close(descriptor)

    # -- what PySyncObj calls ------------------------------------------------------------------------

    def _post(self, peer: str, message: Message) -> bool:
        """The way out of the replica: what a message says is on disk before it leaves (R1)."""
        self._journal.sync()
        if message["type"] == "append_entries":
            message = {**message, "sent_ns": _boottime_ns()}
        sent = self._send(peer, message)
        if not sent and message["type"] == "apply_command":
            self._not_forwarded(message["request_id"])
        return sent

    def _not_forwarded(self, request_id: int) -> None:
        """Tell the proposer: PySyncObj would wait for the leader's answer for ever (D20)."""
        answered = self._inside.waiting_replies.pop(request_id)
        answered(None, FAIL_REASON.MISSING_LEADER)

    def _on_state(self, old: int, new: int) -> None:
        if old == LEADER and new == FOLLOWER:
            # its election deadline is as old as its leadership: without this it campaigns at once
            self._postpone_election()

    def _may_campaign(self) -> bool:
        return self._journal.may_vote and bool(stock("connectedToAnyone")(self))

    def _compact_never(self) -> None:
        """The log is kept whole in this version (D1, D3, D13, D16 need a snapshot to happen)."""

    def _apply_entry(self, entry: bytes) -> None:
        if entry[:1] == COMMAND:
            self._apply(self._inside.last_applied + 1, entry[1:])

    def _apply_committed(self) -> bool:
        before = self._inside.last_applied
        send_now: bool = stock("applyLogEntries")(self)
        if self._inside.last_applied != before:
            self._on_applied()
        return send_now

    def _receive(self, node: Node, message: Message) -> None:
        match message["type"]:
            case "append_entries":
                self._receive_entries(node, message)
            case "next_node_idx":
                self._receive_answer(node, message)
            case "request_vote" if not self._journal.may_vote:
                pass  # it may have voted before it lost its journal (D18)
            case "response_vote" if not self._first_vote(node, message["term"]):
                pass
            case _:
                stock("onMessageReceived")(self, node, message)

    # -- follower ------------------------------------------------------------------------------------

    def _receive_entries(self, node: Node, message: Message) -> None:
        inside, term = self._inside, message["term"]
        if term < inside.term:
            return
        if inside.state == LEADER and term == inside.term:
            raise ReplicaFailed(f"{node.id} claims to lead term {term} as well: two raft leaders in one term")
        self._follow(node, term)
        inside.leader_commit_index = message["commit_index"]
        begin = self._place_for(message["prevLogIdx"], message["prevLogTerm"])
        if begin is not None:
            self._answer(node, message, begin, success=False)
            return
        self._append(message["entries"])
        verified = message["prevLogIdx"] + len(message["entries"])
        self._answer(node, message, verified + 1, success=True)
        self._commit(min(message["commit_index"], verified))
        self._consider_voting(node, term)

    def _follow(self, node: Node, term: int) -> None:
        inside = self._inside
        self._postpone_election()
        if inside.leader != node:
            inside.on_leader_changed()
        inside.leader = node
        if term > inside.term:
            inside.set_term(term, None)
        inside.set_state(FOLLOWER)
        self._contact_s = boottime_s()

    def _place_for(self, index: int, term: int) -> int | None:
        """None when the log holds this entry; otherwise from where the leader should send.

        On a conflict a whole term is skipped at a time, never what is committed.
        """
        journal = self._journal
        if index > len(journal):
            return len(journal) + 1
        other_term = journal[index - 1][2]
        if other_term == term:
            return None
        if index <= journal.commit_index:
            raise ReplicaFailed(f"the raft leader has term {term} at committed entry {index}, here it is {other_term}")
        while index - 1 > journal.commit_index and journal[index - 2][2] == other_term:
            index -= 1
        return index

    def _append(self, entries: list[tuple[bytes, int, int]]) -> None:
        """Add what is missing; drop own entries only where they conflict, never for being repeated (D5)."""
        journal = self._journal
        for command, index, term in entries:
            if index <= len(journal):
                if journal[index - 1][2] == term:
                    continue
                journal.truncate(index)
            journal.add(command, index, term)

    def _answer(self, node: Node, message: Message, next_index: int, *, success: bool) -> None:
        """Say which message is answered, so that an answer counts for that one only (D6)."""
        self._post(
            node.id,
            {
                "type": "next_node_idx",
                "term": message["term"],
                "sent_ns": message["sent_ns"],
                "next_node_idx": next_index,
                "success": success,
                "reset": not success,
            },
        )

    def _commit(self, index: int) -> None:
        if index > self._inside.commit_index:
            self._inside.commit_index = index
            self._journal.set_commit(index)

    def _consider_voting(self, leader: Node, term: int) -> None:
        """An empty journal that has caught up may vote: it holds all that was committed before `term`.

        It counts as having voted for the leader, whatever its lost journal said about this term.
        """
        journal = self._journal
        if not journal.may_vote and journal[journal.commit_index - 1][2] == term:
            self._inside.set_term(term, leader.id)
            journal.allow_vote()

    def _consider_founding(self) -> None:
        """An empty journal among nothing but empty journals is a cluster's first start."""
        if not self._journal.may_vote and self._journal.fresh and self._fresh_peers == self._peers.keys():
            self._journal.allow_vote()

    def _postpone_election(self) -> None:
        self._inside.election_deadline = monotonic() + self._inside.draw_timeout_s()

    # -- candidate and leader ------------------------------------------------------------------------

    def _first_vote(self, node: Node, term: int) -> bool:
        """Votes are counted by voter, not by message."""
        if self._voters[0] != term:
            self._voters = (term, set())
        counted = node.id in self._voters[1]
        self._voters[1].add(node.id)
        return not counted

    def _receive_answer(self, node: Node, message: Message) -> None:
        inside = self._inside
        if inside.state != LEADER or message["term"] != inside.term:
            return
        self._note_answer(node, message["sent_ns"])
        next_index = min(message["next_node_idx"], len(self._journal) + 1)
        if message["success"]:
            inside.match_index[node] = max(inside.match_index[node], next_index - 1)
            inside.next_index[node] = max(inside.next_index[node], next_index)
        elif message["sent_ns"] > self._rewound_ns.get(node.id, 0):
            # one flight of messages is refused one by one: only the first refusal turns the sender back (D7)
            inside.next_index[node] = max(next_index, 2)
            # a peer that came back with an empty journal has less than it once had
            inside.match_index[node] = min(inside.match_index[node], inside.next_index[node] - 1)
            self._rewound_ns[node.id] = _boottime_ns()

    def _note_answer(self, node: Node, sent_ns: int) -> None:
        inside = self._inside
        if self._leading_term != inside.term:
            self._leading_term = inside.term
            self._answered_ns.clear()
            self._rewound_ns.clear()
        self._answered_ns[node.id] = max(self._answered_ns.get(node.id, 0), sent_ns)
        inside.last_response_time[node] = monotonic()

    def _majority_contact_s(self) -> float | None:
        """Since when, at least, a majority has been with this leader."""
        others = self._majority - 1
        if others == 0:
            return boottime_s()
        if self._leading_term != self._inside.term or len(self._answered_ns) < others:
            return None
        return sorted(self._answered_ns.values(), reverse=True)[others - 1] / 1e9


def _settings(config: ReplicaConfig, journal: Journal, on_state: Callable[[int, int], None]) -> SyncObjConf:
    return SyncObjConf(
        autoTick=False,  # it swallows the exceptions that must end the replica
        useFork=False,
        commandsWaitLeader=False,  # an order that waits for a leader is a stale order (D21)
        appendEntriesUseBatch=False,  # batching costs 100-200 ms for each command
        appendEntriesPeriod=config.heartbeat_s,
        # above the largest command, so that no entry is ever sent in pieces (D8)
        appendEntriesBatchSizeBytes=4 * COMMAND_LIMIT_BYTES,
        raftMinTimeout=config.election_min_s,
        raftMaxTimeout=config.election_max_s,
        leaderFallbackTimeout=config.election_max_s,
        connectionTimeout=max(3.5, config.election_max_s),
        dynamicMembershipChange=False,
        logCompactionMinEntries=_NEVER,
        logCompactionMinTime=_NEVER,
        journalFile=JournalAdapter(journal),
        onStateChanged=on_state,
    )
