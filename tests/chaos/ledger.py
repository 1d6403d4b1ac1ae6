"""What clients asked for and what came of it: one JSON line an operation, in files outside the cluster."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path


class Kind(StrEnum):
    INSERT = "insert"
    TRANSFER = "transfer"
    APPEND = "append"
    READ = "read"


class Outcome(StrEnum):
    ACKNOWLEDGED = "acknowledged"
    FAILED = "failed"
    """It has changed nothing, and never will."""
    UNKNOWN = "unknown"
    """It may be there, and may be lost: the connection ended, or the wait for a standby was cancelled."""


@dataclass(frozen=True, slots=True)
class Operation:
    """Times are CLOCK_MONOTONIC of the clients' host; what it did, it did between them."""

    client: str
    kind: Kind
    id: int
    """unique among all operations of a run; what an append appends"""
    begun_s: float
    ended_s: float
    outcome: Outcome
    node: str = ""
    timeline: int = 0
    """which says the epoch: no number is ever given out twice (R14). 0: it was not said, as by a standby"""
    key: str = ""
    """the list of an append, or of a read"""
    items: tuple[int, ...] = ()
    """the list as the operation left or saw it"""
    moved: tuple[int, int, int] = (0, 0, 0)
    """of a transfer: from, to, how much"""
    total: int = 0
    """of a read: the sum of all accounts"""
    why: str = ""
    """the server's or the library's words, unless it was acknowledged"""


def line(operation: Operation) -> str:
    return json.dumps(asdict(operation)) + "\n"


def read(directory: Path) -> list[Operation]:
    """All clients' operations of this directory, in the order in which they ended."""
    lines = (text for file in sorted(directory.glob("*.jsonl")) for text in file.read_text().splitlines())
    return sorted((_operation(json.loads(text)) for text in lines), key=lambda each: each.ended_s)


def acknowledged(operations: Iterable[Operation]) -> list[Operation]:
    return [each for each in operations if each.outcome is Outcome.ACKNOWLEDGED]


def _operation(values: dict) -> Operation:
    return Operation(
        **values
        | {
            "kind": Kind(values["kind"]),
            "outcome": Outcome(values["outcome"]),
            "items": tuple(values["items"]),
            "moved": tuple(values["moved"]),
        }
    )
