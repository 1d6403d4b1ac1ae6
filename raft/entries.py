"""What an entry of the log is: its kinds, and the members in those that change them."""

from __future__ import annotations

from typing import TypeAlias

import msgpack

from raft.members import MEMBERS_LIMIT, Members

Entry: TypeAlias = tuple[bytes, int, int]
"""Content with its kind in front, index, term."""

COMMAND, NO_OP, MEMBERS = b"\0", b"\1", b"\2"
"""First byte of an entry: a submission to the applier, a new leader's first entry, the members from here on."""


def members_entry(members: Members) -> bytes:
    packed: bytes = msgpack.packb(members.pack())
    return MEMBERS + packed


def members_in(content: bytes) -> Members | None:
    """The members that an entry puts in force; None for other kinds; ValueError when it should and cannot be read."""
    if content[:1] != MEMBERS:
        return None
    # an array is made as long as it claims to be before its first element is read
    packed = msgpack.unpackb(content[1:], raw=False, max_array_len=MEMBERS_LIMIT, max_map_len=0, max_ext_len=0)
    return Members.unpack(packed)
