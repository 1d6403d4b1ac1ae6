"""The control loop: look, decide, begin, report, publish; then wait for an event or the next look.

It runs in the main thread and is the only writer of everything it holds. Other threads only wake it. The lease and the
guard are the lease keeper's (lease_keeper.py), what the API shows is put together in publish.py.
"""

import os
import select
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

from appliance.api.published import Published
from appliance.cluster.config import ConfigError, Policy, policy_in_force
from appliance.cluster.state import Appointment, ClusterState, Config
from appliance.ha.actions import Decision
from appliance.ha.decide import decide
from appliance.ha.seen import CertificateSeen, Observation, Report
from appliance.ha.start import standby_stop_s
from appliance.node import watchdog
from appliance.node.clock import boottime_s, wall_s
from appliance.node.config import NodeConfig
from appliance.node.coordinator import Coordinator
from appliance.node.events import Events
from appliance.node.execute import Executor
from appliance.node.failsafe import Failsafe
from appliance.node.guard_client import GuardClient
from appliance.node.lease_keeper import LeaseKeeper
from appliance.node.local import LocalPostgres
from appliance.node.notes import NotesFile
from appliance.node.observe import Observer
from appliance.node.publish import Heard, Round, published, renewed
from appliance.node.report import make_report
from appliance.node.reporter import Reporter
from appliance.postgres.directory import postmaster_pid
from raft import Replica, View

BUSY_LOOK_S = 0.05
"""Between two looks while something is in progress."""
SOON_LOOK_S = 0.01
SOON_S = 0.1
"""So long after something was done looks are that dense: a reload, a vote or a promotion shows within some of them, and
a switchover is a dozen such steps while nobody can write."""
AT_REST = {"at_rest"}


class Policies:
    """The policy in force; read once for each configuration and appointment."""

    def __init__(self) -> None:
        self._read_for: tuple[Config, Appointment | None] | None = None
        self._policy = Policy()

    def of(self, state: ClusterState) -> Policy:
        """`apply` refuses documents that cannot be read; a newer node's document leaves the last one that could."""
        key = (state.config, state.appointment)
        if self._read_for is None or any(a is not b for a, b in zip(key, self._read_for, strict=True)):
            with suppress(ConfigError):
                self._policy = policy_in_force(state)
            self._read_for = key
        return self._policy


class Alarm:
    """Wakes the control loop from any thread."""

    def __init__(self) -> None:
        self.descriptor = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def ring(self) -> None:
        os.eventfd_write(self.descriptor, 1)

    def silence(self) -> None:
        try:
            os.eventfd_read(self.descriptor)
        except BlockingIOError:
            return


