"""From log entries to state: submissions around commands, exactly once by command id.

Deterministic: what is remembered, and what is forgotten, depends on the log alone.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Generic, TypeVar

import msgpack

from raft.api import Applied, Machine, NewerVersionNeeded, Refused, ReplicaFailed, Verdict
from raft.formats import refuse_newer

S = TypeVar("S")

REMEMBERED_ENTRIES = 4096
"""A command's outcome is remembered for so many entries of the log; a submission that is older is refused."""
ID_LIMIT = 200
REASON_LIMIT = 1000
"""Characters of a refusal: 4,096 of them are remembered."""
_FORMAT = 1
_FIELDS = 4
"""Of a submission. A longer array is refused unread: it would be made as long as it claims to be."""


@dataclass(frozen=True, slots=True)
class Submission:
    """A command on its way into the log. However many copies of it arrive there, one at most is applied."""

    id: str
    born: int
    """The log index that its replica had applied when it was made: an age that every replica sees alike."""
    command: bytes

    def pack(self) -> bytes:
        packed: bytes = msgpack.packb([_FORMAT, self.id, self.born, self.command], use_bin_type=True)
        return packed


def unpack(packed: bytes) -> Submission | None:
    """The submission; None when it is none in any version. NewerVersionNeeded for one in a newer format."""
    refuse_newer(packed, _FORMAT, "holds a submission")
    try:
        match msgpack.unpackb(packed, raw=False, max_array_len=_FIELDS, max_map_len=0, max_ext_len=0):
            case [int(version), str(identity), int(born), bytes(command)] if (
                version == _FORMAT and len(identity) <= ID_LIMIT
            ):
                return Submission(identity, born, command)
    except (ValueError, TypeError, OverflowError, RecursionError):
        return None
    return None


class Applier(Generic[S]):
    """Holds the state and applies one entry after the other.

    Never raises on what an entry holds, but for one that only a newer version understands: then it is ReplicaFailed.
    """

    def __init__(self, machine: Machine[S]) -> None:
        self._machine = machine
        self._remembered: OrderedDict[str, tuple[int, str | None]] = OrderedDict()
        self.state = machine.initial()

    def apply(self, index: int, packed: bytes) -> tuple[str, Applied | Refused] | None:
        """Whose submission this entry was, and what became of it; None for an entry that is no submission."""
        self._forget_before(index - REMEMBERED_ENTRIES)
        try:
            submission = unpack(packed)
            if submission is None:
                return None
            if submission.id not in self._remembered:
                self._remembered[submission.id] = (index, self._once(index, submission))
        except NewerVersionNeeded as error:
            raise ReplicaFailed(f"entry {index} {error}") from error
        return submission.id, self._outcome(submission.id)

    def objection(self, packed: bytes) -> str | None:
        """Why this should not enter the log as things are: nobody here could apply it, or the machine says no."""
        try:
            submission = unpack(packed)
            if submission is None:
                return "this is no submission"
            return self._machine.objection(self.state, submission.command)
        except NewerVersionNeeded as error:
            return f"the command {error}"
        except Exception as error:  # noqa: BLE001  whatever a peer sends must not end the replica that looks at it
            return f"{type(error).__name__}: {error}"

    def outcome(self, command_id: str) -> Applied | Refused | None:
        """What became of a command, as far as that is remembered."""
        return self._outcome(command_id) if command_id in self._remembered else None

    def dump(self) -> bytes:
        remembered = [[identity, index, refused] for identity, (index, refused) in self._remembered.items()]
        packed: bytes = msgpack.packb([_FORMAT, self._machine.dump(self.state), remembered], use_bin_type=True)
        return packed

    def restore(self, content: bytes) -> None:
        """ValueError or NewerVersionNeeded, and nothing changed, when this version does not read what was dumped."""
        refuse_newer(content, _FORMAT, "holds what was applied,")
        match msgpack.unpackb(content, raw=False, max_array_len=REMEMBERED_ENTRIES + 1, max_map_len=0, max_ext_len=0):
            case [int(version), bytes(dumped), list(items)] if version == _FORMAT:
                remembered = OrderedDict(_outcome(item) for item in items)
            case _:
                raise ValueError("the snapshot has a format that this version does not read")
        self.state = self._machine.load(dumped)
        self._remembered = remembered

    def _outcome(self, command_id: str) -> Applied | Refused:
        index, refused = self._remembered[command_id]
        return Applied(index) if refused is None else Refused(refused, index)

    def _once(self, index: int, submission: Submission) -> str | None:
        """Why it was refused, or None."""
        if submission.born < index - REMEMBERED_ENTRIES:
            # it may have been applied so long ago that this has been forgotten
            age = index - submission.born
            return f"submitted {age} log entries ago, over {REMEMBERED_ENTRIES}: see what became of it, and try anew"
        try:
            state, verdict = self._machine.apply(self.state, submission.command)
        except NewerVersionNeeded:
            raise
        except Exception as error:  # noqa: BLE001  a committed entry that raises would raise for ever (D10)
            state, verdict = self.state, Verdict(refused=f"{type(error).__name__}: {error}")
        self.state = state
        return None if verdict.refused is None else verdict.refused[:REASON_LIMIT]

    def _forget_before(self, index: int) -> None:
        while self._remembered and next(iter(self._remembered.values()))[0] < index:
            self._remembered.popitem(last=False)


def _outcome(item: object) -> tuple[str, tuple[int, str | None]]:
    match item:
        case [str(identity), int(index), str() | None as refused]:
            return identity, (index, refused)
        case _:
            raise ValueError("the snapshot remembers a command in a form that this version does not read")
