"""Replicas whose journals were written by other versions of us, in one group with those of this one.

`fixtures/group_format_2` holds what three replicas had on their disks when a version with journal format 2, snapshot
format 1 and submission format 1 ended; n1 had been away for the last entries. Whoever changes a format keeps these
files, adds some of the new one (`record`), and has both read here.
"""

from hashlib import sha256
from pathlib import Path

import pytest

from raft.api import Applied, JournalDamaged, Refused, ReplicaError, ReplicaFailed
from raft.applier import Applier, Submission
from raft.journal_format import Identity, begin_file, frame
from raft.log import Kind
from raft.messages import Forward, ForwardRefused
from raft.recover import read_copy
from raft.snapshot import Snapshot
from tests.unit.raft.bench import NAMES, Bench, Group, OfVersion, command, replica_id, voters
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


# -- what a newer version writes ---------------------------------------------------------------------------

LATER = (command(2, 1, b"one"), command(3, 1, b"later"), command(4, 1, b"two"))
INSTALL = "this version knows up to 1: install the newer version on this host"


@pytest.fixture
def old():
    """It follows n2, and knows the first version only."""
    return Bench(machine=OfVersion(1)).found()


def test_a_replica_ends_before_an_entry_that_only_a_newer_version_understands(old):
    old.hear_entries(*LATER, commit=4)
    with pytest.raises(ReplicaFailed, match=r"^entry 3 holds what is of version 2$"):
        old.step()
    assert old.engine._applier.state == (b"one",)
    assert [old.journal.entry(index) for index in (2, 3, 4)] == list(LATER)


def test_it_ends_there_again_and_goes_on_with_the_newer_version(old):
    old.hear_entries(*LATER, commit=4)
    with pytest.raises(ReplicaFailed):
        old.step()
    old.restart(power_lost=False)
    old.found().hear_entries(previous=(4, 1), commit=4)
    with pytest.raises(ReplicaFailed, match="entry 3 holds"):
        old.step()
    old.machine = OfVersion(2)
    old.restart()
    old.found().hear_entries(previous=(4, 1), commit=4)
    old.step()
    assert old.engine.view.state == (b"one", b"later", b"two")


def test_an_entry_of_a_newer_version_that_is_not_committed_ends_nobody(old):
    old.hear_entries(*LATER, commit=2)
    old.step()
    old.hear_entries(command(3, 2, b"other"), term=2, previous=(2, 1), commit=3)
    old.step()
    assert old.engine.view.state == (b"one", b"other")


def test_a_leader_lets_nothing_into_the_log_that_it_could_not_apply():
    leader = Bench(machine=OfVersion(1)).found().lead().settle()
    last = leader.journal.last_index
    submission = Submission("id", 1, b"later").pack()
    newer = b"\x95\x02" + submission[2:] + b"\x01"
    for number, packed in enumerate([submission, newer, b"junk"]):
        leader.hear("n2", Forward, number=number, submission=packed)
    leader.engine.propose(b"later", "own")
    assert [refused.reason for refused in leader.said(ForwardRefused, "n2")] == [
        "the command holds what is of version 2",
        f"the command holds a submission of format 2; {INSTALL}",
        "this is no submission",
    ]
    assert leader.outcome("command", "own") == Refused("the command holds what is of version 2", None)
    assert leader.journal.last_index == last


def test_what_the_machine_objects_to_is_refused_where_it_is_proposed(old):
    old.hear_entries(command(2, 1, b"one"), commit=2)
    old.step()
    old.engine.propose(b"no", "id")
    assert old.outcome("command", "id") == Refused("said no", None)
    assert old.said(Forward) == []


@pytest.mark.parametrize("known", [1, 2])
def test_a_snapshot_of_a_newer_version_is_not_taken_and_that_is_said(known):
    new = Applier(OfVersion(2))
    new.apply(2, Submission("a", 1, b"later").pack())
    bench = Bench(machine=OfVersion(known)).found()
    bench.hear_entries(command(2, 1, b"one"), commit=2)
    bench.step()
    snapshot = Snapshot(10, 2, voters(*NAMES), new.dump())
    if known == 2:
        assert bench.hear_snapshot(snapshot, term=2).success
        return
    with pytest.raises(ReplicaFailed, match=r"^the raft leader's snapshot of entry 10 holds what is of version 2$"):
        bench.hear_snapshot(snapshot, term=2)
    assert (bench.journal.snapshot, bench.journal.last_index, bench.engine._applier.state) == (None, 2, (b"one",))


def journal_with(snapshot):
    header, seed = begin_file(Identity("c", "n1", "id-n1"), 1)
    records = [[Kind.BASE, 10, 2], [Kind.TERM, 2, None], [Kind.SNAPSHOT, snapshot]]
    return header + frame(records, len(header), seed)


def of_content(content):
    return Snapshot(10, 2, voters(*NAMES), content).pack()


def newer_snapshot():
    """In a format of its own that is above this version's."""
    body = b"\x95\x02" + of_content(b"")[34:]
    return sha256(body).digest() + body


def test_a_journal_with_a_snapshot_of_a_newer_version_is_no_damaged_one(tmp_path):
    """The remedy for damage would take away what is well."""
    new = Applier(OfVersion(2))
    new.apply(2, Submission("a", 1, b"later").pack())
    for packed, why in [
        (newer_snapshot(), f"snapshot in journal .* is of format 2; {INSTALL}$"),
        (of_content(new.dump()), "snapshot in journal .* holds what is of version 2$"),
        (of_content(b"\x94\x02" + new.dump()[2:] + b"\x90"), f"holds what was applied, of format 2; {INSTALL}$"),
    ]:
        data = journal_with(packed)
        with pytest.raises(ReplicaError, match=why) as error:
            Bench(machine=OfVersion(1), medium=holding(data))
        assert not isinstance(error.value, JournalDamaged)
        (tmp_path / "journal").write_bytes(data)
        with pytest.raises(ReplicaError, match=why) as error:
            read_copy(tmp_path, OfVersion(1))
        assert not isinstance(error.value, JournalDamaged)


def test_a_copy_that_holds_an_entry_of_a_newer_version_is_not_judged_by_an_older_one(tmp_path, old):
    old.hear_entries(*LATER, commit=2)
    old.step()
    (tmp_path / "journal").write_bytes(bytes_on(old.medium))
    with pytest.raises(ReplicaFailed, match="entry 3 holds what is of version 2"):
        read_copy(tmp_path, OfVersion(1))
    assert read_copy(tmp_path, OfVersion(2))[1] == (b"one", b"later", b"two")
