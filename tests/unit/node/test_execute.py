"""The executor: in order, until the first that fails; one proposal of a kind at a time; nothing is written by two."""

from dataclasses import replace

import pytest

from appliance.cluster.apply import apply
from appliance.cluster.commands import Announce, Rebuild, Rebuilt, Release
from appliance.cluster.config import Policy
from appliance.ha.actions import (
    BeginNotes,
    Decision,
    MarkDirectory,
    NoteFenced,
    Promote,
    Propose,
    StartPrimary,
    StopMode,
    StopPostgres,
)
from appliance.ha.decide import wants_lease
from appliance.ha.seen import Notes
from appliance.node import execute
from appliance.node.coordinator import REFUSED_PAUSE_S
from appliance.node.execute import Executor
from appliance.node.guard_client import Deadline
from appliance.node.lease import Lease
from appliance.node.notes import NotesFile
from appliance.node.observe import Signalled
from appliance.postgres.incarnation import Incarnation, read_incarnation
from tests.unit.cluster.building import member, state
from tests.unit.ha.building import primary, standby

from .building import Clock, Consensus, Guard, Said

POLICY = Policy(synchronous_mode="off", fencing="lease")
RELEASE = Release(4, "pg1", "fenced")
GIVE_BACK = (NoteFenced(4), Propose(RELEASE))


class Local:
    """This node's PostgreSQL, as far as it is told to do something."""

    def __init__(self):
        self.began = []

    def start_primary(self, present, policy, deadline):
        self.began.append(deadline)

    def promote(self, own, assigned, deadline):
        self.began.append(deadline)


class Bench:
    def __init__(self, directory):
        self.directory, self.said, self.guard, self.local, self.woken = directory, Said(), Guard(), Local(), 0
        self.consensus = Consensus(state())
        self.notes = NotesFile(directory / "notes.json")
        self.executor = Executor(
            "pg1", self.consensus, self.local, self.guard, self.notes, Signalled(), self.said, self.wake
        )
        self.executor.index = self.consensus.index

    def wake(self):
        self.woken += 1

    def run(self, *actions, seen=None, index=None):
        self.executor.index = self.consensus.index if index is None else index
        decision = Decision("the reason", actions, "a_rule")
        self.executor.run(decision, self.consensus.state, seen or primary(), POLICY)
        return self.consensus.commands


@pytest.fixture
def bench(tmp_path):
    (tmp_path / "state").mkdir()
    return Bench(tmp_path / "state")


def test_r4_a_lease_is_not_given_back_when_that_could_not_be_noted(bench):
    """The next node process would resume an epoch in which others may have been elected meanwhile."""
    bench.directory.rmdir()

    assert bench.run(*GIVE_BACK) == []
    assert wants_lease(bench.consensus.state, primary(notes=bench.notes.value)) is None, "the lease runs out"
    assert "NoteFenced" in bench.said.named("action.failed")[0]["error"]
    bench.directory.mkdir()
    assert bench.run(*GIVE_BACK) == [RELEASE]
    assert NotesFile(bench.directory / "notes.json").value.fenced_epoch == 4


def test_r13a_notes_that_hold_on_only_change_their_number(bench):
    bench.notes.write(Notes(4, 4, fenced_epoch=3))
    bench.run(BeginNotes(7, keep=True))

    assert NotesFile(bench.directory / "notes.json").value == Notes(4, 4, fenced_epoch=3, recovery=7)
    assert bench.guard.calls == []


def test_r13a_notes_are_replaced_after_everything_of_before_is_aside(bench):
    """Whatever it dies in between finds the old number again, and does it once more."""
    bench.notes.write(Notes(9, 11, fenced_epoch=8))
    bench.guard.silent = True
    bench.run(BeginNotes(7, keep=False))
    assert NotesFile(bench.directory / "notes.json").value == Notes(9, 11, fenced_epoch=8)
    assert "BeginNotes" in bench.said.named("action.failed")[0]["error"]

    bench.guard.silent = False
    bench.run(BeginNotes(7, keep=False))
    assert NotesFile(bench.directory / "notes.json").value == Notes(recovery=7)
    assert NotesFile(bench.directory / "notes.before-recovery-7.json").value == Notes(9, 11, fenced_epoch=8)
    assert bench.guard.calls == ["fence aside 7"]


def test_r13a_a_kept_directory_is_marked_under_its_own_id(bench):
    bench.local.data_dir = bench.directory
    bench.run(MarkDirectory(7))

    assert read_incarnation(bench.directory) == Incarnation("inc-pg1", 7)


