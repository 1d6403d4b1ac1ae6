"""The control loop with real notes, reporter, coordinator and executor: what it does with its lease and its guard."""

import subprocess
from dataclasses import replace
from types import SimpleNamespace

import pytest

from appliance.cluster.config import Policy
from appliance.node import loop as loop_module
from appliance.node import reporter as reporter_module
from appliance.node.coordinator import Coordinator
from appliance.node.execute import Executor
from appliance.node.guard_client import SILENCE_LIMIT_S, Deadline
from appliance.node.loop import Alarm, ControlLoop, Policies
from appliance.node.messages import ReportAnswer
from appliance.node.notes import NotesFile
from appliance.node.observe import Signalled
from appliance.node.reporter import Reporter
from tests.unit.cluster.building import state
from tests.unit.ha.building import primary

from .building import POSTMASTER, STATUS, Clock, Consensus, Guard, Said

POLICY = Policy()
RUNNING = replace(STATUS, postmaster=POSTMASTER, deadline_epoch=4, deadline_s=1003.0)
"""Since a node process before this one."""


class Node:
    """pg1, the open primary of epoch 4, as its loop sees it."""

    def __init__(self, directory, clock):
        self.clock, self.said = clock, Said()
        self.consensus, self.guard = Consensus(state()), Guard(RUNNING)
        self.consensus.leader = "pg2"
        self.notes = NotesFile(directory / "notes.json")
        self.notes.write(primary().notes)
        self.seen, self.published, self.alarm = primary(), [], Alarm()
        self.data_dir = directory / "data"
        local = SimpleNamespace(settle=lambda: None, fileno_of_job=lambda: None, data_dir=self.data_dir)
        reporter = Reporter(self.consensus, self.alarm.ring)
        self.loop = ControlLoop(
            SimpleNamespace(name="pg1", cluster="shop"),
            replica=self.consensus,
            guard=self.guard,
            local=local,
            notes=self.notes,
            observer=SimpleNamespace(look=self.look, answer=None),
            executor=Executor(
                "pg1", self.consensus, local, self.guard, self.notes, Signalled(), self.said, self.alarm.ring
            ),
            reporter=reporter,
            coordinator=Coordinator(self.consensus, self.alarm.ring, lambda rule, because: None),
            policies=Policies(),
            alarm=self.alarm,
            events=self.said,
            publish=self.published.append,
        )

    def look(self, present, policy, guard, notes, lease, contact_s, reports):
        contact = None if contact_s is None else self.clock.now_s - contact_s
        return replace(self.seen, notes=notes, lease=lease, contact_s=contact)

    def confirm(self, epoch=4, late_s=0.0):
        self.clock.now_s += late_s
        self.consensus.answer(ReportAnswer(True, epoch, 7))

    @property
    def left_s(self):
        """What is left of the lease as the last look saw it."""
        lease = self.published[-1].seen.lease
        return None if lease is None else lease.left_s


@pytest.fixture
def node(tmp_path, monkeypatch):
    node = Node(tmp_path, Clock.of(monkeypatch, loop_module, reporter_module))
    node.loop.adopt()
    return node


def test_r3_the_lease_counts_from_before_the_renewal_was_asked_for(node):
    """The raft leader may confirm as soon as the question comes, and waits a ttl from then, not from the answer."""
    node.loop.step()
    asked_s = node.clock.now_s
    node.confirm(late_s=1.4)
    node.loop.step()
    node.loop.step()

    assert node.left_s == asked_s + POLICY.lease_s - node.clock.now_s
    until_s = asked_s + POLICY.lease_s
    assert node.guard.deadlines[-1] == Deadline(4, until_s - POLICY.guard_margin_s, POLICY.guard_margin_s / 2)


def test_r3_postgresql_that_stops_for_good_keeps_its_lease_by_the_same_rule(node):
    node.loop.step()
    asked_s = node.clock.now_s
    node.confirm(late_s=1.4)
    node.loop.keep_lease()

    assert node.guard.deadlines[-1].at_s == asked_s + POLICY.lease_s - POLICY.guard_margin_s


def test_r4_a_renewal_of_an_epoch_that_was_fenced_meanwhile_is_not_taken(node):
    node.loop.step()
    node.guard.now = replace(RUNNING, fenced_epoch=4)
    node.confirm()
    node.loop.step()
    node.loop.step()

    assert node.notes.value.fenced_epoch == 4
    assert node.left_s == 3.0, "as adopted"
    assert node.guard.deadlines == []


def test_r4_the_guard_learns_of_no_renewal_while_it_holds_another_epoch(node):
    node.guard.now = replace(RUNNING, deadline_epoch=3)
    node.loop.step()
    node.confirm()
    node.loop.step()

    assert node.guard.deadlines == []


def test_an_adopted_lease_lasts_until_the_guards_deadline(node):
    node.loop.step()

    assert node.left_s == 3.0
    assert node.published[-1].rule == "at_rest"


def test_it_rests_while_an_answer_is_awaited(node):
    node.loop.step()
    node.clock.now_s += 1.0

    assert node.loop.step() == POLICY.renew_interval_s


def test_r10_postgresql_is_down_only_when_guard_and_data_directory_say_so(node):
    assert node.loop.postgres_runs()
    node.guard.now = STATUS
    assert not node.loop.postgres_runs()
    node.guard.silent = True
    assert node.loop.postgres_runs()
    node.guard.silent = False
    node.data_dir.mkdir()
    with subprocess.Popen(["/bin/sleep", "60"], cwd=node.data_dir) as orphan:
        (node.data_dir / "postmaster.pid").write_text(f"{orphan.pid}\n")
        assert node.loop.postgres_runs(), "a guard that was started a moment ago knows nothing of it"
        orphan.kill()
    assert not node.loop.postgres_runs()


def test_a_guard_that_does_not_answer_is_told_once_and_counts_as_running(node):
    node.loop.step()
    node.guard.silent = True
    node.loop.step()
    node.loop.step()

    assert node.loop.postgres_runs()
    assert len(node.said.named("guard.lost")) == 1


def test_r4_a_guard_that_stays_silent_is_killed_and_the_next_look_finds_another(node):
    node.loop.step()
    node.guard.silent, node.guard.silent_for_s = True, SILENCE_LIMIT_S - 0.1
    node.loop.step()
    assert node.guard.calls == []
    node.guard.silent_for_s = SILENCE_LIMIT_S
    node.loop.step()

    assert node.guard.calls == ["kill guard"]
    assert node.said.named("guard.killed")
