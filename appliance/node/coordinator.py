"""The raft leader's side: collect reports, confirm leases (R3), run `plan`.

Every node has one; it acts only while this node's replica leads, and what it noted belongs to one term.
Requests come from the replica's pool threads, `step` from the control loop.
"""

import math
import secrets
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import assert_never

from appliance.cluster.codec import encode_command
from appliance.cluster.commands import Command, Depose, NotePosition
from appliance.cluster.config import Policy
from appliance.cluster.state import ClusterState, LeaseStatus
from appliance.ha.clocks import Track, compared, heard
from appliance.ha.leadership import LeadershipSeen, Tries, heir, may_hand_over
from appliance.ha.membership import (
    Change,
    ChangeRole,
    DropReplica,
    HandOver,
    ReplicaRole,
    Replicas,
    next_change,
    seen_by,
)
from appliance.ha.plan import plan
from appliance.ha.seen import ClockReading, LeaderSeen, Report, ReportSeen
from appliance.ha.situation import Plan, Situation, silence_s
from appliance.ha.standbys import standing
from appliance.node.clock import boottime_s, wall_s, wall_time
from appliance.node.messages import ReportAnswer, SendReport
from appliance.node.report import alike
from raft import Applied, Members, Outcome, Refused, Replica, ReplicaStatus, Unknown, View

BARRIER_LIMIT_S = 1.0
PROPOSE_LIMIT_S = 2.0
REFUSED_PAUSE_S = 0.2
"""What was refused is mostly refused again a moment later: it is not proposed at every look."""
CHANGE_LIMIT_S = 2.0
CHANGE_PAUSE_S = 3.0
"""After a change of members that came to nothing: while leadership is handed over the log takes no entries."""
PROMOTION_LIMIT_S = 60.0
"""An appointed node that has not opened by then gets no more renewals."""


@dataclass
class LeaseLedger:
    """R3 on the raft leader: when a renewal was confirmed, and which epoch is confirmed no more (T13).

    One lock holds the two together: once a deposition is proposed, no confirmation may follow in that term.
    """

    _lock: threading.Lock = field(default_factory=threading.Lock)
    _term: int = 0
    _confirmed_s: dict[int, float] = field(default_factory=dict)
    _deposing: dict[int, object] = field(default_factory=dict)

    def confirm(self, term: int, epoch: int, now_s: float) -> bool:
        with self._lock:
            self._enter(term)
            if term < self._term or epoch in self._deposing:
                return False
            # Threads confirm: one that was held up since its look at the clock must not set the note back.
            self._confirmed_s[epoch] = max(now_s, self._confirmed_s.get(epoch, now_s))
            return True

    def begin_deposing(self, term: int, epoch: int, confirmed_before_s: float) -> object | None:
        """A token for `cease_deposing`. None: a renewal was confirmed at or after `confirmed_before_s`."""
        with self._lock:
            self._enter(term)
            if term < self._term or self._confirmed_s.get(epoch, 0.0) >= confirmed_before_s:
                return None
            self._deposing[epoch] = token = object()
            return token

    def cease_deposing(self, epoch: int, token: object) -> None:
        """That deposition is known never to enter the log. One that was begun after it stays."""
        with self._lock:
            if self._deposing.get(epoch) is token:
                del self._deposing[epoch]

    def confirmed_s(self, term: int, epoch: int) -> float | None:
        with self._lock:
            return self._confirmed_s.get(epoch) if term == self._term else None

    def _enter(self, term: int) -> None:
        if term > self._term:
            self._term, self._confirmed_s, self._deposing = term, {}, {}


class Watch:
    """Since when something has been as it is: for how long an election or a phase has lasted, as seen from here."""

    def __init__(self) -> None:
        self._key: object = None
        self._since_s = 0.0

    def age_s(self, key: object, now_s: float) -> float:
        if key != self._key:
            self._since_s = now_s
            self._key = key
        return now_s - self._since_s

    def peek_s(self, key: object, now_s: float) -> float:
        """The same, from another thread: changes nothing; 0 for a key that the owner has not seen yet."""
        since_s = self._since_s
        return now_s - since_s if key == self._key else 0.0