def test_a_failure_is_told_once_until_it_changes(bench):
    bench.guard.silent = True
    for _ in range(3):
        bench.run(StopPostgres(StopMode.FAST))
    assert len(bench.said.named("action.failed")) == 1
    bench.guard.silent = False
    bench.run(StopPostgres(StopMode.FAST))
    bench.guard.silent = True
    bench.run(StopPostgres(StopMode.FAST))

    assert len(bench.said.named("action.failed")) == 2


def test_what_is_done_at_every_look_is_told_once(bench):
    """An immediate shutdown that hangs is signalled twenty times a second."""
    for _ in range(3):
        bench.run(StopPostgres(StopMode.IMMEDIATE))
    assert len(bench.said.named("action.done")) == 1
    bench.run()
    bench.run(StopPostgres(StopMode.IMMEDIATE))

    assert len(bench.said.named("action.done")) == 2
    assert bench.guard.calls == ["immediate"] * 4


@pytest.mark.parametrize("action", [StartPrimary(5), Promote(5, 3)], ids=str)
def test_r4_nothing_is_opened_with_the_lease_of_another_epoch(bench, action):
    bench.executor.lease = Lease(4, 1005.0)
    bench.run(action, seen=standby("pg1"))
    assert bench.local.began == []

    bench.executor.lease = Lease(5, 1005.0)
    bench.run(action, seen=standby("pg1"))
    assert bench.local.began == [Deadline(5, 1005.0 - POLICY.guard_margin_s, POLICY.guard_margin_s / 2)]
    assert bench.notes.value.epoch == 5, "obeyed, on disk, before it is done"


def test_one_proposal_of_a_kind_at_a_time(bench):
    announced = Announce(member("pg1"))
    bench.run(Propose(RELEASE), Propose(announced), Propose(RELEASE))

    assert bench.run(Propose(RELEASE)) == [RELEASE, announced]


def test_what_became_of_a_proposal_is_noted_in_the_thread_of_the_loop(bench):
    """The raft thread, which brings the answer, only wakes: a log that blocks or fails must not hold it up."""
    bench.run(Propose(replace(RELEASE, epoch=3)))
    bench.consensus.commit()
    assert (bench.woken, bench.said.events) == (1, [])

    bench.run()
    assert bench.said.named("proposal.refused")[0]["reason"].startswith("epoch.moved")


def test_nothing_is_proposed_from_a_state_that_does_not_show_yet_what_the_last_one_did(bench):
    before = bench.consensus.index
    bench.run(Propose(Rebuild("pg2")))
    bench.consensus.commit()

    assert len(bench.run(Propose(Rebuild("pg2")), Propose(Rebuild("pg3")), index=before)) == 1
    assert len(bench.run(Propose(Rebuild("pg3")))) == 2


def test_a_proposal_of_which_nothing_is_known_is_made_again(bench):
    bench.run(Propose(RELEASE))
    bench.consensus.lose()

    assert bench.run(Propose(RELEASE)) == [RELEASE, RELEASE]


@pytest.mark.parametrize("fate", [Consensus.refuse, Consensus.commit])
def test_what_was_refused_is_proposed_again_after_a_pause(bench, monkeypatch, fate):
    """The refusal wakes the loop: otherwise it would be proposed as fast as the log takes it."""
    clock, refused = Clock.of(monkeypatch, execute), replace(RELEASE, epoch=3)
    bench.run(Propose(refused))
    fate(bench.consensus)
    for _ in range(3):
        bench.run(Propose(refused))
        clock.now_s += REFUSED_PAUSE_S / 4
    assert bench.consensus.commands == [refused]

    clock.now_s += REFUSED_PAUSE_S
    assert bench.run(Propose(refused)) == [refused, refused]


def test_what_was_refused_is_proposed_at_once_when_the_state_has_changed(bench):
    bench.run(Propose(Rebuilt("pg2", "new")))
    bench.consensus.commit()
    bench.run(Propose(Rebuilt("pg2", "new")))
    assert len(bench.said.named("proposal.refused")) == len(bench.consensus.commands) == 1

    bench.consensus.state = apply(bench.consensus.state, Rebuild("pg2")).state
    assert len(bench.run(Propose(Rebuilt("pg2", "new")))) == 2


def test_notes_are_kept_as_they_are_on_the_disk(bench):
    bench.run(NoteFenced(4))
    bench.run(NoteFenced(3))

    assert NotesFile(bench.directory / "notes.json").value == bench.notes.value == Notes(fenced_epoch=4)
