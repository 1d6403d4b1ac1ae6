"""Commands and states survive the round trip; junk is a value, never an exception."""

import json
import types
from dataclasses import fields
from typing import get_args, get_origin, get_type_hints

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.cluster.apply import apply
from appliance.cluster.codec import (
    COMMANDS,
    LIMIT_BYTES,
    Malformed,
    Newer,
    decode_command,
    encode_command,
    from_json,
    to_json,
)
from appliance.cluster.commands import Announce, Command, Depose, OpenElection, RaiseFormat
from appliance.cluster.state import FORMAT, ClusterState, Member, NodeRole, Position

from .building import Tape, member, next_command, state, vacant

texts = st.text(max_size=5)
integers = st.integers(-(2**70), 2**70)
scalars = texts | integers | st.booleans() | st.floats(allow_nan=False)
json_values = st.recursive(
    st.none() | scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
documents = st.dictionaries(texts, json_values, max_size=3)


def values(kind):
    """A strategy for any value of a type, as its annotation says."""
    arguments, origin = get_args(kind), get_origin(kind)
    plain = {str: texts, int: integers, bool: st.booleans(), float: st.floats(allow_nan=False), type(None): st.none()}
    if kind in plain:
        return plain[kind]
    if kind is object:
        return json_values
    if isinstance(kind, types.UnionType):
        return st.one_of([values(a) for a in arguments])
    if origin is tuple:
        return st.lists(values(arguments[0]), max_size=2).map(tuple)
    if origin is frozenset:
        return st.frozensets(values(arguments[0]), max_size=3)
    if origin is not None:
        return st.dictionaries(texts, values(arguments[1]), max_size=2)
    if hasattr(kind, "__members__"):
        return st.sampled_from(kind)
    hints = get_type_hints(kind)
    return st.builds(kind, **{f.name: values(hints[f.name]) for f in fields(kind)})


@pytest.mark.parametrize("kind", COMMANDS.values(), ids=COMMANDS)
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_a_command_survives_the_round_trip(kind, data):
    command = data.draw(values(kind).filter(lambda c: not isinstance(c, RaiseFormat) or c.format <= FORMAT))

    assert decode_command(encode_command(command)) == command


def test_every_command_of_the_union_has_a_name_in_the_log():
    assert set(COMMANDS.values()) == set(get_args(Command))
    assert len(COMMANDS) == len(get_args(Command))


@settings(max_examples=60, deadline=None)
@given(values(ClusterState))
def test_a_state_survives_the_round_trip(value):
    document = json.loads(json.dumps(to_json(value)))

    assert from_json(ClusterState, document) == value


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=60) | json_values.map(lambda v: json.dumps(v).encode()))
def test_junk_is_malformed(raw):
    assert isinstance(decode_command(raw), Malformed)


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(sorted(COMMANDS)), st.binary(min_size=40, max_size=40), texts, json_values)
def test_a_damaged_command_is_malformed_or_newer_or_one_that_apply_can_take(name, choices, field, junk):
    whole = encode_command(next_command(vacant(), Tape(choices)))
    document = json.loads(whole)
    body = document["body"]
    named = sorted(body)
    body[named[choices[0] % len(named)] if choices[1] % 4 else field] = junk
    document["type"] = name if choices[2] % 8 == 0 else document["type"]
    decoded = decode_command(json.dumps(document).encode())

    if not isinstance(decoded, Malformed | Newer):
        assert apply(vacant(), decoded).state is not None
    assert isinstance(decode_command(whole[: choices[3]]), Malformed) or choices[3] >= len(whole)


DEPOSE = {"format": FORMAT, "type": "Depose", "body": {"epoch": 4, "reason": "silent"}}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"format": True}, "True is no format"),
        ({"format": None}, "None is no format"),
        ({"format": 0}, "0 is no format"),
        ({"type": None}, "not the name of a command with its fields"),
        ({"body": []}, "not the name of a command with its fields"),
        ({"body": {"epoch": 4}}, "Depose: reason is missing"),
        ({"body": {"epoch": "4", "reason": ""}}, "Depose.epoch: expected int, got str"),
        ({"body": {"epoch": True, "reason": ""}}, "Depose.epoch: expected int, got bool"),
        ({"body": {"epoch": 4, "reason": None}}, "Depose.reason: expected str, got NoneType"),
    ],
    ids=str,
)
def test_the_reason_names_what_does_not_fit(change, reason):
    decoded = decode_command(json.dumps(DEPOSE | change).encode())

    assert isinstance(decoded, Malformed)
    assert decoded.reason.startswith(reason)


