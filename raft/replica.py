"""The replica: one owner thread around an engine, a mailbox into it, a published view out of it."""

from __future__ import annotations

import itertools
import random
import secrets
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from typing import Generic, Literal, TypeVar

from raft import address, standing
from raft.api import (
    COMMAND_LIMIT_BYTES,
    Event,
    Failed,
    Machine,
    MembersChanged,
    Outcome,
    PeerRefused,
    Refused,
    ReplicaConfig,
    ReplicaError,
    ReplicaFailed,
    ReplicaStatus,
    Settings,
    Unknown,
    View,
)
from raft.applier import ID_LIMIT
from raft.certificates import Subject
from raft.clock import boottime_s
from raft.disk import OsDisk
from raft.engine import Engine, Key
from raft.journal import Journal
from raft.mailbox import Mailbox
from raft.members import Introduction, Member, Members
from raft.messages import Message
from raft.requests import Handlers, Requests
from raft.ticks import Ticks
from raft.transport import Transport, TransportEvents, nobody_joins
from raft.waiting import Waiting

S = TypeVar("S")

_LONGEST_STEP_S = 1.0


class Replica(Generic[S]):
    """A durable replica of a state machine. All public methods may be called from any thread.

    `on_event` is called in the raft thread and must only enqueue; `on_request` is called in a small pool,
    with the peer's name and payload, and its exceptions become the asker's. `on_join` is asked by nodes that are no
    members (`raft.joining.ask`), with the name they call themselves by: the question has to prove what it claims.
    """

    def __init__(
        self,
        config: ReplicaConfig,
        machine: Machine[S],
        *,
        on_event: Callable[[Event], None],
        on_request: Callable[[str, bytes], bytes],
        on_join: Callable[[str, bytes], bytes] = nobody_joins,
    ) -> None:
        _check(config)
        self._config = config
        self._machine = machine
        self._on_event = on_event
        self._handlers = Handlers(on_request, config.name)
        self._on_join = on_join
        self._waiting: Waiting[Key, Outcome] = Waiting("raft deadlines")
        self._view: View[S] = View(machine.initial(), 0, 0, None, False, None, None)
        self._failure: str | None = None
        self._stopping = False
        self._numbers = itertools.count()
        self._session = secrets.token_hex(8)
        self._places: dict[str, tuple[str, ...]] = {}
        self._ticks = Ticks()
        self._disk: OsDisk
        self._journal: Journal
        self._transport: Transport
        self._requests = Requests(config.name, self._handlers)
        self._engine: Engine[S]
        self._mailbox: Mailbox
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Open journal and port and begin; ReplicaError when one of them cannot be had."""
        config = self._config
        self._disk = OsDisk(config.directory)
        try:
            self._journal = Journal(self._disk, config.cluster, config.name, draw_id=lambda: secrets.token_hex(8))
        except ReplicaError:
            self._disk.close()
            raise
        self._mailbox = Mailbox()
        try:
            self._engine = self._make_engine()
            self._transport = self._make_transport()
            self._transport.listen()
        except ReplicaError:
            self._mailbox.close()
            self._journal.close()
            self._disk.close()
            raise
        self._view = self._engine.view
        self._waiting.start()
        self._thread = threading.Thread(target=self._run, name="raft", daemon=True)
        self._thread.start()
        self._transport.start()
        self._requests.start(self._transport)

    def stop(self, limit_s: float = 3.0) -> None:
        """End all threads; what is still open is answered as unknown. Waits at most `limit_s`."""
        if self._thread is None:
            return
        self._stopping = True
        self._mailbox.post(lambda: None)
        self._thread.join(limit_s)
        self._shut_down("the replica was stopped")

    def view(self) -> View[S]:
        return self._view

    def propose(self, command: bytes, command_id: str, timeout_s: float) -> Future[Outcome]:
        """Put a command into the log; the future completes by then.

        One call never applies it twice. The same id is applied once, however often it is proposed, as long as the
        first is among the last 4096 entries of the log: a repeat answers what the first one got.
        """
        if len(command) > COMMAND_LIMIT_BYTES:
            return _done(Refused(f"command of {len(command)} bytes is over {COMMAND_LIMIT_BYTES}", None))
        if not 0 < len(command_id) <= ID_LIMIT:
            return _done(Refused(f"command id of {len(command_id)} characters is not 1 to {ID_LIMIT}", None))
        key: Key = ("command", command_id)
        return self._submit(key, lambda: self._engine.propose(command, command_id), timeout_s)

    def barrier(self, timeout_s: float) -> Future[Outcome]:
        """Applied: `view()` from now on holds everything that was acknowledged before this call.

        A round of messages to a majority, sent at once; nothing is written to any disk.
        """
        name = self._name()
        return self._submit(("barrier", name), lambda: self._engine.barrier(name), timeout_s)

    def change_members(self, members: Members, timeout_s: float) -> Future[Outcome]:
        """As raft leader, put other members in force, one voter at a time. Refused when this replica does not lead."""
        name = self._name()
        return self._submit(("change", name), lambda: self._engine.change_members(name, members), timeout_s)

    def revise_members(self, revise: Callable[[Members], Members], timeout_s: float) -> Future[Outcome]:
        """As `change_members`, by what is made of the members in force then; a ValueError says why not.

        `revise` runs in the raft thread, so that no other change can come between.
        """
        name = self._name()
        return self._submit(("change", name), lambda: self._engine.revise_members(name, revise), timeout_s)

    def add_member(
        self, name: str, place: str, role: Literal["learner", "joining"], timeout_s: float
    ) -> Future[Outcome]:
        """As raft leader, take in a replica that need not run yet: it counts from when it has come and said its id.

        A joining one becomes a voter by itself when it has caught up. Refused, with the leader's name, elsewhere.
        """
        try:
            address.parse(place)
            member = Member(name, "", place, role)
        except ReplicaError as error:
            return _done(Refused(str(error), None))
        return self.revise_members(lambda members: members.adding(member), timeout_s)

    def remove_member(self, name: str, timeout_s: float) -> Future[Outcome]:
        """As raft leader, let another member go: from then on it counts for nothing. Elsewhere refused as above."""
        return self.revise_members(lambda members: members.removing(name), timeout_s)

    def transfer(self, to: str, timeout_s: float) -> Future[Outcome]:
        """As raft leader, hand the leadership over to another voter. Applied: this replica does not lead any more."""
        name = self._name()
        return self._submit(("transfer", name), lambda: self._engine.transfer(name, to), timeout_s)

    def request(self, peer: str, payload: bytes, timeout_s: float) -> Future[bytes]:
        """Ask a peer's `on_request`; PeerUnreachable, RequestTimeout or ReplicaError in the future otherwise."""
        return self._requests.ask(peer, payload, timeout_s)

    def status(self) -> ReplicaStatus:
        return standing.status(
            self._config, self._engine.facts, self._journal, self._ticks, self._transport, self._failure
        )

    def _make_engine(self) -> Engine[S]:
        config = self._config
        settings = Settings(
            config.name,
            config.members,
            election_min_s=config.election_min_s,
            election_max_s=config.election_max_s,
            heartbeat_s=config.heartbeat_s,
            compact_entries=config.compact_entries,
            keep_entries=config.keep_entries,
        )
        return Engine(
            settings,
            self._machine,
            self._journal,
            clock=boottime_s,
            draw=random.SystemRandom(),
            send=self._send,
            on_outcome=self._answer,
            on_event=self._tell,
        )

    def _make_transport(self) -> Transport:
        def post(action: Callable[[], None]) -> None:
            self._mailbox.post(action)

        events = TransportEvents(
            on_introduced=lambda peer, said: post(lambda: self._on_introduced(peer, said)),
            on_connected=lambda peer: post(lambda: self._engine.connected(peer)),
            on_disconnected=lambda peer: post(lambda: self._engine.disconnected(peer)),
            on_message=self._on_message,
            on_request=self._handlers.handle,
            on_answer=self._requests.answered,
            on_unanswered=self._requests.unanswered,
            on_refused=lambda peer, reason: post(lambda: self._on_event(PeerRefused(peer, reason))),
            on_join=self._on_join,
        )
        self._places = self._engine.places
        return Transport(
            Subject(self._config.cluster, self._config.name),
            self._places,
            self._config.listen,
            self._config.tls,
            introduction=self._engine.introduction,
            admits=self._engine.admits,
            events=events,
        )

    def _on_message(self, peer: str, message: Message, done: Callable[[], None]) -> None:
        def deliver() -> bool:
            done()
            return self._engine.deliver(peer, message)

        if not self._mailbox.post(deliver, droppable=True):
            done()

    def _name(self) -> str:
        return f"{self._session}-{next(self._numbers)}"

    def _submit(self, key: Key, ask: Callable[[], None], timeout_s: float) -> Future[Outcome]:
        future = self._waiting.add(key, timeout_s, _late)
        if self._thread is None or not self._mailbox.post(lambda: self._begin(key, ask), droppable=True):
            refusal = Refused(self._failure or "the replica is not running, or overloaded", None)
            self._waiting.complete_one(key, future, lambda unsent: unsent.set_result(refusal))
        return future

    # -- owner thread --------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            due_s = now_s = boottime_s()
            while not self._stopping:
                stirred = self._mailbox.wait(min(max(0.0, due_s - boottime_s()), _LONGEST_STEP_S))
                now_s = _later_than(now_s)
                if stirred or now_s >= due_s:
                    wait_s = self._engine.step()
                    stepped_s = boottime_s()
                    # what fell due while this step ran was done at its end; or is still due, and late the next time
                    self._ticks.note(stepped_s if now_s < due_s and wait_s > 0.0 else now_s, due_s)
                    due_s = max(now_s, stepped_s + wait_s)
                    self._view = self._engine.view
            self._journal.sync()
        except Exception as error:  # noqa: BLE001  the thread's end: whatever it was, nothing may follow it
            known = isinstance(error, ReplicaError)  # its words are for people
            self._fail(str(error) if known else f"{type(error).__name__}: {error}")
        finally:
            self._mailbox.close()
            self._journal.close()
            self._disk.close()

    def _send(self, peer: str, message: Message) -> bool:
        return self._transport.send(peer, message)

    def _begin(self, key: Key, ask: Callable[[], None]) -> None:
        """Ask what somebody still waits for: an order that was given up must not come late."""
        if self._waiting.begin(key):
            ask()

    def _answer(self, key: Key, outcome: Outcome) -> None:
        """First the view, then the answer: who is told `Applied` finds it in the view."""
        self._view = self._engine.view
        self._waiting.complete(key, lambda future: future.set_result(outcome))

    def _tell(self, event: Event) -> None:
        if isinstance(event, MembersChanged) and self._thread is not None:
            self._follow_members()
            self._transport.look_again()
        self._on_event(event)

    def _on_introduced(self, peer: str, said: Introduction) -> None:
        self._engine.introduced(peer, said)
        self._follow_members()

    def _follow_members(self) -> None:
        """Look for the members, and let them in, as they are in force now."""
        places = self._engine.places
        if places != self._places:
            self._places = places
            self._transport.set_members(places)

    def _fail(self, reason: str) -> None:
        """Fail-stop: say nothing more to anybody, and tell the owner."""
        self._failure = reason
        self._view = replace(self._view, leader=None, is_leader=False, leading_since_s=None)
        self._shut_down(f"the replica failed: {reason}")
        self._on_event(Failed(reason))

    def _shut_down(self, reason: str) -> None:
        self._transport.close()
        self._requests.close()
        self._handlers.close()
        self._waiting.close(reason)


