"""The journal's bytes: a header, then checked batches of records. Pure: from bytes to a log, from records to bytes.

A batch is written after the one before it has been synced. So an invalid end is a torn write that nobody was told of,
and an invalid place with a valid batch after it, or in what the file was begun with, is damage.
Not told apart: bit rot in the last batch looks like a torn write.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import msgpack

from raft.api import ReplicaFailed
from raft.log import Log, Record

FORMAT = 2
_MAGIC = b"\xf1RAFT\r\n\x1a"
_HEADER = struct.Struct("<II")
"""Length and CRC32 of the header's body, after the magic: the same in all formats."""

_BATCH_MAGIC = b"\xf1bat"
_FRAME = struct.Struct("<4sQII")
"""Magic, offset of the batch in the file, length of the body, CRC32 of offset, length and body."""
_CHECKED = struct.Struct("<QI")


class Damage(Exception):  # noqa: N818  what was found, not yet what it means
    """Bytes that are no journal, or none any more."""

    def __init__(self, offset: int, why: str) -> None:
        super().__init__(f"at byte {offset}: {why}")


class UnknownFormat(Exception):  # noqa: N818
    """A whole header of a version that is not ours."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Whose journal this is; `replica_id` is drawn when the file is made and never again."""

    cluster: str
    name: str
    replica_id: str


@dataclass(frozen=True, slots=True)
class Header:
    identity: Identity
    generation: int = 0
    """How often the file has been written anew; 0: not yet."""
    seed: int = 0
    """Every checksum in the file begins with it."""
    end: int = 0
    """Where the first batch begins."""


def begin_file(identity: Identity, generation: int) -> tuple[bytes, int]:
    """A header, and the seed of the checksums after it.

    The seed differs from file to file, so a block that once belonged to an older journal and turns up in this one, as
    some file systems let happen after a loss of power, is not taken for a batch.
    """
    body: bytes = msgpack.packb([FORMAT, identity.cluster, identity.name, identity.replica_id, generation])
    header = _MAGIC + _HEADER.pack(len(body), zlib.crc32(body)) + body
    return header, zlib.crc32(header)


def read_header(data: bytes) -> Header:
    """Whose journal it is; Damage or UnknownFormat when that cannot be said."""
    begin = len(_MAGIC) + _HEADER.size
    if data[: len(_MAGIC)] != _MAGIC or len(data) < begin:
        raise Damage(0, "it does not begin like a journal")
    length, checksum = _HEADER.unpack_from(data, len(_MAGIC))
    end = begin + length
    body = data[begin:end]
    if len(body) != length or zlib.crc32(body) != checksum:
        raise Damage(len(_MAGIC), "the header fails its checksum")
    match msgpack.unpackb(body):
        case [int(version), str(cluster), str(name), str(replica_id), int(generation)] if version == FORMAT:
            return Header(Identity(cluster, name, replica_id), generation, seed=zlib.crc32(data[:end]), end=end)
        case [int(version), *_]:
            raise UnknownFormat(f"format {version}")
        case _:
            raise UnknownFormat("no format")


def replay(data: bytes, header: Header, log: Log) -> int:
    """Let a new log become the one in this file; answer where its last whole batch ends."""
    end = header.end
    if _batch(data, end, header.seed) is None:
        # written and synced with the file itself, before the file had its name: it cannot be torn
        raise Damage(end, "what the file was begun with fails its checksum")
    for begin, body in _batches(data, header):
        try:
            for record in msgpack.unpackb(body, raw=False):
                log.redo(record)
        except (ReplicaFailed, ValueError, TypeError) as error:
            raise Damage(begin, f"a record that cannot be: {error}") from error
        end = begin + _FRAME.size + len(body)
    if (later := _later_batch(data, end, header.seed)) is not None:
        raise Damage(end, f"a whole batch follows at byte {later}")
    return end


def frame(records: list[Record], offset: int, seed: int) -> bytes:
    """A batch for this place in a file."""
    body: bytes = msgpack.packb(records, use_bin_type=True)
    return _FRAME.pack(_BATCH_MAGIC, offset, len(body), _checksum(body, offset, seed)) + body


def _checksum(body: bytes, offset: int, seed: int) -> int:
    return zlib.crc32(body, zlib.crc32(_CHECKED.pack(offset, len(body)), seed))


def _batches(data: bytes, header: Header) -> Iterator[tuple[int, bytes]]:
    """The whole and unharmed batches, each with its place, up to the first that is not."""
    begin = header.end
    while (body := _batch(data, begin, header.seed)) is not None:
        yield begin, body
        begin += _FRAME.size + len(body)


def _batch(data: bytes, begin: int, seed: int) -> bytes | None:
    if len(data) < begin + _FRAME.size:
        return None
    magic, offset, length, checksum = _FRAME.unpack_from(data, begin)
    body = data[begin + _FRAME.size : begin + _FRAME.size + length]
    if magic != _BATCH_MAGIC or offset != begin or len(body) != length:
        return None
    return body if _checksum(body, offset, seed) == checksum else None


def _later_batch(data: bytes, begin: int, seed: int) -> int | None:
    """Where another whole batch begins: it was written after this place had been synced."""
    place = data.find(_BATCH_MAGIC, begin + 1)
    while place != -1:
        if _batch(data, place, seed) is not None:
            return place
        place = data.find(_BATCH_MAGIC, place + 1)
    return None
