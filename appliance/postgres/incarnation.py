"""The random id of a data directory (R13): it says that this directory is complete and is the one a vote was cast with.

It lies in the directory, so that it goes where the directory goes; a copy gets one of its own before it is in place.
Beside it stands when it was written: after which recovery of a lost majority (R13a).
"""

from dataclasses import dataclass
from pathlib import Path

from appliance.postgres.files import remove_durably, write_atomically

INCARNATION_FILE = "appliance.incarnation"


@dataclass(frozen=True, slots=True)
class Incarnation:
    id: str = ""
    """empty: it is not a member's complete directory"""
    recovery: int = 0
    """number of the recovery after which the directory was written; 0 before any, and where nothing is said"""


NONE = Incarnation()


def read_incarnation(data_dir: Path) -> Incarnation:
    """NONE when it is not there or cannot be read."""
    try:
        return stored_incarnation(data_dir)
    except OSError:
        return NONE


def stored_incarnation(data_dir: Path) -> Incarnation:
    """NONE when there is no file; OSError when there may be one."""
    try:
        lines = (data_dir / INCARNATION_FILE).read_text().split("\n")
    except (FileNotFoundError, NotADirectoryError, UnicodeDecodeError):
        return NONE
    number = lines[1].strip() if len(lines) > 1 else ""
    return Incarnation(lines[0].strip(), int(number) if number.isascii() and number.isdecimal() else 0)


def write_incarnation(data_dir: Path, incarnation: Incarnation) -> None:
    """A number of 0 is not written: versions that know of none read such a file too."""
    number = f"{incarnation.recovery}\n" if incarnation.recovery else ""
    write_atomically(data_dir / INCARNATION_FILE, f"{incarnation.id}\n{number}")


def forget_incarnation(data_dir: Path) -> None:
    """Take the id away. When the directory was written stays: it is to be rewound or replaced, not refused (R13a)."""
    recovery = read_incarnation(data_dir).recovery
    if recovery:
        write_incarnation(data_dir, Incarnation("", recovery))
    elif data_dir.is_dir():
        remove_durably(data_dir / INCARNATION_FILE)
