"""The codec: what is sent arrives, and nothing else does."""

import struct
import tracemalloc
from contextlib import suppress
from hashlib import sha256

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raft.applier import unpack
from raft.codec import CodecError, FrameReader, OtherProtocol, decode, decode_log, encode, encode_log
from raft.entries import COMMAND, MEMBERS
from raft.messages import TYPES, to_wire
from raft.snapshot import Snapshot
from tests.harness.raft_messages import append, every_message

INTRODUCTION = {
    "proto": 2,
    "cluster": "c",
    "cluster_id": "",
    "incarnation": 0,
    "from": "n1",
    "replica_id": "ab",
    "address": "10.0.0.1:7400",
}
MESSAGES = [
    {"type": "hello", **INTRODUCTION, "kind": "raft", "to": "n2", "session": "s"},
    {"type": "welcome", **INTRODUCTION},
    {"type": "refuse", "cluster": "c", "reason": "no"},
    {"type": "ping"},
    {"type": "request", "id": 1, "payload": b"x"},
    {"type": "answer", "id": 1, "ok": True, "payload": b""},
]
LOG_MESSAGES = every_message()
EVERY_TYPE = frozenset(message["type"] for message in MESSAGES)
JUNK = st.one_of(st.none(), st.booleans(), st.integers(-(2**63), 2**64 - 1), st.floats(), st.binary(), st.text())


def one_frame(data):
    (body,) = FrameReader().feed(data)
    return body


def packed(*entries):
    """Log entries as (term, command), as they go over the wire."""
    return b"".join(struct.pack(">QI", term, len(command)) + command for term, command in entries)


def maps(depth):
    """Of fifteen maps of fifteen maps of …"""
    if depth == 0:
        return b"\x80"
    return b"\x8f" + b"".join(b"\xa1%c" % name + maps(depth - 1) for name in b"abcdefghijklmno")


def appended(blob, **other):
    message = to_wire(append(previous=(1, 0)))
    return msgpack.packb({**message, "entries": blob, **other})


def read(plain):
    body = msgpack.packb(plain)
    return decode_log(body) if plain["type"] in TYPES else decode(body, EVERY_TYPE)


def on_the_wire(message):
    """A message about the log as the plain map that it is in its frame."""
    return msgpack.unpackb(one_frame(encode_log(message)))


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: message["type"])
def test_every_message_arrives_as_it_was_sent(message):
    assert decode(one_frame(encode(message)), EVERY_TYPE) == message


@pytest.mark.parametrize("message", LOG_MESSAGES, ids=lambda message: type(message).__name__)
def test_every_message_about_the_log_arrives_as_it_was_sent(message):
    assert decode_log(one_frame(encode_log(message))) == message


def test_every_type_of_the_log_has_its_case():
    assert {type(message) for message in LOG_MESSAGES} == set(TYPES.values())


@pytest.mark.parametrize("message", [*MESSAGES, *map(on_the_wire, LOG_MESSAGES)], ids=lambda message: message["type"])
def test_a_missing_or_further_field_is_junk(message):
    with pytest.raises(CodecError):
        read({**message, "more": 1})
    for name in message:
        with pytest.raises(CodecError):
            decode_log(msgpack.packb({key: value for key, value in message.items() if key != name}))
        with pytest.raises(CodecError):
            decode(msgpack.packb({key: value for key, value in message.items() if key != name}), EVERY_TYPE)


@given(st.sampled_from([*MESSAGES, *map(on_the_wire, LOG_MESSAGES)]), st.data())
def test_a_field_of_another_type_is_junk(message, data):
    name = data.draw(st.sampled_from(sorted(message)))
    value = data.draw(JUNK.filter(lambda junk: type(junk) is not type(message[name])))
    body = msgpack.packb({**message, name: value})
    with pytest.raises(CodecError):
        decode(body, EVERY_TYPE)
    with pytest.raises(CodecError):
        decode_log(body)


@given(st.binary(max_size=200))
@settings(max_examples=300)
def test_any_bytes_are_a_message_or_a_codec_error(body):
    with suppress(CodecError):
        decode(body, EVERY_TYPE)
    with suppress(CodecError):
        decode_log(body)


@given(st.recursive(JUNK, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(JUNK, inner, max_size=4)))
def test_any_structure_is_a_message_or_a_codec_error(structure):
    with suppress(CodecError):
        decode(msgpack.packb(structure), EVERY_TYPE)
    with suppress(CodecError):
        decode_log(msgpack.packb(structure))


