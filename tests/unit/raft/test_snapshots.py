"""Snapshots on their way from a leader to a follower, and in the place of what they stand for."""

import itertools
from random import Random

import pytest

from raft.api import Applied, ReplicaError, Verdict
from raft.applier import REMEMBERED_ENTRIES, Applier, Submission
from raft.entries import COMMAND
from raft.messages import Append, Appended, Forward, SnapshotHeld, SnapshotPart
from raft.snapshot import Snapshot
from tests.unit.raft.bench import (
    ELECTION_MAX_S,
    ELECTION_MIN_S,
    HEARTBEAT_S,
    NAMES,
    TICK_S,
    Bench,
    Group,
    Words,
    change,
    command,
    crashed,
    entry,
    voters,
)


@pytest.fixture
def bench():
    return Bench().found()


def snapshot(index=10, term=2, words=(b"one", b"two"), members=None):
    """What a leader's applier holds when it has applied these words."""
    applier = Applier(Words())
    for number, word in enumerate(words):
        applier.apply(index - len(words) + 1 + number, Submission(f"id of {word.decode()}", 1, word).pack())
    return Snapshot(index, term, members or voters(*NAMES), applier.dump())


def in_parts(packed, size=40):
    return [(offset, packed[offset : offset + size]) for offset in range(0, len(packed), size)]


def compacted(bench, last=12):
    """A leader whose log begins behind what a new follower needs."""
    bench.hear_entries(*(entry(index, 1) for index in range(2, last)), commit=last - 1)
    bench.step()
    assert bench.journal.base_index > 1
    return bench.lead()


# -- taking one ----------------------------------------------------------------------------------------


def test_a_snapshot_is_installed_answered_and_in_the_view(bench):
    answer = bench.hear_snapshot(snapshot(), term=2)
    assert (answer.success, answer.next_index, answer.sent, answer.for_term) == (True, 11, 7, 2)
    assert bench.engine.view.state == (b"one", b"two")
    assert bench.engine.view.index == 10


def test_what_was_on_its_way_before_a_snapshot_takes_nothing_back(bench):
    bench.hear_snapshot(snapshot(), term=2)
    answer = bench.hear_entries(entry(2, 1), entry(3, 1), term=2, commit=3)
    bench.step()
    assert (answer.success, answer.next_index) == (True, 4)
    assert (bench.journal.commit_index, bench.engine.view.index) == (10, 10)


def test_a_snapshot_is_on_disk_before_it_is_acknowledged(bench):
    bench.hear_snapshot(snapshot(), term=2)
    disk = bench.on_disk(bench.sent[-1])
    assert (disk.snapshot, disk.commit_index, disk.last_index) == (snapshot(), 10, 10)


def test_after_a_restart_it_goes_on_from_the_snapshot(bench):
    bench.hear_snapshot(snapshot(), term=2)
    bench.restart()
    assert bench.engine.view.state == (b"one", b"two")
    answer = bench.hear_entries(command(11, 2, b"three"), previous=(10, 2), commit=11, term=2)
    assert answer is None  # not connected
    bench.found().step()
    assert bench.engine.view.state == (b"one", b"two", b"three")


def test_a_snapshot_brings_its_members(bench):
    bench.hear_snapshot(snapshot(members=voters("n1", "n2", "n4")), term=2)
    assert bench.members == voters("n1", "n2", "n4")


def test_every_part_is_answered_with_how_much_has_arrived(bench):
    packed = snapshot().pack()
    offsets = in_parts(packed)
    for offset, data in offsets[:-1]:
        answer = bench.hear_part(packed, offset, data, index=10, term=2, sent=offset)
        assert isinstance(answer, SnapshotHeld)
        assert (answer.held, answer.index, answer.size) == (offset + len(data), 10, len(packed))
        assert (answer.sent, answer.for_term) == (offset, 2)
    answer = bench.hear_part(packed, *offsets[-1], index=10, term=2)
    assert isinstance(answer, Appended)


@pytest.mark.parametrize("seed", range(20))
def test_parts_may_be_lost_repeated_and_out_of_order(seed):
    """A leader that sends what is asked for next, over a network that does as it likes."""
    bench, draw = Bench().found(), Random(seed)
    packed = snapshot().pack()
    flight = [0]
    while True:
        offset = flight.pop(draw.randrange(len(flight))) if flight else bench.sent[-1].message.held
        answer = bench.hear_part(packed, offset, packed[offset : offset + 25], index=10, term=2)
        if isinstance(answer, Appended):
            break
        flight += [answer.held] * draw.choice((0, 1, 1, 2))
    assert bench.engine.view.state == (b"one", b"two")
    assert bench.journal.snapshot == snapshot()


