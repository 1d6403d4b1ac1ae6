"""The durable log of one replica: an append-only file of checked batches, one fdatasync each.

A batch is on disk whole or not at all. Nothing may be sent or counted that depends on a record before
`sync()` has returned; after any write error the journal takes nothing more (fail-stop).
"""

from __future__ import annotations

import fcntl
import os
import secrets
import struct
import time
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, overload

import msgpack

from raft.api import JournalDamaged, ReplicaError, ReplicaFailed

Entry: TypeAlias = tuple[bytes, int, int]
"""Command, index, term: PySyncObj's order."""

FORMAT = 1
FILE_NAME = "journal"
_LOCK_NAME = "lock"
_MAGIC = b"\xf1RAFT\r\n\x1a"
_BATCH_MAGIC = b"\xf1bat"
_FRAME = struct.Struct("<4sQII")
"""Magic, offset of the batch in the file, length of the body, CRC32 of offset, length and body."""
_CHECKED = struct.Struct("<QI")

_ENTRY, _TRUNCATE, _TERM, _COMMIT, _VOTER = range(5)


@dataclass(frozen=True, slots=True)
class Identity:
    """Whose journal this is; `replica_id` is drawn when the file is made and never again."""

    cluster: str
    name: str
    members: tuple[str, ...]
    """Names of all voters, in order: their majority is what the log was committed by."""
    replica_id: str


@dataclass(slots=True)
class SyncTimes:
    """How long the disk took, for status and metrics."""

    count: int = 0
    last_s: float = 0.0
    longest_s: float = 0.0

    def note(self, took_s: float) -> None:
        self.count += 1
        self.last_s = took_s
        self.longest_s = max(self.longest_s, took_s)


class Journal:
    """Log entries, term, vote and commit index of one replica, in memory and on disk.

    One owner thread. Changes are buffered until `sync()`. The commit index is a hint that rides along
    with the next batch: after a crash it may be lower than it was, never too high.
    """

    def __init__(self, directory: Path, cluster: str, name: str, members: Iterable[str]) -> None:
        """Open the journal in a directory, or make a new one; a torn last batch is cut off."""
        self.path = directory / FILE_NAME
        self.sync_times = SyncTimes()
        self.term = 0
        self.vote: str | None = None
        self.commit_index = 1
        self.may_vote = False
        self._entries: list[Entry] = []
        self._buffer: list[list[Any]] = []
        self._failure: str | None = None
        self._lock = _lock(directory)
        try:
            if not self.path.exists():
                _create(self.path, Identity(cluster, name, tuple(sorted(members)), secrets.token_hex(8)))
            self._file = os.open(self.path, os.O_RDWR | os.O_CLOEXEC)
            try:
                self._load(cluster, name, tuple(sorted(members)))
            except BaseException:
                os.close(self._file)
                raise
        except OSError as error:
            os.close(self._lock)
            raise ReplicaError(f"cannot open journal {self.path}: {error}") from error
        except BaseException:
            os.close(self._lock)
            raise

    @property
    def fresh(self) -> bool:
        """Nothing of any leader has ever arrived here."""
        return len(self._entries) <= 1

    @property
    def size_bytes(self) -> int:
        return self._end

    def __len__(self) -> int:
        return len(self._entries)

    @overload
    def __getitem__(self, item: int) -> Entry: ...
    @overload
    def __getitem__(self, item: slice) -> list[Entry]: ...
    def __getitem__(self, item: int | slice) -> Entry | list[Entry]:
        return self._entries[item]

    def add(self, command: bytes, index: int, term: int) -> None:
        if index != len(self._entries) + 1:
            raise ReplicaFailed(f"entry {index} does not follow entry {len(self._entries)}")
        self._entries.append((command, index, term))
        self._buffer.append([_ENTRY, command, index, term])

    def truncate(self, index: int) -> None:
        """Drop the entries from this index on; they must not be committed."""
        if index <= self.commit_index:
            raise ReplicaFailed(f"entry {index} is committed (up to {self.commit_index}) and cannot be dropped")
        del self._entries[index - 1 :]
        self._buffer.append([_TRUNCATE, index])

    def set_term(self, term: int, vote: str | None) -> None:
        if term < self.term:
            raise ReplicaFailed(f"term would fall from {self.term} to {term}")
        self.term, self.vote = term, vote
        self._buffer.append([_TERM, term, vote])

    def set_commit(self, index: int) -> None:
        """Note what is committed, after everything written before is on disk."""
        if index == self.commit_index:
            return
        if not self.commit_index < index <= len(self._entries):
            raise ReplicaFailed(f"commit index {index} is outside {self.commit_index}..{len(self._entries)}")
        self.sync()
        self.commit_index = index
        self._buffer.append([_COMMIT, index])

    def allow_vote(self) -> None:
        self.may_vote = True
        self._buffer.append([_VOTER])

    def sync(self) -> None:
        """Return when everything said so far is on disk; raise, now and ever after, when it cannot be."""
        if self._failure is not None:
            raise ReplicaFailed(self._failure)
        if not self._buffer:
            return
        frame = _frame(self._end, msgpack.packb(self._buffer, use_bin_type=True))
        began_s = time.monotonic()
        try:
            _write(self._file, frame, self._end)
            os.fdatasync(self._file)
        except OSError as error:
            self._failure = f"cannot write journal {self.path}: {error}"
            raise ReplicaFailed(self._failure) from error
        self.sync_times.note(time.monotonic() - began_s)
        self._end += len(frame)
        self._buffer.clear()

    def close(self) -> None:
        """Close without a last sync: what nobody was told may be lost."""
        os.close(self._file)
        os.close(self._lock)

    def _load(self, cluster: str, name: str, members: tuple[str, ...]) -> None:
        data = _read_all(self._file)
        self.identity, begin = _header(self.path, data)
        self._check_owner(cluster, name, members)
        while (batch := _batch(data, begin)) is not None:
            self._replay(batch, begin)
            begin += _FRAME.size + len(batch)
        if (later := _later_batch(data, begin)) is not None:
            raise _damaged(self.path, begin, f"a whole batch follows at byte {later}")
        self.commit_index = min(self.commit_index, max(1, len(self._entries)))
        self._end = begin
        if begin < len(data):
            os.ftruncate(self._file, begin)
            os.fsync(self._file)

    def _check_owner(self, cluster: str, name: str, members: tuple[str, ...]) -> None:
        if (self.identity.cluster, self.identity.name) != (cluster, name):
            raise ReplicaError(
                f"journal {self.path} belongs to replica {self.identity.name!r} of cluster"
                f" {self.identity.cluster!r}, this is {name!r} of {cluster!r}: give this replica a directory of its own"
            )
        if self.identity.members != members:
            raise ReplicaError(
                f"journal {self.path} was begun with the members {', '.join(self.identity.members)},"
                f" now they are {', '.join(members)}: this version cannot change members, put the old names back"
            )

    def _replay(self, batch: bytes, offset: int) -> None:
        try:
            for record in msgpack.unpackb(batch, raw=False):
                self._redo(record)
        except (ValueError, TypeError, IndexError) as error:
            raise _damaged(self.path, offset, f"a record that is none of this version's ({error})") from error

    def _redo(self, record: list[Any]) -> None:
        match record:
            case [int(kind), bytes(command), int(index), int(term)] if kind == _ENTRY:
                if index != len(self._entries) + 1:
                    raise ValueError(f"entry {index} after entry {len(self._entries)}")
                self._entries.append((command, index, term))
            case [int(kind), int(index)] if kind == _TRUNCATE:
                del self._entries[index - 1 :]
            case [int(kind), int(term), str() | None as vote] if kind == _TERM:
                self.term, self.vote = term, vote
            case [int(kind), int(index)] if kind == _COMMIT:
                self.commit_index = index
            case [int(kind)] if kind == _VOTER:
                self.may_vote = True
            case _:
                raise ValueError(f"kind {record[:1]}")


