"""The orderly end of a node: it hands over first, and its lease goes back only when nothing of its PostgreSQL runs (R4,
R10)."""

import time
from concurrent.futures import Future
from dataclasses import replace
from types import SimpleNamespace

import pytest

from appliance.api.published import OperatorAnswer
from appliance.cluster.state import LeaseStatus, Phase
from appliance.ha.seen import Notes
from appliance.node import farewell
from appliance.node.farewell import Ending, stop_everything
from appliance.node.notes import NotesFile
from raft import Members
from raft.members import Member
from tests.unit.cluster.building import state, sync, synchronous
from tests.unit.ha.building import operation

from .building import Consensus, Guard, Said

LED_BY_PG2 = replace(state().appointment, node="pg2")


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


class Node:
    """A node whose PostgreSQL runs for `rounds` looks after it was told to stop, or to be killed.

    `fate` is what the cluster does with its wish to hand over, and `rounds` happen one by one while it waits.
    """

    def __init__(self, directory, present, *, stops_after=3, dies_after=3, fate=None, rounds=()):
        self.story, self.guard, self.said = [], Guard(), Said()
        self.replica, self.notes = Agreed(present, self.story), NotesFile(directory / "notes.json")
        self.looks, self.fate, self.rounds = {"fast": stops_after, "kill": dies_after}, fate or refused, list(rounds)
        self.interrupts, self.wish = 1, None
        self.loop = SimpleNamespace(
            postgres_runs=self.runs,
            keep_lease=lambda: self.story.append("renews"),
            end_job=lambda: self.story.append("job ends"),
            stop_limit_s=lambda alone_s: 0.3,
            wake=lambda: None,
            ending=False,
        )

    def runs(self):
        told = [call for call in self.guard.calls if call in self.looks]
        for call in told[-1:]:
            self.looks[call] -= 1
        runs = not any(self.looks[call] < 0 for call in told)
        if not runs and "down" not in self.story:
            self.story.append("down")
        return runs

    def ask(self, wish, limit_s):
        self.wish = wish
        answer = Future()
        self.fate(self, answer)
        return answer

    def go_on(self):
        assert self.loop.ending, "everybody is told"
        self.story.append("round")
        if self.rounds:
            self.rounds.pop(0)(self)
        time.sleep(0.005)

    def end(self):
        ending = Ending(
            "pg1", self.loop, self.replica, self.guard, self.notes, self.said, self.ask, self.go_on,
            lambda: self.interrupts > 1,
        )  # fmt: skip
        stop_everything(ending)
        return [event for event in self.story if event not in {"renews", "round"}]


def refused(node, answer):
    answer.set_result(OperatorAnswer("refused", node.wish.id, "candidate.none", "there is no standby"))


def accepted(node, answer):
    answer.set_result(OperatorAnswer("accepted", node.wish.id))


def silent(node, answer):
    """No raft leader answers."""


def moves(phase):
    """The operation that was asked for gets there; in the end somebody else is primary."""

    def move(node):
        present = node.replica.state
        wanted = operation(phase, "", id=node.wish.id, reason=node.wish.reason)
        held = replace(present.appointment, epoch=5, node="pg2") if phase is Phase.DONE else present.appointment
        node.replica.state = replace(present, operations=(wanted,), appointment=held)

    return move


def interrupted(node):
    node.interrupts += 1


@pytest.fixture(autouse=True)
def limits(monkeypatch):
    for limit in ("ASK_LIMIT_S", "HAND_OVER_LIMIT_S", "LEAVE_LIMIT_S", "TRANSFER_LIMIT_S", "KILL_LIMIT_S"):
        monkeypatch.setattr(farewell, limit, 0.3)


def test_a_primary_hands_over_first_and_lives_on_until_another_is_open(tmp_path):
    steps = [moves(phase) for phase in (Phase.REQUESTED, Phase.STOPPING, Phase.PROMOTING, Phase.DONE)]
    node = Node(tmp_path, state(), fate=accepted, rounds=steps)

    assert node.end() == ["down", "job ends"], "there is no lease any more to give back"
    assert node.story[:4] == ["round"] * 4
    assert (node.wish.kind, node.wish.expected_primary, node.wish.reason) == ("switchover", "pg1", "pg1 is shut down")
    (ended,) = node.said.named("handover.ended")
    assert (ended["phase"], ended["primary"]) == (Phase.DONE, "pg2")


