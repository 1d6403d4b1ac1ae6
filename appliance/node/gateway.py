"""The node's doors: peers' messages come in here, operators' requests go out to the raft leader from here."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

from appliance.api.published import InviteRequest, OperatorAnswer, OperatorRequest, Published
from appliance.api.raft_view import RaftView
from appliance.cluster.state import ClusterState, NodeRole
from appliance.node.clock import boottime_s
from appliance.node.config import NodeConfig
from appliance.node.config_parameters import refused_at_bootstrap
from appliance.node.coordinator import Coordinator
from appliance.node.failsafe import Failsafe
from appliance.node.messages import (
    Admit,
    AskCredentials,
    AskPromise,
    Certify,
    CredentialsAnswer,
    MessageError,
    Operate,
    SendReport,
    decode,
    encode,
)
from appliance.node.operator import Desk
from appliance.node.raft_status import raft_view
from appliance.node.registrar import Registrar
from appliance.postgres.binaries import Binaries
from appliance.postgres.credentials import Credentials
from appliance.postgres.errors import PostgresError
from raft import PeerUnreachable, Replica, ReplicaError

LEADER_LOOK_S = 0.05
PROMISE_LIMIT_S = 1.0
REQUEST_LIMIT_S = 5.0


class PeerDoor:
    """Answers the messages of other nodes. Called on the replica's pool threads, one message each."""

    def __init__(
        self,
        coordinator: Coordinator,
        desk: Desk,
        registrar: Registrar,
        credentials: Callable[[], Credentials | None],
        failsafe: Failsafe,
    ) -> None:
        self._coordinator = coordinator
        self._desk = desk
        self._registrar = registrar
        self._credentials = credentials
        self._failsafe = failsafe

    def handle(self, peer: str, payload: bytes) -> bytes:
        """Raises MessageError for what it cannot read; the asker gets that as an error."""
        match decode(payload):
            case SendReport() as message if message.report.node == peer:
                return encode(self._coordinator.receive(message))
            case Operate() as message:
                return encode(self._desk.handle(message))
            case AskCredentials():
                known = self._credentials()
                return encode(CredentialsAnswer(known.to_json() if known is not None else {}))
            case AskPromise() as message if message.node == peer:
                return encode(self._failsafe.ask(message).result(PROMISE_LIMIT_S))
            case Admit() | Certify() as message:
                return encode(self._registrar.answer(message))
            case other:
                raise MessageError(f"{type(other).__name__} is no question that {peer} may ask")


class NodeGateway:
    """What the API sees of its node (appliance.api.published.Gateway)."""

    def __init__(
        self, config: NodeConfig, replica: Replica[ClusterState], registrar: Registrar, binaries: Binaries
    ) -> None:
        self._config = config
        self._replica = replica
        self._registrar = registrar
        self._binaries = binaries
        self._published: Published | None = None
        self._pool = ThreadPoolExecutor(max_workers=4, thread_name_prefix="operator")
        self._closed = threading.Event()

    def publish(self, published: Published) -> None:
        """Called by the control loop only."""
        self._published = published

    def published(self) -> Published:
        """The API is started after the first look, so there is always one."""
        assert self._published is not None
        return self._published

    def raft(self) -> RaftView:
        return raft_view(self._replica.status())

    def now_s(self) -> float:
        return boottime_s()

    def submit(self, request: OperatorRequest | InviteRequest, limit_s: float) -> Future[OperatorAnswer]:
        if isinstance(request, InviteRequest):
            return self._pool.submit(self._registrar.invite, request, limit_s)
        return self._pool.submit(self._forward, request, time.monotonic() + limit_s)

    def close(self) -> None:
        """Requests that wait for a raft leader are given up: the process would wait for them before it ends."""
        self._closed.set()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _forward(self, request: OperatorRequest, until_s: float) -> OperatorAnswer:
        """Ask the raft leader; when it changes under us the same operation id makes asking again safe."""
        problem, message = "", self._message(request)
        while True:
            leader, left_s = self._replica.view().leader, until_s - time.monotonic()
            if left_s <= 0 or self._closed.is_set():
                return self._no_quorum(request, problem or "no raft leader is known")
            if leader is not None:
                try:
                    return self._ask(leader, message, min(left_s, REQUEST_LIMIT_S))
                except PeerUnreachable as error:
                    problem = f"raft leader {leader} is not reachable: {error}"
                except (ReplicaError, MessageError) as error:
                    return OperatorAnswer("unknown", request.id, "outcome.unknown", f"{leader}: {error}")
            self._closed.wait(LEADER_LOOK_S)

    def _no_quorum(self, request: OperatorRequest, problem: str) -> OperatorAnswer:
        away = sorted(peer.problem for peer in self._replica.status().peers if peer.problem)
        hint = "start the missing nodes, or mend the network"
        message = "; ".join(dict.fromkeys((problem, *away)))
        return OperatorAnswer("no_quorum", request.id, "quorum.none", message, hint)

    def _message(self, request: OperatorRequest) -> Operate:
        if request.kind != "bootstrap":
            return Operate(request)
        config = self._config
        request = replace(request, target=request.target or config.name)
        return Operate(request, config.bootstrap.config, config.cluster, self._objection())

    def _objection(self) -> str:
        """Why this node's PostgreSQL could not live with its first configuration: that cannot be changed later."""
        if self._replica.view().state.initialised or self._config.role is NodeRole.WITNESS:
            return ""
        try:
            return "; ".join(refused_at_bootstrap(self._binaries, self._config))
        except PostgresError as error:
            return f"the values of bootstrap.config.postgresql.parameters could not be checked: {error}"

    def _ask(self, leader: str, message: Operate, limit_s: float) -> OperatorAnswer:
        answer = decode(self._replica.request(leader, encode(message), limit_s).result())
        if not isinstance(answer, OperatorAnswer):
            raise MessageError(f"{type(answer).__name__} is no answer to an operator")
        return answer
