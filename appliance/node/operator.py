"""What operators ask for: checked and proposed on the raft leader, forwarded there by every other node."""

import secrets
import time
from collections.abc import Callable, Mapping

from appliance.api.explained import seconds_between
from appliance.api.published import OperatorAnswer, OperatorRequest
from appliance.cluster.codec import encode_command
from appliance.cluster.commands import BeginBootstrap, Command, RemoveMember, RevokeToken, SetConfig, StartOperation
from appliance.cluster.config import merged, read_policy
from appliance.cluster.state import ClusterState, NodeRole, OperationKind
from appliance.ha.candidates import Prospect, acceptance_checks, prospect, stopped_check
from appliance.ha.checks import (
    FRESH_S,
    Check,
    config_checks,
    confirmed_check,
    failover_checks,
    refusal,
    removal_checks,
    switchover_checks,
)
from appliance.ha.membership import without_a_majority
from appliance.ha.seen import DirectoryKind, ReportSeen
from appliance.node.clock import wall_time
from appliance.node.coordinator import BARRIER_LIMIT_S, CHANGE_LIMIT_S, PROPOSE_LIMIT_S, replicas_of
from appliance.node.messages import Operate
from raft import Applied, Refused, Replica, ReplicaStatus

TRANSFER_LIMIT_S = 3.0
LEAVE_LIMIT_S = 4.0
HEAR_LIMIT_S = FRESH_S + 0.2
"""for a member that is connected and hangs, or that has just ended; the others report within a tenth of a second"""
HEAR_LOOK_S = 0.05
POSITION_LIMIT_S = 1.0
"""for the position of a member whose PostgreSQL is too busy to answer a look"""

Reports = Callable[[], Mapping[str, ReportSeen]]


