"""Who belongs to the group: values, their form in the log, which steps are safe, and what is in force where."""

from dataclasses import replace
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raft.entries import COMMAND, MEMBERS, NO_OP, members_entry, members_in
from raft.members import Introduction, Member, Members, MembersLog, founders, mended, places_of
from raft.progress import majority_of
from tests.unit.raft.bench import replica_id, voters, with_role

names = st.sampled_from(["n1", "n2", "n3", "n4", "n5"])
roles = st.sampled_from(["voter", "learner", "joining"])
members = st.builds(Member, names, st.sampled_from(["x", "y"]), st.sampled_from(["here:1", "there:1"]), roles)
groups = st.lists(members, max_size=5, unique_by=lambda member: member.name).map(Members.of)


def identities(group):
    """Who has a vote: a name together with its journal."""
    return {(member.name, member.replica_id) for member in group.all if member.voter}


def majorities(group):
    """Every smallest set of voters that decides."""
    voting = identities(group)
    return [set(some) for some in combinations(voting, majority_of({name for name, _ in voting}))]


# -- which steps are safe ------------------------------------------------------------------------------


@given(groups, groups)
def test_majorities_meet_before_and_after_every_step_without_objection(old, new):
    if identities(old) and old.objection(new) is None:
        assert all(some & others for some in majorities(old) for others in majorities(new))


@given(groups, members)
def test_one_voter_can_always_change_but_for_the_last(old, member):
    new = old.with_member(member)
    replaced = old.get(member.name)
    swapped = replaced is not None and replaced.voter and member.voter and replaced.replica_id != member.replica_id
    if identities(new) and not swapped:
        assert old.objection(new) is None


@given(groups)
def test_no_step_is_none(group):
    assert (group.objection(group) is None) == bool(group.voters)


def test_a_voter_whose_journal_is_another_is_another_voter():
    swapped = with_role(voters("n1", "n2", "n3"), "n3", "voter", identity="another journal")
    assert "n3" in voters("n1", "n2", "n3").objection(swapped)


@pytest.mark.parametrize(
    ("names", "refusing", "by"),
    [
        (("n1", "n2", "n3"), {"n1", "n2"}, ("n1", "n2")),
        (("n1", "n2", "n3"), {"n1"}, ()),
        (("n1", "n2", "n3"), {"n1", "n9", "n3"}, ()),
        (("n1", "n3"), {"n1"}, ("n1",)),
        (("n1", "n2", "n3", "n4"), {"n1", "n2"}, ("n1", "n2")),
        (("n1", "n2", "n3", "n4", "n5"), {"n1", "n2"}, ()),
        (("n1", "n2"), {"n1", "n2"}, ("n1", "n2")),
        (("n1", "n2"), {"n1"}, ()),
        (("n3",), set(), ()),
        ((), {"n1"}, ()),
    ],
)
def test_n3_was_removed_when_a_majority_of_the_other_voters_says_so(names, refusing, by):
    assert voters(*names).excluding("n3", refusing) == by


def test_the_word_of_one_without_a_vote_does_not_count_for_that():
    assert with_role(voters("n1", "n2", "n3"), "n2", "learner").excluding("n3", {"n2"}) == ()


def test_the_last_voter_stays():
    assert voters("n1").objection(Members()) == "no voter would be left"


# -- what a leader does by itself ----------------------------------------------------------------------


introductions = st.dictionaries(
    names,
    st.builds(
        Introduction,
        st.sampled_from(["x", "y", "z"]),
        st.just("cafe"),
        address=st.sampled_from(["", "here:1", "elsewhere:1"]),
    ),
)


@given(groups, introductions, st.sets(names))
def test_every_step_that_a_leader_takes_by_itself_is_safe(group, said, caught_up):
    group = group.with_member(Member("n1", "x", "here:1", "voter"))
    wanted = mended(group, "n1", said, caught_up)
    if wanted is not None:
        assert group.objection(wanted) is None
        assert wanted.names == group.names
        assert replace(wanted.get("n1"), address="") == replace(group.get("n1"), address="")


