"""One replica's consensus, fed message by message: what it keeps, answers and refuses."""

import itertools
import shutil
import time

import pytest

from raft import compat
from raft.api import ReplicaConfig, ReplicaFailed
from raft.compat import LEADER
from raft.core import Core
from raft.journal import FILE_NAME, Journal


class Bench:
    """The core of n2 among three, on a real journal; what it sends is kept, with the disk at that moment."""

    def __init__(self, directory, *, founder=True):
        members = {name: f"127.0.0.1:{port}" for port, name in enumerate(("n1", "n2", "n3"), start=1)}
        config = ReplicaConfig("c", "n2", directory, "127.0.0.1:2", members, 0.04, 0.05, 0.01)
        self.directory = directory
        self.sent = []
        self.applied = []
        self.numbers = itertools.count(1)
        self.journal = Journal(directory, "c", "n2", members)
        self.core = Core(
            config,
            self.journal,
            self.send,
            apply=lambda index, envelope: self.applied.append((index, envelope)),
            on_applied=lambda: None,
        )
        if founder:
            self.core.heard_fresh("n1", True)
            self.core.heard_fresh("n3", True)
        self.core.connected("n1")

    def send(self, peer, message):
        self.sent.append((peer, message, self.on_disk()))
        return True

    def on_disk(self):
        copy = self.directory / f"copy{next(self.numbers)}"
        copy.mkdir()
        shutil.copy(self.journal.path, copy / FILE_NAME)
        journal = Journal(copy, "c", "n2", self.journal.identity.members)
        content = (journal[:], journal.term, journal.vote)
        journal.close()
        return content

    def entries(self, entries, *, leader="n1", term=1, previous=(1, 0), commit=1, sent_ns=7):
        self.core.deliver(
            leader,
            {
                "type": "append_entries",
                "term": term,
                "commit_index": commit,
                "prevLogIdx": previous[0],
                "prevLogTerm": previous[1],
                "entries": entries,
                "sent_ns": sent_ns,
            },
        )
        return self.sent[-1][1] if self.sent else None

    def ask_vote(self, candidate, term, last=(1, 0)):
        self.core.deliver(
            candidate, {"type": "request_vote", "term": term, "last_log_index": last[0], "last_log_term": last[1]}
        )

    def votes(self):
        return [peer for peer, message, _ in self.sent if message["type"] == "response_vote"]

    def lead(self):
        """Win an election; answers the term."""
        time.sleep(0.06)
        self.core.step(0)
        term = self.journal.term
        self.core.deliver("n1", {"type": "response_vote", "term": term})
        self.core.step(0)
        assert self.core.facts().state == LEADER
        return term

    def answer(self, peer, next_index, *, term, sent_ns=None, success=True):
        self.core.deliver(
            peer,
            {
                "type": "next_node_idx",
                "term": term,
                "sent_ns": sent_ns or time.clock_gettime_ns(time.CLOCK_BOOTTIME),
                "next_node_idx": next_index,
                "success": success,
                "reset": not success,
            },
        )

    def close(self):
        self.core.close()
        self.journal.close()


@pytest.fixture
def bench(tmp_path):
    bench = Bench(tmp_path)
    yield bench
    bench.close()


A, B, C = [b"\0a", 2, 1], [b"\0b", 3, 1], [b"\0c", 4, 1]


def commands(bench):
    return [command for command, _, _ in bench.journal[1:]]


def test_an_answer_names_the_message_it_answers(bench):
    answer = bench.entries([A], sent_ns=4711)
    assert answer == {
        "type": "next_node_idx",
        "term": 1,
        "sent_ns": 4711,
        "next_node_idx": 3,
        "success": True,
        "reset": False,
    }


def test_nothing_leaves_before_it_is_on_disk(bench):
    bench.entries([A, B])
    log, term, _ = bench.sent[-1][2]
    assert [entry[0] for entry in log[1:]] == [b"\0a", b"\0b"]
    assert term == 1
    bench.ask_vote("n3", 2, last=(3, 1))
    assert bench.votes() == ["n3"]
    assert bench.sent[-1][2][1:] == (2, "n3")


def test_a_repeated_message_drops_nothing(bench):
    bench.entries([A, B, C])
    answer = bench.entries([A])
    assert commands(bench) == [b"\0a", b"\0b", b"\0c"]
    assert answer["next_node_idx"] == 3  # what this message proves, not what the log holds
    bench.entries([])
    assert commands(bench) == [b"\0a", b"\0b", b"\0c"]


def test_a_conflict_replaces_the_tail(bench):
    bench.entries([A, B, C])
    bench.entries([[b"\0other", 3, 2]], leader="n3", term=2, previous=(2, 1))
    assert commands(bench) == [b"\0a", b"\0other"]


def test_only_what_the_message_proves_is_committed(bench):
    bench.entries([A, B, C])
    bench.entries([A], commit=4)
    bench.core.step(0)
    assert bench.journal.commit_index == 2
    assert bench.applied == [(2, b"a")]


