"""Refusals are counted always and told once, and no crowd of strangers can make that costly."""

import pytest

from raft.refusals import FORGET_S, MEMORY_LIMIT, REASONS, Refusals, RefusedError


class Log:
    def __init__(self):
        self.lines = []
        self.now_s = 0.0
        self.refusals = Refusals(lambda *line: self.lines.append(line), clock=lambda: self.now_s)

    def refuse(self, reason="junk", host="10.0.0.9", peer=None, words="x"):
        self.refusals.note(RefusedError(reason, words, peer), host)


@pytest.fixture
def log():
    return Log()


def test_a_refusal_is_told_once_and_counted_each_time(log):
    for _ in range(5):
        log.refuse(words="sent junk")
    assert log.lines == [("10.0.0.9", "sent junk")]
    assert log.refusals.counts() == dict.fromkeys(REASONS, 0) | {"junk": 5}


def test_another_reason_or_another_stranger_is_news(log):
    log.refuse("junk")
    log.refuse("tls")
    log.refuse("junk")
    log.refuse("junk", host="10.0.0.8")
    assert len(log.lines) == 3


def test_a_peer_is_told_by_name_and_again_once_all_was_well(log):
    log.refuse(peer="n2", host="10.0.0.2")
    log.refuse(peer="n2", host="10.0.0.3")
    log.refuse(peer="n3")
    assert [who for who, _ in log.lines] == ["n2", "n3"]
    log.refusals.forget("n2")
    log.refuse(peer="n2")
    log.refuse(peer="n3")
    assert [who for who, _ in log.lines] == ["n2", "n3", "n2"]


def test_words_chosen_by_a_stranger_make_no_news(log):
    for number in range(1000):
        log.refuse(words=f"calls itself {number}")
    assert len(log.lines) == 1


def test_a_crowd_of_strangers_is_told_up_to_a_limit_and_hides_no_peer(log):
    for number in range(10 * MEMORY_LIMIT):
        log.refuse(host=f"10.0.{number}")
    assert len(log.lines) == MEMORY_LIMIT
    assert log.refusals.counts()["junk"] == 10 * MEMORY_LIMIT
    log.refuse(peer="n2")
    assert log.lines[-1] == ("n2", "x")


def test_who_has_been_quiet_for_long_gives_its_place_to_the_next(log):
    for number in range(MEMORY_LIMIT):
        log.refuse(host=f"10.0.{number}")
    log.now_s = FORGET_S / 2
    log.refuse(host="10.0.0")  # still at it: not forgotten, and not news
    log.now_s = FORGET_S + 1
    log.refuse(host="another")
    log.refuse(host="10.0.0")
    assert len(log.lines) == MEMORY_LIMIT + 1
    log.refuse(host="10.0.1")  # it made room, so it is news
    assert len(log.lines) == MEMORY_LIMIT + 2


def test_what_strangers_say_steers_no_terminal_and_fills_no_log(log):
    log.refuse(words="\x1b[2Jgone\nnode.started" + "x" * 10_000)
    ((_, words),) = log.lines
    assert words.startswith("\N{REPLACEMENT CHARACTER}[2Jgone\N{REPLACEMENT CHARACTER}node.started")
    assert len(words) < 500