class Desk:
    """The raft leader's desk for operators. Called on pool threads; every wait is bounded."""

    def __init__(self, replica: Replica[ClusterState], reports: Reports) -> None:
        self._replica = replica
        self._reports = reports

    def handle(self, message: Operate) -> OperatorAnswer:
        """Answer accepted, refused with every check, unknown, or no_quorum. Decides on a read after a barrier (R2)."""
        request = message.request
        barrier = self._replica.barrier(BARRIER_LIMIT_S).result()
        if not isinstance(barrier, Applied):
            return OperatorAnswer(
                "no_quorum", request.id, "quorum.none", f"the raft leader has no quorum: {barrier.reason}"
            )
        self._hear(request)
        state = self._replica.view().state
        known = next((o for o in state.operations if o.id == request.id), None)
        if known is not None:
            return OperatorAnswer("accepted", known.id, message=f"{known.kind} {known.id} is {known.phase}")
        shown = self._prospect(state, request)
        checks = (*self._checks(state, message), *loss_checks(state, self._reports(), request, shown))
        # of a configuration as a whole: there is no candidate that could be missing
        failed = next((c for c in checks if not c.ok), None) if request.kind == "config" else refusal(checks)
        if failed is not None:
            what = f"{failed.candidate}: {failed.detail}" if failed.candidate else failed.detail
            return OperatorAnswer("refused", request.id, failed.code, what, checks=checks, prospect=shown)
        if request.dry_run:
            words = "all checks pass; nothing was changed"
            return OperatorAnswer("accepted", "", message=words, checks=checks, prospect=shown)
        if request.kind == "raft_transfer":
            return self._transfer(request, checks)
        if request.kind == "remove" and request.target not in state.members:
            return self._drop(state, request, checks)
        answer = self._propose(_command(state, message, shown), request, checks)
        return self._left(request, answer) if request.kind == "remove" else answer

    def _left(self, request: OperatorRequest, answer: OperatorAnswer) -> OperatorAnswer:
        """R13: a synchronous standby goes when commits wait for it no more."""
        until_s = time.monotonic() + LEAVE_LIMIT_S
        while answer.outcome == "accepted" and request.target in self._replica.view().state.members:
            if time.monotonic() > until_s:
                words = f"{request.target} is to leave, and is a synchronous standby still: look at `appliance status`"
                return OperatorAnswer("unknown", request.id, "member.leaving", words)
            time.sleep(HEAR_LOOK_S)
        return answer

    def _hear(self, request: OperatorRequest) -> None:
        """A raft leader of a moment ago has not heard what the members tell: one that runs would pass for dead.

        And one that was ended a moment ago passes for alive until its last report is old.
        """
        until_s = time.monotonic() + HEAR_LIMIT_S
        while request.kind not in {"raft_transfer", "config"} and time.monotonic() < until_s:
            status, known = self._replica.status(), set(self._replica.view().state.members)
            if request.kind == "bootstrap":
                known.add(request.target)
            up = {status.name, *(peer.name for peer in status.peers if peer.connected)}
            heard = {name for name, seen in self._reports().items() if seen.age_s <= FRESH_S}
            ended = request.kind == "remove" and request.target in heard - up
            if not ended and not (up & known) - heard:
                return
            time.sleep(HEAR_LOOK_S)

    def _prospect(self, state: ClusterState, request: OperatorRequest) -> Prospect | None:
        """What a failover may give up, as this raft leader knows it; a busy PostgreSQL leaves one look unanswered."""
        if request.kind != "failover" or not request.allow_data_loss or not state.initialised:
            return None
        policy, until_s = read_policy(state.config.document), time.monotonic() + POSITION_LIMIT_S
        while True:
            noted_s = seconds_between(state.last_known_at, wall_time())
            shown = prospect(state, self._reports(), policy, request.target, noted_s)
            if shown.accepts is not None or request.target not in state.members or time.monotonic() > until_s:
                return shown
            time.sleep(HEAR_LOOK_S)

    def _checks(self, state: ClusterState, message: Operate) -> tuple[Check, ...]:
        request = message.request
        reports, policy = self._reports(), read_policy(state.config.document)
        match request.kind:
            case "bootstrap":
                return bootstrap_checks(state, reports, request.target, message.objection)
            case "switchover":
                return switchover_checks(state, reports, policy, request.target, request.expected_primary)
            case "failover":
                loss = request.allow_data_loss
                return failover_checks(state, reports, policy, request.target, allow_data_loss=loss)
            case "raft_transfer":
                return transfer_checks(self._replica.status(), request.target)
            case "config":
                return config_checks(state, request.patch, request.version)
            case "remove":
                status = self._replica.status()
                problem = without_a_majority(replicas_of(status, reports), request.target)
                if request.target not in state.members and request.target in status.members.names:
                    return unannounced_checks(status, request.target, problem)
                return removal_checks(state, reports, request.target, problem, force=request.force)

    def _transfer(self, request: OperatorRequest, checks: tuple[Check, ...]) -> OperatorAnswer:
        """Hand the raft leadership over: no operation of the cluster, so nothing of it enters the replicated state."""
        status = self._replica.status()
        to = request.target or _fullest(status, checks)
        outcome = self._replica.transfer(to, TRANSFER_LIMIT_S).result()
        match outcome:
            case Applied():
                message = f"{status.name} has handed the raft leadership over to {to}"
                return OperatorAnswer("accepted", request.id, message=message)
            case Refused(reason=reason):
                return OperatorAnswer("refused", request.id, "raft.not_transferred", reason, checks=checks)
            case _:
                return OperatorAnswer("unknown", request.id, "outcome.unknown", outcome.reason)

    def _drop(self, state: ClusterState, request: OperatorRequest, checks: tuple[Check, ...]) -> OperatorAnswer:
        """Out of consensus with one that never announced itself; the agreed state knows no more of it than tokens."""
        for token in (token for token in state.tokens if token.member == request.target):
            command = encode_command(RevokeToken(token.id))
            revoked = self._replica.propose(command, f"revoke-{token.id}-{request.id}", PROPOSE_LIMIT_S).result()
            if not isinstance(revoked, Applied):
                return OperatorAnswer("unknown", request.id, "outcome.unknown", revoked.reason)
        outcome = self._replica.remove_member(request.target, CHANGE_LIMIT_S).result()
        match outcome:
            case Applied():
                return OperatorAnswer("accepted", request.id, checks=checks)
            case Refused(reason=reason):
                return OperatorAnswer("refused", request.id, "raft.not_changed", reason, checks=checks)
            case _:
                return OperatorAnswer("unknown", request.id, "outcome.unknown", outcome.reason)

    def _propose(self, command: Command, request: OperatorRequest, checks: tuple[Check, ...]) -> OperatorAnswer:
        outcome = self._replica.propose(encode_command(command), f"op-{request.id}", PROPOSE_LIMIT_S).result()
        match outcome:
            case Applied():
                return OperatorAnswer("accepted", request.id, checks=checks)
            case Refused(reason=reason, index=index):
                code, _, text = reason.partition(": ")
                if index is None:
                    return OperatorAnswer("no_quorum", request.id, "quorum.none", reason)
                return OperatorAnswer("refused", request.id, code, text, checks=checks)
            case _:
                return OperatorAnswer("unknown", request.id, "outcome.unknown", outcome.reason)


def unannounced_checks(status: ReplicaStatus, name: str, majority_problem: str | None) -> tuple[Check, ...]:
    """Of one that the log is for and whose node was never seen: nothing but its vote, if it has one, can be missed."""
    member = status.members.get(name)
    assert member is not None
    known = f"{member.address}, {member.role}; its node has never announced itself"
    problem = majority_problem if name in status.members.voters else None
    return (
        Check("member.known", name, True, known),
        Check("quorum.kept", name, problem is None, problem or "a majority of the others is up"),
    )


