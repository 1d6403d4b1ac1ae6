"""The replica: one owner thread around the consensus, a mailbox into it, a published view out of it."""

from __future__ import annotations

import itertools
import os
import secrets
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from typing import Generic, TypeAlias, TypeVar

from raft import address
from raft.api import (
    COMMAND_LIMIT_BYTES,
    Event,
    Failed,
    LeaderChanged,
    Machine,
    Outcome,
    PeerRefused,
    Refused,
    ReplicaConfig,
    ReplicaError,
    ReplicaStatus,
    Role,
    StateApplied,
    Unknown,
    View,
)
from raft.applier import ID_LIMIT, Applier, Submission
from raft.compat import CANDIDATE, LEADER
from raft.core import Core, Facts, boottime_s
from raft.journal import Journal
from raft.requests import Handlers, Requests
from raft.transport import Transport, TransportEvents
from raft.waiting import Waiting

S = TypeVar("S")

_Key: TypeAlias = tuple[str, bool]
"""Id of a submission, and whether it is a command (or a barrier)."""

_STEP_S = 0.1
_MAILBOX_LIMIT = 4096


class Mailbox:
    """Actions for the owner thread, and a descriptor that wakes it."""

    def __init__(self) -> None:
        self.descriptor = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._actions: deque[Callable[[], None]] = deque()
        self._mutex = threading.Lock()
        self._closed = False

    def post(self, action: Callable[[], None], *, droppable: bool = False) -> bool:
        """Queue an action; False when it was not taken."""
        with self._mutex:
            if self._closed or (droppable and len(self._actions) >= _MAILBOX_LIMIT):
                return False
            self._actions.append(action)
            os.eventfd_write(self.descriptor, 1)
        return True

    def work(self) -> None:
        """Do what has been posted until now."""
        os.eventfd_read(self.descriptor)
        for _ in range(len(self._actions)):
            self._actions.popleft()()

    def close(self) -> None:
        with self._mutex:
            self._closed = True
            os.close(self.descriptor)


