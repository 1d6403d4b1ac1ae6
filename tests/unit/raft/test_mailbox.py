"""The mailbox: what is posted is done once, in order, by who waits; and wakes it."""

import os
import threading
import time

import pytest

from raft.mailbox import MAILBOX_LIMIT, Mailbox


@pytest.fixture
def mailbox():
    mailbox = Mailbox()
    yield mailbox
    mailbox.close()


def test_what_is_posted_is_done_once_and_in_order(mailbox):
    done = []
    for number in range(100):
        assert mailbox.post(lambda number=number: done.append(number))
    assert mailbox.wait(0)
    assert not mailbox.wait(0)
    assert done == list(range(100))


def test_who_posts_wakes_who_waits(mailbox):
    threading.Timer(0.2, lambda: mailbox.post(lambda: None)).start()
    began_s = time.monotonic()
    assert mailbox.wait(20)
    assert 0.1 < time.monotonic() - began_s < 10


def test_nothing_posted_is_waited_for_no_longer_than_said(mailbox):
    began_s = time.monotonic()
    assert not mailbox.wait(0.2)
    assert 0.15 < time.monotonic() - began_s < 5


def test_only_an_action_that_answers_false_needs_no_step(mailbox):
    for answers, stirs in (([False], False), ([None], True), ([True], True), ([False, None, False], True)):
        for answer in answers:
            mailbox.post(lambda answer=answer: answer)
        assert mailbox.wait(0) is stirs


def test_what_an_action_posts_is_for_the_next_time(mailbox):
    """Or actions that beget actions would keep the owner from its steps."""
    done = []

    def beget():
        done.append(len(done))
        mailbox.post(beget)

    mailbox.post(beget)
    for count in (1, 2, 3):
        assert mailbox.wait(1)
        assert done == list(range(count))


def test_a_full_one_drops_what_may_be_dropped_and_nothing_else(mailbox):
    done = []
    taken = [mailbox.post(lambda: done.append("may be dropped"), droppable=True) for _ in range(MAILBOX_LIMIT + 3)]
    assert taken == [True] * MAILBOX_LIMIT + [False] * 3
    assert mailbox.post(lambda: done.append("must not"))
    mailbox.wait(0)
    assert done == ["may be dropped"] * MAILBOX_LIMIT + ["must not"]
    assert mailbox.post(lambda: None, droppable=True), "there is room again"


def test_after_the_end_nothing_is_taken_and_no_descriptor_is_left():
    mailbox = Mailbox()
    mailbox.close()
    assert not mailbox.post(lambda: None)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(mailbox.descriptor)


def test_many_threads_post_and_nothing_is_lost_or_done_twice(mailbox):
    done = []

    def post(thread):
        for number in range(500):
            mailbox.post(lambda number=number: done.append((thread, number)))

    threads = [threading.Thread(target=post, args=(thread,)) for thread in range(4)]
    for thread in threads:
        thread.start()
    deadline_s = time.monotonic() + 20
    while len(done) < 2000 and time.monotonic() < deadline_s:
        mailbox.wait(0.1)
    for thread in threads:
        thread.join()
    assert len(done) == len(set(done)) == 2000
    for thread in range(4):
        assert [number for who, number in done if who == thread] == sorted(n for who, n in done if who == thread)