def transfer_checks(status: ReplicaStatus, target: str) -> tuple[Check, ...]:
    """For each candidate: it votes, does not lead yet, and is connected with the leader."""
    peers = {peer.name: peer for peer in status.peers}
    checks = []
    for name in [target] if target else sorted(status.members.voters - {status.name}):
        votes = name in status.members.voters
        words = "votes" if votes else f"is no voter; voters: {', '.join(sorted(status.members.voters))}"
        checks.append(Check("raft.voter", name, votes, words))
        other = name != status.name
        checks.append(Check("raft.not_leader", name, other, "does not lead" if other else "leads already"))
        peer = peers.get(name)
        if votes and other:
            connected = peer is not None and peer.connected
            problem = (peer.problem if peer is not None else None) or "there is no connection to it"
            checks.append(Check("raft.connected", name, connected, "is connected" if connected else problem))
    return tuple(checks) or (Check("raft.voter", status.name, False, "there is no other voter"),)


def _fullest(status: ReplicaStatus, checks: tuple[Check, ...]) -> str:
    """Of those that pass, the one that is known to have most of the log; of equals the first by name."""
    refused = {check.candidate for check in checks if not check.ok}
    known = {peer.name: peer.match_index or 0 for peer in status.peers}
    passing = {check.candidate for check in checks} - refused
    return max(sorted(passing), key=lambda name: known.get(name, 0))


def bootstrap_checks(
    state: ClusterState, reports: Mapping[str, ReportSeen], node: str, objection: str = ""
) -> tuple[Check, ...]:
    """A cluster is initialised once, on a node with an empty directory and a PostgreSQL that takes the settings."""
    done = Check("bootstrap.done", "", not state.initialised, _initialised(state))
    if not done.ok:
        # The other checks would tell its owner to move the cluster's data away.
        return (done,)
    running = f"{state.bootstrap.node} initialises" if state.bootstrap else "nobody initialises"
    checks = [done, Check("bootstrap.running", "", state.bootstrap is None, running)]
    seen = reports.get(node)
    alive = seen is not None and seen.age_s <= FRESH_S and node in state.members
    checks.append(Check("member.unknown", node, alive, "is up" if alive else "has not reported: is its node running?"))
    if alive and state.members[node].role is NodeRole.WITNESS:
        return (*checks, Check("bootstrap.witness", node, False, "is a witness: bootstrap on a node with PostgreSQL"))
    if seen is not None:
        kind = seen.report.directory
        free = kind in {DirectoryKind.MISSING, DirectoryKind.EMPTY}
        hint = "" if free else ": move it away, set postgresql.data_dir, or bootstrap on another node"
        checks.append(Check("bootstrap.directory_not_empty", node, free, f"its data directory is {_shown(kind)}{hint}"))
    remedy = f"{objection}; correct its node.yml and restart its node process"
    words = remedy if objection else "its PostgreSQL takes all values"
    return (*checks, Check("bootstrap.parameters", node, not objection, words))


def _shown(kind: DirectoryKind) -> str:
    return {
        DirectoryKind.CLUSTER: "a PostgreSQL data directory already",
        DirectoryKind.FOREIGN: "not empty and holds other files",
    }.get(kind, str(kind))


def _initialised(state: ClusterState) -> str:
    if not state.initialised:
        return "not initialised yet"
    return f"cluster {state.name} is initialised already, system identifier {state.system_identifier}"


def loss_checks(
    state: ClusterState, reports: Mapping[str, ReportSeen], request: OperatorRequest, shown: Prospect | None
) -> tuple[Check, ...]:
    """Of a failover that may lose data; a dry run need neither name the cluster nor state anything: it is there to be
    shown.
    """
    if shown is None:
        return ()
    accepts = acceptance_checks(shown, request.accepts)
    stated = request.accepts.stopped if request.accepts is not None else ""
    stopped = stopped_check(state, reports, shown, stated) if stated or not request.dry_run else ()
    return (*accepts, *stopped) if request.dry_run else (confirmed_check(state, request.cluster), *accepts, *stopped)


def _command(state: ClusterState, message: Operate, shown: Prospect | None) -> Command:
    request = message.request
    if request.kind == "bootstrap":
        return BeginBootstrap(message.cluster, request.target, message.document, request.id)
    if request.kind == "remove":
        return RemoveMember(request.target)
    if request.kind == "config":
        return SetConfig(state.config.version, merged(state.config.document, request.patch))
    assert state.appointment is not None
    return StartOperation(
        id=request.id or secrets.token_hex(6),
        kind=OperationKind(request.kind),
        requester=request.requester,
        reason=request.reason,
        target=request.target,
        epoch=state.appointment.epoch,
        at=wall_time(),
        allow_data_loss=request.allow_data_loss,
        accepted=None if shown is None else request.accepts or shown.accepts,
    )
