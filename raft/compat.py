# ruff: noqa: N802  PySyncObj's own names
"""The one place that spells PySyncObj's private names: what is read, what is replaced, and the pin.

Everything that `core` mends hangs on these names and on how the code around them behaves, so other sources
are refused until somebody has read them.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Generic, TypeVar

import pysyncobj.syncobj
from pysyncobj import SyncObj
from pysyncobj.journal import Journal as StockJournal
from pysyncobj.node import Node
from pysyncobj.poller import Poller
from pysyncobj.transport import Transport as StockTransport
from pysyncobj.version import VERSION

from raft.clock import boottime_s
from raft.entries import NO_OP, Entry
from raft.journal import Journal

T = TypeVar("T")
C = TypeVar("C", bound=type[SyncObj])

PINNED_VERSION = "0.3.17"
PINNED_FILES: Mapping[str, str] = {
    # first 16 hexadecimal digits of each SHA-256
    "config.py": "fbbc7ff9f18e4d15",
    "fast_queue.py": "8477fe5fdf36d976",
    "journal.py": "9cf1eaf6acc70458",
    "monotonic.py": "d116df70e1f81bca",
    "node.py": "e4a3f027cd8291f5",
    "pipe_notifier.py": "587d964bfa5d6232",
    "poller.py": "f69ac749fb410670",
    "serializer.py": "4d39fde2f15000ad",
    "syncobj.py": "e8bdf06797085d73",
    "transport.py": "0c9d89f9c4781ec9",
}

FOLLOWER, CANDIDATE, LEADER = 0, 1, 2


def check_version(version: str = VERSION, directory: Path = Path(pysyncobj.__file__).parent) -> None:
    """ImportError when PySyncObj is not, byte for byte, what this package was written against."""
    remedy = f"pip install --force-reinstall --no-deps pysyncobj=={PINNED_VERSION}"
    if version != PINNED_VERSION:
        raise ImportError(f"PySyncObj {version} is installed, raft/ mends {PINNED_VERSION} and no other: {remedy}")
    for name, pinned in PINNED_FILES.items():
        found = hashlib.sha256((directory / name).read_bytes()).hexdigest()[:16]
        if found != pinned:
            raise ImportError(
                f"{directory / name} is not PySyncObj {PINNED_VERSION}'s"
                f" (its SHA-256 begins with {found}, not with {pinned}): {remedy}"
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
    election_deadline: _Private[float] = _Private("raftElectionDeadline")
    voters: _Private[set[Node]] = _Private("otherNodes")
    match_index: _Private[dict[Node, int]] = _Private("raftMatchIndex")
    last_response_time: _Private[dict[Node, float]] = _Private("lastResponseTime")
    next_heartbeat: _Private[float] = _Private("newAppendEntriesTime")
    set_state: _Private[Callable[[int], None]] = _Private("setState")
    set_term: _Private[Callable[[int, str | None], None]] = _Private("setCurrentTerm")
    become_leader: _Private[Callable[[], None]] = _Private("onBecomeLeader")
    _pipe_notifier: _Private[Any] = _Private("pipeNotifier")

    def __init__(self, syncobj: SyncObj) -> None:
        self.syncobj = syncobj

    def close_descriptors(self) -> None:
        """Close what PySyncObj opens and never closes (D27); its owner waits by other means."""
        notifier = self._pipe_notifier
        for descriptor in (notifier._PipeNotifier__pipeR, notifier._PipeNotifier__pipeW):
            self.syncobj._poller.unsubscribe(descriptor)
            os.close(descriptor)
        self.syncobj._poller = _NoPoller()


class _NoPoller(Poller):
    def poll(self, _: float) -> None:
        """The owner waits between two ticks, not within one."""


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
    """Our journal as PySyncObj wants to see it: a list whose first place is the entry before all that are kept."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def add(self, command: bytes, idx: int, term: int) -> None:
        self._journal.add(command, idx, term)

    def __getitem__(self, item: Any) -> Any:
        if isinstance(item, slice):
            return [self._at(place) for place in range(*item.indices(len(self)))]
        return self._at(item if item >= 0 else len(self) + item)

    def __len__(self) -> int:
        return self._journal.last_index - self._journal.base_index + 1

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
        """The owner syncs before every tick; nothing is left for a timer."""

    def _destroy(self) -> None:
        """The owner closes the journal."""

    def _at(self, place: int) -> Entry:
        journal = self._journal
        if place == 0:
            return NO_OP, journal.base_index, journal.base_term
        return journal.entry(journal.base_index + place)


class TransportAdapter(StockTransport):
    """What PySyncObj itself sends is one message only, the request for a vote."""

    def __init__(self, ask_vote: Callable[[str], None]) -> None:
        super().__init__(None, None, [])
        self._ask_vote = ask_vote

    def send(self, node: Node, message: Mapping[str, Any]) -> bool:
        if message["type"] != "request_vote":
            raise AssertionError(f"PySyncObj sends {message['type']!r} by itself: raft/core.py should have")
        self._ask_vote(node.id)
        return True


def _pass_journal(journal: object) -> object:
    return journal


# There is no journal factory: a journal given as `conf.journalFile` arrives here, and is the journal.
pysyncobj.syncobj.createJournal = _pass_journal

_clock: Callable[[], float] = boottime_s


def use_clock(clock: Callable[[], float]) -> None:
    """PySyncObj reads the time from here on from this clock; one that is called all the time, so only for its owner.

    All replicas of a process share it: one clock in real life, and in a simulation the clock of whoever acts.
    """
    global _clock  # noqa: PLW0603  PySyncObj's is a module global as well
    _clock = clock


def _now_s() -> float:
    return _clock()


pysyncobj.syncobj.monotonicTime = _now_s