def test_a_switchover_that_was_under_way_is_waited_for(tmp_path):
    node = Node(tmp_path, state(operations=(operation(),)))
    node.rounds = [lambda node: setattr(node.replica, "state", state(operations=(operation(Phase.FAILED),)))]

    assert node.end() == ["down", "Release", "job ends"]
    assert node.said.named("handover.ended")[0]["operation"] == "op1"


@pytest.mark.parametrize("fate", [refused, silent], ids=["nobody could take over", "no quorum"])
def test_where_nobody_takes_over_it_simply_stops(tmp_path, fate):
    node = Node(tmp_path, state(), fate=fate)

    assert node.end() == ["down", "Release", "job ends"]


def test_a_hand_over_that_does_not_end_is_given_up(tmp_path):
    node = Node(tmp_path, state(), fate=accepted, rounds=[moves(Phase.REQUESTED)])

    assert node.end() == ["down", "Release", "job ends"]
    assert node.said.named("handover.ended")[0]["phase"] is Phase.REQUESTED


@pytest.mark.parametrize("after", [0, 1, 5])
def test_a_second_signal_ends_every_wait(tmp_path, monkeypatch, after):
    monkeypatch.setattr(farewell, "HAND_OVER_LIMIT_S", 60.0)
    rounds = [moves(Phase.REQUESTED), *[lambda node: None] * after, interrupted]
    node = Node(tmp_path, state(), fate=accepted, rounds=rounds, stops_after=10**6)

    assert node.end() == ["down", "Release", "job ends"]
    assert node.guard.calls == ["fast", "kill", "quit"]
    assert node.story.count("round") == after + 2


def test_r8_a_synchronous_standby_stops_when_no_commit_waits_for_it_any_more(tmp_path):
    waited = synchronous(sync(1, "pg1", "pg3"), appointment=LED_BY_PG2)
    left = lambda node: setattr(node.replica, "state", synchronous(sync(1, "pg3"), appointment=LED_BY_PG2))  # noqa: E731
    node = Node(tmp_path, waited, rounds=[lambda node: None, left])

    assert node.end() == ["down", "job ends"]
    assert node.story.index("down") > node.story.index("round") + 1
    assert node.wish is None


def test_the_raft_leadership_goes_to_another_host_than_the_primarys_before_postgresql_stops(tmp_path):
    node = Node(tmp_path, state(appointment=LED_BY_PG2))
    node.replica.leads, node.replica.leading_since_s = True, 0.0
    node.replica.members = Members.of(Member(n, f"id-{n}", f"{n}:7400", "voter") for n in ("pg1", "pg2", "pg3"))

    assert node.end() == ["down", "job ends"]
    assert [to for to, _ in node.replica.changes] == ["pg3"]


def test_r10_the_lease_is_given_back_once_postgresql_is_down_and_renewed_until_then(tmp_path):
    node = Node(tmp_path, state())

    assert node.end() == ["down", "Release", "job ends"]
    assert node.story.count("renews") == 3
    assert node.guard.calls == ["fast", "quit"]
    assert node.replica.state.lease is LeaseStatus.RELEASED
    assert node.notes.value == Notes(fenced_epoch=4)


def test_r4_what_had_to_be_killed_is_gone_before_its_lease_is_given_back(tmp_path):
    node = Node(tmp_path, state(), stops_after=10**6)

    assert node.end() == ["down", "Release", "job ends"]
    assert node.guard.calls == ["fast", "kill", "quit"]


def test_r4_what_does_not_end_keeps_its_lease(tmp_path):
    node = Node(tmp_path, state(), stops_after=10**6, dies_after=10**6)

    assert node.end() == ["job ends"]
    assert node.replica.state.lease is LeaseStatus.HELD


def test_r4_without_an_answer_of_the_guard_the_lease_is_kept(tmp_path):
    node = Node(tmp_path, state())
    node.guard.silent = True

    assert node.end() == ["job ends"]
    assert node.replica.state.lease is LeaseStatus.HELD


@pytest.mark.parametrize(
    "present",
    [state(lease=LeaseStatus.EXPIRED), state(appointment=replace(state().appointment, node="pg2"))],
    ids=["lost", "another's"],
)
def test_only_a_lease_that_it_holds_is_given_back(tmp_path, present):
    assert Node(tmp_path, present).end() == ["down", "job ends"]


def test_a_release_that_may_not_have_been_agreed_on_is_not_noted(tmp_path):
    """The next node process finds out what became of it; until then it must be able to ask for the lease again."""
    node = Node(tmp_path, state())
    node.replica.fate = Consensus.lose

    assert node.end() == ["down", "Release", "job ends"]
    assert node.notes.value == Notes()
