"""From entries to state: exactly once, total, and the same everywhere."""

from hypothesis import given
from hypothesis import strategies as st

from raft.api import Applied, Refused
from raft.applier import REMEMBERED_COMMANDS, Applier, Submission, unpack
from tests.raft.appender import Appender


def applied(applier, index, identity, command):
    result = applier.apply(index, Submission(identity, command).pack())
    return result[1]


def test_a_command_is_applied_once_and_a_repeat_gets_the_first_answer():
    applier = Applier(Appender())
    assert applied(applier, 2, "a", b"x") == Applied(2)
    assert applied(applier, 3, "a", b"y") == Applied(2)
    assert applier.state == (b"x",)


def test_a_refusal_is_remembered_too():
    applier = Applier(Appender())
    assert applied(applier, 2, "a", b"no") == Refused("said no", 2)
    assert applied(applier, 3, "a", b"x") == Refused("said no", 2)
    assert applier.state == ()


def test_an_exception_is_a_refusal_and_changes_nothing():
    applier = Applier(Appender())
    assert applied(applier, 2, "a", b"raise") == Refused("ValueError: poison", 2)
    assert applied(applier, 3, "b", b"x") == Applied(3)
    assert applier.state == (b"x",)


def test_a_barrier_changes_nothing():
    applier = Applier(Appender())
    assert applied(applier, 2, "a", None) == Applied(2)
    assert applied(applier, 3, "a", b"x") == Applied(3)
    assert applier.state == (b"x",)


def test_the_oldest_ids_are_forgotten_by_log_order():
    applier = Applier(Appender())
    for index in range(REMEMBERED_COMMANDS + 1):
        applied(applier, index + 2, f"id{index}", b"no")
    assert applied(applier, 9000, "id1", b"no") == Refused("said no", 3)
    assert applied(applier, 9001, "id0", b"no") == Refused("said no", 9001)


@given(st.binary(max_size=60))
def test_an_entry_that_is_no_envelope_changes_nothing(junk):
    applier = Applier(Appender())
    if unpack(junk) is None:
        assert applier.apply(2, junk) is None
        assert applier.state == ()


@given(st.text(max_size=20), st.none() | st.binary(max_size=40))
def test_an_envelope_comes_out_as_it_went_in(identity, command):
    assert unpack(Submission(identity, command).pack()) == Submission(identity, command)
