"""The lease of this node's primary and the guard that ends PostgreSQL with it: held, renewed, armed, given up (R3, R4).

It reads no clock: a renewal counts from when it was asked for, which the reporter and the failsafe know.
"""

from appliance.cluster.config import Policy
from appliance.ha.seen import LeaseSeen
from appliance.node.events import Events
from appliance.node.failsafe import Failsafe
from appliance.node.guard_client import SILENCE_LIMIT_S, Exited, Fenced, GuardClient, GuardStatus
from appliance.node.guard_connection import GuardError
from appliance.node.lease import NO_LEASE, Lease, adopted
from appliance.node.notes import NotesFile
from appliance.node.reporter import Confirmed, Reporter


class LeaseKeeper:
    """Used by the control loop only."""

    def __init__(
        self, guard: GuardClient, notes: NotesFile, reporter: Reporter, failsafe: Failsafe, events: Events
    ) -> None:
        self._guard = guard
        self._notes = notes
        self._reporter = reporter
        self._failsafe = failsafe
        self._events = events
        self.lease: Lease = NO_LEASE
        self.vouched_by: frozenset[str] | None = None
        """the members on whose word the lease goes on (R16); None: on the raft leader's"""
        self.guard_status: GuardStatus | None = None
        """of the last look; None: the guard does not answer"""

    def seen(self, now_s: float) -> LeaseSeen | None:
        return self.lease.seen(now_s) if self.lease.epoch else None

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
        """Take over the lease that an earlier node process held, as its guard keeps it."""
        self.look_at_guard()
        if self.guard_status is not None:
            self.lease = adopted(self.guard_status)
            self._note_fence(self.guard_status.fenced_epoch)

    def hear_guard(self) -> None:
        for event in self._guard.events():
            match event:
                case Exited():
                    self._events.emit("postgres.exited", "warning", code=event.code, signal=event.signal)
                case Fenced():
                    self._events.emit("primary.fenced", "error", epoch=event.epoch, how=event.how, took_s=event.took_s)
        self.look_at_guard()
        if self.guard_status is not None:
            self._note_fence(self.guard_status.fenced_epoch)

    def look_at_guard(self) -> None:
        try:
            self._guard.ensure()
            self.guard_status = self._guard.status()
        except GuardError as error:
            if self.guard_status is not None:
                self._events.emit("guard.lost", "error", error=str(error))
            self.guard_status = None
            self._end_silent_guard()

    def hear_leader(self, policy: Policy) -> Confirmed | None:
        """The raft leader's answer, if one has come. Its renewal is taken before anything is decided."""
        confirmed = self._reporter.hear()
        if confirmed is not None:
            self._renew(confirmed, policy)
        return confirmed

    def hear_members(self, policy: Policy) -> None:
        """R16: all synchronous members have promised not to vote; only a lease that was held goes on by that."""
        vouched = self._failsafe.hear()
        if vouched is None or vouched.epoch <= self._notes.value.fenced_epoch or vouched.epoch != self.lease.epoch:
            return
        if vouched.by != self.vouched_by:
            self._events.emit("lease.vouched", "warning", epoch=vouched.epoch, by=sorted(vouched.by))
        self.vouched_by = vouched.by
        self._extend(vouched.epoch, vouched.asked_s, policy)

    def _renew(self, confirmed: Confirmed, policy: Policy) -> None:
        """R3: a confirmed renewal extends the lease from the time before it was asked for; the guard learns of it."""
        epoch = confirmed.answer.confirmed_epoch
        if epoch is None or epoch <= self._notes.value.fenced_epoch:
            return
        if epoch != self.lease.epoch:
            self._events.emit("lease.gained", epoch=epoch)
        self.vouched_by = None
        self._extend(epoch, confirmed.asked_s, policy)

    def _extend(self, epoch: int, asked_s: float, policy: Policy) -> None:
        self.lease = self.lease.renewed(epoch, asked_s, policy)
        status = self.guard_status
        if status is not None and status.postmaster is not None and status.deadline_epoch == epoch:
            self._arm(policy)

    def _arm(self, policy: Policy) -> None:
        try:
            self._guard.set_deadline(self.lease.deadline(policy))
        except GuardError as error:
            self._events.emit("guard.lost", "error", error=str(error))

    def _end_silent_guard(self) -> None:
        """R4: nothing may run writable under a guard that would not end it. The next look starts another guard."""
        silent_s = self._guard.silent_s()
        if silent_s >= SILENCE_LIMIT_S:
            self._events.emit("guard.killed", "error", pid=self._guard.kill_silent(), silent_s=round(silent_s, 1))

    def _note_fence(self, epoch: int | None) -> None:
        """R4: the guard fenced this epoch, perhaps while no node process lived."""
        if epoch is None or epoch <= self._notes.value.fenced_epoch:
            return
        try:
            self._notes.end_epoch(epoch)
        except OSError as error:
            self._events.emit("action.failed", "warning", error=f"NoteFenced: {error}", rule="note_fence")
