"""Exit codes, and the one error that ends a command: a line on stderr and its code."""

from collections.abc import Sequence
from enum import IntEnum


class Code(IntEnum):
    DONE = 0
    FAILED = 1
    USAGE = 2
    UNREACHABLE = 3
    """no node, or no quorum where one is needed"""
    REFUSED = 4
    """by a check or by the person; nothing changed"""
    UNKNOWN = 5
    """accepted, outcome not known yet; the operation id is printed"""
    NOT_ALLOWED = 6
    CHANGED = 7
    """changed under you"""
    DEGRADED = 10
    CRITICAL = 11
    INTERRUPTED = 130


class CommandError(Exception):
    """Says what, which, and what would do. `lines` follow the message, as they are."""

    def __init__(self, code: Code, message: str, lines: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.code = code
        self.lines = tuple(lines)
