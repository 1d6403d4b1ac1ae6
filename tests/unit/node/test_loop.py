"""The control loop with real notes, reporter, coordinator and executor: what it does with its lease and its guard."""

import subprocess
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest

from appliance.cluster.config import Policy
from appliance.cluster.state import NodeRole
from appliance.node import loop as loop_module
from appliance.node import reporter as reporter_module
from appliance.node.config import NO_WATCHDOG
from appliance.node.coordinator import Coordinator
from appliance.node.execute import Executor
from appliance.node.failsafe import Failsafe
from appliance.node.guard_client import SILENCE_LIMIT_S, Deadline
from appliance.node.loop import BUSY_LOOK_S, SOON_LOOK_S, SOON_S, Alarm, ControlLoop, Policies
from appliance.node.messages import ReportAnswer
from appliance.node.notes import NotesFile
from appliance.node.observe import Signalled
from appliance.node.reporter import Reporter
from tests.unit.cluster.building import state
from tests.unit.ha.building import ALL, heard, primary, report

from .building import POSTMASTER, STATUS, Clock, Consensus, Guard, Said

POLICY = Policy(synchronous_mode="off", fencing="lease")
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
        self.seen, self.published, self.alarm, answers = primary(), [], Alarm(), Alarm()
        self.looks = 0
        self.data_dir = directory / "data"
        local = SimpleNamespace(settle=lambda: None, fileno_of_job=lambda: None, data_dir=self.data_dir)
        reporter = Reporter(self.consensus, answers.ring)
        self.loop = ControlLoop(
            SimpleNamespace(name="pg1", cluster="shop", role=NodeRole.DATA, watchdog=NO_WATCHDOG),
            replica=self.consensus,
            guard=self.guard,
            local=local,
            notes=self.notes,
            observer=SimpleNamespace(look=self.look, answer=None),
            executor=Executor(
                "pg1", self.consensus, local, self.guard, self.notes, Signalled(), self.said, self.alarm.ring
            ),
            reporter=reporter,
            failsafe=Failsafe("pg1", self.consensus, self.notes, self.alarm.ring),
            coordinator=Coordinator(self.consensus, self.alarm.ring, lambda rule, because: None),
            policies=Policies(),
            alarm=self.alarm,
            answers=answers,
            events=self.said,
            publish=self.published.append,
        )

    def look(self, present, policy, guard, notes, lease, contact_s, reports, log_incarnation):
        self.looks += 1
        contact = None if contact_s is None else self.clock.now_s - contact_s
        return replace(self.seen, notes=notes, lease=lease, contact_s=contact, log_incarnation=log_incarnation)

    def confirm(self, epoch=4, late_s=0.0, reports=ALL):
        self.clock.now_s += late_s
        self.consensus.answer(ReportAnswer(True, epoch, 7, reports))

    def renewed_once(self):
        """A first renewal, and the next one is asked for: from here on there is nothing new."""
        self.loop.step()
        self.confirm()
        self.loop.step()
        self.clock.now_s += POLICY.renew_interval_s
        self.loop.step()

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


def test_what_was_just_done_is_looked_at_soon_and_often_for_a_moment(node):
    """A switchover is a dozen steps that PostgreSQL shows after some milliseconds each."""
    node.loop.step()
    node.consensus.state = state(appointment=replace(state().appointment, node="pg2"))
    assert node.loop.step() == SOON_LOOK_S
    node.clock.now_s += SOON_S / 2
    assert node.loop.step() == SOON_LOOK_S
    node.clock.now_s += SOON_S
    assert node.loop.step() == BUSY_LOOK_S, "the same stop again is nothing new"


@pytest.mark.parametrize(("node_is", "successors", "limit_s"), [("pg2", {}, 5), ("pg1", {"pg3"}, 60), ("pg1", {}, 99)])
def test_a_stop_may_take_long_only_where_somebody_could_lose_by_it(node, node_is, successors, limit_s):
    """Of a standby in asynchronous mode, of a primary there with one that could take over, and of one without."""
    node.consensus.state = state(appointment=replace(state().appointment, node="pg1" if node_is == "pg1" else "pg2"))
    node.seen = replace(primary(), successors=frozenset(successors))
    node.loop.step()
    assert node.loop.stop_limit_s(99) == limit_s


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


def test_r3_a_renewal_is_taken_before_the_look_that_decides_by_it(node):
    node.loop.step()
    asked_s = node.clock.now_s
    node.confirm(late_s=1.4)
    node.loop.step()

    assert node.left_s == asked_s + POLICY.lease_s - node.clock.now_s


def test_a_renewal_that_brings_nothing_new_is_taken_and_shown_without_a_look(node):
    node.renewed_once()
    asked_s, looks, taken_s = node.clock.now_s, node.looks, node.published[-1].taken_s
    node.confirm(late_s=0.1)
    node.loop.wait(0.0)

    until_s = asked_s + POLICY.lease_s
    assert node.guard.deadlines[-1] == Deadline(4, until_s - POLICY.guard_margin_s, POLICY.guard_margin_s / 2)
    assert node.looks == looks
    assert node.published[-1].taken_s == taken_s, "what was seen is as old as before"
    assert node.published[-1].taken_s + node.left_s == until_s
    assert taken_s - node.published[-1].seen.contact_s == asked_s
    assert set(node.published[-1].reports) == set(ALL)


def left_for_a_look(node):
    """Whether it goes on to a look instead of taking the answer while it waits."""
    shown = len(node.published)
    node.loop.wait(0.0)
    return len(node.published) == shown


def test_a_renewal_that_brings_news_is_worth_a_look(node):
    node.renewed_once()
    node.confirm(reports=ALL | heard(report("pg2", status="stopped")))

    assert left_for_a_look(node)


def test_an_answer_without_the_renewal_is_worth_a_look(node):
    node.renewed_once()
    node.confirm(epoch=None)

    assert left_for_a_look(node)


def test_an_answer_is_worth_a_look_while_postgresql_starts(node):
    node.seen = replace(node.seen, instance=None)
    node.renewed_once()
    node.confirm()

    assert left_for_a_look(node)


def test_what_else_has_happened_is_worth_a_look_beside_a_renewal(node):
    node.renewed_once()
    node.confirm()
    node.alarm.ring()

    assert left_for_a_look(node)


def test_after_a_renewal_it_waits_no_longer_than_to_the_next_report(node):
    node.renewed_once()
    node.clock.now_s += POLICY.renew_interval_s
    node.confirm()
    began_s = time.monotonic()
    node.loop.wait(30.0)

    assert time.monotonic() - began_s < 15.0


def test_an_adopted_lease_lasts_until_the_guards_deadline(node):
    node.loop.step()

    assert node.left_s == 3.0
    assert node.published[-1].rule == "at_rest"


def test_a_node_that_was_removed_says_so_once_until_it_is_taken_back(node):
    for by in ((), ("pg2", "pg3"), ("pg2", "pg3"), (), ("pg3",)):
        node.consensus.removed_by = by
        node.loop.step()
        assert node.published[-1].raft.removed_by == by
    assert node.said.named("raft.removed") == [{"by": ("pg2", "pg3")}, {"by": ("pg3",)}]


def test_r13a_nothing_is_decided_while_the_log_holds_a_recovery_that_is_not_applied(node):
    node.consensus.incarnation = 7
    node.loop.step()

    assert (node.published[-1].rule, node.guard.calls) == ("wait_for_log", [])


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
