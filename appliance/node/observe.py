"""Looks at this node: the guard's postmaster, the directory on disk, PostgreSQL's answer, the job. One frozen value."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from appliance.cluster.config import Policy
from appliance.cluster.state import ClusterState, Member, Position
from appliance.ha.gate import admits
from appliance.ha.seen import (
    NO_PROGRESS,
    DirectoryKind,
    DirectorySeen,
    FailedCheckpoint,
    FailedStart,
    InstanceSeen,
    JobSeen,
    LeaseSeen,
    Notes,
    Observation,
    PostmasterSeen,
    ReportSeen,
    SenderSeen,
    SyncProgress,
)
from appliance.ha.standby import SILENT_LIMIT_S, upstream
from appliance.ha.storage import may_hang, refusing, successors
from appliance.ha.sync import to_load
from appliance.node import watchdog
from appliance.node.clock import boottime_s, wall_time
from appliance.node.config import NO_WATCHDOG, WatchdogSection
from appliance.node.config_values import join_address
from appliance.node.guard_client import GuardStatus, Postmaster
from appliance.node.local import LocalPostgres
from appliance.node.probe_client import ProbeClient
from appliance.node.start_watch import StartWatch
from appliance.postgres.control import ControlData, ControlState
from appliance.postgres.credentials import REPLICATION_ROLE
from appliance.postgres.directory import Directory, inspect, postmaster_pid
from appliance.postgres.errors import SettingsError
from appliance.postgres.history import read_history, real_histories, without_empty
from appliance.postgres.incarnation import NONE, Incarnation, stored_incarnation
from appliance.postgres.instance import InstanceSeen as Answer
from appliance.postgres.monitor import ORDER_LIMIT_S
from appliance.postgres.segments import oldest_lsn, timeline_at

LOOK_LIMIT_S = 0.5
ROUND_LIMIT_S = LOOK_LIMIT_S + ORDER_LIMIT_S + 0.5
"""From one look to the next at most, with an order in between that PostgreSQL does not answer: it may be the disk that
keeps it, so that time counts."""

_PRIMARY_STATES = {
    ControlState.SHUT_DOWN,
    ControlState.SHUTTING_DOWN,
    ControlState.IN_CRASH_RECOVERY,
    ControlState.IN_PRODUCTION,
}


@dataclass
class Signalled:
    """When the executor signalled what takes a while; the control loop's own memory of this process's life.

    Losing it is harmless: a signal is sent once more.
    """

    stop_s: float | None = None
    promote_s: float | None = None
    start_refused: str = ""
    """why the last start did not come to a postmaster; the next look takes it over"""
    checkpointing: bool = False
    checkpoint_operation: str = ""
    """the operation that the present or last checkpoint was asked for"""
    checkpoint_sync_version: int = 0
    checkpointed_operation: str = ""
    sync: SyncProgress = NO_PROGRESS
    opened_lsn: int | None = None
    admitted: bool = True
    checkpoint_failed_s: float | None = None
    """when the last one failed; None: it runs, went well, or there was none"""

    def look_at_gate(self, instance: InstanceSeen | None, *, runs: bool) -> None:
        """R5a, of this postmaster. A node process that begins anew takes a later position, on the safe side."""
        if instance is not None:
            self.admitted = instance.admits
            if instance.in_recovery:
                self.opened_lsn = None
            elif self.opened_lsn is None:
                self.opened_lsn = instance.lsn
        elif not runs:
            self.admitted, self.opened_lsn = False, None


class Observer:
    """Used by the control loop only."""

    def __init__(
        self,
        me: Member,
        local: LocalPostgres,
        signalled: Signalled,
        section: WatchdogSection = NO_WATCHDOG,
        probe: ProbeClient | None = None,
    ) -> None:
        self._me = me
        self._local = local
        self._signalled = signalled
        self._watchdog = section
        self._probe = probe
        self._answered_s = boottime_s()
        self._job_ended_s: float | None = None
        self._shut_down_s: float | None = None
        self._source, self._silent_since_s = "", boottime_s()
        self._starts = StartWatch(local.log_file)
        self._checked_settings: tuple[object, ...] = ()
        self._settings_differ = False
        self.answer: Answer | None = None
        """the last look's whole answer, for the API; None when there was none"""

    def look(
        self,
        state: ClusterState,
        policy: Policy,
        guard: GuardStatus | None,
        notes: Notes,
        lease: LeaseSeen | None,
        contact_s: float | None,
        reports: Mapping[str, ReportSeen],
        log_incarnation: int = 0,
    ) -> Observation:
        """One observation. Waits at most LOOK_LIMIT_S for PostgreSQL."""
        now_s = boottime_s()
        found = inspect(self._local.data_dir, self._local.binaries, stopping=self._signalled.stop_s is not None)
        directory = self._directory(found, guard)
        postmaster = guard.postmaster if guard is not None else self._without_guard()
        self.answer = self._local.monitor.look(LOOK_LIMIT_S) if postmaster is not None else None
        instance = self._instance(self.answer, found.control) if self.answer is not None else None
        if instance is not None or not state.initialised:
            # What never ran is not away: a first start has the same time as any other.
            self._answered_s = now_s
        if postmaster is None:
            self._signalled.stop_s = self._signalled.promote_s = None
        ended = postmaster is not None and self._signalled.stop_s is not None and directory.shut_down
        self._shut_down_s = (self._shut_down_s or now_s) if ended else None
        if postmaster is None:
            self._signalled.sync = NO_PROGRESS
        self._signalled.look_at_gate(instance, runs=postmaster is not None)
        self._settle_checkpoint(now_s)
        if instance is not None and not instance.in_recovery:
            self._signalled.promote_s = None
        patience_s = max(policy.failure_timeout_s, ROUND_LIMIT_S)
        storage = self._probe.look(patience_s) if self._probe is not None else None
        self._local.room = refusing(instance, self._local.room, storage)
        told = self._local.told_conninfo
        seen = Observation(
            me=self._me,
            directory=directory,
            notes=notes,
            lease=lease,
            postmaster=PostmasterSeen(now_s - postmaster.started_at_s) if postmaster else None,
            instance=instance,
            job=self._job(now_s),
            failed_start=self._failed_start(guard, answered=instance is not None, now_s=now_s),
            answer_age_s=now_s - self._answered_s,
            stopping_s=_age(self._signalled.stop_s, now_s),
            shut_down_s=_age(self._shut_down_s, now_s),
            promoting_s=_age(self._signalled.promote_s, now_s),
            wall_time=wall_time(),
            contact_s=_age(contact_s, now_s),
            switch=self._switch(state, directory),
            checkpointing=self._signalled.checkpointing,
            checkpointed_operation=self._signalled.checkpointed_operation,
            failed_checkpoint=self._failed_checkpoint(now_s),
            replaced_kept_s=self._local.replaced_kept_s(),
            told_upstream=upstream_address(told) if told is not None else None,
            source_oldest_lsn=oldest_of_primary(state, reports),
            sync=self._signalled.sync,
            admitted=self._signalled.admitted,
            opened_lsn=self._signalled.opened_lsn,
            log_incarnation=log_incarnation,
            watchdog=watchdog.seen(self._watchdog, guard),
            storage=storage,
            successors=successors(state, reports, policy, self._me.name),
        )
        self._local.admits = admits(state, seen)
        changed = instance is not None and self._differ(state, policy, notes, instance, hung=may_hang(storage))
        return replace(seen, settings_changed=changed)

    def _instance(self, answer: Answer, control: ControlData | None) -> InstanceSeen:
        """With what only the files in pg_wal tell.

        A standby whose receiver has ended is on the timeline of its WAL, not of its last restartpoint (R6). A primary
        says where its WAL begins when a member does not stream, which may have been away for too long (R15).
        """
        seen, now_s = instance_seen(answer), boottime_s()
        wal_dir = self._local.data_dir / "pg_wal"
        if seen.streaming or seen.upstream != self._source:
            self._source, self._silent_since_s = seen.upstream, now_s
        if control is not None and not seen.in_recovery and seen.idle_slots:
            return replace(seen, oldest_lsn=oldest_lsn(wal_dir, seen.lsn, control.wal_segment_bytes))
        if not seen.in_recovery or control is None:
            return seen
        if not seen.receiver_running:
            timeline = timeline_at(wal_dir, seen.lsn, control.wal_segment_bytes)
            seen = replace(seen, timeline=max(seen.timeline, timeline))
        silent_s = now_s - self._silent_since_s
        if not seen.upstream or silent_s < SILENT_LIMIT_S:
            return replace(seen, silent_s=silent_s)
        return replace(seen, silent_s=silent_s, histories=real_histories(wal_dir, seen.timeline))

    def _without_guard(self) -> Postmaster | None:
        """A guard that does not answer is no proof that nothing runs: then the data directory is asked."""
        try:
            pid = postmaster_pid(self._local.data_dir)
        except OSError:  # no PostgreSQL of this user
            return None
        return Postmaster(pid, boottime_s(), self._local.data_dir) if pid is not None else None

    def _failed_start(self, guard: GuardStatus | None, *, answered: bool, now_s: float) -> FailedStart | None:
        refused, self._signalled.start_refused = self._signalled.start_refused, ""
        begin = self._local.log_begin
        return self._starts.look(guard, answered=answered, now_s=now_s, refused=refused, log_begin=begin)

    def _settle_checkpoint(self, now_s: float) -> None:
        signalled, monitor = self._signalled, self._local.monitor
        if not signalled.checkpointing or monitor.checkpointing:
            return
        signalled.checkpointing = False
        if monitor.checkpoint_error is None:
            signalled.checkpointed_operation = signalled.checkpoint_operation
            if signalled.checkpoint_sync_version == signalled.sync.version:
                signalled.sync = replace(signalled.sync, checkpointed=True)
        else:
            signalled.checkpoint_failed_s = now_s

    def _failed_checkpoint(self, now_s: float) -> FailedCheckpoint | None:
        error, failed_s = self._local.monitor.checkpoint_error, self._signalled.checkpoint_failed_s
        return FailedCheckpoint(now_s - failed_s, error) if error is not None and failed_s is not None else None

    def _directory(self, found: Directory, guard: GuardStatus | None) -> DirectorySeen:
        found, incarnation = identified(found, self._local.data_dir)
        stray = found.postmaster_pid if guard is not None and guard.postmaster is None else None
        return directory_seen(found, incarnation, stray or 0)

    def _job(self, now_s: float) -> JobSeen | None:
        job = self._local.job
        if job is None:
            self._job_ended_s = None
            return None
        seen = job.look()
        if not seen.running and self._job_ended_s is None:
            self._job_ended_s = now_s
        return JobSeen(
            kind=seen.kind,
            running=seen.running,
            failed=seen.ok is False,
            seconds=seen.seconds if self._job_ended_s is None else now_s - self._job_ended_s,
            took_s=seen.seconds,
            phase=seen.phase,
            done_bytes=seen.done_bytes,
            total_bytes=seen.total_bytes,
            error=seen.error or "",
            needs_clone=seen.needs_clone,
            source_away=seen.source_away,
        )

    def _switch(self, state: ClusterState, directory: DirectorySeen) -> Mapping[int, Position]:
        """Only while this node's own promotion is not recorded yet: where its timeline left its parent."""
        held = state.appointment
        if held is None or held.opened or held.node != self._me.name or directory.kind is not DirectoryKind.CLUSTER:
            return {}
        try:
            history = read_history(self._local.data_dir / "pg_wal", held.timeline)
        except (OSError, ValueError):  # unreadable, or half written: unknown, not absent; looked at again
            return {}
        if not history:
            return {}
        left = without_empty(history)[-1]
        return {held.timeline: Position(left.timeline, left.switch_lsn)}

    def _differ(self, state: ClusterState, policy: Policy, notes: Notes, instance: InstanceSeen, *, hung: bool) -> bool:
        """Compare files with their rendering when what they are rendered from has changed, not at every look.

        Those on a disk that may hang are not read: they may differ.
        """
        source = upstream(state, self._me.name, notes.pledge) if instance.in_recovery else ""
        waited_for = to_load(state, self._me.name)
        key = (
            state.config.version,
            source,
            instance.in_recovery,
            waited_for,
            self._local.certificate(),
            self._local.room,
            self._local.admits,
        )
        if key != self._checked_settings or self._settings_differ:
            if hung:
                return True
            try:
                self._settings_differ = self._local.settings_differ(state, policy, source)
            except (OSError, SettingsError):
                self._settings_differ = True  # applying them says what is wrong
            self._checked_settings = key
        return self._settings_differ


