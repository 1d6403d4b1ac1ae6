"""The composition root: one node process, put together from its file, run until a signal or a dead thread ends it.

SIGTERM ends the node process and leaves PostgreSQL to the guard: a new node process adopts it, within its lease.
SIGINT ends everything of this node: PostgreSQL stops, the lease is given back, the guard goes.
"""

import os
import secrets
import signal
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypedDict

from appliance import __version__
from appliance.api.server import ApiError, ApiServer
from appliance.cluster.state import ClusterState, Member, NodeRole
from appliance.node.config import NodeConfig
from appliance.node.config_parameters import refused_locally
from appliance.node.config_values import split_address
from appliance.node.coordinator import Coordinator
from appliance.node.events import Events
from appliance.node.execute import Executor
from appliance.node.farewell import stop_everything
from appliance.node.gateway import NodeGateway, PeerDoor
from appliance.node.guard_client import GuardClient
from appliance.node.guard_connection import GuardError
from appliance.node.line_writer import LineWriter
from appliance.node.local import LocalPostgres, state_directories
from appliance.node.loop import Alarm, ControlLoop, Policies
from appliance.node.machine import ClusterMachine
from appliance.node.notes import NotesError, NotesFile
from appliance.node.notify import notify
from appliance.node.observe import Observer, Signalled
from appliance.node.operator import Desk
from appliance.node.privileges import PrivilegeError, drop
from appliance.node.registrar import Registrar
from appliance.node.renewal import Renewal
from appliance.node.reporter import Reporter
from appliance.node.witness import NO_PROGRAMS, NoGuard, NoPostgres, objection
from appliance.postgres.binaries import Binaries, find
from appliance.postgres.errors import PostgresError
from appliance.postgres.files import write_atomically
from appliance.postgres.incarnation import forget_incarnation, read_incarnation
from appliance.postgres.monitor import Monitor
from raft import (
    Event,
    Failed,
    LeaderChanged,
    ListenError,
    MembersChanged,
    PeerRefused,
    Replica,
    ReplicaConfig,
    ReplicaError,
    StateApplied,
    Tls,
)

FAILED = 1
API_STOP_LIMIT_S = 2.0
LOG_LIMIT_S = 2.0
STDERR = 2
HEARTBEAT_SHARE = 0.3
"""Raft heartbeats by the shortest election timeout: three fit into it. Each costs every node CPU time for ever; entries
and barriers do not wait for one."""


class Timings(TypedDict):
    """Of a ReplicaConfig."""

    election_min_s: float
    election_max_s: float
    heartbeat_s: float


def timings(election_timeout: tuple[float, float]) -> Timings:
    """For the shortest and the longest election timeout, in seconds."""
    shortest_s, longest_s = election_timeout
    return {
        "election_min_s": shortest_s,
        "election_max_s": longest_s,
        "heartbeat_s": HEARTBEAT_SHARE * shortest_s,
    }


class StartError(Exception):
    """The node cannot start: says what, which value, and what would do."""


def run(config: NodeConfig) -> int:
    """Run a node until it is told to end. 0: told to; 1: it could not start or go on, the reason is on stderr."""
    try:
        drop()
        _make_directories(config)
        with _starting(config):
            node = _Node(config)
        return node.run()
    except (PrivilegeError, StartError, NotesError, ReplicaError, GuardError, ApiError, PostgresError) as error:
        _complain(str(error))
        return FAILED


def _complain(reason: str) -> None:
    """On stderr; nobody who does not read it keeps the process from ending."""
    writer = LineWriter(STDERR)
    writer.put(f"appliance: {reason}")
    writer.close(LOG_LIMIT_S)


@contextmanager
def _starting(config: NodeConfig) -> Iterator[None]:
    """What the file system refuses before the node runs is the reason in one line, not a defect."""
    try:
        yield
    except OSError as error:
        where = error.filename or f"state_dir {config.state_dir}"
        raise StartError(f"cannot start: {where}: {error.strerror or error}") from error


def _make_directories(config: NodeConfig) -> None:
    for directory in state_directories(config):
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not os.access(directory, os.W_OK | os.X_OK):
                raise PermissionError(13, "not writable")
        except (FileExistsError, NotADirectoryError) as error:
            raise StartError(f"{directory}: a file stands there or on the way: move it, or set state_dir") from error
        except OSError as error:
            user = os.geteuid()
            raise StartError(
                f"{directory}: {error.strerror} for uid {user}: create it and give it to that user, or set state_dir"
            ) from error


