"""What a job's child process says about itself in one file, and the node reads at its own pace."""

import json
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from appliance.postgres.files import read_text, write_atomically

_EVERY_S = 0.5
"""Byte counts are not written more often: each write is synced"""


@dataclass(frozen=True, slots=True)
class Told:
    phase: str = "starting"
    done_bytes: int | None = None
    total_bytes: int | None = None
    ended: bool = False
    error: str = ""
    """empty when it ended well"""
    needs_clone: bool = False
    """a rewind that cannot succeed, or left the directory unusable"""
    source_away: bool = False
    """it failed because its source gave no answer: nothing was changed, and another try may go well"""


def read_told(path: Path) -> Told:
    """What was told last; nothing, when nothing was or the file is of another version."""
    try:
        return Told(**json.loads(read_text(path) or "{}"))
    except (TypeError, ValueError):
        return Told()


class Progress:
    """The writing side, in the child process."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._told = Told()
        self._written_s = 0.0

    def phase(self, name: str, done: int | None = None, total: int | None = None) -> None:
        self._tell(replace(self._told, phase=name, done_bytes=done, total_bytes=total))

    def bytes(self, done: int, total: int) -> None:
        self._told = replace(self._told, done_bytes=done, total_bytes=total)
        if time.monotonic() - self._written_s >= _EVERY_S:
            self._tell(self._told)

    def done(self) -> None:
        self._tell(replace(self._told, ended=True))

    def failed(self, error: str, *, needs_clone: bool = False, source_away: bool = False) -> None:
        self._tell(replace(self._told, ended=True, error=error, needs_clone=needs_clone, source_away=source_away))

    def _tell(self, told: Told) -> None:
        self._told, self._written_s = told, time.monotonic()
        write_atomically(self._path, json.dumps(asdict(told)))
