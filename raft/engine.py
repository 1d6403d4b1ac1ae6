"""One replica without threads, sockets or a clock of its own: consensus, applier, and who waits for what.

Everything that happens to it comes in through its methods, so the same code runs in a node process and, thousands
of times, in a simulation. An exception out of any method ends the replica (fail-stop): nothing of it may be used again.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Generic, Literal, TypeAlias, TypeVar

from raft.api import (
    Applied,
    Event,
    LeaderChanged,
    Machine,
    MembersChanged,
    NewerVersionNeeded,
    Outcome,
    Refused,
    ReplicaError,
    Settings,
    StateApplied,
    Unknown,
    View,
)
from raft.applier import Applier, Submission
from raft.compat import LEADER
from raft.core import Core, Facts
from raft.entries import COMMAND, MEMBERS
from raft.journal import Journal
from raft.members import Introduction, Members
from raft.messages import AskBarrier, Barrier, Forward, ForwardRefused, Message, Post

S = TypeVar("S")

_NOT_LEADING = "this replica does not lead"
_FORWARDED_LIMIT = 4096
"""Questions to the leader that wait for an answer; some never get one, and whoever asked has a deadline."""

Key: TypeAlias = tuple[Literal["command", "barrier", "change", "transfer"], str]
"""What was asked for, and the id or name it was asked under."""


class Engine(Generic[S]):
    """One replica, for one thread. Answers come through `on_outcome`; those that depend on others may never come."""

    def __init__(
        self,
        settings: Settings,
        machine: Machine[S],
        journal: Journal,
        *,
        clock: Callable[[], float],
        draw: random.Random,
        send: Post,
        on_outcome: Callable[[Key, Outcome], None],
        on_event: Callable[[Event], None],
    ) -> None:
        self._applier = Applier(machine)
        self._settings = settings
        self._clock = clock
        self._on_outcome = on_outcome
        self._on_event = on_event
        self._answers: list[tuple[Key, Outcome]] = []
        self._numbers = draw.getrandbits(48)  # a replica that restarts must not take old answers for new ones (D20)
        self._forwarded: dict[int, Key] = {}
        self._appended: set[str] = set()
        self._barriers: list[tuple[int, str]] = []
        self._changes: dict[int, str] = {}
        """As leader: the changes that it has written and not committed, by index."""
        self._members = Members()
        self.view: View[S] = View(self._applier.state, 0, 0, None, False, None, None)
        self._begin_with(journal)
        self._core = Core(settings, journal, self, clock=clock, draw=draw, post=send)
        self.facts: Facts = self._core.facts()
        self._publish()

    def _begin_with(self, journal: Journal) -> None:
        if journal.snapshot is None:
            return
        try:
            self._applier.restore(journal.snapshot.content)
        except NewerVersionNeeded as error:
            raise ReplicaError(f"the snapshot in journal {journal.path} {error}") from error
        except ValueError as error:
            raise ReplicaError(
                f"the snapshot in journal {journal.path} cannot be read: {error}; start the version that wrote it"
            ) from error

    @property
    def places(self) -> dict[str, tuple[str, ...]]:
        """Where each member may be found, the likeliest first."""
        return self._core.places()

    def admits(self, name: str) -> bool:
        """Whether a replica of the group that is no member here may be heard; from any thread.

        Whoever hears a leader learns of new members from it. Whoever hears none may have missed that they joined, and
        one of them may lead.
        """
        view = self.view
        heard = view.contact_s is not None and self._clock() - view.contact_s < self._settings.election_max_s
        return not heard or (name == view.leader and not view.is_leader)

    @property
    def strangers(self) -> int:
        return self._core.strangers

    def step(self) -> float:
        """One tick. Answers in how many seconds the next is due, below zero if it should have been meanwhile; after any
        other call one is due at once.
        """
        wait_s = self._core.step()
        self._publish()
        return wait_s

    def deliver(self, peer: str, message: Message) -> bool:
        """A message from a peer. False when no step has to follow at once: what it changed is for the next one."""
        match message:
            case Forward() | ForwardRefused() | AskBarrier() | Barrier() if message.group != self._core.group:
                pass
            case Forward():
                self._on_forward(peer, message)
            case ForwardRefused():
                self._on_forward_refused(message)
            case AskBarrier():
                self._on_ask_barrier(peer, message)
            case Barrier():
                self._on_barrier(message)
            case _:
                return self._core.deliver(peer, message)
        return True

    def introduced(self, peer: str, introduction: Introduction) -> None:
        self._core.introduced(peer, introduction)

    def introduction(self) -> Introduction:
        return self._core.introduction()

    def connected(self, peer: str) -> None:
        self._core.connected(peer)

    def disconnected(self, peer: str) -> None:
        self._core.disconnected(peer)

    def propose(self, command: bytes, command_id: str) -> None:
        """Put a command into the log. Told as ("command", command_id): applied here, refused, or unknown."""
        key: Key = ("command", command_id)
        submission = Submission(command_id, self.facts.applied_index, command).pack()
        leader = self._core.leader
        if (objection := self._applier.objection(submission)) is not None:
            self._refuse(key, objection)
        elif leader is None:
            self._forward(key, lambda number: Forward(*self._core.envelope(), number, submission))
        elif isinstance(problem := leader.append(COMMAND + submission), str):
            self._refuse(key, problem)
        else:
            self._appended.add(command_id)

    def barrier(self, name: str) -> None:
        """Applied: the view holds everything that was acknowledged anywhere before this call."""
        if self._core.leader is not None:
            self._core.leader.confirm(lambda index: self._confirmed(name, index))
        else:
            self._forward(("barrier", name), lambda number: AskBarrier(*self._core.envelope(), number))

    def change_members(self, name: str, members: Members) -> None:
        """As leader only. Applied when the change is committed."""
        self.revise_members(name, lambda _: members)

    def revise_members(self, name: str, revise: Callable[[Members], Members]) -> None:
        """As `change_members`, by what the members in force are made of; its ValueError says why not."""
        written = self._write_members(revise)
        if isinstance(written, str):
            self._on_outcome(("change", name), Refused(written, None))
        else:
            self._changes[written] = name

    def _write_members(self, revise: Callable[[Members], Members]) -> int | str:
        leader = self._core.leader
        if leader is None:
            return self._not_leading()
        try:
            wanted = Members.unpack(revise(self._core.members.current).pack())  # what the others could not read is none
            return leader.change_members(wanted)
        except ValueError as error:
            return str(error)

    def _not_leading(self) -> str:
        """Whoever asks may go on to who does."""
        leader = self._core.leading_peer
        return _NOT_LEADING if leader is None else f"{_NOT_LEADING}: {leader} does"

    def transfer(self, name: str, to: str) -> None:
        """As leader only. Applied when this replica leads no more, which may be another's doing."""

        def done(problem: str | None) -> None:
            outcome = Applied(self.facts.applied_index) if problem is None else Refused(problem, None)
            self._on_outcome(("transfer", name), outcome)

        if self._core.leader is None:
            done(self._not_leading())
        else:
            self._core.leader.transfer(to, done)

    # -- what the core calls -------------------------------------------------------------------------

    def apply(self, index: int, entry: bytes) -> None:
        kind, content = entry[:1], entry[1:]
        if kind == COMMAND and (applied := self._applier.apply(index, content)) is not None:
            command_id, outcome = applied
            self._appended.discard(command_id)
            self._answers.append((("command", command_id), outcome))
        elif kind == MEMBERS and index in self._changes:
            self._answers.append((("change", self._changes.pop(index)), Applied(index)))

    def applied(self) -> None:
        """First the view, then the answers: who is told `Applied` finds it in the view."""
        self._publish()
        answers, self._answers = self._answers, []
        answered = dict(answers)
        self._forwarded = {number: key for number, key in self._forwarded.items() if key not in answered}
        for key, outcome in answers:
            self._on_outcome(key, outcome)
        self._finish_barriers()
        self._on_event(StateApplied(self.facts.applied_index))

    def dump(self) -> bytes:
        return self._applier.dump()

    def restore(self, content: bytes) -> None:
        """A snapshot may hold what became of commands that are waited for here (D20)."""
        self._applier.restore(content)
        for key in self._forwarded.values():
            if key[0] == "command" and (outcome := self._applier.outcome(key[1])) is not None:
                self._answers.append((key, outcome))

    def leader_lost(self) -> None:
        """Answer at once what would otherwise be waited for in vain."""
        forwarded, self._forwarded = self._forwarded, {}
        appended, self._appended = self._appended, set()
        changes, self._changes = self._changes, {}
        lost = "the raft leader, or the connection to it, was lost before it answered"
        for key in [*forwarded.values(), *(("command", command_id) for command_id in sorted(appended))]:
            kind = key[0]
            # a barrier changes nothing, so it may simply be asked for again
            self._on_outcome(key, Refused(lost, None) if kind == "barrier" else Unknown(lost))
        for name in changes.values():
            self._on_outcome(("change", name), Unknown(lost))

    def members_changed(self, members: Members) -> None:
        if members != self._members:
            self._members = members
            self._on_event(MembersChanged(members))

    # -- forwarding ------------------------------------------------------------------------------------

    def _forward(self, key: Key, message: Callable[[int], Message]) -> None:
        """Ask the leader; without one, or without a connection to it, the answer is no at once (D20, D21)."""
        leader = self._core.leading_peer
        self._numbers += 1
        if leader is None or not self._core.post(leader, message(self._numbers)):
            self._refuse(key, "there is no raft leader, or no connection to it")
        else:
            self._forwarded[self._numbers] = key
            if len(self._forwarded) > _FORWARDED_LIMIT:
                del self._forwarded[next(iter(self._forwarded))]

    def _on_forward(self, peer: str, message: Forward) -> None:
        leader = self._core.leader
        problem: int | str | None = _NOT_LEADING if leader is None else self._applier.objection(message.submission)
        if leader is not None and problem is None:
            problem = leader.append(COMMAND + message.submission)
        if isinstance(problem, str):
            self._core.post(peer, ForwardRefused(*self._core.envelope(), message.number, problem))

    def _on_forward_refused(self, message: ForwardRefused) -> None:
        key = self._forwarded.pop(message.number, None)
        if key is not None:
            self._refuse(key, message.reason)

    def _refuse(self, key: Key, reason: str) -> None:
        """One submission will never enter the log. While another of the same command may, that one is the answer."""
        kind, command_id = key
        submitted = key in self._forwarded.values() or (kind == "command" and command_id in self._appended)
        if not submitted:
            self._on_outcome(key, Refused(reason, None))

    def _on_ask_barrier(self, peer: str, message: AskBarrier) -> None:
        def done(index: int | None) -> None:
            envelope = self._core.envelope()
            if index is None:
                reason = "the leadership was lost meanwhile"
                self._core.post(peer, ForwardRefused(*envelope, message.number, reason))
            else:
                self._core.post(peer, Barrier(*envelope, message.number, index))

        if self._core.leader is not None:
            self._core.leader.confirm(done)
        else:
            self._core.post(peer, ForwardRefused(*self._core.envelope(), message.number, _NOT_LEADING))

    def _on_barrier(self, message: Barrier) -> None:
        key = self._forwarded.pop(message.number, None)
        if key is not None and key[0] == "barrier":
            self._confirmed(key[1], message.index)

    def _confirmed(self, name: str, index: int | None) -> None:
        if index is None:
            self._on_outcome(("barrier", name), Refused("the leadership was lost meanwhile", None))
            return
        self._barriers.append((index, name))
        self._finish_barriers()

    def _finish_barriers(self) -> None:
        applied = self._core.inside.last_applied
        finished = [name for index, name in self._barriers if index <= applied]
        self._barriers = [(index, name) for index, name in self._barriers if index > applied]
        for name in finished:
            self._on_outcome(("barrier", name), Applied(applied))

    # -- what others see -------------------------------------------------------------------------------

    def _publish(self) -> None:
        facts, old = self._core.facts(), self.view
        leading = facts.state == LEADER
        since_s = old.leading_since_s if leading and facts.term == old.term else None
        self.facts = facts
        self.view = View(
            state=self._applier.state,
            index=facts.applied_index,
            term=facts.term,
            leader=facts.leader,
            is_leader=leading,
            leading_since_s=(since_s or self._clock()) if leading else None,
            contact_s=facts.contact_s,
        )
        if (facts.leader, facts.term) != (old.leader, old.term):
            self._on_event(LeaderChanged(facts.leader, facts.term))