def replicas_of(leader: ReplicaStatus, reports: Mapping[str, ReportSeen]) -> Replicas:
    roles = {member.name: member.role for member in leader.members.all}
    return seen_by(leader.name, roles, {peer.name for peer in leader.peers if peer.connected}, reports)


def caught_up(leader: ReplicaStatus) -> frozenset[str]:
    """Who has the whole log; nobody while an entry is on its way."""
    if leader.commit_index < leader.last_index:
        return frozenset()
    return frozenset(peer.name for peer in leader.peers if (peer.match_index or 0) >= leader.last_index)


class Coordinator:
    def __init__(
        self, replica: Replica[ClusterState], wake: Callable[[], None], log: Callable[[str, str], None]
    ) -> None:
        self._replica = replica
        self._wake = wake
        self._log = log
        self._ledger = LeaseLedger()
        self._received: dict[str, tuple[float, Report]] = {}
        self._clocks: dict[str, Track] = {}
        self._epoch, self._election, self._phase, self._removed = Watch(), Watch(), Watch(), Watch()
        self._away: dict[tuple[object, ...], float] = {}
        self._opened, self._heir = Watch(), Watch()
        self._tries = Tries()
        self._changing: Future[Outcome] | None = None
        self._change_again_s = 0.0
        self._change_said = ""
        self._noted_s = 0.0
        self._proposed: Future[Outcome] | None = None
        self._said = ""
        self._settled_index = 0
        self._again_s = 0.0
        self.silence_left_s = math.inf
        """until the silence of a primary that does not renew means more than now: when to look again at the latest"""

    def reports(self) -> Mapping[str, ReportSeen]:
        now_s = boottime_s()
        clocks = compared(dict(self._clocks), now_s)
        return {name: ReportSeen(r, now_s - at_s, clocks.get(name)) for name, (at_s, r) in dict(self._received).items()}

    def receive(self, message: SendReport) -> ReportAnswer:
        """Take a report; if it asks for a lease, make a read barrier and say whether the sender still holds it.

        Called on a pool thread; waits for the barrier, at most BARRIER_LIMIT_S.
        """
        report, view = message.report, self.take(message.report, message.clock)
        if view is None:
            return ReportAnswer(leader=False)
        current = report.renew_epoch is not None and isinstance(
            self._replica.barrier(BARRIER_LIMIT_S).result(), Applied
        )
        return self.answer(report, view, current=current)

    def take(self, report: Report, clock: ClockReading | None = None) -> View[ClusterState] | None:
        """Keep it for the next plan; what is known here now, or None where this node does not lead."""
        view = self._replica.view()
        if not view.is_leader:
            return None
        if clock is not None:
            self._clocks[report.node] = heard(self._clocks.get(report.node, Track()), clock, boottime_s(), wall_s())
        _, before = self._received.get(report.node, (0.0, None))
        self._received[report.node] = (boottime_s(), report)
        if before is None or not alike(before, report):
            self._wake()
        return view

    def answer(self, report: Report, view: View[ClusterState], *, current: bool) -> ReportAnswer:
        """To a report that was taken at `view`; `current`: a barrier that was asked for after that has been passed."""
        epoch = report.renew_epoch
        confirmed = self._confirm(view.term, report.node, epoch) if current and epoch is not None else None
        return ReportAnswer(
            leader=True, confirmed_epoch=confirmed, index=view.index, reports=self.reports(), says=self._said
        )

    def _confirm(self, term: int, node: str, epoch: int) -> int | None:
        view = self._replica.view()
        held = view.state.appointment
        if not view.is_leader or view.term != term or held is None or view.state.lease is not LeaseStatus.HELD:
            return None
        if held.node != node or held.epoch != epoch or view.state.election is not None:
            return None
        if not held.opened and self._epoch.peek_s((term, epoch), boottime_s()) > PROMOTION_LIMIT_S:
            return None  # it does not come to open: let the lease run out and others be elected
        return epoch if self._ledger.confirm(term, epoch, boottime_s()) else None

    def step(self, view: View[ClusterState], policy: Policy) -> str:
        """Run `plan` if this node leads and nothing proposed is on its way; answers what it is doing, in words."""
        self.silence_left_s = math.inf
        held = view.state.appointment
        opened_s = self._opened.age_s(held.epoch if held is not None and held.opened else 0, boottime_s())
        if not view.is_leader or view.leading_since_s is None:
            return ""
        consensus = self._replica.status()
        changing = self._tend_members(view, consensus)
        if not self._seen_what_came_of_the_last(view):
            return self._said
        situation = self._situation(view, consensus, policy, view.leading_since_s)
        if view.state.lease is LeaseStatus.HELD:
            self.silence_left_s = _silence_left_s(policy, silence_s(situation.leader))
        answer = plan(situation)
        self._said = answer.because if answer.rule or not changing else changing
        for command in answer.commands:
            self._propose(view, policy, answer, command)
        idle = not changing and not answer.commands
        self._tend_leadership(view, consensus, situation.leader.leading_s, opened_s, idle=idle)
        return self._said

    def _tend_members(self, view: View[ClusterState], consensus: ReplicaStatus) -> str:
        """Bring the replicas in line with the agreed members, one change at a time; what is due, in words.

        Looked at anew each time, so that what a lost raft leader had begun is ended by the next one.
        """
        if self._changing is not None:
            if not self._changing.done():
                return self._change_said
            failed, self._changing = not isinstance(self._changing.result(), Applied), None
            self._change_again_s = boottime_s() + CHANGE_PAUSE_S if failed else 0.0
        if boottime_s() < self._change_again_s:
            return self._change_said
        reports = self.reports()
        replicas = replicas_of(consensus, reports)
        leaving_s = self._removed.age_s((view.term, view.state.removed), boottime_s())
        change = next_change(view.state, replicas, reports, leaving_s)
        if change is None:
            self._change_said = ""
            return ""
        again, self._change_said = change.because == self._change_said, change.because
        if change.step is not None and not again:
            self._log("membership", change.because)
        self._changing = self._begin_change(change)
        if self._changing is not None:
            self._changing.add_done_callback(lambda _: self._wake())
        return change.because

    def _tend_leadership(
        self, view: View[ClusterState], consensus: ReplicaStatus, leading_s: float, opened_s: float, *, idle: bool
    ) -> None:
        """Hand over to a voter on another host than the primary's, when nothing else is under way."""
        now_s, epoch = boottime_s(), view.state.epoch
        to = heir(view.state, replicas_of(consensus, self.reports()), caught_up(consensus))
        suited_s = self._heir.age_s((view.term, epoch, to), now_s)
        self._tries = self._tries.of(epoch)
        seen = LeadershipSeen(leading_s, opened_s, suited_s, now_s - self._tries.last_s, self._tries.count)
        if to is None or not idle or not may_hand_over(seen):
            return
        self._tries = self._tries.again(now_s)
        self._said = self._change_said = f"{consensus.name} is the primary: the raft leadership goes to {to}"
        self._log("leadership", self._change_said)
        self._changing = self._begin_change(Change(self._change_said, HandOver(to)))

    def _begin_change(self, change: Change) -> Future[Outcome] | None:
        """By the members in force when it is written: one who joins meanwhile must not be dropped with this."""
        match change.step:
            case HandOver(to):
                return self._replica.transfer(to, CHANGE_LIMIT_S)
            case DropReplica(name):
                return self._replica.remove_member(name, CHANGE_LIMIT_S)
            case ChangeRole(name, role):
                return self._replica.revise_members(lambda members: _with_role(members, name, role), CHANGE_LIMIT_S)
            case None:
                return None
            case _:
                assert_never(change.step)

    def _seen_what_came_of_the_last(self, view: View[ClusterState]) -> bool:
        """Nothing is planned while a proposal is on its way, nor from a state that does not show yet what it did."""
        if self._proposed is not None:
            if not self._proposed.done():
                return False
            outcome, self._proposed = self._proposed.result(), None
            if not isinstance(outcome, Unknown):
                self._settled_index = max(outcome.index or 0, self._settled_index)
            if isinstance(outcome, Refused):
                self._again_s = boottime_s() + REFUSED_PAUSE_S
        return view.index >= self._settled_index and boottime_s() >= self._again_s

    def _situation(
        self, view: View[ClusterState], consensus: ReplicaStatus, policy: Policy, since_s: float
    ) -> Situation:
        now_s, state = boottime_s(), view.state
        operation = state.running_operation()
        epoch = state.appointment.epoch if state.appointment is not None else 0
        confirmed_s = self._ledger.confirmed_s(view.term, epoch)
        leader = LeaderSeen(
            leading_s=now_s - since_s,
            confirmed_s=None if confirmed_s is None else now_s - confirmed_s,
            epoch_s=self._epoch.age_s((view.term, epoch), now_s),
            election_s=self._election.age_s((view.term, state.election.number if state.election else 0), now_s),
            phase_s=self._phase.age_s((view.term, operation and (operation.id, operation.phase)), now_s),
            noted_s=now_s - self._noted_s,
            away_s=self._away_s(view, now_s),
            replicas=consensus.members.names,
            log_incarnation=consensus.incarnation,
        )
        reports, held = self.reports(), state.appointment
        primary = reports.get(held.node) if held is not None else None
        heard_at = wall_time(primary.age_s) if primary is not None else ""
        return Situation(state, reports, leader, policy, wall_time(), heard_at)

    def _away_s(self, view: View[ClusterState], now_s: float) -> Mapping[str, float]:
        """Counted anew in each term and epoch: a new primary's standbys have yet to come."""
        held = view.state.appointment
        if held is None or held.node not in self._received:
            return {}
        stands = standing(view.state.members.keys() - {held.node}, self._received[held.node][1])
        keys = {name: (view.term, held.epoch, name, lsn) for name, lsn in stands.items()}
        self._away = {key: self._away.get(key, now_s) for key in keys.values()}
        return {name: now_s - self._away[key] for name, key in keys.items()}

    def _propose(self, view: View[ClusterState], policy: Policy, answer: Plan, command: Command) -> None:
        token = None
        if isinstance(command, Depose):
            # A renewal may have been confirmed since the plan was made: the ledger has the last word (T13).
            token = self._ledger.begin_deposing(view.term, command.epoch, boottime_s() - policy.depose_after_s)
            if token is None:
                return
        if isinstance(command, NotePosition):
            self._noted_s = boottime_s()
        else:
            self._log(answer.rule, answer.because)
        self._proposed = self._replica.propose(encode_command(command), secrets.token_hex(8), PROPOSE_LIMIT_S)
        self._proposed.add_done_callback(lambda outcome: self._answered(command, token, outcome.result()))

    def _answered(self, command: Command, token: object, outcome: Outcome) -> None:
        """Called on the raft thread: tell the ledger, which has a lock, and wake the loop, which sees to the rest."""
        never_logged = isinstance(outcome, Refused) and outcome.index is None
        if isinstance(command, Depose) and never_logged:
            self._ledger.cease_deposing(command.epoch, token)
        self._wake()


def _silence_left_s(policy: Policy, silent_s: float) -> float:
    """Until the primary is suspected (R9), then until its lease has run out (R3); 0 from then on."""
    limits = (policy.failure_timeout_s, policy.depose_after_s)
    return min((limit_s - silent_s for limit_s in limits if limit_s >= silent_s), default=0.0)


def _with_role(members: Members, name: str, role: ReplicaRole) -> Members:
    member = members.get(name)
    if member is None:
        raise ValueError(f"{name!r} is no member any more")
    return members.with_member(replace(member, role=role))
