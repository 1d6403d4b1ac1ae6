"""Positions in the WAL: PostgreSQL writes `0/3000060`, everything here counts bytes."""

import re

_LSN = re.compile(r"([0-9A-Fa-f]{1,8})/([0-9A-Fa-f]{1,8})")


def parse_lsn(text: str) -> int:
    """Raises ValueError for anything that PostgreSQL does not write."""
    match = _LSN.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is no LSN; PostgreSQL writes for example 0/3000060")
    return int(match[1], 16) << 32 | int(match[2], 16)


def format_lsn(lsn: int) -> str:
    if not 0 <= lsn < 1 << 64:
        raise ValueError(f"{lsn} is no LSN; it has 64 bits")
    return f"{lsn >> 32:X}/{lsn & 0xFFFFFFFF:X}"
