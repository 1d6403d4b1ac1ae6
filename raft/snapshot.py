"""A whole state at one place of the log, with a checksum of its own."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import msgpack

from raft.formats import refuse_newer
from raft.members import MEMBERS_LIMIT, Members

FORMAT = 1
_DIGEST_BYTES = 32


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What the entries up to `index` have come to. Only what is committed is ever in a snapshot."""

    index: int
    term: int
    """Term of the entry at `index`."""
    members: Members
    """The members in force at `index`."""
    content: bytes
    """The applier's: state of the machine and the commands it remembers."""

    def pack(self) -> bytes:
        body: bytes = msgpack.packb([FORMAT, self.index, self.term, self.members.pack(), self.content])
        return hashlib.sha256(body).digest() + body

    @staticmethod
    def unpack(data: bytes) -> Snapshot:
        """ValueError when it is damaged or of an older format, NewerVersionNeeded when it is of a newer one."""
        digest, body = data[:_DIGEST_BYTES], data[_DIGEST_BYTES:]
        if hashlib.sha256(body).digest() != digest:
            raise ValueError(f"snapshot of {len(data)} bytes fails its checksum")
        refuse_newer(body, FORMAT, "is")
        match msgpack.unpackb(body, raw=False, max_array_len=MEMBERS_LIMIT, max_map_len=0, max_ext_len=0):
            case [int(version), int(index), int(term), list(members), bytes(content)] if version == FORMAT:
                return Snapshot(index, term, Members.unpack(members), content)
            case [version, *_]:
                raise ValueError(f"snapshot has format {version!r:.40}, this version reads {FORMAT}")
            case other:
                raise ValueError(f"snapshot is a {type(other).__name__}")


class Intake:
    """A packed snapshot that arrives in parts from one leader."""

    LIMIT_BYTES = 256 * 1024 * 1024

    def __init__(self) -> None:
        self._key: tuple[str, int, int, int] | None = None
        self._data = bytearray()

    @property
    def held(self) -> int:
        return len(self._data)

    def take(self, peer: str, term: int, index: int, size: int, offset: int, part: bytes) -> bytes | None:
        """The packed snapshot once it is complete. A part that does not follow is left; `held` says what would."""
        if self._key != (peer, term, index, size):
            self.drop()
            self._key = (peer, term, index, size)
        if offset == self.held and offset + len(part) <= size <= self.LIMIT_BYTES:
            self._data += part
        if self.held < size or size == 0:
            return None
        packed = bytes(self._data)
        self.drop()
        return packed

    def drop(self) -> None:
        self._key, self._data = None, bytearray()
