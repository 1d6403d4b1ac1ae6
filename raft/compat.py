# ruff: noqa: N802  PySyncObj's own names
"""The one place that spells PySyncObj's private names: what is read, what is replaced, and the version pin.

Everything that `core` mends hangs on these names, so another version is refused until it has been read.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

import pysyncobj.syncobj
from pysyncobj import SyncObj
from pysyncobj.journal import Journal as StockJournal
from pysyncobj.node import Node
from pysyncobj.transport import Transport as StockTransport
from pysyncobj.version import VERSION

from raft.journal import Journal

T = TypeVar("T")
C = TypeVar("C", bound=type[SyncObj])

PINNED_VERSION = "0.3.17"

FOLLOWER, CANDIDATE, LEADER = 0, 1, 2
COMMAND, NO_OP = b"\0", b"\1"
"""First byte of a log entry."""


def check_version() -> None:
    if VERSION != PINNED_VERSION:
        raise ImportError(
            f"PySyncObj {VERSION} is installed, raft/ mends {PINNED_VERSION} and no other:"
            f" pip install pysyncobj=={PINNED_VERSION}"
        )


check_version()


def _mangled(name: str) -> str:
    return f"_SyncObj__{name}"


class _Private(Generic[T]):
    """A private attribute or method of a SyncObj, read and written through `Internals`."""

    def __init__(self, name: str) -> None:
        self._name = _mangled(name)

    def __get__(self, internals: Internals, _: type[Internals]) -> T:
        value: T = getattr(internals.syncobj, self._name)
        return value

    def __set__(self, internals: Internals, value: T) -> None:
        setattr(internals.syncobj, self._name, value)


class Internals:
    """The private state of a SyncObj that the mends need."""

    state: _Private[int] = _Private("raftState")
    term: _Private[int] = _Private("raftCurrentTerm")
    leader: _Private[Node | None] = _Private("raftLeader")
    commit_index: _Private[int] = _Private("raftCommitIndex")
    last_applied: _Private[int] = _Private("raftLastApplied")
    leader_commit_index: _Private[int | None] = _Private("leaderCommitIndex")
    election_deadline: _Private[float] = _Private("raftElectionDeadline")
    next_index: _Private[dict[Node, int]] = _Private("raftNextIndex")
    match_index: _Private[dict[Node, int]] = _Private("raftMatchIndex")
    last_response_time: _Private[dict[Node, float]] = _Private("lastResponseTime")
    local_counter: _Private[int] = _Private("commandsLocalCounter")
    waiting_replies: _Private[dict[int, Callable[[object, int], None]]] = _Private("commandsWaitingReply")
    pipe_notifier: _Private[Any] = _Private("pipeNotifier")
    set_state: _Private[Callable[[int], None]] = _Private("setState")
    set_term: _Private[Callable[[int, str | None], None]] = _Private("setCurrentTerm")
    on_leader_changed: _Private[Callable[[], None]] = _Private("onLeaderChanged")
    draw_timeout_s: _Private[Callable[[], float]] = _Private("generateRaftTimeout")

    def __init__(self, syncobj: SyncObj) -> None:
        self.syncobj = syncobj

    def pipe(self) -> tuple[int, int]:
        """Descriptors that PySyncObj opens and never closes."""
        notifier = self.pipe_notifier
        return notifier._PipeNotifier__pipeR, notifier._PipeNotifier__pipeW


def stock(name: str) -> Callable[..., Any]:
    """PySyncObj's own private method, for a replacement that wraps it."""
    method: Callable[..., Any] = getattr(SyncObj, _mangled(name))
    return method


def replaces(**replacements: str) -> Callable[[C], C]:
    """Put a subclass's methods in the place of private ones: `replaces(privateName="our_name")`."""

    def install(subclass: C) -> C:
        for private, ours in replacements.items():
            stock(private)  # fails at import when there is no such method
            setattr(subclass, _mangled(private), subclass.__dict__[ours])
        return subclass

    return install


class JournalAdapter(StockJournal):
    """Our journal as PySyncObj wants to see it: list positions where ours has indexes."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def add(self, command: bytes, idx: int, term: int) -> None:
        self._journal.add(command, idx, term)

    def deleteEntriesFrom(self, entryFrom: int) -> None:  # noqa: N803
        self._journal.truncate(entryFrom + 1)

    def __getitem__(self, item: Any) -> Any:
        return self._journal[item]

    def __len__(self) -> int:
        return len(self._journal)

    def setRaftCommitIndex(self, raftCommitIndex: int) -> None:  # noqa: N803
        self._journal.set_commit(raftCommitIndex)

    def getRaftCommitIndex(self) -> int:
        return self._journal.commit_index

    def setCurrentTerm(self, term: int, votedForNodeId: str | None) -> None:  # noqa: N803
        self._journal.set_term(term, votedForNodeId)

    def getCurrentTerm(self) -> int:
        return self._journal.term

    def getVotedForNodeId(self) -> str | None:
        return self._journal.vote

    def onOneSecondTimer(self) -> None:
        """The owner thread syncs before every tick; nothing is left for a timer."""

    def _destroy(self) -> None:
        """The owner thread closes the journal."""


class TransportAdapter(StockTransport):
    """Our transport as PySyncObj wants to see it: always ready, peers by node."""

    def __init__(self, send: Callable[[str, dict[str, Any]], bool]) -> None:
        super().__init__(None, None, [])
        self._send = send

    def send(self, node: Node, message: dict[str, Any]) -> bool:
        return self._send(node.id, message)

    def connected(self, node: Node) -> None:
        self._onNodeConnected(node)

    def disconnected(self, node: Node) -> None:
        self._onNodeDisconnected(node)

    def received(self, node: Node, message: dict[str, Any]) -> None:
        self._onMessageReceived(node, message)


def _pass_journal(journal: object) -> object:
    return journal


# There is no journal factory: a journal given as `conf.journalFile` arrives here, and is the journal.
pysyncobj.syncobj.createJournal = _pass_journal