def member_of(config: NodeConfig) -> Member:
    """This node as it announces itself."""
    return Member(
        name=config.name,
        role=config.role,
        raft=config.raft_address,
        api_url=f"http://{config.http_address}",
        postgres=config.postgres_address,
        tags=dict(config.tags),
    )


def open_notes(config: NodeConfig) -> NotesFile:
    """R6, R13: notes that are gone may have held a pledge, so the data directory is no voter's any more.

    A witness pledges nothing, and makes no file that would look like notes that were kept.
    """
    path = config.state_dir / "notes.json"
    if config.role is NodeRole.WITNESS:
        return NotesFile(path)
    if not path.exists():
        forget_incarnation(config.postgresql.data_dir)
    notes = NotesFile(path)
    notes.create(read_incarnation(config.postgresql.data_dir).recovery)
    return notes


def find_programs(config: NodeConfig) -> Binaries:
    """PostgreSQL on this host, which takes the values of the node's file. Raises StartError, PostgresError."""
    if config.role is NodeRole.WITNESS:
        if (reason := objection(config)) is not None:
            raise StartError(reason)
        return NO_PROGRAMS
    binaries = find(config.postgresql.bin_dir)
    refused = refused_locally(binaries, config)
    if refused:
        raise StartError("\n".join(refused))
    return binaries


def api_token(path: Path) -> str:
    """The token that lets one change something over TCP; made at the first start, mode 0600."""
    try:
        if not path.exists():
            write_atomically(path, secrets.token_urlsafe(24) + "\n")
        token = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        why = (error.strerror or str(error)) if isinstance(error, OSError) else "it is no text"
        raise StartError(f"http.token_file: {path}: {why}; remove it, a new one is made") from error
    if not token:
        raise StartError(f"http.token_file: {path}: is empty; write a token into it, or remove it: a new one is made")
    return token