@given(groups, introductions, st.sets(names))
def test_what_a_leader_does_by_itself_comes_to_an_end(group, said, caught_up):
    group = group.with_member(Member("n1", "x", "here:1", "voter"))
    steps = 0
    while (wanted := mended(group, "n1", said, caught_up)) is not None:
        group, steps = wanted, steps + 1
        assert steps <= 15


def test_a_voter_that_comes_with_another_journal_is_joining():
    said = {"n2": Introduction("another journal", "")}
    wanted = mended(voters("n1", "n2", "n3"), "n1", said, {"n2", "n3"})
    assert wanted == with_role(voters("n1", "n2", "n3"), "n2", "joining", identity="another journal")


def test_a_learner_that_comes_with_another_journal_stays_a_learner():
    group = with_role(voters("n1", "n2"), "n3", "learner")
    wanted = mended(group, "n1", {"n3": Introduction("another journal", "")}, set())
    assert wanted == with_role(group, "n3", "learner", identity="another journal")


def test_one_that_is_joining_is_a_voter_once_it_has_caught_up():
    group = with_role(voters("n1", "n2"), "n3", "joining")
    assert mended(group, "n1", {}, set()) is None
    assert mended(group, "n1", {}, {"n3"}) == voters("n1", "n2", "n3")


def test_a_stranger_is_not_made_a_member():
    assert mended(voters("n1", "n2"), "n1", {"n9": Introduction("some journal", "")}, {"n9"}) is None


def test_a_member_that_says_another_address_is_written_there_one_at_a_time():
    said = {name: Introduction(replica_id(name), "", address=f"{name}:9") for name in ("n1", "n2", "n3")}
    group, written = voters("n1", "n2", "n3"), []
    while (group := mended(group, "n1", said, set()) or group) not in written:
        written.append(group)
    assert [[member.address for member in group.all] for group in written] == [
        ["n1:9", "n2:7000", "n3:7000"],
        ["n1:9", "n2:9", "n3:7000"],
        ["n1:9", "n2:9", "n3:9"],
    ]
    assert all((member.replica_id, member.role) == (replica_id(member.name), "voter") for member in group.all)


def test_one_that_says_no_address_stays_where_it_was():
    assert mended(voters("n1", "n2"), "n1", {"n2": Introduction("id-n2", "")}, set()) is None


# -- where they are ------------------------------------------------------------------------------------


CONFIGURED = {"n1": "n1:1", "n2": "n2:1"}


def test_before_there_are_members_they_are_where_the_configuration_says():
    assert places_of(Members(), CONFIGURED, {}) == {"n1": ("n1:1",), "n2": ("n2:1",)}


def test_before_there_are_members_who_comes_from_elsewhere_may_be_there():
    said = {"n1": Introduction("id-n1", "c", address="n1:1"), "n2": Introduction("id-n2", "c", address="n2:9")}
    assert places_of(Members(), CONFIGURED, said) == {"n1": ("n1:1",), "n2": ("n2:1", "n2:9")}
    assert places_of(Members(), CONFIGURED, {"n2": Introduction("id-n2", "c")})["n2"] == ("n2:1",)


def test_then_only_members_are_looked_for_where_they_are_known_to_be():
    assert places_of(voters("n2", "n3"), CONFIGURED, {}) == {"n2": ("n2:7000", "n2:1"), "n3": ("n3:7000",)}


def test_a_member_knows_best_where_it_is():
    said = {"n2": Introduction("id-n2", "", address="n2:9")}
    assert places_of(voters("n2"), CONFIGURED, said) == {"n2": ("n2:9", "n2:7000", "n2:1")}


def test_another_replica_under_a_members_name_is_not_gone_to():
    said = {"n2": Introduction("another journal", "", address="n2:9"), "n4": Introduction("id-n4", "", address="n4:9")}
    assert places_of(voters("n2"), CONFIGURED, said) == {"n2": ("n2:7000", "n2:1")}


# -- founding ------------------------------------------------------------------------------------------


@given(st.permutations(["n1", "n2", "n3"]))
def test_founders_compute_the_same_group_in_whatever_order(order):
    replicas = {name: replica_id(name) for name in order}
    addresses = {name: f"{name}:7000" for name in reversed(order)}
    cluster_id, group = founders("c", replicas, addresses)
    assert group == voters("n1", "n2", "n3")
    assert cluster_id == founders("c", dict(sorted(replicas.items())), addresses)[0]


