"""What replicas say to each other about the log: frozen values, and their form on the wire.

Every message names the group it belongs to, the replica that speaks and its current term; an answer
also names what it answers, so that it counts for that and for nothing else (D6).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Protocol, TypeAlias

from raft.entries import COMMAND, MEMBERS, NO_OP, Entry, members_in

_NUMBER_LIMIT = 2**63
_TEXT_LIMIT = 1024


@dataclass(frozen=True, slots=True)
class Envelope:
    """Who speaks. `group` is the cluster's id and incarnation; `replica` is drawn with the speaker's journal."""

    group: str
    replica: str
    term: int


@dataclass(frozen=True, slots=True)
class AskPreVote(Envelope):
    """Would you vote for me? Asked before a term is used up; changes nothing at whoever is asked."""

    number: int
    last_index: int
    last_term: int


@dataclass(frozen=True, slots=True)
class PreVote(Envelope):
    number: int
    granted: bool


@dataclass(frozen=True, slots=True)
class AskVote(Envelope):
    last_index: int
    last_term: int
    transfer: bool
    """The leader itself has asked for this election: who still hears it may vote all the same."""


@dataclass(frozen=True, slots=True)
class Vote(Envelope):
    for_term: int
    granted: bool


@dataclass(frozen=True, slots=True)
class Append(Envelope):
    """Entries that follow the named one; without entries a heartbeat."""

    sent: int
    """Strictly increasing at each sender; also its clock, in nanoseconds, at the moment of sending."""
    previous_index: int
    previous_term: int
    commit_index: int
    entries: tuple[Entry, ...]


@dataclass(frozen=True, slots=True)
class Appended(Envelope):
    for_term: int
    sent: int
    next_index: int
    """Success: everything below is on disk here as the leader has it. Otherwise: where to go on."""
    success: bool


@dataclass(frozen=True, slots=True)
class SnapshotPart(Envelope):
    """A part of the packed snapshot at `index`; the next one is sent when this one has been answered."""

    sent: int
    index: int
    size: int
    offset: int
    data: bytes


@dataclass(frozen=True, slots=True)
class SnapshotHeld(Envelope):
    for_term: int
    sent: int
    index: int
    size: int
    held: int
    """How many bytes from the beginning have arrived."""


@dataclass(frozen=True, slots=True)
class TimeoutNow(Envelope):
    """The leader hands over: begin an election at once."""


@dataclass(frozen=True, slots=True)
class Forward(Envelope):
    """A submission for the leader's log."""

    number: int
    submission: bytes


@dataclass(frozen=True, slots=True)
class ForwardRefused(Envelope):
    """It did not enter the log, and will not."""

    number: int
    reason: str


@dataclass(frozen=True, slots=True)
class AskBarrier(Envelope):
    number: int


@dataclass(frozen=True, slots=True)
class Barrier(Envelope):
    """A majority has confirmed the leader after it was asked: what was acknowledged before is within `index`."""

    number: int
    index: int


Message: TypeAlias = (
    AskPreVote
    | PreVote
    | AskVote
    | Vote
    | Append
    | Appended
    | SnapshotPart
    | SnapshotHeld
    | TimeoutNow
    | Forward
    | ForwardRefused
    | AskBarrier
    | Barrier
)

TYPES: Mapping[str, type[Message]] = {
    "ask_pre_vote": AskPreVote,
    "pre_vote": PreVote,
    "ask_vote": AskVote,
    "vote": Vote,
    "append": Append,
    "appended": Appended,
    "snapshot_part": SnapshotPart,
    "snapshot_held": SnapshotHeld,
    "timeout_now": TimeoutNow,
    "forward": Forward,
    "forward_refused": ForwardRefused,
    "ask_barrier": AskBarrier,
    "barrier": Barrier,
}
_NAMES: Mapping[type[Message], str] = {kind: name for name, kind in TYPES.items()}


def to_wire(message: Message) -> dict[str, Any]:
    kind = type(message)
    return {"type": _NAMES[kind], **{name: getattr(message, name) for name in _FIELDS[kind]}}


def from_wire(plain: Mapping[str, Any]) -> Message:
    """ValueError when a field is missing, is too many or is not what it should be; `plain` is trusted in nothing."""
    name = plain.get("type")
    kind = TYPES.get(name) if type(name) is str else None
    if kind is None:
        raise ValueError(f"no type {name!r:.40}")
    wanted = _FIELDS[kind]
    if len(plain) != len(wanted) + 1 or any(field not in plain for field in wanted):
        raise ValueError(f"a {name} with other fields")
    message = kind(**{field: check(plain[field]) for field, check in wanted.items()})
    if isinstance(message, Append):
        _check_order(message)
    return message


def _natural(value: object) -> int:
    if type(value) is int and 0 <= value < _NUMBER_LIMIT:
        return value
    raise ValueError(f"{value!r:.40} is no number in its range")


def _text(value: object) -> str:
    if type(value) is str and len(value) <= _TEXT_LIMIT:
        return value
    raise ValueError(f"{value!r:.40} is no short text")


def _flag(value: object) -> bool:
    if type(value) is bool:
        return value
    raise ValueError(f"{value!r:.40} is no yes or no")


def _blob(value: object) -> bytes:
    if type(value) is bytes:
        return value
    raise ValueError(f"{value!r:.40} are no bytes")


def _entries(value: object) -> tuple[Entry, ...]:
    if not isinstance(value, list | tuple):
        raise ValueError(f"{value!r:.40} are no entries")
    return tuple(_entry(item) for item in value)


def _entry(item: object) -> Entry:
    match item:
        case [bytes(content), index, term] if content[:1] in {COMMAND, NO_OP, MEMBERS}:
            members_in(content)
            return content, _natural(index), _natural(term)
    raise ValueError(f"{item!r:.40} is no log entry")


def _check_order(message: Append) -> None:
    """Entries follow each other without a gap, in terms that never fall or pass the sender's."""
    term = message.previous_term
    for distance, (_, index, entry_term) in enumerate(message.entries, start=1):
        if index != message.previous_index + distance or entry_term < term:
            raise ValueError(f"log entries out of order at index {index}")
        term = entry_term
    if term > message.term:
        raise ValueError(f"log entries of term {term} in a message of term {message.term}")


_CHECKS: Mapping[str, Callable[[object], Any]] = {
    "int": _natural,
    "str": _text,
    "bool": _flag,
    "bytes": _blob,
    "tuple[Entry, ...]": _entries,
}
_FIELDS: Mapping[type[Message], Mapping[str, Callable[[object], Any]]] = {
    kind: {field.name: _CHECKS[str(field.type)] for field in fields(kind)} for kind in TYPES.values()
}
"""What each message consists of, and how each part is checked; looked up once, as ten messages a second are read."""


class Post(Protocol):
    """The way out of a replica: everything said so far is on disk before the message leaves (R1)."""

    def __call__(self, peer: str, message: Message) -> bool:
        """False when there is no connection, so that it surely did not leave."""
        ...