class Replica(Generic[S]):
    """A durable replica of a state machine. All public methods may be called from any thread.

    `on_event` is called in the raft thread and must only enqueue; `on_request` is called in a small pool,
    with the peer's name and payload, and its exceptions become the asker's.
    """

    def __init__(
        self,
        config: ReplicaConfig,
        machine: Machine[S],
        *,
        on_event: Callable[[Event], None],
        on_request: Callable[[str, bytes], bytes],
    ) -> None:
        _check(config)
        self._config = config
        self._on_event = on_event
        self._applier = Applier(machine)
        self._handlers = Handlers(on_request, config.name)
        self._waiting: Waiting[_Key, Outcome] = Waiting("raft deadlines")
        self._view: View[S] = View(self._applier.state, 0, 0, None, False, None, None)
        self._facts = Facts(0, 0, None, 1, 1, None, {})
        self._answers: list[tuple[_Key, Outcome]] = []
        self._failure: str | None = None
        self._stopping = False
        self._numbers = itertools.count()
        self._session = secrets.token_hex(8)
        self._journal: Journal
        self._transport: Transport
        self._requests: Requests
        self._core: Core
        self._mailbox: Mailbox
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Open journal and port and begin; ReplicaError when one of them cannot be had."""
        config = self._config
        self._journal = Journal(config.directory, config.cluster, config.name, config.members)
        self._mailbox = Mailbox()
        try:
            self._transport = self._make_transport()
            self._transport.listen()
        except ReplicaError:
            self._mailbox.close()
            self._journal.close()
            raise
        self._requests = Requests(self._transport, config.members, config.name, self._handlers)
        self._core = Core(
            config, self._journal, self._transport.send, apply=self._apply, on_applied=self._publish_applied
        )
        self._core.wake_on(self._mailbox.descriptor, self._mailbox.work)
        self._waiting.start()
        self._thread = threading.Thread(target=self._run, name="raft", daemon=True)
        self._thread.start()
        self._transport.start()
        self._requests.start()

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

        The same id is applied once, however often it is proposed (as long as it is among the last
        4096 in the log): a repeat answers what the first one got.
        """
        if len(command) > COMMAND_LIMIT_BYTES:
            return _done(Refused(f"command of {len(command)} bytes is over {COMMAND_LIMIT_BYTES}", None))
        if not 0 < len(command_id) <= ID_LIMIT:
            return _done(Refused(f"command id of {len(command_id)} characters is not 1 to {ID_LIMIT}", None))
        return self._submit(Submission(command_id, command), timeout_s)

    def barrier(self, timeout_s: float) -> Future[Outcome]:
        """Applied: `view()` from now on holds everything that was acknowledged before this call."""
        return self._submit(Submission(f"{self._session}-{next(self._numbers)}", None), timeout_s)

    def request(self, peer: str, payload: bytes, timeout_s: float) -> Future[bytes]:
        """Ask a peer's `on_request`; PeerUnreachable, RequestTimeout or ReplicaError in the future otherwise."""
        return self._requests.ask(peer, payload, timeout_s)

    def status(self) -> ReplicaStatus:
        facts, journal = self._facts, self._journal
        return ReplicaStatus(
            name=self._config.name,
            cluster=self._config.cluster,
            role=_role(facts, self._failure),
            term=facts.term,
            leader=facts.leader,
            commit_index=facts.commit_index,
            applied_index=facts.applied_index,
            log_entries=len(journal),
            log_bytes=journal.size_bytes,
            replica_id=journal.identity.replica_id,
            may_vote=journal.may_vote,
            fsync_count=journal.sync_times.count,
            fsync_last_s=journal.sync_times.last_s,
            fsync_longest_s=journal.sync_times.longest_s,
            failure=self._failure,
            peers=self._transport.status(facts.match_index),
        )

    def _make_transport(self) -> Transport:
        def post(action: Callable[[], None], *, droppable: bool = False) -> None:
            self._mailbox.post(action, droppable=droppable)

        events = TransportEvents(
            on_connected=lambda peer: post(lambda: self._core.connected(peer)),
            on_disconnected=lambda peer: post(lambda: self._core.disconnected(peer)),
            on_message=lambda peer, message: post(lambda: self._core.deliver(peer, message), droppable=True),
            on_fresh=lambda peer, fresh: post(lambda: self._core.heard_fresh(peer, fresh)),
            on_refused=lambda peer, reason: post(lambda: self._on_event(PeerRefused(peer, reason))),
        )
        return Transport(
            self._journal.identity,
            self._config.members,
            self._config.listen,
            fresh=lambda: self._journal.fresh,
            events=events,
            on_request=self._handlers.handle,
        )

    def _submit(self, submission: Submission, timeout_s: float) -> Future[Outcome]:
        key = (submission.id, submission.command is not None)
        future = self._waiting.add(key, timeout_s, _late)
        if self._thread is None or not self._mailbox.post(lambda: self._begin(key, submission), droppable=True):
            refusal = Refused(self._failure or "the replica is not running, or overloaded", None)
            self._waiting.complete(key, lambda waiting: waiting.set_result(refusal))
        return future

    # -- owner thread --------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self._stopping:
                self._core.step(_STEP_S)
                self._publish()
            self._journal.sync()
        except Exception as error:  # noqa: BLE001  the thread's end: whatever it was, nothing may follow it
            self._fail(f"{type(error).__name__}: {error}")
        finally:
            self._mailbox.close()
            self._core.close()
            self._journal.close()

    def _begin(self, key: _Key, submission: Submission) -> None:
        """Send what somebody still waits for: an order that was given up must not come late."""
        if self._waiting.begin(key):
            self._core.submit(submission.pack(), partial(self._complete, key))

    def _complete(self, key: _Key, outcome: Outcome) -> None:
        self._waiting.complete(key, lambda future: future.set_result(outcome))

    def _apply(self, index: int, envelope: bytes) -> None:
        applied = self._applier.apply(index, envelope)
        if applied is not None:
            submission, outcome = applied
            self._answers.append(((submission.id, submission.command is not None), outcome))

    def _publish_applied(self) -> None:
        """First the view, then the answers: who is told `Applied` finds it in the view."""
        self._publish()
        answers, self._answers = self._answers, []
        for key, outcome in answers:
            self._complete(key, outcome)
        self._on_event(StateApplied(self._facts.applied_index))

    def _publish(self) -> None:
        facts, old = self._core.facts(), self._view
        leading = facts.state == LEADER
        since_s = old.leading_since_s if leading and facts.term == old.term else None
        self._facts = facts
        self._view = View(
            state=self._applier.state,
            index=facts.applied_index,
            term=facts.term,
            leader=facts.leader,
            is_leader=leading,
            leading_since_s=(since_s or boottime_s()) if leading else None,
            contact_s=facts.contact_s,
        )
        if (facts.leader, facts.term) != (old.leader, old.term):
            self._on_event(LeaderChanged(facts.leader, facts.term))

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


def _late(future: Future[Outcome], begun: bool, reason: str) -> None:
    future.set_result(Unknown(reason) if begun else Refused(f"{reason}; it was not sent", None))


def _done(outcome: Outcome) -> Future[Outcome]:
    future: Future[Outcome] = Future()
    future.set_result(outcome)
    return future


def _role(facts: Facts, failure: str | None) -> Role:
    if failure is not None:
        return "failed"
    if facts.state == LEADER:
        return "leader"
    return "candidate" if facts.state == CANDIDATE else "follower"


def _check(config: ReplicaConfig) -> None:
    """Refuse settings that contradict each other, with the numbers."""
    if config.name not in config.members:
        raise ReplicaError(f"{config.name!r} is not among the members {', '.join(config.members)}: add it")
    if not config.election_max_s > config.election_min_s > 3 * config.heartbeat_s > 0:
        raise ReplicaError(
            f"election_max_s {config.election_max_s} > election_min_s {config.election_min_s}"
            f" > 3 * heartbeat_s {config.heartbeat_s} > 0 does not hold: choose timings that do"
        )
    for place in (config.listen, *config.members.values()):
        address.parse(place)
