"""Frames between replicas: four bytes of length, then one MessagePack map of a known shape.

Nothing that arrives is trusted: every field of every message is checked, and junk is a CodecError.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import msgpack

Message: TypeAlias = dict[str, Any]

PROTOCOL = 1
FRAME_LIMIT_BYTES = 8 * 1024 * 1024
_NUMBER_LIMIT = 2**63
_TEXT_LIMIT = 1024
_ENTRY_KINDS = (0, 1)
"""First byte of a log entry: a command, or the no-op of a new leader."""

_LENGTH = struct.Struct(">I")


class CodecError(Exception):
    """Bytes that are no message of this protocol."""


def _natural(value: object) -> bool:
    return type(value) is int and 0 <= value < _NUMBER_LIMIT


def _positive(value: object) -> bool:
    return _natural(value) and value != 0


def _flag(value: object) -> bool:
    return type(value) is bool


def _text(value: object) -> bool:
    return type(value) is str and len(value) <= _TEXT_LIMIT


def _blob(value: object) -> bool:
    return type(value) is bytes


def _entry_command(value: object) -> bool:
    return type(value) is bytes and value[:1] != b"" and value[0] in _ENTRY_KINDS


def _forwarded_command(value: object) -> bool:
    return type(value) is bytes and value[:1] == b"\0"


def _entries(value: object) -> bool:
    return type(value) is list and all(
        type(entry) is list
        and len(entry) == 3
        and _entry_command(entry[0])
        and _natural(entry[1])
        and _natural(entry[2])
        for entry in value
    )


_Shape: TypeAlias = Mapping[str, Callable[[object], bool]]

_INTRODUCTION: _Shape = {
    "proto": _natural,
    "cluster": _text,
    "from": _text,
    "replica_id": _text,
    "fresh": _flag,
}

_SHAPES: Mapping[str, tuple[_Shape, ...]] = {
    "hello": ({**_INTRODUCTION, "kind": _text, "to": _text, "session": _text},),
    "welcome": (_INTRODUCTION,),
    "refuse": ({"cluster": _text, "reason": _text},),
    "ping": ({},),
    "request": ({"id": _natural, "payload": _blob},),
    "answer": ({"id": _natural, "ok": _flag, "payload": _blob},),
    "request_vote": ({"term": _natural, "last_log_index": _positive, "last_log_term": _natural},),
    "response_vote": ({"term": _natural},),
    "append_entries": (
        {
            "term": _natural,
            "commit_index": _natural,
            "prevLogIdx": _positive,
            "prevLogTerm": _natural,
            "entries": _entries,
            "sent_ns": _natural,
        },
    ),
    "next_node_idx": (
        {"term": _natural, "next_node_idx": _positive, "reset": _flag, "success": _flag, "sent_ns": _natural},
    ),
    "apply_command": ({"command": _forwarded_command, "request_id": _natural},),
    "apply_command_response": (
        {"request_id": _natural, "log_idx": _positive, "log_term": _natural},
        {"request_id": _natural, "error": _natural},
    ),
}

RAFT_TYPES = frozenset(
    {
        "request_vote",
        "response_vote",
        "append_entries",
        "next_node_idx",
        "apply_command",
        "apply_command_response",
    }
)


def encode(message: Mapping[str, object]) -> bytes:
    """One frame, length included."""
    body: bytes = msgpack.packb(message, use_bin_type=True)
    if len(body) > FRAME_LIMIT_BYTES:
        raise CodecError(f"message of {len(body)} bytes is over the limit of {FRAME_LIMIT_BYTES}")
    return _LENGTH.pack(len(body)) + body


def decode(body: bytes, allowed: frozenset[str]) -> Message:
    """The message in a frame's body, if it is exactly of one of the allowed types."""
    try:
        message: Message = msgpack.unpackb(body, raw=False, strict_map_key=True)
    except (ValueError, TypeError, OverflowError, RecursionError, MemoryError) as error:
        raise CodecError(f"not a message: {error}") from error
    kind = message.get("type") if type(message) is dict else None
    if type(kind) is not str or kind not in allowed:
        raise CodecError(f"a message of type {str(kind)[:40]!r} has no place here")
    if not any(_fits(message, shape) for shape in _SHAPES[kind]):
        raise CodecError(f"a {kind} message with wrong fields")
    if kind == "append_entries":
        _check_order(message)
    return message


def _fits(message: Message, shape: _Shape) -> bool:
    return len(message) == len(shape) + 1 and all(
        name in message and check(message[name]) for name, check in shape.items()
    )


def _check_order(message: Message) -> None:
    """Entries follow each other without a gap, in terms that never fall or pass the sender's."""
    term = message["prevLogTerm"]
    for distance, (_, index, entry_term) in enumerate(message["entries"], start=1):
        if index != message["prevLogIdx"] + distance or entry_term < term:
            raise CodecError(f"log entries out of order at index {index}")
        term = entry_term
    if term > message["term"]:
        raise CodecError(f"log entries of term {term} in a message of term {message['term']}")


class FrameReader:
    """Cuts a stream of bytes into frames' bodies; holds at most one unfinished frame."""

    def __init__(self, limit_bytes: int = FRAME_LIMIT_BYTES) -> None:
        self.limit_bytes = limit_bytes
        self._pending = bytearray()

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
            frames.append(bytes(self._pending[begin + _LENGTH.size : end]))
            begin = end
        del self._pending[:begin]
        return frames