class ControlLoop:
    def __init__(
        self,
        config: NodeConfig,
        *,
        replica: Replica[ClusterState],
        guard: GuardClient,
        local: LocalPostgres,
        notes: NotesFile,
        observer: Observer,
        executor: Executor,
        reporter: Reporter,
        failsafe: Failsafe,
        coordinator: Coordinator,
        policies: Policies,
        alarm: Alarm,
        answers: Alarm,
        events: Events,
        publish: Callable[[Published], None],
        certificate: Callable[[], CertificateSeen | None] = lambda: None,
    ) -> None:
        """`answers` rings when the raft leader has answered the reporter, `alarm` for all the rest."""
        self._config = config
        self._replica = replica
        self._guard = guard
        self._local = local
        self._notes = notes
        self._observer = observer
        self._executor = executor
        self._reporter = reporter
        self._failsafe = failsafe
        self._coordinator = coordinator
        self._policies = policies
        self._alarm = alarm
        self._answers = answers
        self._events = events
        self._publish = publish
        self._certificate = certificate
        self._keeper = LeaseKeeper(guard, notes, reporter, failsafe, events)
        self._said: tuple[str, str] = ("", "")
        self._report: Report | None = None
        self._shown: Published | None = None
        self._busy = True
        self._done_s = -SOON_S
        self._removed_by: tuple[str, ...] = ()
        self.ending = False
        """the node was told to end everything: it says so with every report"""
        self.restarting = False
        """the node process was told to end alone: it says so with its last report"""

    def said_restarting(self) -> bool:
        """Whether the raft leader knows."""
        answered = self._reporter.answered
        return answered is not None and answered.restarting

    def find_guard(self) -> None:
        """Connect to the guard, or start one."""
        self._keeper.find_guard()

    def adopt(self) -> None:
        """Take over what an earlier node process left: a running PostgreSQL, its lease, a half done job."""
        self._local.settle()
        self._keeper.adopt()

    def step(self) -> float:
        """One round; answers how long to wait for an event before the next, in seconds."""
        view = self._replica.view()
        policy = self._policies.of(view.state)
        self._guard.watchdog = watchdog.asked(self._config, policy)
        self._keeper.hear_guard()
        self._keeper.hear_leader(policy)
        self._keeper.hear_members(policy)
        seen = self._observer.look(
            view.state,
            policy,
            self._keeper.guard_status,
            self._notes.value,
            self._keeper.seen(boottime_s()),
            self._reporter.contact_s(),
            self._reporter.reports,
            self._replica.status().incarnation,
        )
        self._failsafe.settle(view.state, seen, policy)
        left_s = self._failsafe.left_s(view.state)
        seen = replace(seen, notes=self._notes.value, promised_left_s=left_s, vouched_by=self._keeper.vouched_by)
        decision = decide(view.state, seen, policy)
        self._say(decision)
        self._executor.lease, self._executor.index = self._keeper.lease, view.index
        if self._executor.run(decision, view.state, seen, policy):
            self._done_s = boottime_s()
        self._failsafe.tell(view.state, seen, policy)
        coordinating = self._coordinator.step(view, policy)
        answer, certificate = self._observer.answer, self._certificate()
        made = make_report(view.state, seen, answer, decision.because, certificate)
        self._report = report = replace(made, ending=self.ending, restarting=self.restarting)
        self._reporter.tell(report, policy.renew_interval_s)
        self._show(self._published(view, policy, seen, report, decision, coordinating))
        self._busy = _in_progress(view.state, seen, decision)
        return self._pause_s(policy)

    def postgres_runs(self) -> bool:
        """As guard and data directory say now; a guard that does not answer, or is a new one, proves nothing."""
        self._keeper.look_at_guard()
        guard = self._keeper.guard_status
        held = guard is None or guard.postmaster is not None
        try:
            return held or postmaster_pid(self._local.data_dir) is not None
        except OSError:
            return True

    def keep_lease(self) -> None:
        """Renew while PostgreSQL is stopping for good: nobody else may open before it is down (R10)."""
        if self._report is not None:
            policy = self._policies.of(self._replica.view().state)
            self._keeper.hear_leader(policy)
            self._reporter.tell(self._report, policy.renew_interval_s)

    def stop_limit_s(self, alone_s: float) -> float:
        """How long PostgreSQL may take to stop for good; `alone_s` for a primary that nobody could take over from."""
        state = self._replica.view().state
        policy = self._policies.of(state)
        if state.primary != self._config.name:
            return standby_stop_s(policy)
        alone = self._shown is not None and not self._shown.seen.successors
        return alone_s if alone else policy.primary_stop_timeout_s

    def wake(self) -> None:
        """From any thread."""
        self._alarm.ring()

    def end_job(self) -> None:
        """Long work does not outlive a node that ends for good."""
        if self._local.job is not None:
            self._local.job.kill()

    def wait(self, limit_s: float) -> None:
        """Until something happens that is worth a look, at most `limit_s`.

        A renewal that brings nothing new is taken meanwhile.
        """
        until_s = boottime_s() + limit_s
        while self._only_answered(until_s) and self._renewed_quietly():
            until_s = min(until_s, self._reporter.due_s())
        self._alarm.silence()

    def _only_answered(self, until_s: float) -> bool:
        """Wait until something happens; whether it is the raft leader's answer and nothing else."""
        ready = select.poll()
        descriptors = (self._alarm.descriptor, self._guard.fileno(), self._local.fileno_of_job())
        for descriptor in (self._answers.descriptor, *descriptors):
            if descriptor is not None:
                ready.register(descriptor, select.POLLIN)
        happened = ready.poll(1000 * max(0.0, until_s - boottime_s()))
        self._answers.silence()
        return [descriptor for descriptor, _ in happened] == [self._answers.descriptor]

    def _renewed_quietly(self) -> bool:
        """Take an answer that changes nothing but the lease and what is shown; False when a look must follow."""
        if self._busy or self._shown is None:
            return False
        confirmed = self._keeper.hear_leader(self._shown.policy)
        if confirmed is None or confirmed.news:
            return False
        self._show(renewed(self._shown, self._keeper.seen(self._shown.taken_s), self._heard()))
        return True

    def _pause_s(self, policy: Policy) -> float:
        until_report_s = self._reporter.due_s() - boottime_s()
        soon = boottime_s() - self._done_s < SOON_S
        busy_s = SOON_LOOK_S if soon else BUSY_LOOK_S
        look_s = busy_s if self._busy else min(policy.loop_wait_s, policy.renew_interval_s)
        return min(look_s, max(0.0, until_report_s), self._coordinator.silence_left_s)

    def _say(self, decision: Decision) -> None:
        """Log a decision when its rule changes, not at every look."""
        said = (decision.rule, decision.because if decision.actions else "")
        if said != self._said and (decision.rule != self._said[0] or decision.actions):
            self._events.emit("decision.changed", rule=decision.rule, because=decision.because)
        self._said = said

    def _show(self, shown: Published) -> None:
        self._shown = shown
        self._publish(shown)

    def _say_removed(self, by: tuple[str, ...]) -> None:
        """Once, until it is taken back. Nothing is done about it: whoever says so may be mistaken, and data stay."""
        if by and not self._removed_by:
            self._events.emit("raft.removed", "error", by=by)
        self._removed_by = by

    def _published(
        self,
        view: View[ClusterState],
        policy: Policy,
        seen: Observation,
        report: Report,
        decision: Decision,
        coordinating: str,
    ) -> Published:
        taken_s, status = boottime_s(), self._replica.status()
        self._say_removed(status.removed_by)
        answer = self._observer.answer
        done = Round(taken_s, wall_s(), view, policy, seen, answer, report, decision, coordinating)
        return published(self._config, done, self._heard(), status)

    def _heard(self) -> Heard:
        reporter = self._reporter
        return Heard(
            reporter.reports, reporter.reports_at_s, reporter.contact_s(), reporter.leader_says, reporter.problem
        )


def _in_progress(state: ClusterState, seen: Observation, decision: Decision) -> bool:
    """Something that shows its end to a look only."""
    return (
        decision.rule not in AT_REST
        or state.election is not None
        or state.running_operation() is not None
        or (seen.postmaster is not None and seen.instance is None)
    )
