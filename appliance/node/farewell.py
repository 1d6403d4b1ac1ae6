"""The orderly end of everything on this node, in steps of which each has its limit; a second SIGINT ends the waiting.

A primary hands its role over as in a switchover, a synchronous standby leaves the set, a raft leader hands on. Only
then PostgreSQL stops and the lease goes back, jobs end, the guard leaves. Nothing that is acknowledged depends on it:
a node that is killed at any of these lines is one whose host is lost.
"""

import secrets
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass

from appliance.api.published import OperatorAnswer, OperatorRequest
from appliance.cluster import synchronous
from appliance.cluster.codec import encode_command
from appliance.cluster.commands import Release
from appliance.cluster.state import ClusterState, LeaseStatus, Operation
from appliance.node.events import Events
from appliance.node.guard_client import GuardClient
from appliance.node.guard_connection import GuardError
from appliance.node.loop import ControlLoop
from appliance.node.notes import NotesFile
from raft import Applied, Replica

ASK_LIMIT_S = 3.0
"""for the raft leader's answer: a member that hangs is waited for 2 s before it decides"""
SAY_LIMIT_S = 0.5
HAND_OVER_LIMIT_S = 30.0
"""for the switchover: a checkpoint before it, during which clients write, is given 10 s"""
LEAVE_LIMIT_S = 4.0
TRANSFER_LIMIT_S = 2.0
LONE_STOP_LIMIT_S = 60.0
"""where nobody could take over, nobody waits for the end of a shutdown checkpoint either"""
KILL_LIMIT_S = 5.0
RELEASE_LIMIT_S = 2.0
_LOOK_S = 0.02


@dataclass(frozen=True, slots=True)
class Ending:
    """The node that ends."""

    me: str
    loop: ControlLoop
    replica: Replica[ClusterState]
    guard: GuardClient
    notes: NotesFile
    events: Events
    ask: Callable[[OperatorRequest, float], Future[OperatorAnswer]]
    """the raft leader, wherever it is"""
    go_on: Callable[[], None]
    """one round of the control loop, as ever"""
    hurried: Callable[[], bool]

    @property
    def state(self) -> ClusterState:
        return self.replica.view().state

    def wait(self, limit_s: float, reached: Callable[[], bool]) -> bool:
        """Live on until then; False: the limit came before, or somebody is in a hurry."""
        until_s = time.monotonic() + limit_s
        while not reached():
            if self.hurried() or time.monotonic() > until_s:
                return False
            self.go_on()
        return True


def stop_everything(node: Ending) -> None:
    """Stop fast, and kill what has not stopped in time.

    What does not end within KILL_LIMIT_S of that, or of which nobody knows whether it runs, keeps its lease: the guard
    ends it at its deadline, and the lease runs out after that (R4).
    """
    node.loop.ending = True
    _hand_over(node)
    node.wait(LEAVE_LIMIT_S, lambda: not _is_waited_for(node))
    _hand_raft_over(node)
    if _stop_postgres(node):
        _give_lease_back(node)
    node.loop.end_job()
    with suppress(GuardError):  # it ends by itself when nothing runs and nobody is connected
        node.guard.quit()


def announce_restart(node: Ending) -> None:
    """The node process ends alone: a raft leader that knows gives the next one the whole lease to renew in (R9)."""
    if node.state.primary == node.me:
        node.loop.restarting = True
        node.wait(SAY_LIMIT_S, node.loop.said_restarting)