def _damaged(path: Path, offset: int, why: str) -> JournalDamaged:
    return JournalDamaged(
        f"journal {path} is damaged at byte {offset}: {why}; entries that were acknowledged may be lost."
        f" Remove the directory {path.parent} and start this node again: it joins anew and copies the log of its peers"
    )


def _lock(directory: Path) -> int:
    """Hold the directory against a second process, until the descriptor is closed."""
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(directory / _LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ReplicaError(f"cannot use raft directory {directory}: {error}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise ReplicaError(
            f"raft directory {directory} is in use by another process: stop it, or use another directory"
        ) from error
    return descriptor


def _create(path: Path, identity: Identity) -> None:
    """Make an empty journal that appears complete or not at all."""
    body = msgpack.packb([FORMAT, identity.cluster, identity.name, identity.members, identity.replica_id])
    temporary = path.with_suffix(".new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        _write(descriptor, _MAGIC + struct.pack("<II", len(body), zlib.crc32(body)) + body, 0)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    temporary.rename(path)
    _sync_directory(path.parent)
    _sync_directory(path.parent.parent)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _header(path: Path, data: bytes) -> tuple[Identity, int]:
    """Who the file belongs to, and where its first batch begins."""
    begin = len(_MAGIC) + 8
    if data[: len(_MAGIC)] != _MAGIC or len(data) < begin:
        raise _damaged(path, 0, "it does not begin like a journal")
    length, checksum = struct.unpack("<II", data[len(_MAGIC) : begin])
    body = data[begin : begin + length]
    if len(body) != length or zlib.crc32(body) != checksum:
        raise _damaged(path, len(_MAGIC), "the header fails its checksum")
    match msgpack.unpackb(body):
        case [int(version), str(cluster), str(name), list(members), str(replica_id)] if version == FORMAT:
            return Identity(cluster, name, tuple(members), replica_id), begin + length
        case other:
            raise ReplicaError(f"journal {path} has a format this version does not read: {other!r}")


def _frame(offset: int, body: bytes) -> bytes:
    checksum = zlib.crc32(body, zlib.crc32(_CHECKED.pack(offset, len(body))))
    return _FRAME.pack(_BATCH_MAGIC, offset, len(body), checksum) + body


def _batch(data: bytes, begin: int) -> bytes | None:
    """The body of the whole and unharmed batch at this offset, if there is one."""
    if len(data) < begin + _FRAME.size:
        return None
    magic, offset, length, checksum = _FRAME.unpack_from(data, begin)
    body = data[begin + _FRAME.size : begin + _FRAME.size + length]
    if magic != _BATCH_MAGIC or offset != begin or len(body) != length:
        return None
    return body if zlib.crc32(body, zlib.crc32(_CHECKED.pack(offset, length))) == checksum else None


def _later_batch(data: bytes, begin: int) -> int | None:
    """Where another whole batch begins: it was written after this place had been synced."""
    place = data.find(_BATCH_MAGIC, begin + 1)
    while place != -1:
        if _batch(data, place) is not None:
            return place
        place = data.find(_BATCH_MAGIC, place + 1)
    return None


def _write(descriptor: int, data: bytes, offset: int) -> None:
    while data:
        written = os.pwrite(descriptor, data, offset)
        offset += written
        data = data[written:]


def _read_all(descriptor: int) -> bytes:
    with os.fdopen(os.dup(descriptor), "rb") as file:
        return file.read()
