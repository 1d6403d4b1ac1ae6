"""Replicas whose journals were written by other versions of us, in one group with those of this one.

`fixtures/group_format_2` holds what three replicas had on their disks when a version with journal format 2, snapshot
format 1 and submission format 1 ended; n1 had been away for the last entries. Whoever changes a format keeps these
files, adds some of the new one (`record`), and has both read here.
"""

from pathlib import Path

import pytest

from raft.api import Applied, ReplicaError
from tests.unit.raft.bench import NAMES, Group, replica_id
from tests.unit.raft.journals import bytes_on, holding

FIXTURES = Path(__file__).parent / "fixtures"
RECORDED = FIXTURES / "group_format_2"
LIMITS = {"compact_entries": 12, "keep_entries": 4}
WORDS = tuple(b"word %d" % number for number in range(30))
EARLY = 20
"""So many of the words were there before n1 went."""


def record(directory):
    """Make the fixtures of the version that runs this."""
    group = Group(*NAMES, **LIMITS)
    group.led_by("n2")
    for word in WORDS[:EARLY]:
        group.propose(word)
    group.propose(b"raise")
    group.agree()
    media = {name: group[name].medium for name in NAMES}
    group.stop("n1")
    group.propose(b"no")
    for word in WORDS[EARLY:]:
        group.propose(word)
    group.run(0.5)
    for name in ("n2", "n3"):
        group.stop(name)
    directory.mkdir(exist_ok=True)
    for name, medium in media.items():
        (directory / name).write_bytes(bytes_on(medium))


def recorded(name):
    return holding((RECORDED / name).read_bytes())


@pytest.fixture
def group():
    return Group(*NAMES, late=NAMES, **LIMITS)


def test_a_group_goes_on_from_what_another_version_wrote(group):
    for name in NAMES:
        group.add(name, medium=recorded(name))
    group.propose(b"more")
    assert group.agree() == (*WORDS, b"more")
    assert {group[name].group for name in NAMES} == {group["n1"].group}
    assert [group[name].journal.identity.replica_id for name in NAMES] == [replica_id(name) for name in NAMES]


@pytest.mark.parametrize("late", NAMES)
def test_who_comes_with_an_older_journal_catches_up_with_a_group_that_has_gone_on(group, late):
    for name in NAMES:
        if name != late:
            group.add(name, medium=recorded(name))
    news = tuple(b"news %d" % number for number in range(20))
    for word in news:
        group.propose(word)
    group.add(late, medium=recorded(late))
    assert group[late].journal.last_index < group.leader().journal.base_index
    assert group.agree() == (*WORDS, *news)
    assert isinstance(group.propose(b"last", name=late), Applied)


def test_what_another_version_had_applied_is_not_applied_again(group):
    for name in NAMES:
        group.add(name, medium=recorded(name))
    group.leader()
    group.agree()
    identity = next(iter(group["n3"].engine._applier._remembered))
    assert isinstance(group.propose(WORDS[0], name="n3", identity=identity), Applied)
    assert group.agree() == WORDS


def test_who_comes_with_a_format_that_is_not_read_stays_out_and_the_others_go_on(group):
    """Its journal stays as it is, for the version that wrote it; with an empty directory it joins anew."""
    unread = (FIXTURES / "journal_format_1").read_bytes()
    for name in ("n2", "n3"):
        group.add(name, medium=recorded(name))
    medium = holding(unread)
    with pytest.raises(ReplicaError, match="has format 1, which this version does not read"):
        group.add("n1", medium=medium)
    assert bytes_on(medium) == unread
    group.propose(b"without it")
    group.add("n1", identity="another")
    group.until(lambda: group.leader().members.get("n1").replica_id == "another")
    group.until(lambda: "n1" in group.leader().members.voters)
    assert group.agree() == (*WORDS, b"without it")
