"""R4, R10 at the orderly end of a node: its lease goes back only when nothing of its PostgreSQL runs."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from appliance.cluster.state import LeaseStatus
from appliance.ha.seen import Notes
from appliance.node import farewell
from appliance.node.farewell import stop_everything
from appliance.node.notes import NotesFile
from tests.unit.cluster.building import state

from .building import Consensus, Guard


class Agreed(Consensus):
    """Every proposal is agreed on at once; notes what happened before it."""

    def __init__(self, present, story):
        super().__init__(present)
        self.story, self.fate = story, Consensus.commit

    def propose(self, command, command_id, limit_s):
        answer = super().propose(command, command_id, limit_s)
        self.story.append(type(self.commands[-1]).__name__)
        self.fate(self)
        return answer


class Ending:
    """A node whose PostgreSQL runs for `rounds` looks after it was told to stop, or to be killed."""

    def __init__(self, directory, present, *, stops_after=3, dies_after=3):
        self.story, self.guard = [], Guard()
        self.replica, self.notes = Agreed(present, self.story), NotesFile(directory / "notes.json")
        self.rounds = {"fast": stops_after, "kill": dies_after}
        self.loop = SimpleNamespace(
            postgres_runs=self.runs,
            keep_lease=lambda: self.story.append("renews"),
            end_job=lambda: self.story.append("job ends"),
        )

    def runs(self):
        told = [call for call in self.guard.calls if call in self.rounds]
        for call in told[-1:]:
            self.rounds[call] -= 1
        runs = not any(self.rounds[call] < 0 for call in told)
        if not runs and "down" not in self.story:
            self.story.append("down")
        return runs

    def end(self):
        stop_everything("pg1", self.loop, self.replica, self.guard, self.notes)
        return [event for event in self.story if event != "renews"]


@pytest.fixture(autouse=True)
def limits(monkeypatch):
    monkeypatch.setattr(farewell, "STOP_LIMIT_S", 0.3)
    monkeypatch.setattr(farewell, "KILL_LIMIT_S", 0.3)


def test_r10_the_lease_is_given_back_once_postgresql_is_down_and_renewed_until_then(tmp_path):
    node = Ending(tmp_path, state())

    assert node.end() == ["down", "Release", "job ends"]
    assert node.story.count("renews") == 3
    assert node.guard.calls == ["fast", "quit"]
    assert node.replica.state.lease is LeaseStatus.RELEASED
    assert node.notes.value == Notes(fenced_epoch=4)


def test_r4_what_had_to_be_killed_is_gone_before_its_lease_is_given_back(tmp_path):
    node = Ending(tmp_path, state(), stops_after=10**6)

    assert node.end() == ["down", "Release", "job ends"]
    assert node.guard.calls == ["fast", "kill", "quit"]


def test_r4_what_does_not_end_keeps_its_lease(tmp_path):
    node = Ending(tmp_path, state(), stops_after=10**6, dies_after=10**6)

    assert node.end() == ["job ends"]
    assert node.replica.state.lease is LeaseStatus.HELD


def test_r4_without_an_answer_of_the_guard_the_lease_is_kept(tmp_path):
    node = Ending(tmp_path, state())
    node.guard.silent = True

    assert node.end() == ["job ends"]
    assert node.replica.state.lease is LeaseStatus.HELD


@pytest.mark.parametrize(
    "present",
    [state(lease=LeaseStatus.EXPIRED), state(appointment=replace(state().appointment, node="pg2"))],
    ids=["lost", "another's"],
)
def test_only_a_lease_that_it_holds_is_given_back(tmp_path, present):
    assert Ending(tmp_path, present).end() == ["down", "job ends"]


def test_a_release_that_may_not_have_been_agreed_on_is_not_noted(tmp_path):
    """The next node process finds out what became of it; until then it must be able to ask for the lease again."""
    node = Ending(tmp_path, state())
    node.replica.fate = Consensus.lose

    assert node.end() == ["down", "Release", "job ends"]
    assert node.notes.value == Notes()
