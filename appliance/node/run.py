"""The composition root: one node process, put together from its file, run until a signal or a dead thread ends it.

SIGTERM ends the node process and leaves PostgreSQL to the guard: a new node process adopts it, within its lease.
SIGINT ends everything of this node: a primary hands over, PostgreSQL stops, the lease is given back, the guard goes.
"""

import os
import signal
from collections import deque
from typing import TypedDict

from appliance import __version__
from appliance.api.server import ApiError, ApiServer
from appliance.cluster.state import ClusterState, Member, NodeRole
from appliance.node import watchdog
from appliance.node.config import NodeConfig
from appliance.node.config_values import split_address
from appliance.node.coordinator import Coordinator
from appliance.node.events import Events
from appliance.node.execute import Executor
from appliance.node.failsafe import Failsafe
from appliance.node.farewell import Ending, announce_restart, stop_everything
from appliance.node.gateway import NodeGateway, PeerDoor
from appliance.node.guard_client import GuardClient
from appliance.node.guard_connection import GuardError
from appliance.node.line_writer import LineWriter
from appliance.node.local import LocalPostgres
from appliance.node.loop import Alarm, ControlLoop, Policies
from appliance.node.machine import ClusterMachine
from appliance.node.notes import NotesError
from appliance.node.notify import notify
from appliance.node.observe import Observer, Signalled
from appliance.node.operator import Desk
from appliance.node.prepare import StartError, api_token, find_programs, make_directories, open_notes, starting
from appliance.node.privileges import PrivilegeError, drop
from appliance.node.probe_client import ProbeClient
from appliance.node.registrar import Registrar
from appliance.node.renewal import Renewal
from appliance.node.reporter import ANSWER_LIMIT_S, Reporter
from appliance.node.witness import NoGuard, NoPostgres
from appliance.postgres.errors import PostgresError
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


def run(config: NodeConfig) -> int:
    """Run a node until it is told to end. 0: told to; 1: it could not start or go on, the reason is on stderr."""
    try:
        drop()
        make_directories(config)
        with starting(config):
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


def member_of(config: NodeConfig) -> Member:
    """This node as it announces itself."""
    return Member(
        name=config.name,
        role=config.role,
        raft=config.raft_address,
        api_url=f"http://{config.http_address}",
        postgres=config.postgres_address,
        tags=config.tags.announced,
    )


def _probe_of(config: NodeConfig) -> ProbeClient | None:
    """It starts with the first look."""
    if config.role is NodeRole.WITNESS:
        return None
    section = config.postgresql
    return ProbeClient(section.data_dir, section.socket)


class _Node:
    def __init__(self, config: NodeConfig) -> None:
        self._config = config
        self._events = Events(config.name, config.log.level, config.log.format)
        self._alarm, answers = Alarm(), Alarm()
        self._stop_signal = 0
        self._interrupts = 0
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
        failsafe = Failsafe(config.name, self._replica, self._notes, wake)
        self._door = PeerDoor(self._coordinator, desk, self._registrar, lambda: local.credentials, failsafe)
        self._gateway = NodeGateway(config, self._replica, self._registrar, self._binaries)
        self._api = ApiServer(self._gateway, config.http.listen, config.http.socket, api_token(config.http.token_file))
        signalled = Signalled()
        self._probe = _probe_of(config)
        self._reporter = Reporter(self._replica, answers.ring, max(ANSWER_LIMIT_S, config.raft.election_timeout[1]))
        self._loop = ControlLoop(
            config,
            replica=self._replica,
            guard=self._guard,
            local=local,
            notes=self._notes,
            observer=Observer(member_of(config), local, signalled, watchdog.section_of(config), self._probe),
            executor=Executor(
                config.name, self._replica, local, self._guard, self._notes, signalled, self._events, wake
            ),
            reporter=self._reporter,
            failsafe=failsafe,
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
            with starting(self._config):
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
            if self._probe is not None:
                self._probe.close()
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
            self._round()
            if not self._api.alive:
                self._failure = "the API's thread has ended"
            if self._renewal is not None and not self._renewal.alive:
                self._failure = "the thread that renews the certificate has ended"
            self._tell_certificate()

    def _round(self) -> None:
        try:
            self._loop.wait(self._loop.step())
            self._tell_what_was_heard()
        except Exception as error:
            self._events.emit("loop.failed", "error", error=f"{type(error).__name__}: {error}")
            raise
        notify("WATCHDOG=1")

    def _end(self) -> int:
        if self._failure:
            _complain(self._failure)
            return FAILED
        notify("STOPPING=1")
        if self._stop_signal == signal.SIGINT:
            stop_everything(self._ending())
        elif self._stop_signal == signal.SIGTERM:
            announce_restart(self._ending())
        self._events.emit("node.stopped", signal=signal.Signals(self._stop_signal).name)
        return 0

    def _ending(self) -> Ending:
        return Ending(
            me=self._config.name,
            loop=self._loop,
            replica=self._replica,
            guard=self._guard,
            notes=self._notes,
            events=self._events,
            ask=self._gateway.submit,
            go_on=self._round,
            hurried=lambda: self._interrupts > 1 or bool(self._failure),
        )

    def _on_signal(self, number: int, _frame: object) -> None:
        """Who was told to end everything does so, whatever comes after it."""
        if number == signal.SIGINT:
            self._interrupts += 1
        if self._stop_signal != signal.SIGINT:
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