def test_parts_of_two_leaders_are_never_put_together(bench):
    first, second = snapshot(words=(b"one", b"two")).pack(), snapshot(words=(b"six", b"ten")).pack()
    assert len(first) == len(second)
    half = len(first) // 2
    bench.hear_part(first, 0, first[:half], index=10, term=2)
    answer = bench.hear_part(second, half, second[half:], index=10, term=3, leader="n3")
    assert (type(answer), answer.held) == (SnapshotHeld, 0)


@pytest.mark.parametrize("where", [0, 40, -1])
def test_d16_a_damaged_snapshot_is_neither_stored_nor_acknowledged(bench, where):
    packed = bytearray(snapshot().pack())
    packed[where] ^= 1
    answer = bench.hear_part(packed, 0, bytes(packed), index=10, term=2)
    assert (type(answer), answer.held) == (SnapshotHeld, 0)
    assert (bench.journal.snapshot, bench.journal.commit_index, bench.engine.view.state) == (None, 1, ())
    assert bench.hear_snapshot(snapshot(), term=2).success


def test_d16_a_snapshot_of_another_place_than_announced_is_neither_stored_nor_acknowledged(bench):
    packed = snapshot(index=10).pack()
    answer = bench.hear_part(packed, 0, packed, index=11, term=2)
    assert isinstance(answer, SnapshotHeld)
    assert bench.journal.snapshot is None


@pytest.mark.parametrize("content", [b"", b"junk", b"\x93\x00\xc4\x00\x90", Applier(Words()).dump() + b"x"])
def test_d16_a_snapshot_whose_content_cannot_be_read_is_neither_stored_nor_acknowledged(bench, content):
    bench.hear_entries(command(2, 1, b"word"), commit=2)
    bench.step()
    answer = bench.hear_snapshot(Snapshot(10, 2, voters(*NAMES), content), term=2)
    assert isinstance(answer, SnapshotHeld)
    assert (bench.journal.snapshot, bench.journal.commit_index) == (None, 2)
    assert bench.engine.view.state == (b"word",)


@pytest.mark.parametrize("index", [3, 4, 5])
def test_d16_a_snapshot_that_is_no_newer_takes_nothing_back(bench, index):
    words = [command(index, 2, b"word %d" % index) for index in range(2, 6)]
    bench.hear_entries(*words, commit=5, term=2)
    bench.step()
    answer = bench.hear_snapshot(snapshot(index=index, words=()), term=2)
    assert (type(answer), answer.success, answer.next_index) == (Appended, True, 6)
    assert bench.engine.view.state == (b"word 2", b"word 3", b"word 4", b"word 5")
    assert (bench.journal.snapshot, bench.journal.last_index) == (None, 5)


def test_d1_parts_of_a_snapshot_commit_nothing_of_the_own_tail(bench):
    """A leader that returns may hold entries that were never committed, at places that are committed elsewhere."""
    bench.hear_entries(*(command(index, 1, b"dead %d" % index) for index in range(2, 9)), commit=1)
    packed = snapshot(index=10).pack()
    for offset, data in in_parts(packed)[:-1]:
        bench.hear_part(packed, offset, data, index=10, term=2, leader="n3")
        bench.step()
        assert bench.engine.facts.commit_index == 1
        assert bench.engine.view.state == ()
    bench.hear_part(packed, *in_parts(packed)[-1], index=10, term=2, leader="n3")
    bench.step()
    assert bench.engine.view.state == (b"one", b"two")
    assert bench.outcomes == []


def test_d1_a_returning_leader_neither_applies_nor_acknowledges_its_dead_tail():
    group = Group(*NAMES, compact_entries=10, keep_entries=2, part_bytes=64)
    old = group.led_by("n1")
    group.cut_off("n1")
    for number in range(5):
        old.engine.propose(b"dead %d" % number, f"dead {number}")
    group.run(3)
    for number in range(60):
        group.leader().engine.propose(b"kept %d" % number, f"kept {number}")
        group.tick()
    assert group.leader().journal.base_index > old.journal.last_index
    group.heal()
    state = group.agree()
    assert [word[:4] for word in state] == [b"kept"] * 60
    assert not any(isinstance(outcome, Applied) for key, outcome in old.outcomes if key[1].startswith("dead"))