def test_a_refusal_points_to_the_first_entry_of_the_conflicting_term(bench):
    bench.entries([A, [b"\0x", 3, 2], [b"\0y", 4, 2]], term=2)
    answer = bench.entries([], leader="n3", term=4, previous=(4, 3))
    assert (answer["success"], answer["next_node_idx"]) == (False, 3)
    answer = bench.entries([], leader="n3", term=4, previous=(9, 3))
    assert (answer["success"], answer["next_node_idx"]) == (False, 5)


def test_a_leader_without_a_committed_entry_stops_the_replica(bench):
    bench.entries([A, B], commit=3)
    with pytest.raises(ReplicaFailed, match="committed"):
        bench.entries([], leader="n3", term=3, previous=(3, 2))
    with pytest.raises(ReplicaFailed, match="committed"):
        bench.entries([[b"\0x", 3, 2]], leader="n3", term=3, previous=(2, 1))


def test_a_leader_of_an_older_term_is_not_followed(bench):
    bench.entries([A], term=3)
    bench.sent.clear()
    bench.entries([[b"\0x", 2, 2]], leader="n3", term=2)
    assert bench.sent == []
    assert commands(bench) == [b"\0a"]


def test_two_leaders_in_one_term_stop_the_replica(bench):
    term = bench.lead()
    with pytest.raises(ReplicaFailed, match="two raft leaders in one term"):
        bench.entries([], term=term)


def test_one_voter_counts_once(bench):
    n1, n3 = bench.core._peers["n1"], bench.core._peers["n3"]
    assert bench.core._first_vote(n1, 5)
    assert not bench.core._first_vote(n1, 5)
    assert bench.core._first_vote(n3, 5)
    assert bench.core._first_vote(n1, 6)


def test_answers_of_another_term_count_for_nothing(bench):
    term = bench.lead()
    bench.core.submit(b"x", lambda _: None)
    bench.core.step(0)
    bench.answer("n1", 4, term=term - 1)
    bench.core.step(0)
    assert bench.journal.commit_index == 1
    assert bench.core.facts().contact_s is None
    bench.answer("n1", 4, term=term)
    bench.core.step(0)
    assert bench.journal.commit_index == 3
    assert bench.applied == [(3, b"x")]


def test_contact_is_as_old_as_the_question_that_was_answered(bench):
    term = bench.lead()
    bench.answer("n3", 3, term=term, sent_ns=5_000_000_000)
    assert bench.core.facts().contact_s == 5.0
    bench.answer("n1", 3, term=term, sent_ns=7_000_000_000)
    assert bench.core.facts().contact_s == 7.0


def test_refusals_of_one_flight_turn_the_leader_back_once(bench):
    term = bench.lead()
    for _ in range(5):
        bench.core.submit(b"x", lambda _: None)
    bench.core.step(0)
    flight = [message["sent_ns"] for peer, message, _ in bench.sent if message["type"] == "append_entries"]
    bench.answer("n1", 2, term=term, sent_ns=flight[-2], success=False)
    bench.answer("n1", 6, term=term, sent_ns=flight[-1], success=False)
    assert bench.core._inside.next_index[bench.core._peers["n1"]] == 2


def test_a_peer_that_lost_its_journal_is_sent_everything_again(bench):
    term = bench.lead()
    bench.answer("n1", 3, term=term)
    assert bench.core.facts().match_index["n1"] == 2
    bench.answer("n1", 2, term=term, success=False)
    assert bench.core.facts().match_index["n1"] == 1
    assert bench.core._inside.next_index[bench.core._peers["n1"]] == 2


def test_an_empty_journal_neither_votes_nor_campaigns_unless_all_are_empty(tmp_path):
    bench = Bench(tmp_path, founder=False)
    bench.core.heard_fresh("n1", True)
    time.sleep(0.06)
    bench.core.step(0)
    bench.ask_vote("n1", 1)
    assert bench.sent == []
    bench.core.heard_fresh("n3", False)
    assert not bench.journal.may_vote
    bench.core.heard_fresh("n3", True)
    assert bench.journal.may_vote
    bench.ask_vote("n1", 1)
    assert bench.votes() == ["n1"]
    bench.close()


def test_an_empty_journal_votes_once_it_holds_what_was_committed_before_its_leader(tmp_path):
    bench = Bench(tmp_path, founder=False)
    bench.entries([[b"\0a", 2, 1]], term=5, commit=2)
    assert not bench.journal.may_vote  # the leader has committed nothing of its own term yet
    bench.entries([[b"\1", 3, 5]], term=5, previous=(2, 1), commit=3)
    assert bench.journal.may_vote
    assert bench.journal.vote == "n1"
    bench.ask_vote("n3", 5, last=(9, 5))
    assert bench.votes() == []
    bench.ask_vote("n3", 6, last=(9, 5))
    assert bench.votes() == ["n3"]
    bench.close()


def test_another_version_of_pysyncobj_is_refused(monkeypatch):
    monkeypatch.setattr(compat, "VERSION", "0.3.18")
    with pytest.raises(ImportError, match=r"PySyncObj 0\.3\.18 is installed, raft/ mends 0\.3\.17"):
        compat.check_version()


def test_a_private_name_that_is_gone_fails_at_import():
    with pytest.raises(AttributeError):
        compat.replaces(noSuchName="x")(Core)
