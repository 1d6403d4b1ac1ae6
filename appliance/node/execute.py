"""Performs a decision's actions in order and stops at the first that fails.

Nothing is retried, waited for or decided here: the next look decides anew, so each action is safe to repeat and
safe to leave half done. What an action fails with is logged once until it changes.
"""

import secrets
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from typing import assert_never

from appliance.cluster.codec import encode_command
from appliance.cluster.commands import Command
from appliance.cluster.config import Policy
from appliance.cluster.names import slot_name
from appliance.cluster.state import ClusterState
from appliance.ha.actions import (
    Action,
    ApplySettings,
    BeginNotes,
    Checkpoint,
    Clone,
    CreateSlots,
    Decision,
    DiscardReplaced,
    DropSlots,
    EndSenders,
    EndStray,
    FinishJob,
    Follow,
    ForgetIncarnation,
    Initialise,
    MarkDirectory,
    MarkWal,
    NoteFenced,
    NoteNeedsClone,
    Pledge,
    Promote,
    Propose,
    Rewind,
    SettleHistory,
    ShowSync,
    StartPrimary,
    StartStandby,
    StopMode,
    StopPostgres,
)
from appliance.ha.seen import Notes, Observation, SyncProgress
from appliance.ha.standby import upstream
from appliance.ha.sync import to_load
from appliance.node.clock import boottime_s
from appliance.node.coordinator import PROPOSE_LIMIT_S, REFUSED_PAUSE_S
from appliance.node.events import Events
from appliance.node.guard_client import Deadline, GuardClient
from appliance.node.guard_connection import GuardError
from appliance.node.lease import Lease
from appliance.node.local import LocalPostgres
from appliance.node.messages import AskCredentials, CredentialsAnswer, MessageError, decode, encode
from appliance.node.notes import NotesFile
from appliance.node.observe import Signalled
from appliance.postgres.credentials import Credentials
from appliance.postgres.errors import PostgresError, SettingsError
from appliance.postgres.incarnation import Incarnation, forget_incarnation, write_incarnation
from raft import Applied, Outcome, Refused, Replica, ReplicaError

CHECKPOINT_LIMIT_S = 600.0
CREDENTIALS_LIMIT_S = 2.0
REWINDS_BEFORE_CLONE = 3