class _Node:
    def __init__(self, config: NodeConfig) -> None:
        self._config = config
        self._events = Events(config.name, config.log.level, config.log.format)
        self._alarm, answers = Alarm(), Alarm()
        self._stop_signal = 0
        self._certificate_problem = ""
        self._failure = ""
        self._heard = deque[Event]()
        self._binaries = find_programs(config)
        self._notes = open_notes(config)
        make_guard, make_local = (
            (NoGuard, NoPostgres) if config.role is NodeRole.WITNESS else (GuardClient, LocalPostgres)
        )
        self._guard = make_guard(config.state_dir / "guard")
        host = split_address(config.postgres_address)[0] if config.postgres_address else ""
        self._renewal = None if config.tls is None else Renewal(config.tls, self._on_certificate_renewed, host)
        self._replica: Replica[ClusterState] = Replica(
            ReplicaConfig(
                cluster=config.cluster,
                name=config.name,
                directory=config.raft.dir,
                listen=config.raft.listen,
                members={**config.members, config.name: config.raft_address},
                tls=None if config.tls is None else Tls(config.tls.ca, config.tls.cert, config.tls.key),
                **timings(config.raft.election_timeout),
            ),
            ClusterMachine(),
            on_event=self._on_raft_event,
            on_request=self._on_request,
            on_join=self._on_join,
        )
        self._registrar = Registrar(config, self._replica)
        wake = self._alarm.ring
        policies = Policies()
        self._coordinator = Coordinator(self._replica, wake, self._log_proposal)
        desk = Desk(self._replica, self._coordinator.reports)
        monitor = Monitor(config.postgresql.socket_dir, config.postgresql.port)
        try:
            local = make_local(config, self._binaries, self._guard, monitor)
        except ValueError as error:
            raise StartError(f"{config.state_dir}/credentials.json: {error}; copy it from another node") from error
        self._door = PeerDoor(self._coordinator, desk, self._registrar, lambda: local.credentials)
        self._gateway = NodeGateway(config, self._replica, self._registrar, self._binaries)
        self._api = ApiServer(self._gateway, config.http.listen, config.http.socket, api_token(config.http.token_file))
        signalled = Signalled()
        self._reporter = Reporter(self._replica, answers.ring)
        self._loop = ControlLoop(
            config,
            replica=self._replica,
            guard=self._guard,
            local=local,
            notes=self._notes,
            observer=Observer(member_of(config), local, signalled),
            executor=Executor(
                config.name, self._replica, local, self._guard, self._notes, signalled, self._events, wake
            ),
            reporter=self._reporter,
            coordinator=self._coordinator,
            policies=policies,
            alarm=self._alarm,
            answers=answers,
            events=self._events,
            publish=self._gateway.publish,
            certificate=lambda: None if self._renewal is None else self._renewal.seen,
        )
        self._state: ClusterState | None = None

    def run(self) -> int:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        self._loop.find_guard()
        if self._renewal is not None:
            self._renewal.start()
        try:
            self._replica.start()
        except ListenError as error:
            raise StartError(f"raft.listen: {error}") from error
        try:
            with _starting(self._config):
                self._begin()
            self._go_on()
            return self._end()
        finally:
            self._api.stop(API_STOP_LIMIT_S)
            self._gateway.close()
            if self._renewal is not None:
                self._renewal.stop()
            self._replica.stop()
            self._guard.close()
            self._events.close(LOG_LIMIT_S)

    def _begin(self) -> None:
        self._loop.adopt()
        self._loop.step()
        self._api.start()
        self._events.emit(
            "node.began", version=__version__, postgresql=self._binaries.version, uid=os.geteuid(), pid=os.getpid()
        )
        if self._renewal is None:
            self._events.emit("raft.unencrypted", "warning", hint="see `appliance certs`")
        notify("READY=1", f"MAINPID={os.getpid()}")

    def _go_on(self) -> None:
        """Rounds until a signal, or until a thread has ended that nobody asked to."""
        while not self._stop_signal and not self._failure:
            try:
                self._loop.wait(self._loop.step())
                self._tell_what_was_heard()
            except Exception as error:
                self._events.emit("loop.failed", "error", error=f"{type(error).__name__}: {error}")
                raise
            notify("WATCHDOG=1")
            if not self._api.alive:
                self._failure = "the API's thread has ended"
            if self._renewal is not None and not self._renewal.alive:
                self._failure = "the thread that renews the certificate has ended"
            self._tell_certificate()

    def _end(self) -> int:
        if self._failure:
            _complain(self._failure)
            return FAILED
        notify("STOPPING=1")
        if self._stop_signal == signal.SIGINT:
            stop_everything(self._config.name, self._loop, self._replica, self._guard, self._notes)
        self._events.emit("node.stopped", signal=signal.Signals(self._stop_signal).name)
        return 0

    def _on_signal(self, number: int, _frame: object) -> None:
        self._stop_signal = number
        self._alarm.ring()

    def _on_raft_event(self, event: Event) -> None:
        """Called on the raft thread: only notes and wakes, because a log that blocks would hold consensus up."""
        match event:
            case StateApplied():
                # refused commands and new leaders' first entries are applied too; only a new state is worth a look
                state = self._replica.view().state
                if state is not self._state:
                    self._state = state
                    self._alarm.ring()
            case Failed(reason):
                self._failure = f"raft: {reason}"
                self._heard.append(event)
                self._alarm.ring()
            case LeaderChanged() | PeerRefused() | MembersChanged():
                self._heard.append(event)
                self._alarm.ring()

    def _tell_what_was_heard(self) -> None:
        while self._heard:
            match self._heard.popleft():
                case LeaderChanged(leader, term):
                    self._events.emit("raft.leader_changed", leader=leader, term=term)
                case PeerRefused(peer, reason):
                    self._events.emit("peer.refused", "warning", peer=peer, reason=reason)
                case MembersChanged(members):
                    voters, learners = sorted(members.voters), sorted(members.learners)
                    self._events.emit("raft.members_changed", voters=voters, learners=learners)
                case Failed(reason):
                    self._events.emit("raft.failed", "error", reason=reason)
                case StateApplied():
                    pass  # the loop sees it

    def _on_certificate_renewed(self, expires_at: str) -> None:
        """Called on the renewal's thread."""
        self._events.emit("certificate.renewed", expires_at=expires_at)

    def _tell_certificate(self) -> None:
        """A problem is logged when it comes or changes."""
        seen = None if self._renewal is None else self._renewal.seen
        problem = "" if seen is None else seen.problem
        if problem and seen is not None and problem != self._certificate_problem:
            self._events.emit("certificate.problem", "warning" if seen.usable else "error", problem=problem)
        self._certificate_problem = problem

    def _on_join(self, name: str, question: bytes) -> bytes:
        return self._registrar.join(name, question)

    def _on_request(self, peer: str, payload: bytes) -> bytes:
        """Called on the replica's pool threads."""
        return self._door.handle(peer, payload)

    def _log_proposal(self, rule: str, because: str) -> None:
        self._events.emit("coordinator.proposed", rule=rule, because=because)