@pytest.mark.parametrize(
    "raw",
    [b"", b"[" * 100_000, b"\xff\xfe", b"1" * 5000, b"null", b'"x"', b" " * (LIMIT_BYTES + 1)],
    ids=["empty", "deep", "not text", "long number", "null", "string", "too long"],
)
def test_hostile_bytes_are_malformed(raw):
    assert isinstance(decode_command(raw), Malformed)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"format": FORMAT + 1}, f"command 'Depose' of format {FORMAT + 1}"),
        ({"format": FORMAT + 1, "body": {}}, f"command 'Depose' of format {FORMAT + 1}"),
        ({"type": "Promote"}, f"command 'Promote' of format {FORMAT}"),
        ({"body": {"epoch": 4, "reason": "", "colour": "blue"}}, "command Depose with a field 'colour'"),
        ({"type": "RaiseFormat", "body": {"format": FORMAT + 1}}, f"the step to format {FORMAT + 1}"),
    ],
    ids=str,
)
def test_what_only_another_version_can_have_written_is_not_judged(change, what):
    decoded = decode_command(json.dumps(DEPOSE | change).encode())

    assert isinstance(decoded, Newer)
    assert str(decoded) == (
        f"holds {what}; this node knows up to format {FORMAT}: install the newer version on this host"
    )


def test_a_field_that_is_unknown_is_found_wherever_it_is():
    whole = json.loads(encode_command(Announce(member("pg2", tags={"zone": "b"}))))
    whole["body"]["member"]["colour"] = "blue"
    ballots = [{"election": 5, "node": "pg2", "incarnation": "", "position": {"timeline": 1, "lsn": 1}} for _ in "ab"]
    ballots[1]["position"]["page"] = 7
    appoint = {"election": 5, "node": "pg2", "votes": ballots, "timeline": 3, "wanted": {}, "reason": "", "at": ""}

    assert decode_command(json.dumps(whole).encode()) == Newer("command Announce with a field 'colour'", FORMAT)
    raw = json.dumps({"format": 1, "type": "Appoint", "body": appoint}).encode()
    assert decode_command(raw) == Newer("command Appoint with a field 'page'", FORMAT)


def test_a_command_takes_defaults_and_further_keys_beside_the_envelope_say_nothing():
    body = {"number": 5, "epoch": 4, "reason": "why"}
    raw = json.dumps({"format": FORMAT, "type": "OpenElection", "body": body, "trace": 1}).encode()

    assert decode_command(raw) == OpenElection(5, 4, "why")
    assert decode_command(json.dumps(DEPOSE).encode()) == Depose(4, "silent")


def test_bytes_of_equal_values_are_equal():
    """Followers compare nothing, but people compare logs."""
    reordered = member("pg2", tags={"b": 1, "a": True})
    assert to_json(state())["appointment"]["holders"] == ["pg1", "pg3"]
    assert from_json(Member, to_json(reordered)) == reordered
    assert encode_command(Depose(1, "x")) == b'{"body":{"epoch":1,"reason":"x"},"format":1,"type":"Depose"}'


def test_from_json_says_where_in_a_nested_value_it_failed():
    with pytest.raises(ValueError, match=r"Member\.tags\.zone: "):
        from_json(Member, to_json(member("pg2")) | {"tags": {"zone": ["a"]}})
    with pytest.raises(ValueError, match=r"Member\.role: 'mirror' is not one of data, witness, learner"):
        from_json(Member, to_json(member("pg2")) | {"role": "mirror"})
    assert from_json(Position | None, None) is None
    assert from_json(NodeRole, "witness") is NodeRole.WITNESS
