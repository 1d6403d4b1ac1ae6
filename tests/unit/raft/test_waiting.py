"""Every question is completed exactly once."""

import threading
import time

import pytest

from raft.waiting import Waiting


@pytest.fixture
def waiting():
    waiting = Waiting("test deadlines")
    waiting.start()
    yield waiting
    waiting.close("test over")


def late(future, begun, reason):
    future.set_result((begun, reason))


def test_an_answer_completes_all_who_asked(waiting):
    futures = [waiting.add("a", 5, late) for _ in range(3)]
    waiting.complete("a", lambda future: future.set_result("answer"))
    assert [future.result(0) for future in futures] == ["answer"] * 3
    assert waiting.open_keys() == []


def test_one_of_several_can_be_completed_alone(waiting):
    first, second = waiting.add("a", 5, late), waiting.add("a", 5, late)
    waiting.complete_one("a", second, lambda future: future.set_result("mine"))
    assert (second.result(0), first.done()) == ("mine", False)
    waiting.complete("a", lambda future: future.set_result("answer"))
    assert first.result(0) == "answer"
    waiting.complete_one("a", first, lambda future: future.set_result("too late"))
    assert waiting.open_keys() == []


def test_deadlines_come_in_their_order_and_in_time(waiting):
    began_s = time.monotonic()
    long = waiting.add("long", 0.2, late)
    short = waiting.add("short", 0.05, late)
    assert short.result(1) == (False, "no answer within 0.05 s")
    assert not long.done()
    assert long.result(1) == (False, "no answer within 0.2 s")
    assert time.monotonic() - began_s < 1


def test_what_was_sent_is_known_at_the_deadline(waiting):
    future = waiting.add("a", 0.05, late)
    assert waiting.begin("a")
    assert future.result(1)[0] is True
    assert not waiting.begin("a")


def test_closing_completes_open_and_later_questions(waiting):
    before = waiting.add("a", 60, late)
    waiting.close("closed")
    after = waiting.add("b", 60, late)
    assert before.result(0) == (False, "closed")
    assert after.result(0) == (False, "closed")


def test_cancelling_a_future_disturbs_nobody(waiting):
    future = waiting.add("a", 0.05, late)
    assert not future.cancel()
    assert future.result(1) == (False, "no answer within 0.05 s")


def test_answers_and_deadlines_at_once_complete_each_future_once(waiting):
    futures = [waiting.add(number, 0.02, late) for number in range(200)]

    def answer(numbers):
        for number in numbers:
            waiting.complete(number, lambda future: future.set_result("answer"))

    threads = [threading.Thread(target=answer, args=(range(begin, 200, 2),)) for begin in (0, 1)]
    time.sleep(0.019)
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(future.result(1) in ("answer", (False, "no answer within 0.02 s")) for future in futures)