@pytest.mark.parametrize(
    "body",
    [
        b"\x91" * 1_000_000,  # a list of a list of a list
        b"\xdd\xff\xff\xff\xff",  # a list of four billion
        b"\xdf\xff\xff\xff\xff",
        b"\xdb\xff\xff\xff\xff",
        b"\x81\xa1x" * 300_000,  # a map in a map in a map
        b"\xdc\xff\xff" * 1000,
        b"\x81\xa1x\xdc\xff\xff" + b"\x80" * 65_535,
        maps(4),
        b"\xc7\x00\x05",  # an extension type
        b"\xd6\xff\0\0\0\0",  # a time
        msgpack.packb({"type": "ping", "x": {}}),
        msgpack.packb({"type": "ping", "x": [1]}),
        msgpack.packb({"type": "ping", 1: 1}),
    ],
)
def test_what_is_deep_or_wide_is_junk_and_takes_no_memory(body):
    tracemalloc.start()
    try:
        with pytest.raises(CodecError):
            decode(body, EVERY_TYPE)
        with pytest.raises(CodecError):
            decode_log(body)
        assert tracemalloc.get_traced_memory()[1] < 200_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "wide", [b"\xdc\xff\xff" * 66_000, b"\xdd\xff\xff\xff\xff", b"\x91" * 200_000, b"\xdf\xff\xff\xff\xff"]
)
@pytest.mark.parametrize("kind", [MEMBERS, COMMAND])
def test_what_is_wide_within_an_entry_takes_no_memory(wide, kind):
    """An array is made as long as it claims to be before its first element is read."""
    tracemalloc.start()
    try:
        if kind == MEMBERS:
            with pytest.raises(CodecError):
                decode_log(appended(packed((1, kind + wide))))
        else:
            assert unpack(wide) is None, "what no applier has packed"
            with pytest.raises(ValueError):  # noqa: PT011  in the words of msgpack, which has none for some
                Snapshot.unpack(sha256(wide).digest() + wide)
        assert tracemalloc.get_traced_memory()[1] < 4 * len(wide) + 500_000
    finally:
        tracemalloc.stop()


def test_another_protocol_is_named_before_its_fields_are_looked_at():
    with pytest.raises(OtherProtocol, match="speaks protocol 3, we speak 2"):
        decode(msgpack.packb({"type": "hello", "proto": 3, "all": "else"}), EVERY_TYPE)
    with pytest.raises(OtherProtocol, match="speaks protocol 1"):
        decode(msgpack.packb({"type": "welcome", "proto": 1, "fresh": True}), EVERY_TYPE)
    for junk in ("2", -1, None, 2.5, 2**64 - 1):
        with pytest.raises(CodecError, match="wrong fields"):
            decode(msgpack.packb({"type": "hello", **INTRODUCTION, "proto": junk}), EVERY_TYPE)


def test_a_type_that_has_no_place_here_is_junk():
    with pytest.raises(CodecError, match="no place here"):
        decode(msgpack.packb({"type": "ping"}), frozenset({"hello"}))
    with pytest.raises(CodecError, match="no place here"):
        decode_log(msgpack.packb({"type": "request", "id": 1, "payload": b"x"}))


def test_a_ping_among_the_messages_about_the_log_says_nothing():
    assert decode_log(msgpack.packb({"type": "ping"})) is None


@pytest.mark.parametrize(
    "blob",
    [
        packed((2, b"\0x"), (1, b"\0x")),  # a falling term
        packed((9, b"\0x")),  # a term above the sender's
        packed((1, b"\2x")),  # members that are none: PySyncObj would unpickle them
        packed((1, b"\3x")),  # a kind that PySyncObj has and would unpickle
        packed((1, b"")),
        packed((1, b"\0x"))[:-1],  # cut off
        packed((1, b"\0x"))[:5],
        packed((1, b"\0x")) + b"\0",
        struct.pack(">QI", 1, 2**32 - 1) + b"\0x",
    ],
)
def test_log_entries_out_of_order_cut_off_or_of_another_kind_are_junk(blob):
    with pytest.raises(CodecError):
        decode_log(appended(blob))


def test_log_entries_follow_the_one_before_them():
    message = decode_log(appended(packed((1, b"\0x"), (2, b"\1")), previous_index=41))
    assert message.entries == ((b"\0x", 42, 1), (b"\1", 43, 2))
    with pytest.raises(CodecError, match="of term 7 in a message of term 2"):
        decode_log(appended(b"", previous_term=7))


@given(st.lists(st.tuples(st.integers(0, 2), st.binary(max_size=30)), max_size=8))
def test_log_entries_arrive_as_they_were_sent(commands):
    commands.sort(key=lambda pair: pair[0])
    sent = append(*((b"\0" + command, 2 + at, term) for at, (term, command) in enumerate(commands)))
    assert decode_log(one_frame(encode_log(sent))) == sent


def test_a_message_over_the_limit_is_not_sent():
    with pytest.raises(CodecError, match="over the limit"):
        encode({"type": "request", "id": 1, "payload": b"x" * (9 * 1024 * 1024)})


def test_a_frame_over_the_limit_is_refused_before_it_is_read():
    with pytest.raises(CodecError, match="over the limit"):
        FrameReader().feed(b"\xff\xff\xff\xff")


@given(st.lists(st.binary(max_size=50), max_size=6), st.integers(1, 20))
def test_frames_arrive_however_the_stream_is_cut(payloads, size):
    stream = b"".join(encode({"type": "request", "id": 1, "payload": payload}) for payload in payloads)
    reader = FrameReader()
    bodies = [body for at in range(0, len(stream), size) for body in reader.feed(stream[at : at + size])]
    assert [decode(body, EVERY_TYPE)["payload"] for body in bodies] == payloads


@given(st.lists(st.binary(max_size=300), max_size=10), st.integers(0, 100))
def test_a_reader_never_holds_more_than_a_frame_and_what_came_last(chunks, limit):
    reader = FrameReader(limit)
    with suppress(CodecError):
        for chunk in chunks:
            assert all(len(body) <= limit for body in reader.feed(chunk))
            assert len(reader._pending) <= 4 + limit
            assert reader.unfinished == bool(reader._pending)
