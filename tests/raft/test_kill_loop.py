"""The long `kill -9` loop (tests/raft/kill_loop.py) in short, and that it would find something."""

import random

import pytest

from tests.raft.kill_loop import run
from tests.raft.processes import lost_or_doubled


def test_r1_nothing_is_lost_or_doubled_however_often_processes_are_killed(tmp_path):
    verdict = run(tmp_path, rounds=10, chance=random.Random(1))
    assert verdict.problem is None, verdict
    assert verdict.rounds == 10
    assert verdict.acknowledged > 100


@pytest.mark.parametrize(
    ("states", "problem"),
    [
        ([["a", "b"], ["a", "b"], ["a", "b", "c"]], None),
        ([["a", "b"], ["b", "a"]], "different commands"),
        ([["a", "b"], ["a", "b", "a"]], "applied twice: a"),
        ([["a"], ["a", "b"]], "lost: b"),
    ],
)
def test_what_is_wrong_is_said(states, problem):
    found = lost_or_doubled(states, ["a", "b"])
    assert (found is None) if problem is None else (problem in found)
