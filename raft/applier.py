"""From log entries to state: envelopes around commands, exactly once by command id.

Deterministic: what is remembered, and what is forgotten, depends on the log alone.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Generic, TypeVar

import msgpack

from raft.api import Applied, Machine, Outcome, Refused, Verdict

S = TypeVar("S")

REMEMBERED_COMMANDS = 4096
ID_LIMIT = 200
_VERSION = 1


@dataclass(frozen=True, slots=True)
class Submission:
    """A command with its id, or, without a command, a barrier."""

    id: str
    command: bytes | None

    def pack(self) -> bytes:
        packed: bytes = msgpack.packb([_VERSION, self.id, self.command], use_bin_type=True)
        return packed


def unpack(envelope: bytes) -> Submission | None:
    """The submission in an envelope; None when it is none of this version's."""
    try:
        match msgpack.unpackb(envelope, raw=False):
            case [int(version), str(identity), bytes() | None as command] if version == _VERSION:
                return Submission(identity, command)
    except (ValueError, TypeError, OverflowError, RecursionError):
        return None
    return None


class Applier(Generic[S]):
    """Holds the state and applies one entry after the other. Never raises on what an entry holds."""

    def __init__(self, machine: Machine[S]) -> None:
        self._machine = machine
        self._remembered: OrderedDict[str, Outcome] = OrderedDict()
        self.state = machine.initial()

    def apply(self, index: int, envelope: bytes) -> tuple[Submission, Outcome] | None:
        """Whose submission this entry was, and what became of it; None for an entry that is no envelope."""
        submission = unpack(envelope)
        if submission is None:
            return None
        if submission.command is None:
            return submission, Applied(index)
        outcome = self._remembered.get(submission.id)
        if outcome is None:
            outcome = self._once(index, submission.command)
            self._remember(submission.id, outcome)
        return submission, outcome

    def _once(self, index: int, command: bytes) -> Outcome:
        try:
            state, verdict = self._machine.apply(self.state, command)
        except Exception as error:  # noqa: BLE001  a committed entry that raises would raise for ever (D10)
            state, verdict = self.state, Verdict(refused=f"{type(error).__name__}: {error}")
        self.state = state
        return Applied(index) if verdict.refused is None else Refused(verdict.refused, index)

    def _remember(self, identity: str, outcome: Outcome) -> None:
        self._remembered[identity] = outcome
        if len(self._remembered) > REMEMBERED_COMMANDS:
            self._remembered.popitem(last=False)
