"""R16, both sides of it: asks the synchronous members of this primary for their promises, and gives this node's.

The rules are in appliance/ha/failsafe.py. What was promised is on disk before it is said, once for each epoch; for how
long it lasts is counted from the start of the process again, so that no clock has to outlive it.
"""

from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Protocol

from appliance.cluster.config import Policy
from appliance.cluster.state import ClusterState
from appliance.ha.failsafe import objection, promise_s, to_ask
from appliance.ha.seen import Notes, Observation
from appliance.node.clock import boottime_s
from appliance.node.messages import AskPromise, MessageError, Promise, decode, encode
from raft import Replica, ReplicaError

ANSWER_LIMIT_S = 1.0
RETRY_S = 0.25
"""After a round that somebody did not promise in."""


class Written(Protocol):
    """The node's notes: `value` is what is on the disk, and on return so is what was written."""

    @property
    def value(self) -> Notes: ...

    def write(self, notes: Notes) -> None: ...


@dataclass(frozen=True, slots=True)
class Vouched:
    """All who were asked have promised. A lease counts from before the first of them was asked (R3)."""

    epoch: int
    asked_s: float
    by: frozenset[str]


@dataclass(frozen=True, slots=True)
class _Round:
    epoch: int
    asked_s: float
    answers: Mapping[str, Future[bytes]]


class Failsafe:
    """Used by the control loop only, but for `ask`."""

    def __init__(self, me: str, replica: Replica[ClusterState], notes: Written, wake: Callable[[], None]) -> None:
        self._me = me
        self._replica = replica
        self._notes = notes
        self._wake = wake
        self._questions: deque[tuple[AskPromise, Future[Promise]]] = deque()
        self._until_s = boottime_s() + notes.value.promised_s
        self._round: _Round | None = None
        self._again_s = 0.0
        self.refusals: Mapping[str, str] = {}
        """who did not promise in the last round, and why"""

    def ask(self, question: AskPromise) -> Future[Promise]:
        """A peer wants a promise. Called on any thread; `settle` answers."""
        answer: Future[Promise] = Future()
        self._questions.append((question, answer))
        self._wake()
        return answer

    def settle(self, state: ClusterState, seen: Observation, policy: Policy) -> None:
        """Promise, or say why not."""
        while self._questions:
            question, answer = self._questions.popleft()
            refused = objection(state, seen, policy, question.node, question.epoch)
            if refused is None:
                refused = self._note(question.epoch, promise_s(policy))
            answer.set_result(Promise(refused))

    def _note(self, epoch: int, lasts_s: float) -> str:
        """Why it could not be noted; empty: it is promised."""
        known = self._notes.value
        if epoch > known.promised_epoch or lasts_s > known.promised_s:
            longest_s = max(lasts_s, known.promised_s)
            noted = replace(known, promised_epoch=max(epoch, known.promised_epoch), promised_s=longest_s)
            try:
                self._notes.write(noted)
            except OSError as error:
                return f"cannot note it: {error.strerror or error}"
        self._until_s = max(self._until_s, boottime_s() + lasts_s)
        return ""

    def left_s(self, state: ClusterState) -> float:
        """How long this node does not vote. An appointment above what it promised to had the votes that it needs."""
        held, epoch = state.appointment, self._notes.value.promised_epoch
        if epoch == 0 or (held is not None and held.epoch > epoch):
            return 0.0
        return max(0.0, self._until_s - boottime_s())

    def tell(self, state: ClusterState, seen: Observation, policy: Policy) -> None:
        """Begin a round when the raft leader has been silent for a while, and none is under way."""
        members = to_ask(state, seen, policy)
        if members is None or self._round is not None or boottime_s() < self._again_s:
            return
        assert state.appointment is not None
        epoch, asked_s = state.appointment.epoch, boottime_s()
        message = encode(AskPromise(self._me, epoch))
        answers = {name: self._replica.request(name, message, ANSWER_LIMIT_S) for name in sorted(members)}
        self._round = _Round(epoch, asked_s, answers)
        for answer in answers.values():
            answer.add_done_callback(lambda _: self._wake())

    def hear(self) -> Vouched | None:
        """What the round came to, when all have answered."""
        asked = self._round
        if asked is None or not all(answer.done() for answer in asked.answers.values()):
            return None
        self._round = None
        said = {name: _reason(answer) for name, answer in asked.answers.items()}
        self.refusals = {name: reason for name, reason in said.items() if reason}
        if self.refusals:
            self._again_s = boottime_s() + RETRY_S
            return None
        return Vouched(asked.epoch, asked.asked_s, frozenset(said))


def _reason(answer: Future[bytes]) -> str:
    """Why it is no promise; empty: it is one."""
    try:
        said = decode(answer.result())
    except (ReplicaError, MessageError) as error:
        return str(error)
    return said.refused if isinstance(said, Promise) else "gave another answer"