def oldest_of_primary(state: ClusterState, reports: Mapping[str, ReportSeen]) -> int:
    """Where the WAL of the open primary begins, by its own report from this epoch; 0 when it has not said."""
    held = state.appointment
    heard = reports.get(held.node) if held is not None and held.opened else None
    if held is None or heard is None or heard.report.in_recovery is not False:
        return 0
    return heard.report.oldest_lsn if heard.report.timeline == held.timeline else 0


def identified(found: Directory, data_dir: Path) -> tuple[Directory, Incarnation]:
    """With its incarnation. That it cannot be read just now is a problem; a directory without one is rebuilt."""
    if found.kind is not DirectoryKind.CLUSTER:
        return found, NONE
    try:
        return found, stored_incarnation(data_dir)
    except OSError as error:
        return replace(found, control=None, problem=f"{error.filename} cannot be read: {error.strerror}"), NONE


def directory_seen(found: Directory, incarnation: Incarnation, stray_pid: int) -> DirectorySeen:
    control = found.control
    if control is None:
        return DirectorySeen(
            found.kind, standby_signal=found.standby_signal, problem=found.problem, stray_pid=stray_pid
        )
    return DirectorySeen(
        kind=found.kind,
        system_identifier=control.system_identifier,
        timeline=control.newest_timeline,
        shut_down=control.cleanly_shut_down,
        was_primary=control.state in _PRIMARY_STATES,
        checkpoint_lsn=control.checkpoint_lsn,
        min_recovery_lsn=control.min_recovery_lsn,
        standby_signal=found.standby_signal,
        incarnation="" if found.rewind_unfinished else incarnation.id,
        recovery=incarnation.recovery,
        problem=found.problem,
        stray_pid=stray_pid,
    )