def test_a_snapshot_keeps_the_tail_that_follows_from_it(bench):
    bench.hear_entries(*(entry(index, 2) for index in range(2, 14)), term=2)
    answer = bench.hear_snapshot(snapshot(index=10, term=2), term=2)
    assert answer.next_index == 11  # what it proves; what follows may be another leader's
    assert (bench.journal.base_index, bench.journal.last_index, bench.journal.commit_index) == (10, 13, 10)


def test_a_snapshot_drops_a_tail_of_another_term(bench):
    bench.hear_entries(*(entry(index, 1) for index in range(2, 14)), term=1)
    bench.hear_snapshot(snapshot(index=10, term=2), term=2)
    assert (bench.journal.base_index, bench.journal.last_index, bench.journal.commit_index) == (10, 10, 10)


def test_members_in_the_tail_that_a_snapshot_keeps_stay_in_force(bench):
    bench.hear_entries(*(entry(index, 2) for index in range(2, 11)), change(11, 2, voters("n1", "n2")), term=2)
    bench.hear_snapshot(snapshot(index=10, term=2), term=2)
    assert bench.members == voters("n1", "n2")


def test_members_in_the_tail_that_a_snapshot_drops_are_in_force_no_more(bench):
    bench.hear_entries(*(entry(index, 1) for index in range(2, 11)), change(11, 1, voters("n1", "n2")), term=1)
    bench.hear_snapshot(snapshot(index=10, term=2), term=2)
    assert bench.members == voters(*NAMES)


def test_a_part_of_an_older_term_is_told_of_the_newer_one(bench):
    bench.hear_entries(term=4)
    answer = bench.hear_snapshot(snapshot(), term=3)
    assert (type(answer), answer.success, answer.term) == (Appended, False, 4)
    assert bench.journal.snapshot is None


def test_a_command_that_a_snapshot_brings_is_answered_to_who_waits_for_it(bench):
    """D20: it was forwarded, and the follower gets what became of it in a snapshot instead of in an entry."""
    bench.hear_entries(term=2)
    bench.step()
    bench.engine.propose(b"two", "id of two")
    bench.hear_snapshot(snapshot(index=10, words=(b"one", b"two", b"six")), term=2)
    bench.step()
    assert bench.outcome("command", "id of two") == Applied(9)


# -- sending one ---------------------------------------------------------------------------------------


@pytest.fixture
def sender():
    """It leads; n2 has told that it has nothing, and what it needs is in the snapshot only."""
    bench = compacted(Bench(compact_entries=4, keep_entries=1, part_bytes=50).found())
    bench.has("n3", bench.journal.last_index)
    bench.forget()
    bench.has("n2", 2, sent=bench.engine._core.stamp, success=False)
    return bench


@pytest.mark.parametrize(("first", "kind"), [(0, SnapshotPart), (1, Append)])
def test_what_is_not_kept_is_in_the_snapshot_and_what_is_kept_is_sent(first, kind):
    bench = compacted(Bench(compact_entries=4, keep_entries=1).found())
    bench.forget()
    needs = bench.journal.base_index + first
    bench.has("n2", needs, sent=bench.engine._core.stamp, success=False)
    assert [type(sent.message) for sent in bench.sent if sent.peer == "n2"] == [kind]


def test_who_needs_what_is_not_kept_gets_a_snapshot_a_part_at_a_time(sender):
    (part,) = sender.said(SnapshotPart, "n2")
    assert (part.index, part.offset, len(part.data)) == (sender.journal.snapshot.index, 0, 50)
    sender.holds("n2", part, 50)
    first, second = sender.said(SnapshotPart, "n2")
    packed = sender.journal.snapshot.pack()
    assert (second.offset, first.data + second.data) == (50, packed[:100])


def test_d24_a_part_that_is_not_answered_is_sent_again_after_a_timeout_and_not_before(sender):
    for _ in range(4):
        sender.has("n3", sender.journal.last_index)
        sender.wait(HEARTBEAT_S + TICK_S)
    assert len(sender.said(SnapshotPart, "n2")) == 1
    for _ in range(2):
        sender.has("n3", sender.journal.last_index)
        sender.wait(HEARTBEAT_S + TICK_S)
    assert [part.offset for part in sender.said(SnapshotPart, "n2")] == [0, 0]


def test_who_holds_less_than_it_did_gets_the_rest_again(sender):
    (part,) = sender.said(SnapshotPart, "n2")
    sender.holds("n2", part, 50)
    sender.holds("n2", part, 20)
    for _ in range(6):
        sender.has("n3", sender.journal.last_index)
        sender.wait(HEARTBEAT_S + TICK_S)
    assert sender.said(SnapshotPart, "n2")[-1].offset == 20


