"""The control loop: look, decide, begin, report, publish; then wait for an event or the next look.

It runs in the main thread and is the only writer of everything it holds. Other threads only wake it.
"""

import os
import select
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace

from appliance import __version__
from appliance.api.published import Published, RaftSeen, ReplicaSeen
from appliance.cluster.config import ConfigError, Policy, policy_in_force
from appliance.cluster.state import Appointment, ClusterState, Config
from appliance.ha.actions import Decision
from appliance.ha.decide import decide
from appliance.ha.seen import CertificateSeen, Observation, Report, ReportSeen
from appliance.node.clock import boottime_s, wall_s
from appliance.node.config import NodeConfig
from appliance.node.coordinator import Coordinator
from appliance.node.events import Events
from appliance.node.execute import Executor
from appliance.node.guard_client import SILENCE_LIMIT_S, Exited, Fenced, GuardClient, GuardStatus
from appliance.node.guard_connection import GuardError
from appliance.node.lease import NO_LEASE, Lease, adopted
from appliance.node.local import LocalPostgres
from appliance.node.notes import NotesFile, give_back
from appliance.node.observe import Observer
from appliance.node.report import make_report, replay_timestamp, walsenders
from appliance.node.reporter import Confirmed, Reporter
from appliance.postgres.directory import postmaster_pid
from raft import PeerStatus, Replica, ReplicaStatus, View

BUSY_LOOK_S = 0.05
"""Between two looks while something is in progress."""
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
        self._coordinator = coordinator
        self._policies = policies
        self._alarm = alarm
        self._answers = answers
        self._events = events
        self._publish = publish
        self._certificate = certificate
        self._lease: Lease = NO_LEASE
        self._guard_status: GuardStatus | None = None
        self._said: tuple[str, str] = ("", "")
        self._report: Report | None = None
        self._shown: Published | None = None
        self._busy = True
        self._removed_by: tuple[str, ...] = ()

    def find_guard(self) -> None:
        """Connect to the guard, or start one. One that an earlier node process left may be stuck."""
        try:
            self._guard.ensure(SILENCE_LIMIT_S + 1.0)
        except GuardError as error:
            if error.code != "timeout":
                raise
            self._end_silent_guard()
            self._guard.ensure()

    def adopt(self) -> None:
        """Take over what an earlier node process left: a running PostgreSQL, its lease, a half done job."""
        self._local.settle()
        self._look_at_guard()
        if self._guard_status is not None:
            self._lease = adopted(self._guard_status)
            self._note_fence(self._guard_status.fenced_epoch)

    def step(self) -> float:
        """One round; answers how long to wait for an event before the next, in seconds."""
        view = self._replica.view()
        policy = self._policies.of(view.state)
        self._hear_guard()
        self._hear_leader(policy)
        now_s = boottime_s()
        seen = self._observer.look(
            view.state,
            policy,
            self._guard_status,
            self._notes.value,
            self._lease.seen(now_s) if self._lease.epoch else None,
            self._reporter.contact_s(),
            self._reporter.reports,
            self._replica.status().incarnation,
        )
        decision = decide(view.state, seen, policy)
        self._say(decision)
        self._executor.lease, self._executor.index = self._lease, view.index
        self._executor.run(decision, view.state, seen, policy)
        coordinating = self._coordinator.step(view, policy)
        answer, certificate = self._observer.answer, self._certificate()
        self._report = report = make_report(view.state, seen, answer, decision.because, certificate)
        self._reporter.tell(report, policy.renew_interval_s)
        self._show(self._published(view, policy, seen, report, decision, coordinating))
        self._busy = _in_progress(view.state, seen, decision)
        return self._pause_s(policy)

    def postgres_runs(self) -> bool:
        """As guard and data directory say now; a guard that does not answer, or is a new one, proves nothing."""
        self._look_at_guard()
        held = self._guard_status is None or self._guard_status.postmaster is not None
        try:
            return held or postmaster_pid(self._local.data_dir) is not None
        except OSError:
            return True

    def keep_lease(self) -> None:
        """Renew while PostgreSQL is stopping for good: nobody else may open before it is down (R10)."""
        if self._report is not None:
            policy = self._policies.of(self._replica.view().state)
            self._hear_leader(policy)
            self._reporter.tell(self._report, policy.renew_interval_s)

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
        confirmed = self._hear_leader(self._shown.policy)
        if confirmed is None or confirmed.news:
            return False
        shown, contact_s = self._shown, self._reporter.contact_s()
        age_s = None if contact_s is None else shown.taken_s - contact_s
        lease = self._lease.seen(shown.taken_s) if self._lease.epoch else None
        seen = replace(shown.seen, lease=lease, contact_s=age_s)
        self._show(replace(shown, seen=seen, reports=self._reports(shown.report, shown.taken_s), last_renewal_s=age_s))
        return True

    def _pause_s(self, policy: Policy) -> float:
        until_report_s = self._reporter.due_s() - boottime_s()
        look_s = BUSY_LOOK_S if self._busy else min(policy.loop_wait_s, policy.renew_interval_s)
        return min(look_s, max(0.0, until_report_s), self._coordinator.lease_left_s)

    def _hear_leader(self, policy: Policy) -> Confirmed | None:
        """The raft leader's answer, if one has come. Its renewal is taken before anything is decided."""
        confirmed = self._reporter.hear()
        if confirmed is not None:
            self._renew(confirmed, policy)
        return confirmed

    def _renew(self, confirmed: Confirmed, policy: Policy) -> None:
        """R3: a confirmed renewal extends the lease from the time before it was asked for; the guard learns of it."""
        epoch = confirmed.answer.confirmed_epoch
        if epoch is None or epoch <= self._notes.value.fenced_epoch:
            return
        if epoch != self._lease.epoch:
            self._events.emit("lease.gained", epoch=epoch)
        self._lease = self._lease.renewed(epoch, confirmed.asked_s, policy)
        status = self._guard_status
        if status is not None and status.postmaster is not None and status.deadline_epoch == epoch:
            self._arm(policy)

    def _arm(self, policy: Policy) -> None:
        try:
            self._guard.set_deadline(self._lease.deadline(policy))
        except GuardError as error:
            self._events.emit("guard.lost", "error", error=str(error))

    def _hear_guard(self) -> None:
        for event in self._guard.events():
            match event:
                case Exited():
                    self._events.emit("postgres.exited", "warning", code=event.code, signal=event.signal)
                case Fenced():
                    self._events.emit("primary.fenced", "error", epoch=event.epoch, how=event.how, took_s=event.took_s)
        self._look_at_guard()
        if self._guard_status is not None:
            self._note_fence(self._guard_status.fenced_epoch)

    def _look_at_guard(self) -> None:
        try:
            self._guard.ensure()
            self._guard_status = self._guard.status()
        except GuardError as error:
            if self._guard_status is not None:
                self._events.emit("guard.lost", "error", error=str(error))
            self._guard_status = None
            self._end_silent_guard()

    def _end_silent_guard(self) -> None:
        """R4: nothing may run writable under a guard that would not end it. The next look starts another guard."""
        silent_s = self._guard.silent_s()
        if silent_s >= SILENCE_LIMIT_S:
            self._events.emit("guard.killed", "error", pid=self._guard.kill_silent(), silent_s=round(silent_s, 1))

    def _note_fence(self, epoch: int | None) -> None:
        """R4: the guard fenced this epoch, perhaps while no node process lived."""
        if epoch is not None and epoch > self._notes.value.fenced_epoch:
            give_back(self._notes, epoch)

    def _say(self, decision: Decision) -> None:
        """Log a decision when its rule changes, not at every look."""
        said = (decision.rule, decision.because if decision.actions else "")
        if said != self._said and (decision.rule != self._said[0] or decision.actions):
            self._events.emit("decision.changed", rule=decision.rule, because=decision.because)
        self._said = said

    def _show(self, published: Published) -> None:
        self._shown = published
        self._publish(published)

    def _reports(self, own: Report, at_s: float) -> Mapping[str, ReportSeen]:
        """Of all members, with their ages at that time."""
        passed_s = at_s - self._reporter.reports_at_s
        reports = {n: ReportSeen(r.report, r.age_s + passed_s) for n, r in self._reporter.reports.items()}
        reports[self._config.name] = ReportSeen(own, 0.0)
        return reports

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
        now_s = boottime_s()
        status = self._replica.status()
        self._say_removed(status.removed_by)
        peers = [p for p in status.peers if p.name != self._config.name]
        contact_s = self._reporter.contact_s()
        return Published(
            node=self._config.name,
            cluster=self._config.cluster,
            version=__version__,
            taken_s=now_s,
            wall_time=wall_s(),
            state=view.state,
            policy=policy,
            seen=seen,
            report=report,
            reports=self._reports(report, now_s),
            raft=_raft_seen(view, status, peers),
            rule=decision.rule,
            doing=decision.because,
            coordinating=coordinating,
            waiting_for=_waiting_for(view, [p.name for p in peers if not p.connected], self._reporter.problem),
            walsenders=walsenders(self._observer.answer),
            replay_timestamp=replay_timestamp(self._observer.answer),
            replay_paused=self._observer.answer is not None and self._observer.answer.replay_paused,
            last_renewal_s=None if contact_s is None else now_s - contact_s,
        )