def instance_seen(answer: Answer) -> InstanceSeen:
    idle = [slot for slot in answer.slots if slot.physical and not slot.active]
    return InstanceSeen(
        in_recovery=answer.in_recovery,
        timeline=answer.timeline,
        lsn=answer.position_lsn,
        received_lsn=answer.received_lsn or 0,
        replayed_lsn=answer.replayed_lsn or 0,
        receiver_running=answer.receiver is not None,
        upstream=upstream_address(answer.primary_conninfo),
        checkpoint_timeline=answer.checkpoint_timeline,
        slots=frozenset(slot.name for slot in answer.slots),
        streaming=answer.streaming,
        replay_waits=answer.replay_waits,
        pending_restart=bool(answer.pending_restart),
        idle_slots=frozenset(slot.name for slot in idle),
        lost_slots=frozenset(slot.name for slot in idle if slot.wal_status == "lost"),
        senders=tuple(
            SenderSeen(sender.application_name, sender.flushed_lsn, sender.state == "streaming")
            for sender in answer.walsenders
            if sender.user == REPLICATION_ROLE
        ),
        sync_version=answer.sync_version,
        refuses_writes=answer.refuses_writes,
        admits=answer.admits,
    )


def upstream_address(conninfo: str) -> str:
    """host:port of a connection string of ours; empty for none."""
    words = dict(word.partition("=")[::2] for word in conninfo.split() if "=" in word)
    host, port = words.get("host", ""), words.get("port", "")
    return join_address(host, int(port)) if host and port.isdecimal() else ""


def _age(since_s: float | None, now_s: float) -> float | None:
    return None if since_s is None else now_s - since_s
