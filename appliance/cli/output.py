"""What goes to stdout: one document in the format asked for. Everything else a command says goes to stderr."""

import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TextIO


class Format(StrEnum):
    TABLE = "table"
    JSON = "json"
    YAML = "yaml"
    TSV = "tsv"
    NAME = "name"


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of text under a header; the first column names things."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]

    def lines(self) -> list[str]:
        widths = [max(map(len, column)) for column in zip(self.header, *self.rows, strict=True)]
        padded = [[cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in self._all()]
        return ["  ".join(row).rstrip() for row in padded]

    def _all(self) -> Sequence[Sequence[str]]:
        return [self.header, *self.rows]


def emit(document: object, table: Table, wanted: Format, *, text: Sequence[str] | None = None) -> None:
    """Print `document`, or the table; `text` is the table's own, richer form for people."""
    say(sys.stdout, *rendered(document, table, wanted, text=text))


def rendered(document: object, table: Table, wanted: Format, *, text: Sequence[str] | None = None) -> Sequence[str]:
    match wanted:
        case Format.JSON:
            import json

            return [json.dumps(document, indent=2, ensure_ascii=False)]
        case Format.YAML:
            import yaml

            return [yaml.safe_dump(document, sort_keys=False, allow_unicode=True).rstrip()]
        case Format.TSV:
            # A tab or a line break within a cell would be one between cells.
            return ["\t".join(" ".join(cell.split()) for cell in row) for row in [table.header, *table.rows]]
        case Format.NAME:
            return [row[0] for row in table.rows]
        case Format.TABLE:
            return table.lines() if text is None else text


class OutputError(Exception):
    """What was to be said found no room."""


def say(stream: TextIO, *lines: str) -> None:
    """Write lines; signs that the terminal's encoding lacks become plain ones. Raises OutputError, BrokenPipeError."""
    try:
        for line in lines:
            _write(stream, line)
        stream.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(f"the output cannot be written: {(error.strerror or str(error)).lower()}") from error


def _write(stream: TextIO, line: str) -> None:
    if stream.isatty():
        line = _STEERING.sub(lambda found: found[1] or "\N{REPLACEMENT CHARACTER}", line)
    try:
        stream.write(line + "\n")
    except UnicodeEncodeError:
        stream.write(line.translate(_PLAIN).encode("ascii", "replace").decode() + "\n")


_STEERING = re.compile(r"(\x1b\[[0-9]{1,2}m)|[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""What other members say of themselves is shown as well, and must not steer a terminal; our own colours may."""
_PLAIN = str.maketrans({"✓": "+", "✗": "x", "●": "*", "·": "-", "→": ">", "…": "."})
_COLOURS: Mapping[str, str] = {"good": "32", "warn": "33", "bad": "31", "bold": "1", "dim": "2"}


def painted(text: str, colour: str) -> str:
    """Colour only for a terminal, and never as the only carrier of a meaning."""
    plain = bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb" or not sys.stdout.isatty()
    return text if plain else f"\x1b[{_COLOURS[colour]}m{text}\x1b[0m"


def size(count: object) -> str:
    """Bytes for people: `0 B`, `96 kB`, `1.4 GB`; a dash for what is not known."""
    if not isinstance(count, int | float):
        return "-"
    number = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1024:
            return f"{number:.0f} {unit}" if unit == "B" or number >= 10 else f"{number:.1f} {unit}"
        number /= 1024
    return f"{number:.1f} TB"