def test_an_answer_to_another_snapshot_counts_for_nothing(sender):
    (part,) = sender.said(SnapshotPart, "n2")
    fields = {"for_term": sender.term, "sent": part.sent}
    sender.hear("n2", SnapshotHeld, index=part.index - 1, size=part.size, held=50, **fields)
    sender.hear("n2", SnapshotHeld, index=part.index, size=part.size + 1, held=50, **fields)
    sender.hear("n2", SnapshotHeld, index=part.index, size=part.size, held=part.size + 1, **fields)
    assert len(sender.said(SnapshotPart, "n2")) == 1


def test_after_the_snapshot_come_the_entries(sender):
    (part,) = sender.said(SnapshotPart, "n2")
    sender.forget()
    sender.has("n2", part.index, sent=part.sent)
    (message,) = sender.said(Append, "n2")
    assert (message.previous_index, len(message.entries)) == (part.index, sender.journal.last_index - part.index)


def test_on_a_new_connection_a_snapshot_begins_anew(sender):
    (part,) = sender.said(SnapshotPart, "n2")
    sender.holds("n2", part, 50)
    sender.lose("n2")
    sender.meet("n2", cluster_id=sender.journal.cluster_id)
    assert sender.engine._core.leader.progress["n2"].parts is None


def test_a_snapshot_that_a_follower_cannot_read_is_not_sent_without_pause():
    """Another version's, say: the leader must not send it over and over as fast as the network takes it."""

    class Newer(Words):
        def load(self, dumped):
            raise ValueError("a format of another version")

    group = Group(*NAMES, compact_entries=10, keep_entries=2, part_bytes=64)
    group.led_by("n1")
    group.cut_off("n3")
    for number in range(40):
        group["n1"].engine.propose(b"%d" % number, f"id {number}")
        group.tick()
    group["n3"].machine = Newer()
    group.cuts.clear()
    group.restart("n3")
    sent = itertools.count()
    deliver = group["n3"].engine.deliver

    def counted(peer, message):
        if isinstance(message, SnapshotPart):
            next(sent)
        deliver(peer, message)

    group["n3"].engine.deliver = counted
    group.run(3 * ELECTION_MAX_S)
    rounds = 3 * ELECTION_MAX_S / ELECTION_MIN_S
    parts = len(group["n1"].journal.snapshot.pack()) // 64 + 1
    assert 0 < next(sent) <= (rounds + 1) * parts


def test_a_follower_that_was_away_for_long_catches_up_over_many_parts():
    group = Group(*NAMES, compact_entries=10, keep_entries=2, part_bytes=64)
    group.led_by("n1")
    group.stop("n3")
    for number in range(40):
        group["n1"].engine.propose(b"%d" % number, f"id {number}")
        group.tick()
    group.add("n3")
    group.run(1)
    assert group.agree() == tuple(b"%d" % number for number in range(40))
    assert group["n3"].journal.base_index > 2


def test_a_follower_that_lags_a_little_needs_no_snapshot():
    """D30: some entries before the snapshot are kept."""
    group = Group(*NAMES, compact_entries=20, keep_entries=15)
    leader = group.led_by("n1")
    while leader.journal.last_index < 15:
        group.propose(b"word", "n1")
    group.run(0.5)
    group.cut_off("n3")
    lacks = group["n3"].journal.last_index + 1
    while leader.journal.snapshot is None:
        group.propose(b"word", "n1")
    assert leader.journal.base_index < lacks < leader.journal.snapshot.index
    restored = []
    group["n3"].engine.restore = restored.append
    group.heal()
    group.agree()
    assert restored == []


# -- compaction ----------------------------------------------------------------------------------------


class Counter:
    """A state machine whose state does not grow."""

    def initial(self):
        return 0

    def objection(self, state, command):
        return None

    def apply(self, state, command):
        return state + 1, Verdict()

    def dump(self, state):
        return state.to_bytes(8, "big")

    def load(self, dumped):
        return int.from_bytes(dumped, "big")


