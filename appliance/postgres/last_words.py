"""What PostgreSQL complains about, for people: at the end of its log when it did not start, or on a tool's output."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

_TAIL_BYTES = 16384
_LIMIT_CHARACTERS = 500
_BEGIN = "LOG:  starting PostgreSQL"
_MESSAGE = re.compile(r"(.*?)\b(LOG|WARNING|ERROR|FATAL|PANIC|DETAIL|HINT|CONTEXT):\s+(.*)")
_SEVERE = frozenset({"WARNING", "ERROR", "FATAL", "PANIC"})
_EXPLAINS = frozenset({"DETAIL", "HINT", "CONTEXT"})
_EARLY = re.compile(r"postgres: (.*)")
"""what a postmaster says before it has a log"""
_OF_A_CLIENT = re.compile(r"\S@\S* $")
"""what stands before the level when a client's session speaks: our line prefix has user and database there"""
_USUAL = ("database system was ", "specified neither primary_conninfo nor restore_command")
"""said at every start of a standby or after a crash, with a hint that worries for nothing"""


def last_words(log_file: Path, begin: int = 0) -> str:
    """What stands in the way of the last start; empty where the log says nothing or is written another way.

    `begin` is the log's size before that start, 0 where it is not known. The end counts: there stands the reason.
    """
    try:
        size = log_file.stat().st_size
        with log_file.open("rb") as log:
            log.seek(max(begin if begin <= size else 0, size - _TAIL_BYTES))
            text = log.read().decode(errors="replace")
    except OSError:
        return ""
    lines = text if begin else text.rpartition(_BEGIN)[2]
    said = "; ".join(dict.fromkeys(_complaints(lines.splitlines())))
    return said if len(said) <= _LIMIT_CHARACTERS else f"…{said[1 - _LIMIT_CHARACTERS :]}"


def plain(lines: Iterable[str]) -> str:
    """All that one of PostgreSQL's programs says, without times, process ids and levels."""
    matches = ((line, _MESSAGE.match(line)) for line in lines if line.strip())
    said = (line if match is None else match[3] for line, match in matches)
    return "; ".join(dict.fromkeys(map(_tidy, said)))


def _complaints(lines: Iterable[str]) -> Iterator[str]:
    """Messages above LOG, and those at LOG that PostgreSQL explains: a port that is taken is one of these."""
    for message in _messages(lines):
        if (message.severe or message.explained) and not message.text.startswith(_USUAL):
            yield f"{message.text} ({'; '.join(message.explained)})" if message.explained else message.text


@dataclass
class _Said:
    severe: bool
    text: str
    explained: list[str] = field(default_factory=list)


def _messages(lines: Iterable[str]) -> list[_Said]:
    """What the server says, each message with the lines that explain it."""
    said: list[_Said] = []
    for line in lines:
        early, match = _EARLY.match(line), _MESSAGE.match(line)
        if early is not None:
            said.append(_Said(True, _tidy(early[1])))
        elif match is None or _OF_A_CLIENT.search(match[1]):
            continue
        elif match[2] not in _EXPLAINS:
            said.append(_Said(match[2] in _SEVERE, _tidy(match[3])))
        elif said:
            said[-1].explained.append(_tidy(match[3]))
    return said


def _tidy(text: str) -> str:
    return text.strip().rstrip(".")
