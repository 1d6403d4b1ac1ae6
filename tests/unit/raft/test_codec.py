"""The codec: what is sent arrives, and nothing else does."""

from contextlib import suppress

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raft.codec import RAFT_TYPES, CodecError, FrameReader, decode, encode

INTRODUCTION = {"proto": 1, "cluster": "c", "from": "n1", "replica_id": "ab", "fresh": True}
MESSAGES = [
    {"type": "hello", **INTRODUCTION, "kind": "raft", "to": "n2", "session": "s"},
    {"type": "welcome", **INTRODUCTION},
    {"type": "refuse", "cluster": "c", "reason": "no"},
    {"type": "ping"},
    {"type": "request", "id": 1, "payload": b"x"},
    {"type": "answer", "id": 1, "ok": True, "payload": b""},
    {"type": "request_vote", "term": 1, "last_log_index": 1, "last_log_term": 0},
    {"type": "response_vote", "term": 3},
    {
        "type": "append_entries",
        "term": 2,
        "commit_index": 1,
        "prevLogIdx": 1,
        "prevLogTerm": 0,
        "entries": [[b"\1", 2, 1], [b"\0x", 3, 2]],
        "sent_ns": 5,
    },
    {"type": "next_node_idx", "term": 2, "next_node_idx": 3, "reset": False, "success": True, "sent_ns": 5},
    {"type": "apply_command", "command": b"\0x", "request_id": 7},
    {"type": "apply_command_response", "request_id": 7, "log_idx": 2, "log_term": 1},
    {"type": "apply_command_response", "request_id": 7, "error": 3},
]
EVERY_TYPE = frozenset(message["type"] for message in MESSAGES)
JUNK = st.one_of(st.none(), st.booleans(), st.integers(-(2**63), 2**64 - 1), st.floats(), st.binary(), st.text())


def one_frame(data):
    (body,) = FrameReader().feed(data)
    return body


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: message["type"])
def test_every_message_arrives_as_it_was_sent(message):
    assert decode(one_frame(encode(message)), EVERY_TYPE) == message


def test_every_raft_type_has_its_case():
    assert RAFT_TYPES < EVERY_TYPE


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: message["type"])
def test_a_missing_or_further_field_is_junk(message):
    with pytest.raises(CodecError):
        decode(msgpack.packb({**message, "more": 1}), EVERY_TYPE)
    for name in message:
        if name == "error":
            continue
        with pytest.raises(CodecError):
            decode(msgpack.packb({key: value for key, value in message.items() if key != name}), EVERY_TYPE)


@given(st.sampled_from(MESSAGES), st.data())
def test_a_field_of_another_type_is_junk(message, data):
    name = data.draw(st.sampled_from(sorted(message)))
    value = data.draw(JUNK.filter(lambda junk: type(junk) is not type(message[name])))
    with pytest.raises(CodecError):
        decode(msgpack.packb({**message, name: value}), EVERY_TYPE)


@given(st.binary(max_size=200))
@settings(max_examples=300)
def test_any_bytes_are_a_message_or_a_codec_error(body):
    with suppress(CodecError):
        decode(body, EVERY_TYPE)


@given(st.recursive(JUNK, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(JUNK, inner, max_size=4)))
def test_any_structure_is_a_message_or_a_codec_error(structure):
    with suppress(CodecError):
        decode(msgpack.packb(structure), EVERY_TYPE)


def test_deep_nesting_is_junk():
    with pytest.raises(CodecError):
        decode(b"\x91" * 1_000_000, EVERY_TYPE)


def test_a_type_that_has_no_place_here_is_junk():
    with pytest.raises(CodecError, match="no place here"):
        decode(msgpack.packb({"type": "ping"}), RAFT_TYPES)


@pytest.mark.parametrize(
    "entries",
    [
        [[b"\0x", 3, 1]],  # a gap
        [[b"\0x", 2, 2], [b"\0x", 3, 1]],  # a falling term
        [[b"\0x", 2, 9]],  # a term above the sender's
        [[b"\2x", 2, 1]],  # a membership change: PySyncObj would unpickle it
        [[b"\3x", 2, 1]],  # a version change: the same
        [[b"", 2, 1]],
    ],
)
def test_log_entries_out_of_order_or_of_another_kind_are_junk(entries):
    message = next(message for message in MESSAGES if message["type"] == "append_entries")
    with pytest.raises(CodecError):
        decode(msgpack.packb({**message, "entries": entries}), EVERY_TYPE)


def test_a_forwarded_command_cannot_be_a_membership_change():
    with pytest.raises(CodecError):
        decode(msgpack.packb({"type": "apply_command", "command": b"\2x", "request_id": 1}), EVERY_TYPE)


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