def _later_than(before_s: float) -> float:
    """The time now. Elections, and the leases above them, count on a clock that only goes on: R3."""
    now_s = boottime_s()
    if now_s < before_s:
        raise ReplicaFailed(
            f"the clock of this host (CLOCK_BOOTTIME) went back by {before_s - now_s:.3f} s, which no healthy kernel"
            " does: see to the host or its hypervisor, then start this replica again"
        )
    return now_s


def _late(future: Future[Outcome], begun: bool, reason: str) -> None:
    future.set_result(Unknown(reason) if begun else Refused(f"{reason}; it was not sent", None))


def _done(outcome: Outcome) -> Future[Outcome]:
    future: Future[Outcome] = Future()
    future.set_result(outcome)
    return future


def _check(config: ReplicaConfig) -> None:
    """Refuse settings that contradict each other, with the numbers."""
    if config.name not in config.members:
        raise ReplicaError(f"{config.name!r} is not among the members {', '.join(config.members)}: add it")
    if not config.election_max_s > config.election_min_s > 3 * config.heartbeat_s > 0:
        raise ReplicaError(
            f"election_max_s {config.election_max_s} > election_min_s {config.election_min_s}"
            f" > 3 * heartbeat_s {config.heartbeat_s} > 0 does not hold: choose timings that do"
        )
    if config.compact_entries < 1 or config.keep_entries < 0:
        raise ReplicaError(
            f"compact_entries {config.compact_entries} > 0 and keep_entries {config.keep_entries} >= 0 does not hold:"
            " choose numbers that do"
        )
    for place in (config.listen, *config.members.values()):
        address.parse(place)
