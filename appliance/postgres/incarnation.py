"""The random id of a data directory (R13): it says that this directory is complete and is the one a vote was cast with.

It lies in the directory, so that it goes where the directory goes; a copy gets one of its own before it is in place.
"""

from pathlib import Path

from appliance.postgres.files import remove_durably, write_atomically

INCARNATION_FILE = "appliance.incarnation"


def read_incarnation(data_dir: Path) -> str:
    """Empty when there is none: then it is not a member's complete directory."""
    try:
        return (data_dir / INCARNATION_FILE).read_text().strip()
    except (OSError, UnicodeDecodeError):
        return ""


def write_incarnation(data_dir: Path, incarnation: str) -> None:
    write_atomically(data_dir / INCARNATION_FILE, f"{incarnation}\n")


def forget_incarnation(data_dir: Path) -> None:
    if data_dir.is_dir():
        remove_durably(data_dir / INCARNATION_FILE)
