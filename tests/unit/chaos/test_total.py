"""Runs are added up only where they say something of the sources at hand."""

import json
import subprocess

import pytest

from tests.chaos import total
from tests.harness import record


def run(commit, **changes):
    base = {
        "kind": "chaos", "commit": commit, "seed": 1, "mode": "quorum", "took_s": 1800, "rounds": 2, "verdict": "ok",
        "faults": {"split": 2}, "writes": {"acknowledged": 1000, "unknown": 2}, "reads": 10, "lost": 0,
        "appointments": {"failover": 1}, "rounds_gaps_s": [0.1, 2.1],
    }  # fmt: skip
    return base | changes


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """With two commits: the second changes the core, a third does not."""
    monkeypatch.setattr(total, "REPOSITORY", tmp_path)
    monkeypatch.setattr(record, "REPOSITORY", tmp_path)
    git(tmp_path, "init", "-q")
    commits = []
    for name in ("raft/one", "raft/two", "docs/three"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
        git(tmp_path, "add", "-A")
        git(tmp_path, "commit", "-qm", name)
        commits.append(git(tmp_path, "rev-parse", "--short=12", "HEAD"))
    (tmp_path / "docs" / "evidence").mkdir()
    return tmp_path, commits


def git(directory, *words):
    who = ("-c", "user.name=t", "-c", "user.email=t@example.org")
    done = subprocess.run(["git", *who, *words], cwd=directory, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_runs_of_other_sources_do_not_count(repository):
    directory, (old, same, newest) = repository
    lines = [run(old), run(same, seed=2), run(newest, seed=3), run(f"{newest}+"), run("0123456789ab"), {"seeds": 9}]
    (directory / record.EVIDENCE).write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert [found["seed"] for found in total.recorded()] == [2, 3]


def test_runs_are_added_up():
    shown = total.table([run("a"), run("b", seed=2, mode="off", lost=3, rounds_gaps_s=[7.0], verdict="failed")])
    for row in (
        "| runs, of which broken | 2, 1 |",
        "| time | 1.0 h |",
        "| rounds | 4 |",
        "| faults and operators' changes | 4: split 4 |",
        "| writes | 2,004: acknowledged 2,000, unknown 4 |",
        "| acknowledged and lost, by mode | off 3, quorum 0 |",
        "| longest gap of a round, off | p50 7.0 s, p95 7.0 s, greatest 7.0 s |",
        "| longest gap of a round, quorum | p50 1.1 s, p95 2.0 s, greatest 2.1 s |",
    ):
        assert row in shown.splitlines()
