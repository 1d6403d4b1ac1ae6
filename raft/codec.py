"""Frames between replicas: four bytes of length, then one MessagePack map of a known shape.

Nothing that arrives is trusted: every field of every message is checked, and junk is a CodecError. The map is flat, and
log entries are one blob in it: what has no depth cannot be made deep, and no few bytes can ask for much memory.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import msgpack

from raft import messages
from raft.entries import Entry

Message: TypeAlias = dict[str, Any]

PROTOCOL = 2
FRAME_LIMIT_BYTES = 8 * 1024 * 1024
HELLO_LIMIT_BYTES = 64 * 1024
"""A frame of somebody who has not said yet who it is."""
_NUMBER_LIMIT = 2**63
_TEXT_LIMIT = 1024
_FIELD_LIMIT = 15
_LENGTH = struct.Struct(">I")
_ENTRY_HEAD = struct.Struct(">QI")
"""Term of a log entry, and the length of its content; its index follows from its place."""


class CodecError(Exception):
    """Bytes that are no message of this protocol."""


class OtherProtocol(CodecError):  # noqa: N818  reads as a fact
    """Who says this runs another version of us."""

    def __init__(self, protocol: int) -> None:
        super().__init__(f"speaks protocol {protocol}, we speak {PROTOCOL}: run the same version everywhere")


def _natural(value: object) -> bool:
    return type(value) is int and 0 <= value < _NUMBER_LIMIT


def _flag(value: object) -> bool:
    return type(value) is bool


def _text(value: object) -> bool:
    return type(value) is str and len(value) <= _TEXT_LIMIT


def _blob(value: object) -> bool:
    return type(value) is bytes


_Shape: TypeAlias = Mapping[str, Callable[[object], bool]]

_INTRODUCTION: _Shape = {
    "proto": _natural,
    "cluster": _text,
    "cluster_id": _text,
    "incarnation": _natural,
    "from": _text,
    "replica_id": _text,
    "address": _text,
}

_SHAPES: Mapping[str, _Shape] = {
    "hello": {**_INTRODUCTION, "kind": _text, "to": _text, "session": _text},
    "welcome": _INTRODUCTION,
    "refuse": {"cluster": _text, "reason": _text},
    "ping": {},
    "request": {"id": _natural, "payload": _blob},
    "answer": {"id": _natural, "ok": _flag, "payload": _blob},
}

_LOG_TYPES = frozenset(messages.TYPES) | {"ping"}


def encode(message: Mapping[str, object]) -> bytes:
    """One frame, length included."""
    body: bytes = msgpack.packb(message, use_bin_type=True)
    if len(body) > FRAME_LIMIT_BYTES:
        raise CodecError(f"message of {len(body)} bytes is over the limit of {FRAME_LIMIT_BYTES}")
    return _LENGTH.pack(len(body)) + body


def decode(body: bytes, allowed: frozenset[str]) -> Message:
    """The message in a frame's body, if it is exactly of one of the allowed types."""
    message = _unpack(body)
    kind = message.get("type") if type(message) is dict else None
    if type(kind) is not str or kind not in allowed:
        raise CodecError(f"a message of type {str(kind)[:40]!r} has no place here")
    protocol = message.get("proto", PROTOCOL)
    if protocol != PROTOCOL and _natural(protocol):
        raise OtherProtocol(protocol)
    if kind in _SHAPES and not _fits(message, _SHAPES[kind]):
        raise CodecError(f"a {kind} message with wrong fields")
    return message


def encode_log(message: messages.Message) -> bytes:
    """One frame with what replicas say to each other about the log."""
    plain = messages.to_wire(message)
    if isinstance(message, messages.Append):
        plain["entries"] = _pack_entries(message)
    return encode(plain)


def decode_log(body: bytes) -> messages.Message | None:
    """What a frame of `encode_log` holds; None for a ping."""
    plain = decode(body, _LOG_TYPES)
    if plain["type"] == "ping":
        return None
    try:
        if plain["type"] == "append":
            plain["entries"] = _unpack_entries(plain)
        return messages.from_wire(plain)
    except ValueError as error:
        raise CodecError(f"a {plain['type']} message with wrong fields: {error}") from error


def _unpack(body: bytes) -> Message:
    try:
        message: Message = msgpack.unpackb(
            body,
            raw=False,
            strict_map_key=True,
            object_hook=_OneMap(),
            max_map_len=_FIELD_LIMIT,
            max_str_len=4 * _TEXT_LIMIT,
            max_array_len=0,  # an array is made as long as it claims to be before its first element is read
            max_ext_len=0,
        )
    except (ValueError, TypeError, OverflowError, RecursionError, MemoryError) as error:
        raise CodecError(f"not a message: {error}") from error
    return message


class _OneMap:
    """Lets one map pass: a map within it is seen first, and the outer one would be the second."""

    def __init__(self) -> None:
        self._passed = False

    def __call__(self, value: Message) -> Message:
        if self._passed:
            raise ValueError("a map within a map")
        self._passed = True
        return value


def _fits(message: Message, shape: _Shape) -> bool:
    return len(message) == len(shape) + 1 and all(
        name in message and check(message[name]) for name, check in shape.items()
    )


def _pack_entries(message: messages.Append) -> bytes:
    parts: list[bytes] = []
    for expected, (content, index, term) in enumerate(message.entries, start=message.previous_index + 1):
        assert index == expected, f"entry {index} is sent in the place of {expected}"
        parts += (_ENTRY_HEAD.pack(term, len(content)), content)
    return b"".join(parts)


def _unpack_entries(message: Message) -> list[Entry]:
    """What the entries are, and that they fit to each other, is for `messages` to check."""
    blob, index = message.get("entries"), message.get("previous_index")
    if type(blob) is not bytes or type(index) is not int:
        raise ValueError("entries that are no bytes, or follow nothing")
    entries: list[Entry] = []
    at = 0
    while at < len(blob):
        begin = at + _ENTRY_HEAD.size
        if begin > len(blob):
            raise ValueError("a log entry that is cut off")
        term, length = _ENTRY_HEAD.unpack_from(blob, at)
        at, index = begin + length, index + 1
        if at > len(blob) or not length:
            raise ValueError(f"log entry {index} is cut off, or empty")
        entries.append((blob[begin:at], index, term))
    return entries


class FrameReader:
    """Cuts a stream of bytes into frames' bodies; holds at most one unfinished frame."""

    def __init__(self, limit_bytes: int = FRAME_LIMIT_BYTES) -> None:
        self.limit_bytes = limit_bytes
        self._pending = bytearray()

    @property
    def unfinished(self) -> bool:
        return bool(self._pending)

    def feed(self, data: bytes) -> list[bytes]:
        self._pending += data
        frames: list[bytes] = []
        begin = 0
        while len(self._pending) - begin >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._pending, begin)
            if length > self.limit_bytes:
                raise CodecError(f"a frame of {length} bytes is over the limit of {self.limit_bytes}")
            end = begin + _LENGTH.size + length
            if end > len(self._pending):
                break
            frames.append(bytes(memoryview(self._pending)[begin + _LENGTH.size : end]))
            begin = end
        del self._pending[:begin]
        return frames
