"""Messages come out of the wire as they went in, and nothing else comes out of it."""

from dataclasses import fields

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raft.entries import COMMAND, MEMBERS, NO_OP
from raft.messages import TYPES, Append, AskVote, from_wire, to_wire
from tests.unit.raft.bench import change, entry, voters

naturals = st.integers(0, 2**63 - 1)
texts = st.text(max_size=12)
BY_TYPE = {"int": naturals, "str": texts, "bool": st.booleans(), "bytes": st.binary(max_size=12)}
contents = st.one_of(
    st.binary(max_size=9).map(lambda content: COMMAND + content),
    st.just(NO_OP),
    st.just(change(1, 1, voters("n1", "n2"))[0]),
)


@st.composite
def appends(draw):
    """Entries that follow each other, in terms that never fall."""
    count = draw(st.integers(0, 4))
    terms = sorted(draw(st.lists(st.integers(0, 99), min_size=count + 2, max_size=count + 2)))
    previous = draw(st.integers(1, 2**32))
    entries = tuple((draw(contents), previous + place, terms[place]) for place in range(1, count + 1))
    return Append(draw(texts), draw(texts), terms[-1], draw(naturals), previous, terms[0], draw(naturals), entries)


def any_of(kind):
    if kind is Append:
        return appends()
    return st.builds(kind, **{field.name: BY_TYPE[field.type] for field in fields(kind)})


every_message = st.one_of(*(any_of(kind) for kind in TYPES.values()))
plain_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text(max_size=5) | st.binary(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)

VOTE = to_wire(AskVote("cafe/0", "id-n1", 7, last_index=5, last_term=3, transfer=False))
ENTRIES = to_wire(Append("cafe/0", "id-n1", 7, 9, 1, 0, 1, (entry(2, 1), entry(3, 7))))


def over_the_wire(plain):
    return msgpack.unpackb(msgpack.packb(plain, use_bin_type=True), raw=False, strict_map_key=True)


@given(every_message)
def test_a_message_comes_out_as_it_went_in(message):
    assert from_wire(over_the_wire(to_wire(message))) == message


def test_every_kind_has_a_name_of_its_own():
    assert len(set(TYPES.values())) == len(TYPES)


@given(every_message, st.data())
def test_a_message_with_a_field_too_few_or_too_many_is_a_value_error(message, data):
    plain = to_wire(message)
    less = data.draw(st.sampled_from(sorted(plain)))
    with pytest.raises(ValueError):  # noqa: PT011  of no type, or with other fields
        from_wire({field: value for field, value in plain.items() if field != less})
    with pytest.raises(ValueError):  # noqa: PT011
        from_wire({("more" if field == less else field): value for field, value in plain.items()})
    with pytest.raises(ValueError, match="with other fields"):
        from_wire({**plain, "more": 1})


@settings(max_examples=200)
@given(every_message, st.data())
def test_a_message_with_a_field_of_another_kind_is_a_value_error(message, data):
    plain = to_wire(message)
    name = data.draw(st.sampled_from(sorted(plain)))
    value = data.draw(plain_values)
    try:
        changed = from_wire({**plain, name: value})
    except ValueError:
        return
    assert over_the_wire(to_wire(changed))[name] == over_the_wire(value)


@given(st.dictionaries(st.sampled_from(["type", *ENTRIES]), plain_values))
def test_junk_is_a_value_error(plain):
    with pytest.raises(ValueError):  # noqa: PT011  each in its own words
        from_wire(plain)


@pytest.mark.parametrize("value", [True, -1, 2**63, 1.0, "1", None])
def test_a_number_is_a_natural_one_of_63_bits(value):
    with pytest.raises(ValueError, match="no number in its range"):
        from_wire({**VOTE, "term": value})


@pytest.mark.parametrize("value", [0, 1, None, "true"])
def test_yes_and_no_are_nothing_else(value):
    with pytest.raises(ValueError, match="no yes or no"):
        from_wire({**VOTE, "transfer": value})


@pytest.mark.parametrize("value", ["x" * 1025, b"cafe/0", None])
def test_a_text_is_a_short_one(value):
    with pytest.raises(ValueError, match="no short text"):
        from_wire({**VOTE, "group": value})


@pytest.mark.parametrize("content", [b"", b"\3", b"\x80\x04", "text", None, MEMBERS + b"junk", MEMBERS])
def test_an_entry_is_of_a_kind_that_is_known(content):
    """PySyncObj would unpickle some of the others, or switch its version by them."""
    with pytest.raises(ValueError):  # noqa: PT011  each in its own words
        from_wire({**ENTRIES, "entries": [[content, 2, 1]]})


@pytest.mark.parametrize(
    "entries",
    [
        [entry(3, 1)],
        [entry(2, 1), entry(4, 1)],
        [entry(2, 1), entry(2, 1)],
        [entry(2, 3), entry(3, 2)],
        [entry(2, 8)],
    ],
    ids=["after a gap", "with a gap", "twice", "in falling terms", "of a term to come"],
)
def test_entries_are_in_order(entries):
    with pytest.raises(ValueError, match=r"out of order|of term 8 in a message of term 7"):
        from_wire({**ENTRIES, "entries": entries})


def test_entries_are_of_no_term_below_the_one_before_them():
    with pytest.raises(ValueError, match="out of order"):
        from_wire({**ENTRIES, "previous_term": 5})
