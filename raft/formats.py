"""What is the same in all versions: where a packed value says its format, and what is said of one that is newer."""

from __future__ import annotations

from raft.api import NewerVersionNeeded


def format_of(packed: bytes) -> int:
    """Every version packs a short array (0x90 to 0x9f) whose first element is a small number; 0: this is none."""
    return packed[1] if len(packed) > 1 and packed[0] >> 4 == 9 and packed[1] < 0x80 else 0


def refuse_newer(packed: bytes, known: int, what: str) -> None:
    """Raise NewerVersionNeeded, in words that go on from where it stands, if this is of a format above `known`."""
    if (version := format_of(packed)) > known:
        raise NewerVersionNeeded(
            f"{what} of format {version}; this version knows up to {known}: install the newer version on this host"
        )