class Executor:
    """Used by the control loop only: it alone reads and writes what is here. Other threads only wake it."""

    def __init__(
        self,
        me: str,
        replica: Replica[ClusterState],
        local: LocalPostgres,
        guard: GuardClient,
        notes: NotesFile,
        signalled: Signalled,
        events: Events,
        wake: Callable[[], None],
    ) -> None:
        self._me = me
        self._replica = replica
        self._local = local
        self._guard = guard
        self._notes = notes
        self._signalled = signalled
        self._events = events
        self._wake = wake
        self._proposed: dict[type, Future[Outcome]] = {}
        self._refused: dict[type, tuple[float, ClusterState]] = {}
        """by kind: until when it is not proposed again, unless there is another state than this"""
        self._settled_index = 0
        self._asked: Future[bytes] | None = None
        self._failure = ""
        self._done: set[tuple[str, str]] = set()
        """what the look before did: a stop that is signalled at every look is told once"""
        self.lease = Lease(0, 0.0)
        """set by the control loop before each run: what a start or a promotion arms the guard with"""
        self.index = 0
        """log index of the state that the decision was made from"""

    def run(self, decision: Decision, state: ClusterState, seen: Observation, policy: Policy) -> bool:
        """Whether something was done that the look before did not do, so that PostgreSQL will soon show it."""
        self._take_answers(state)
        before, self._done = self._done, set()
        for action in decision.actions:
            name = type(action).__name__
            try:
                done = self._perform(action, state, seen, policy)
            except (PostgresError, GuardError, OSError, ValueError) as error:
                self._log_failure(f"{name}: {error}", decision.rule)
                self._note_refused_start(action, error)
                break
            if done and not isinstance(action, Propose):
                self._failure = ""
                self._done.add((name, decision.rule))
                if (name, decision.rule) not in before:
                    self._events.emit("action.done", action=name, rule=decision.rule, because=decision.because)
        return not self._done <= before

    def _note_refused_start(self, action: Action, error: Exception) -> None:
        """Most of what the guard says passes by itself; a setting or a full disk is shown, and tried with pauses."""
        stays = isinstance(error, SettingsError | OSError | PostgresError)
        stays = stays or (isinstance(error, GuardError) and error.code == "start_failed")
        if stays and isinstance(action, StartPrimary | StartStandby):
            self._signalled.start_refused = str(error)

    def _log_failure(self, failure: str, rule: str) -> None:
        if failure != self._failure:
            self._failure = failure
            self._events.emit("action.failed", "warning", error=failure, rule=rule)

    def _perform(self, action: Action, state: ClusterState, seen: Observation, policy: Policy) -> bool:  # noqa: C901
        """Begin one action; False when there was nothing to do but wait."""
        match action:
            case Propose(command):
                return self._propose(command, state)
            case StopPostgres(mode):
                self._stop(mode)
                self._signalled.stop_s = self._signalled.stop_s or boottime_s()
            case EndStray(pid):
                self._local.end_stray(pid)
            case StartPrimary(epoch):
                self._obey(epoch)
                self._obey_sync(state)
                self._local.start_primary(state, policy, self._deadline(epoch, policy))
            case StartStandby(source):
                self._obey(state.appointment.epoch if source and state.appointment else 0)
                self._local.start_standby(state, policy, source)
            case Follow(source):
                self._follow(source, state, policy)
            case Promote(epoch, timeline):
                self._promote(epoch, timeline, seen, policy)
            case Checkpoint(operation, sync_version):
                self._signalled.checkpoint_operation = operation
                self._signalled.checkpoint_sync_version = sync_version
                self._signalled.checkpointing = self._local.monitor.checkpoint(
                    CHECKPOINT_LIMIT_S, twice=sync_version > 0
                )
            case Pledge(election):
                self._note(replace(self._notes.value, pledge=max(election, self._notes.value.pledge)))
            case NoteFenced(epoch):
                self._notes.end_epoch(epoch)
            case NoteNeedsClone():
                self._note(replace(self._notes.value, needs_clone=True))
            case BeginNotes(recovery, keep):
                self._begin_notes(recovery, keep=keep)
            case MarkDirectory(recovery):
                write_incarnation(self._local.data_dir, Incarnation(seen.directory.incarnation, recovery))
            case Initialise():
                self._local.initialise(state, policy)
            case Clone(source):
                return self._with_credentials(source, lambda: self._local.clone(state, source))
            case Rewind(source, timeline):
                return self._with_credentials(source, lambda: self._local.rewind(state, source, timeline))
            case FinishJob():
                self._finish_job(seen)
            case DiscardReplaced():
                self._local.discard_replaced()
            case ForgetIncarnation():
                forget_incarnation(self._local.data_dir)
            case SettleHistory(timeline):
                return self._local.settle_history(timeline)
            case CreateSlots(members):
                for member in members:
                    self._local.monitor.create_slot(slot_name(member))
            case DropSlots(members):
                for member in members:
                    self._local.monitor.drop_slot(slot_name(member))
            case ShowSync(version):
                return self._show_sync(version)
            case MarkWal(version, first):
                self._mark_wal(version, first=first)
            case EndSenders(members):
                for member in members:
                    self._local.monitor.end_walsenders(member)
            case ApplySettings():
                self._obey_sync(state)
                in_recovery = seen.instance is None or seen.instance.in_recovery
                source = upstream(state, self._me, seen.notes.pledge) if in_recovery else ""
                self._local.apply_settings(state, policy, source)
            case _:
                assert_never(action)
        return True

    def _stop(self, mode: StopMode) -> None:
        if mode is StopMode.KILL:
            self._guard.kill_postgres()
        else:
            self._guard.stop_postgres("fast" if mode is StopMode.FAST else "immediate")

    def _begin_notes(self, recovery: int, *, keep: bool) -> None:
        """R13a: what is not believed any more is kept under another name, in an order that can be repeated."""
        if keep:
            self._note(replace(self._notes.value, recovery=recovery))
            return
        self._guard.set_fence_aside(recovery)
        self._notes.begin_anew(recovery)

    def _note(self, notes: Notes) -> None:
        self._notes.write(notes)

    def _obey(self, epoch: int) -> None:
        """R5: from here on this node acts on no older appointment, also after a restart."""
        if epoch > self._notes.value.epoch:
            self._note(replace(self._notes.value, epoch=epoch))

    def _obey_sync(self, state: ClusterState) -> None:
        """R8, T8: noted before PostgreSQL may load it."""
        loaded = to_load(state, self._me)
        if loaded is not None and loaded.version > self._notes.value.sync_version:
            self._note(replace(self._notes.value, sync_version=loaded.version))

    def _show_sync(self, version: int) -> bool:
        if self._local.monitor.shown_sync_version() != version:
            return False
        self._signalled.sync = SyncProgress(version)
        return True

    def _mark_wal(self, version: int, *, first: bool) -> None:
        if self._signalled.sync.version != version:
            return
        end_lsn = self._local.monitor.mark_wal()
        known = self._signalled.sync
        self._signalled.sync = replace(known, first_lsn=end_lsn) if first else replace(known, second_lsn=end_lsn)

    def _deadline(self, epoch: int, policy: Policy) -> Deadline:
        if self.lease.epoch != epoch:
            raise ValueError(f"holds the lease of epoch {self.lease.epoch}, not {epoch}")
        return self.lease.deadline(policy)

    def _promote(self, epoch: int, timeline: int, seen: Observation, policy: Policy) -> None:
        assert seen.instance is not None
        self._obey(epoch)
        self._local.promote(seen.instance.timeline, timeline, self._deadline(epoch, policy))
        self._signalled.promote_s = boottime_s()

    def _follow(self, source: str, state: ClusterState, policy: Policy) -> None:
        if source and state.appointment is not None:
            self._obey(state.appointment.epoch)
        self._local.apply_settings(state, policy, source)

    def _propose(self, command: Command, state: ClusterState) -> bool:
        """One of a kind at a time, and none from a state that does not show yet what the last one did.

        What was refused is refused again as long as nothing has changed, and the answer wakes the loop: without a pause
        it would be proposed as fast as the log takes it.
        """
        kind = type(command)
        if kind in self._proposed or self.index < self._settled_index:
            return False
        until_s, refused_by = self._refused.get(kind, (0.0, None))
        if state is refused_by and boottime_s() < until_s:
            return False
        future = self._replica.propose(encode_command(command), secrets.token_hex(8), PROPOSE_LIMIT_S)
        future.add_done_callback(lambda _: self._wake())
        self._proposed[kind] = future
        return True

    def _take_answers(self, state: ClusterState) -> None:
        """Of proposals; in the loop's thread, so that nothing here is written by two."""
        for kind, future in tuple(self._proposed.items()):
            if future.done():
                del self._proposed[kind]
                self._settle(kind, future.result(), state)

    def _settle(self, kind: type, outcome: Outcome, state: ClusterState) -> None:
        self._refused.pop(kind, None)
        match outcome:
            case Applied(index):
                self._settled_index = max(index, self._settled_index)
            case Refused(reason, index):
                self._settled_index = max(index or 0, self._settled_index)
                self._refused[kind] = boottime_s() + REFUSED_PAUSE_S, state
                self._events.emit("proposal.refused", command=kind.__name__, reason=reason)
            case _:
                self._events.emit("proposal.unknown", "warning", command=kind.__name__, reason=outcome.reason)

    def _with_credentials(self, source: str, begin: Callable[[], None]) -> bool:
        """Copying needs the roles' passwords: the source has them; asked for once, taken when they have come."""
        if self._local.credentials is not None:
            begin()
            return True
        if self._asked is None:
            self._asked = self._replica.request(source, encode(AskCredentials(self._me)), CREDENTIALS_LIMIT_S)
            self._asked.add_done_callback(lambda _: self._wake())
            return False
        if not self._asked.done():
            return False
        asked, self._asked = self._asked, None
        try:
            answer = decode(asked.result())
        except (ReplicaError, MessageError) as error:
            raise ValueError(f"{source} gave no credentials: {error}") from error
        if not isinstance(answer, CredentialsAnswer) or not answer.credentials:
            raise ValueError(f"{source} has no credentials to give yet")
        self._local.keep_credentials(Credentials.from_json(answer.credentials))
        begin()
        return True

    def _finish_job(self, seen: Observation) -> None:
        """Write down what a job led to before it is forgotten; a killed node process finds the same again."""
        job = seen.job
        if job is None:
            return
        notes = self._notes.value
        if not job.failed and job.kind != "discard":
            self._note(replace(notes, needs_clone=False, rewinds_failed=0))
        elif job.kind == "rewind":
            # A source that is down says nothing about this directory: the next primary is rewound to as well.
            failed = notes.rewinds_failed + (0 if job.source_away else 1)
            hopeless = job.needs_clone or failed >= REWINDS_BEFORE_CLONE
            self._note(replace(notes, needs_clone=hopeless, rewinds_failed=0 if hopeless else failed))
        self._events.emit(
            "job.ended",
            "warning" if job.failed else "info",
            job=job.kind,
            failed=job.failed,
            error=job.error,
            seconds=round(job.took_s, 3),
        )
        self._local.job = None
