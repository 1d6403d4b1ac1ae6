"""From entries to state: exactly once, total, and the same everywhere."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raft.api import Applied, NewerVersionNeeded, Refused, ReplicaFailed, Verdict
from raft.applier import ID_LIMIT, REMEMBERED_ENTRIES, Applier, Submission, unpack
from raft.formats import format_of
from tests.unit.raft.bench import OfVersion, Words

words = st.sampled_from([b"one", b"two", b"no", b"raise"])
ids = st.sampled_from(["a", "b", "c"])
logs = st.lists(st.tuples(ids, words), max_size=30)


def new():
    return Applier(Words())


def applied(applier, index, identity, word, born=1):
    return applier.apply(index, Submission(identity, born, word).pack())[1]


def replayed(log, applier=None, begin=2):
    applier = applier or new()
    outcomes = [applied(applier, index, *submission) for index, submission in enumerate(log, start=begin)]
    return applier, outcomes


# -- once ----------------------------------------------------------------------------------------------


def test_a_command_is_applied_once_and_a_repeat_is_told_what_the_first_was():
    applier = new()
    assert applied(applier, 2, "a", b"one") == Applied(2)
    assert applied(applier, 3, "a", b"two") == Applied(2)
    assert applier.state == (b"one",)


def test_a_refusal_is_remembered_too():
    applier = new()
    assert applied(applier, 2, "a", b"no") == Refused("said no", 2)
    assert applied(applier, 3, "a", b"one") == Refused("said no", 2)
    assert applier.state == ()


def test_an_entry_tells_whose_submission_it_was():
    assert new().apply(2, Submission("a", 1, b"one").pack()) == ("a", Applied(2))


def test_as_much_as_can_be_remembered_is_restored():
    """Else a busy group could read none of its own snapshots."""
    applier = new()
    for index in range(2, 2 * REMEMBERED_ENTRIES):
        applied(applier, index, f"id {index}", b"no", born=index - 1)
    restored = new()
    restored.restore(applier.dump())
    assert restored.dump() == applier.dump()
    oldest = 2 * REMEMBERED_ENTRIES - 1 - REMEMBERED_ENTRIES
    assert restored.outcome(f"id {oldest}") == Refused("said no", oldest)


def test_a_repeat_is_known_as_long_as_its_age_allows():
    applier = new()
    assert applied(applier, 2, "a", b"one", born=1) == Applied(2)
    assert applied(applier, 2 + REMEMBERED_ENTRIES, "a", b"one", born=1) == Applied(2)
    assert applier.state == (b"one",)


def test_d20_what_is_older_than_what_is_remembered_is_refused():
    applier = new()
    applied(applier, 2, "a", b"one", born=1)
    refused = applied(applier, 3 + REMEMBERED_ENTRIES, "a", b"one", born=1)
    assert isinstance(refused, Refused)
    assert applier.state == (b"one",)


def test_d20_what_was_never_seen_and_is_too_old_is_refused_as_well():
    """Nobody can tell it from one that was applied and forgotten."""
    applier = new()
    assert applied(applier, 2 + REMEMBERED_ENTRIES, "a", b"one", born=2) == Applied(2 + REMEMBERED_ENTRIES)
    assert isinstance(applied(applier, 2 + REMEMBERED_ENTRIES, "b", b"one", born=1), Refused)


@given(
    st.integers(1, 50),
    st.lists(st.integers(0, 3 * REMEMBERED_ENTRIES), max_size=6),
    st.lists(st.integers(1, REMEMBERED_ENTRIES), max_size=20),
)
def test_d20_no_copy_of_a_submission_is_applied_a_second_time(born, late, fillers):
    """Whenever its copies arrive, and whatever arrives between them."""
    applier = new()
    packed = Submission("a", born, b"one").pack()
    steps = sorted([*late, *(2 * place for place in fillers)])
    for number, distance in enumerate(steps):
        index = born + 1 + number + distance
        applier.apply(index, packed if distance in late else Submission(f"filler {number}", index - 1, b"no").pack())
    assert applier.state in {(), (b"one",)}


def test_what_is_remembered_is_bounded_by_the_log():
    applier = new()
    for index in range(2, 3 * REMEMBERED_ENTRIES):
        applied(applier, index, f"id {index}", b"no", born=index - 1)
    assert len(applier._remembered) == REMEMBERED_ENTRIES + 1


# -- total ---------------------------------------------------------------------------------------------


def test_d10_an_exception_is_a_refusal_and_changes_nothing():
    applier = new()
    assert applied(applier, 2, "a", b"raise") == Refused("ValueError: poison", 2)
    assert applied(applier, 3, "b", b"one") == Applied(3)
    assert applier.state == (b"one",)


@given(st.binary(max_size=60))
def test_what_is_no_submission_changes_nothing(junk):
    applier = new()
    if format_of(junk) <= 1 and unpack(junk) is None:
        assert applier.apply(2, junk) is None
    assert applier.state in {(), (junk,)}


@given(st.text(max_size=20), st.integers(0, 2**63), st.binary(max_size=40))
def test_a_submission_comes_out_as_it_went_in(identity, born, word):
    assert unpack(Submission(identity, born, word).pack()) == Submission(identity, born, word)


@given(st.text(max_size=5), st.integers(0, 9), st.binary(max_size=9), st.data())
def test_a_part_of_a_submission_is_none(identity, born, word, data):
    packed = Submission(identity, born, word).pack()
    assert unpack(packed[: data.draw(st.integers(0, len(packed) - 1))]) is None
    assert unpack(packed + b"x") is None


# -- the same everywhere -------------------------------------------------------------------------------


@given(logs, st.integers(0, 30))
def test_it_makes_no_difference_to_begin_at_a_dump(log, cut):
    whole, outcomes = replayed(log)
    first, _ = replayed(log[:cut])
    second = new()
    second.restore(first.dump())
    second, rest = replayed(log[cut:], second, begin=2 + len(log[:cut]))
    assert (second.state, second.dump()) == (whole.state, whole.dump())
    assert rest == outcomes[cut:]


@given(logs)
def test_a_dump_is_restored_whole_also_over_another_state(log):
    applier, _ = replayed(log)
    other, _ = replayed([("z", b"something else")])
    other.restore(applier.dump())
    assert (other.state, other.dump()) == (applier.state, applier.dump())


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"junk",
        new().dump()[:-1],
        new().dump() + b"x",
        b"\x93\x00\xc4\x01\x90\x90",  # an older version
        b"\x93\x01\xc4\x01\x90\x91\x92\xa1a\x02",  # remembers an outcome of another shape
        b"\x93\x01\xc4\x02\x90\x90\x90",  # a state that the machine does not read
    ],
)
def test_d16_what_cannot_be_restored_changes_nothing(content):
    applier, _ = replayed([("a", b"one"), ("b", b"no")])
    before = (applier.state, applier.dump())
    with pytest.raises(ValueError):  # noqa: PT011  each in its own words
        applier.restore(content)
    assert (applier.state, applier.dump()) == before


@given(st.binary(max_size=80))
def test_d16_junk_is_restored_or_a_value_error(content):
    applier, _ = replayed([("a", b"one")])
    try:
        applier.restore(content)
    except (ValueError, NewerVersionNeeded):
        assert applier.state == (b"one",)


def test_what_is_remembered_of_4096_entries_is_small_whatever_they_hold():
    """Entries come from other members too: ids and words of a megabyte each would be kept, and dumped, 4096 times."""

    class Wordy(Words):
        def apply(self, state, command):
            return state, Verdict("no: " + "x" * 1_000_000)

    applier = Applier(Wordy())
    assert applier.apply(2, Submission("x" * (ID_LIMIT + 1), 1, b"one").pack()) is None
    assert applier.apply(3, Submission("x" * ID_LIMIT, 1, b"one").pack())[1].reason.startswith("no: x")
    assert len(applier.dump()) < 2000


# -- newer versions --------------------------------------------------------------------------------------


@given(st.lists(st.tuples(ids, words | st.just(b"later")), max_size=30))
def test_an_older_version_agrees_with_a_newer_one_or_has_stopped_before_they_differ(log):
    old, new = Applier(OfVersion(1)), Applier(OfVersion(2))
    for index, (identity, word) in enumerate(log, start=2):
        before = old.state
        if word == b"later" and old.outcome(identity) is None:
            with pytest.raises(ReplicaFailed, match=f"entry {index} holds what is of version 2"):
                applied(old, index, identity, word)
            assert old.state == before
            return
        assert applied(old, index, identity, word) == applied(new, index, identity, word)
        assert old.state == new.state


def test_a_submission_in_a_newer_format_ends_the_replica():
    packed = b"\x95\x02" + Submission("a", 1, b"one").pack()[2:] + b"\x01"
    with pytest.raises(ReplicaFailed, match="entry 2 holds a submission of format 2; this version knows up to 1: inst"):
        new().apply(2, packed)


def test_what_was_dumped_in_a_newer_format_is_not_restored():
    applier, _ = replayed([("a", b"one")])
    for content, what in [
        (b"\x94\x02" + new().dump()[2:] + b"\x90", "holds what was applied, of format 2; this version knows up to 1"),
        (replayed([("b", b"later")])[0].dump(), "holds what is of version 2"),
    ]:
        older = Applier(OfVersion(1))
        older.restore(applier.dump())
        with pytest.raises(NewerVersionNeeded, match=what):
            older.restore(content)
        assert (older.state, older.dump()) == (applier.state, applier.dump())


def test_what_should_not_enter_the_log_is_said_in_words():
    applier = Applier(OfVersion(1))
    assert applier.objection(Submission("a", 1, b"one").pack()) is None
    assert applier.objection(Submission("a", 1, b"no").pack()) == "said no"
    assert applier.objection(Submission("a", 1, b"later").pack()) == "the command holds what is of version 2"
    assert applier.objection(b"\x95\x02").startswith("the command holds a submission of format 2;")
    assert applier.objection(b"junk") == "this is no submission"
    assert applier.objection(Submission("a", 1, b"raise").pack()) == "ValueError: poison"