def _hand_over(node: Ending) -> None:
    """The best of the others becomes primary, by the same operation that an operator would ask for.

    Its checks say whether there is one. One that was asked for before is waited for instead.
    """
    began_s, reason = time.monotonic(), f"{node.me} is shut down"
    if node.state.primary != node.me:
        return
    wish = OperatorRequest("switchover", secrets.token_hex(6), node.me, reason, expected_primary=node.me)
    asked = node.ask(wish, ASK_LIMIT_S)
    asked.add_done_callback(lambda _: node.loop.wake())
    node.wait(ASK_LIMIT_S + _LOOK_S, asked.done)
    answer = _answer(asked)
    running = node.state.running_operation()
    known = wish.id if answer.outcome in {"accepted", "unknown"} else running.id if running is not None else ""
    if not known:
        node.events.emit("handover.refused", "warning", code=answer.code, reason=answer.message)
        return
    node.wait(HAND_OVER_LIMIT_S, lambda: _ended(node, known, sure=answer.outcome != "unknown"))
    operation = _operation(node, known)
    node.events.emit(
        "handover.ended",
        operation=known,
        phase=operation.phase if operation is not None else "unknown",
        primary=node.state.primary,
        seconds=round(time.monotonic() - began_s, 3),
    )


def _answer(asked: Future[OperatorAnswer]) -> OperatorAnswer:
    if not asked.done():
        return OperatorAnswer("unknown", "", "outcome.unknown", f"no answer within {ASK_LIMIT_S:g} s")
    if (error := asked.exception()) is not None:  # whatever it is, nobody has taken over
        return OperatorAnswer("refused", "", "outcome.unknown", f"{type(error).__name__}: {error}")
    return asked.result()


def _operation(node: Ending, name: str) -> Operation | None:
    return next((operation for operation in node.state.operations if operation.id == name), None)


def _ended(node: Ending, name: str, *, sure: bool) -> bool:
    """`sure`: it was accepted, and is in the log before long if it is not known here yet."""
    operation = _operation(node, name)
    return not sure if operation is None else operation.phase.ended


def _is_waited_for(node: Ending) -> bool:
    """Commits of another primary wait for this node's word: without it they would hang until its loss is noticed."""
    view = node.replica.view()
    if view.leader is None or view.state.primary in {None, node.me}:
        return False
    return node.me in synchronous.union(view.state.sync)[0]


def _hand_raft_over(node: Ending) -> None:
    """To a voter that is connected: an election of Raft would cost the others a second. Not to the primary if possible.

    Before PostgreSQL stops: that may take long, and nobody coordinates here meanwhile.
    """
    view, status = node.replica.view(), node.replica.status()
    peers = [peer for peer in status.peers if peer.connected and peer.name in status.members.voters]
    if not view.is_leader or not peers or node.hurried():
        return
    heir = max(peers, key=lambda peer: (peer.name != view.state.primary, peer.match_index or 0, peer.name))
    node.wait(TRANSFER_LIMIT_S, node.replica.transfer(heir.name, TRANSFER_LIMIT_S).done)


def _stop_postgres(node: Ending) -> bool:
    """Whether nothing of it runs. A guard that refuses, or gives no answer, is no proof of that: it is asked."""
    with suppress(GuardError):
        node.guard.stop_postgres("fast")
    if _ends_within(node, node.loop.stop_limit_s(LONE_STOP_LIMIT_S), hurried=node.hurried):
        return True
    with suppress(GuardError):
        node.guard.kill_postgres()
    return _ends_within(node, KILL_LIMIT_S, hurried=lambda: False)


def _ends_within(node: Ending, limit_s: float, hurried: Callable[[], bool]) -> bool:
    until_s = time.monotonic() + limit_s
    while node.loop.postgres_runs():
        if time.monotonic() > until_s or hurried():
            return False
        node.loop.keep_lease()
        time.sleep(_LOOK_S)
    return True


def _give_lease_back(node: Ending) -> None:
    held = node.state.appointment
    if held is None or held.node != node.me or node.state.lease is not LeaseStatus.HELD:
        return
    command = encode_command(Release(held.epoch, node.me, f"{node.me} was shut down"))
    outcome = node.replica.propose(command, secrets.token_hex(8), RELEASE_LIMIT_S).result()
    if isinstance(outcome, Applied):
        with suppress(OSError):  # the state says so as well
            node.notes.end_epoch(held.epoch)
