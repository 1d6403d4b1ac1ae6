"""A snapshot as a value with a checksum, and put together from parts."""

import hashlib

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raft.api import NewerVersionNeeded
from raft.members import Members
from raft.snapshot import Intake, Snapshot
from tests.unit.raft.bench import voters

SNAPSHOT = Snapshot(10, 2, voters("n1", "n2"), b"state")
PACKED = SNAPSHOT.pack()


def sealed(*body):
    packed = msgpack.packb(body)
    return hashlib.sha256(packed).digest() + packed


# -- as a value ----------------------------------------------------------------------------------------


@given(st.integers(1, 2**62), st.integers(0, 2**62), st.binary(max_size=200))
def test_a_snapshot_comes_out_as_it_went_in(index, term, content):
    snapshot = Snapshot(index, term, voters("n1", "n2"), content)
    assert Snapshot.unpack(snapshot.pack()) == snapshot


def test_a_snapshot_with_any_bit_turned_over_is_a_value_error():
    for place in range(len(PACKED)):
        for bit in range(8):
            damaged = bytearray(PACKED)
            damaged[place] ^= 1 << bit
            with pytest.raises(ValueError, match="fails its checksum"):
                Snapshot.unpack(bytes(damaged))


def test_a_part_of_a_snapshot_is_a_value_error():
    for length in range(len(PACKED)):
        with pytest.raises(ValueError, match="fails its checksum"):
            Snapshot.unpack(PACKED[:length])


def test_another_format_is_named():
    with pytest.raises(ValueError, match="snapshot has format 0, this version reads 1"):
        Snapshot.unpack(sealed(0, 10, 2, [], b"state"))
    with pytest.raises(NewerVersionNeeded, match="is of format 9; this version knows up to 1: install the newer"):
        Snapshot.unpack(sealed(9, 10, 2, [], b"state", {"and": "more"}))


@pytest.mark.parametrize("body", [(), (1,), (1, 10, 2, [["n1"]], b""), (1, 10, 2, [], "text"), (1, "10", 2, [], b"")])
def test_what_is_no_snapshot_is_a_value_error(body):
    with pytest.raises(ValueError):  # noqa: PT011  each in its own words
        Snapshot.unpack(sealed(*body))


# -- in parts ------------------------------------------------------------------------------------------


def take(intake, offset, part, *, peer="n2", term=1, index=10, size=len(PACKED)):
    return intake.take(peer, term, index, size, offset, part)


def test_parts_in_order_make_the_whole():
    intake = Intake()
    assert take(intake, 0, PACKED[:10]) is None
    assert intake.held == 10
    assert take(intake, 10, PACKED[10:]) == PACKED
    assert intake.held == 0


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(0, len(PACKED)), st.integers(1, 60)), max_size=40))
def test_whatever_parts_arrive_the_whole_is_never_anything_else(parts):
    intake = Intake()
    for offset, length in parts:
        before = intake.held
        whole = take(intake, offset, PACKED[offset : offset + length])
        assert whole in {None, PACKED}
        assert intake.held in {before, 0} if offset != before else True
        assert intake.held <= len(PACKED)


@pytest.mark.parametrize("other", [{"peer": "n3"}, {"term": 2}, {"index": 11}, {"size": len(PACKED) + 1}])
def test_a_part_of_another_snapshot_begins_anew(other):
    intake = Intake()
    take(intake, 0, PACKED[:10])
    assert take(intake, 10, PACKED[10:], **other) is None
    assert intake.held == 0


def test_a_part_that_goes_beyond_the_end_is_left():
    intake = Intake()
    take(intake, 0, PACKED[:10])
    assert take(intake, 10, PACKED[10:] + b"x") is None
    assert intake.held == 10


def test_nobody_makes_it_hold_more_than_its_limit():
    intake = Intake()
    assert take(intake, 0, b"part", size=Intake.LIMIT_BYTES + 1) is None
    assert intake.held == 0


def test_a_snapshot_of_no_size_is_none():
    assert take(Intake(), 0, b"", size=0) is None


def test_what_is_dropped_is_gone():
    intake = Intake()
    take(intake, 0, PACKED[:10])
    intake.drop()
    assert (intake.held, take(intake, 10, PACKED[10:])) == (0, None)


def test_a_snapshot_may_have_no_members():
    assert Snapshot.unpack(Snapshot(1, 0, Members(), b"").pack()).members == Members()