def _in_progress(state: ClusterState, seen: Observation, decision: Decision) -> bool:
    """Something that shows its end to a look only."""
    return (
        decision.rule not in AT_REST
        or state.election is not None
        or state.running_operation() is not None
        or (seen.postmaster is not None and seen.instance is None)
    )


def _raft_seen(view: View[ClusterState], status: ReplicaStatus, peers: list[PeerStatus]) -> RaftSeen:
    expires = None if status.certificate is None else status.certificate.expires_at
    return RaftSeen(
        role=status.role,
        leader=view.leader,
        term=view.term,
        index=view.index,
        log_entries=status.last_index - status.first_index + 1,
        log_bytes=status.log_bytes,
        members={m.name: ReplicaSeen(m.role, m.address) for m in status.members.all},
        peers={p.name: p.connected for p in peers},
        refusals={p.name: p.refusal for p in peers if p.refusal},
        away={p.name: p.problem for p in peers if p.problem},
        votes=status.votes,
        commit_index=status.commit_index,
        last_index=status.last_index,
        fsync_count=status.fsync_count,
        fsync_total_s=status.fsync_total_s,
        fsync_longest_s=status.fsync_longest_s,
        tick_late_longest_s=status.tick_late_longest_s,
        ticks_late=status.ticks_late,
        refused=dict[str, int](status.refusals.items()),
        certificate_expires_s=None if expires is None else expires.timestamp(),
        removed_by=status.removed_by,
    )


def _waiting_for(view: View[ClusterState], away: list[str], problem: str) -> str:
    if view.leader is None:
        return f"a quorum: no connection to {', '.join(sorted(away))}" if away else "a raft leader"
    if not view.state.initialised and view.state.bootstrap is None:
        return "`appliance bootstrap` on one node"
    return problem