def test_ten_thousand_commands_keep_memory_and_disk_bounded():
    bench = Bench(names=("n1",), machine=Counter(), compact_entries=500, keep_entries=100).lead()
    most_entries = most_bytes = 0
    for number in range(1000):
        for each in range(10):
            bench.engine.propose(b"x" * 50, f"{number}.{each}")
        bench.step()
        journal = bench.journal
        most_entries = max(most_entries, journal.last_index - journal.base_index)
        most_bytes = max(most_bytes, bench.medium.size_bytes())
    bench.step()
    assert bench.engine.view.state == 10_000
    assert most_entries <= 500 + 100 + 10
    assert len(bench.engine._applier._remembered) <= REMEMBERED_ENTRIES + 1
    one_entry, one_remembered, reserve = 120, 40, 64 * 1024
    assert most_bytes < reserve + 2 * (600 * one_entry + REMEMBERED_ENTRIES * one_remembered)
    bench.restart()
    assert bench.engine.view.state > 9000


def test_ten_thousand_commands_through_a_follower_leave_nothing_behind():
    bench = Bench(machine=Counter(), compact_entries=500, keep_entries=100).found()
    bench.hear_entries(entry(2, 1), commit=2)
    bench.step()
    last = 2
    for number in range(1000):
        bench.forget()
        for each in range(10):
            bench.engine.propose(b"word", f"{number}.{each}")
        submissions = [forward.submission for forward in bench.said(Forward)]
        entries = [entry(last + place, 1, COMMAND + each) for place, each in enumerate(submissions, start=1)]
        bench.hear_entries(*entries, previous=(last, 1), commit=last + 10)
        bench.step()
        last += 10
    answered = {key for key, outcome in bench.outcomes if isinstance(outcome, Applied)}
    assert bench.engine.view.state == len(answered) == 10_000
    bench.lose("n2")
    assert len(bench.outcomes) == 10_000  # nobody is told `unknown` of what was applied


def test_a_large_journal_is_compacted_before_it_has_many_entries():
    bench = Bench(names=("n1",), machine=Counter(), compact_bytes=100_000).lead()
    for number in range(100):
        bench.engine.propose(b"x" * 10_000, f"{number}")
        bench.step()
        assert bench.journal.size_bytes < 200_000
    assert bench.journal.base_index > 50


def test_a_state_that_is_large_by_itself_is_not_written_again_for_every_entry():
    """What counts is what has been added since the journal was written anew, also by a start."""
    bench = Bench(compact_bytes=10_000).found()
    words = [command(index, 1, b"%d" % index * 1000) for index in range(2, 40)]
    bench.hear_entries(*words, commit=39)
    bench.step()
    for restarted in (False, True):
        if restarted:
            bench.restart()
            bench.found()
        place = bench.journal.snapshot.index
        assert bench.journal.size_bytes > 10_000
        last = bench.journal.last_index
        bench.hear_entries(command(last + 1, 1, b"%d" % last), previous=(last, 1), commit=last + 1)
        bench.step()
        assert bench.journal.snapshot.index == place
    last = bench.journal.last_index
    bench.hear_entries(command(last + 1, 1, b"x" * 10_000), previous=(last, 1), commit=last + 1)
    bench.step()
    assert bench.journal.snapshot.index == last + 1


def test_d3_no_crash_in_a_compaction_loses_what_was_acknowledged():
    """In each call to the disk, before it and after it."""
    words = [command(index, 1, b"%d" % index) for index in range(2, 11)]

    def begin():
        bench = Bench(compact_entries=5, keep_entries=2).found()
        bench.hear_entries(*words, commit=10)
        return bench

    snapshots = set()
    for bench in crashed(begin, lambda bench: bench.step()):
        journal = bench.journal
        snapshots.add(journal.snapshot is not None)
        assert journal.last_index == 10
        bench.found().hear_entries(previous=(10, 1), commit=10)
        bench.step()
        assert bench.engine.view.state == tuple(b"%d" % index for index in range(2, 11))
    assert snapshots == {False, True}


def test_d3_no_crash_in_an_installation_leaves_anything_but_the_old_log_or_the_new():
    def begin():
        bench = Bench().found()
        bench.hear_entries(command(2, 1, b"old"), command(3, 1, b"dead"), commit=2)
        bench.step()
        return bench

    found = set()
    for bench in crashed(begin, lambda bench: bench.hear_snapshot(snapshot(), term=2)):
        found.add((bench.journal.base_index, bench.journal.last_index, bench.engine.view.state))
    assert found == {(1, 3, ()), (10, 10, (b"one", b"two"))}


def test_a_snapshot_that_cannot_be_read_at_the_start_ends_the_replica_in_words(bench):
    bench.hear_snapshot(snapshot(), term=2)

    class Newer(Words):
        def load(self, dumped):
            raise ValueError("the state has format 7")

    bench.machine = Newer()
    with pytest.raises(ReplicaError, match="the state has format 7"):
        bench.restart()