def test_the_id_of_a_group_depends_on_everything_but_addresses():
    replicas = {"n1": "x", "n2": "y"}
    here, there = {"n1": "a:1", "n2": "b:1"}, {"n1": "c:1", "n2": "d:1"}
    known = founders("c", replicas, here)[0]
    assert founders("c", replicas, there)[0] == known
    assert founders("d", replicas, here)[0] != known
    assert founders("c", {**replicas, "n2": "z"}, here)[0] != known
    assert founders("c", {"n1": "x"}, {"n1": "a:1"})[0] != known


# -- as values -----------------------------------------------------------------------------------------


@given(groups)
def test_members_come_out_as_they_went_in(group):
    assert Members.unpack(group.pack()) == group
    assert members_in(members_entry(group)) == group


@given(groups)
def test_everybody_is_a_voter_or_a_learner(group):
    assert group.voters | group.learners == group.names
    assert not group.voters & group.learners
    assert [group.get(name).name for name in sorted(group.names)] == [member.name for member in group.all]


def test_names_are_unique():
    with pytest.raises(ValueError, match="a name is there twice"):
        Members.of([Member("n1", "x", "", "voter"), Member("n1", "y", "", "learner")])


def test_there_are_not_too_many():
    with pytest.raises(ValueError, match="65 members are more than 64"):
        Members.of(Member(f"n{number}", "x", "", "learner") for number in range(65))


@pytest.mark.parametrize(
    "packed",
    [
        {},
        "n1",
        [[]],
        [["n1", "x", "a:1"]],
        [["n1", "x", "a:1", "king"]],
        [["", "x", "a:1", "voter"]],
        [["n1", b"x", "a:1", "voter"]],
        [["n1", "x", None, "voter"]],
        [["n" * 256, "x", "a:1", "voter"]],
        [["n1", "x", "a:1", "voter"], ["n1", "y", "a:1", "voter"]],
    ],
)
def test_what_are_no_members_is_a_value_error(packed):
    with pytest.raises(ValueError):  # noqa: PT011  each in its own words
        Members.unpack(packed)


@given(st.binary(max_size=60))
def test_an_entry_of_members_that_holds_junk_is_a_value_error(junk):
    try:
        found = members_in(MEMBERS + junk)
    except ValueError:
        return
    assert members_entry(found)[:1] == MEMBERS


def test_other_entries_hold_no_members():
    assert members_in(COMMAND + b"junk") is None
    assert members_in(NO_OP) is None
    assert members_in(b"") is None


# -- what is in force where ----------------------------------------------------------------------------


def written_at(index):
    return with_role(voters("n1"), f"written at {index}", "learner")


def log_of(places):
    log = MembersLog(1, voters("n1"))
    for index in sorted(places):
        log.write(index, written_at(index))
    return log


places = st.sets(st.integers(2, 20), max_size=6)


@given(places, st.integers(1, 25))
def test_in_force_is_what_was_written_last_up_to_there(places, index):
    last = max((place for place in places if place <= index), default=None)
    assert log_of(places).at(index) == (voters("n1") if last is None else written_at(last))


@given(places, st.integers(2, 25))
def test_what_is_truncated_is_in_force_no_more(places, index):
    log = log_of(places)
    changed = log.truncate(index)
    kept = {place for place in places if place < index}
    assert changed == (kept != places)
    assert (log.current, log.index) == (log_of(kept).current, log_of(kept).index)


@given(places, st.integers(1, 25), st.integers(0, 9))
def test_what_is_forgotten_is_not_needed_from_there_on(places, index, more):
    log = log_of(places)
    before = log.at(index + more), log.current, log.index
    log.forget_before(index)
    assert (log.at(index + more), log.current, log.index) == before
    assert len(log._steps) == 1 + len({place for place in places if place > index})


@given(places, st.integers(2, 25), st.integers(1, 25))
def test_what_is_in_force_before_a_truncation_survives_what_is_forgotten(places, truncated, forgotten):
    log = log_of(places)
    log.forget_before(min(forgotten, truncated - 1))
    log.truncate(truncated)
    assert log.current == log_of({place for place in places if place < truncated}).current
