"""Asking to join: one question on the port of the log, from a node that has nothing to show."""

import threading
from contextlib import ExitStack
from dataclasses import replace

import pytest

from raft.api import ReplicaError
from raft.joining import Door, JoinError, ask
from raft.port import JOINING_LIMIT
from tests.harness.certificates import Certificates
from tests.harness.transports import Party


@pytest.fixture
def asked():
    return []


@pytest.fixture
def n1(places, certificates, asked):
    def let_in(name, question):
        asked.append((name, question))
        if question == b"wrong":
            raise ReplicaError("no token of this kind is valid")
        return question[::-1]

    party = Party("n1", places, certificates, on_join=let_in).start()
    yield party
    party.close()


@pytest.fixture
def door(places, certificates):
    ca = b"" if certificates is None else certificates.tls("n1").ca.read_bytes()
    return Door("c", {"n1": places["n1"]}, ca)


def test_a_stranger_is_answered(n1, door, asked):
    assert ask(door, "n9", b"let me in", 5) == b"ni em tel"
    assert asked == [("n9", b"let me in")]


def test_it_is_no_member_by_asking(n1, door, wait):
    ask(door, "n9", b"x", 5)
    assert n1.told == []
    assert [status.name for status in n1.transport.status({})] == ["n2", "n3"]


def test_a_no_arrives_in_words_and_is_counted(n1, door, wait):
    with pytest.raises(JoinError, match=r"n1 at .* refused us: 'n9' asks to join, and may not: no token of this kind"):
        ask(door, "n9", b"wrong", 5)
    wait(lambda: n1.count("stranger") == 1)


def test_the_next_member_is_asked_when_one_is_away(n1, door, places, asked):
    away = replace(door, members={"n2": places["n2"], **door.members})
    assert ask(away, "n9", b"x", 5) == b"x"
    with pytest.raises(JoinError, match=r"n2 at .*: Connection refused"):
        ask(replace(door, members={"n2": places["n2"]}), "n9", b"x", 5)
    assert len(asked) == 1


def test_the_same_refusal_is_told_once_with_everybody_who_gave_it(n1, door, places):
    twice = replace(door, members={"n1": places["n1"], "n2": places["n2"], "n3": places["n3"]})
    with pytest.raises(JoinError) as refused:
        ask(twice, "n9", b"wrong", 5)
    assert str(refused.value).count("Connection refused") == 1
    assert f"n2 at {places['n2']}, n3 at {places['n3']}: Connection refused" in str(refused.value)
    assert refused.value.answered

    with pytest.raises(JoinError) as alone:
        ask(replace(door, members={"n2": places["n2"]}), "n9", b"x", 5)
    assert not alone.value.answered


def test_another_cluster_or_another_member_learns_nothing_of_the_question(n1, door, asked, tmp_path, certificates):
    doors = [replace(door, cluster="other"), replace(door, members={"n2": door.members["n1"]})]
    if certificates is not None:
        doors.append(replace(door, ca=Certificates(tmp_path / "of another").tls("n1").ca.read_bytes()))
    for other in doors:
        with pytest.raises(JoinError):
            ask(other, "n9", b"secret", 5)
    assert asked == []


def test_only_a_few_may_ask_at_once(places, certificates, door, wait):
    go = threading.Event()
    waiting = []

    def slow(name, question):
        waiting.append(name)
        go.wait(10)
        return b"done"

    answers = []
    with ExitStack() as end:
        n1 = Party("n1", places, certificates, on_join=slow).start()
        end.callback(n1.close)
        end.callback(go.set)
        threads = [
            threading.Thread(target=lambda: answers.append(ask(door, "n9", b"x", 10))) for _ in range(JOINING_LIMIT)
        ]
        for thread in threads:
            thread.start()
        wait(lambda: len(waiting) == JOINING_LIMIT)
        with pytest.raises(JoinError, match="try again"):
            ask(door, "n8", b"x", 5)
        go.set()
        for thread in threads:
            thread.join(5)
    assert answers == [b"done"] * JOINING_LIMIT
