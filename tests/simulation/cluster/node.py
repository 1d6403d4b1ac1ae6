"""A simulated node process: the real control loop, executor, reporter and coordinator around simulated surroundings.

What they read by name (clocks, the file of the incarnation) is lent to them for the time of a run: see `lent`.
"""

from contextlib import ExitStack, contextmanager
from dataclasses import replace
from types import SimpleNamespace
from unittest.mock import patch

from appliance.cluster.state import Member, NodeRole, Position
from appliance.ha.gate import admits
from appliance.ha.seen import ClockReading, DirectoryKind, JobSeen, Observation, PostmasterSeen
from appliance.ha.standby import upstream
from appliance.ha.sync import NOT_APPOINTED, to_load, waits_for
from appliance.node import coordinator, execute, failsafe, local, loop, reporter
from appliance.node.config import NO_WATCHDOG
from appliance.node.coordinator import BARRIER_LIMIT_S, Coordinator
from appliance.node.execute import Executor
from appliance.node.failsafe import Failsafe
from appliance.node.loop import ControlLoop, Policies
from appliance.node.machine import ClusterMachine
from appliance.node.messages import AskPromise, ReportAnswer, SendReport
from appliance.node.observe import Signalled
from appliance.node.reporter import Reporter
from appliance.postgres.errors import PostgresError
from tests.simulation.cluster.guard import GuardPort
from tests.simulation.cluster.replica import Replica, is_applied
from tests.simulation.cluster.server import Server
from tests.simulation.cluster.wal import Conf, lsn_of
from tests.simulation.raft.virtual_disk import Crash

LOOK_AGAIN_S = 0.5
STEP_S = 0.004
"""What a look takes at least."""


class Clock:
    """CLOCK_BOOTTIME of whoever acts."""

    def __init__(self):
        self.host = None

    def __call__(self):
        return self.host.clock()


@contextmanager
def lent(clock):
    """The real modules read their time from the simulation, and pass messages as they are, not as JSON."""
    with ExitStack() as stack:
        for module in (coordinator, execute, failsafe, loop, reporter):
            stack.enter_context(patch.object(module, "boottime_s", clock))
        stack.enter_context(patch.object(coordinator, "wall_s", clock))
        stack.enter_context(patch.object(reporter, "clock_reading", lambda: ClockReading(clock(), clock(), "boot")))
        stack.enter_context(patch.object(coordinator, "wall_time", lambda _ago_s=0.0: "2026-01-01T00:00:00.000Z"))
        stack.enter_context(patch.object(execute, "forget_incarnation", _forget_incarnation))
        for module in (failsafe, reporter):
            for name in ("encode", "decode"):
                stack.enter_context(patch.object(module, name, lambda message: message))
        yield


def _forget_incarnation(directory):
    directory.incarnation = ""


def member_of(name):
    number = name[1:]
    return Member(name, NodeRole.DATA, f"10.0.0.{number}:7400", f"http://10.0.0.{number}:8008", f"10.0.0.{number}:5432")


class NotesOnDisk:
    """`NotesFile`: what is written is there for the next process."""

    def __init__(self, host, mortal):
        self._host, self._mortal = host, mortal

    @property
    def value(self):
        return self._host.notes

    def write(self, notes):
        self._mortal()
        self._host.notes = notes
        self._mortal()

    def end_epoch(self, epoch):
        self.write(replace(self.value, fenced_epoch=max(epoch, self.value.fenced_epoch)))


class Job:
    """initdb, a base backup or a rewind, as a child process that takes its time."""

    def __init__(self, world, host, kind, source, timeline=0):
        self.world, self.host, self.kind, self.source, self.timeline = world, host, kind, source, timeline
        self.running, self.failed, self.needs_clone, self.source_away = True, False, False, False
        self.began_s = world.now_s
        self.ended_s = 0.0
        host.directory.torn |= kind == "rewind" and host.directory.kind is DirectoryKind.CLUSTER
        self._later(world.random.choice((0.2, 1.0, 3.0)))

    def _later(self, delay_s):
        self.world.schedule.after(delay_s, self._end)

    def kill(self):
        self.running = False

    def _end(self):
        if not self.running or self.host.off:
            return
        stands_s = max(self.host.disk_stands_until_s, self.host.agent_stands_until_s) - self.world.now_s
        if stands_s > 0:
            self._later(stands_s)
            return
        self.running, self.ended_s = False, self.world.now_s
        incarnation = f"{self.world.random.getrandbits(64):016x}"
        if self.kind == "initialise":
            self.host.directory.fill(incarnation)
        else:
            self._copy(incarnation)
        self.world.woken(self.host)

    def _copy(self, incarnation):
        source = self.world.hosts[self.source].server
        good = source is not None and source.answers and self.world.reach(self.host.name, self.source)
        if good and self.kind == "rewind" and source.directory.control_timeline < self.timeline:
            good = False
        if not good:
            self.failed = self.source_away = True
            if self.kind == "rewind":
                self.host.directory.torn = False  # it had not touched anything
            return
        self.world.count(self.kind)
        if self.kind == "rewind" and self.world.random.random() < 0.1:
            self.failed = self.needs_clone = True
            return
        short = self.world.random.choice((0, 0, 1, 4)) if self.kind == "rewind" else 0
        self.host.directory.copy_from(source.directory, source.sendable, incarnation, short=short)

    def seen(self):
        now_s = self.world.now_s
        seconds = now_s - (self.began_s if self.running else self.ended_s)
        return JobSeen(
            self.kind, self.running, self.failed, seconds, needs_clone=self.needs_clone, source_away=self.source_away
        )


class Local:
    """`LocalPostgres`, and the monitor's orders, on the simulated server."""

    job = None
    credentials = object()
    admits = True

    def __init__(self, world, host, guard, mortal):
        self.world, self.host, self._guard, self._mortal = world, host, guard, mortal
        self.data_dir = host.directory
        self.monitor = self
        self.loaded = None

    def settle(self):
        """An earlier process's job does not go on."""
        if self.host.job is not None:
            self.host.job.kill()
            self.host.job = None

    def conf(self, state, source):
        wanted = to_load(state, self.host.name)
        version = wanted.version if wanted is not None else NOT_APPOINTED
        waited_for = waits_for(state, self.host.name, in_recovery=self.host.directory.standby_signal)
        return Conf(local._names(waited_for), version, source, self.admits)

    def differ(self, state, source):
        conf = self.conf(state, source)
        return conf != self.loaded or conf != self.host.directory.conf

    def apply_settings(self, state, policy, source):
        conf = self.conf(state, source)
        if conf != self.host.directory.conf or conf != self.loaded:
            self.host.directory.conf = conf
            self._mortal()
            self._guard.reload()
            self.loaded = conf

    def start_primary(self, state, policy, deadline):
        self.host.directory.standby_signal = False
        self._start(self.conf(state, ""), deadline, standby=False)

    def start_standby(self, state, policy, source):
        directory = self.host.directory
        directory.standby_signal = True
        directory.wal.remove_placeholders_above_real()
        self._mortal()
        self._start(replace(self.conf(state, source), admits=True), None, standby=True)

    def _start(self, conf, deadline, *, standby):
        directory = self.host.directory
        if directory.torn:
            raise PostgresError("postgres", 1, ["the data directory is half rewound"])
        directory.conf = conf
        self._guard.start(Server(self.world, self.host, directory, standby), deadline)
        self.loaded = conf

    def promote(self, own, assigned, deadline):
        self._guard.set_deadline(deadline)
        self._mortal()
        wal = self.host.directory.wal
        if assigned in wal.files:
            raise PostgresError(f"timeline {assigned} has a history file already")
        wal.files |= set(range(2, assigned))
        self._mortal()
        self._server().promote()

    def settle_history(self, timeline):
        return self.host.directory.wal.settle(timeline)

    def end_stray(self, pid):
        server = self.host.server
        if server is not None and server.pid == pid:
            server.stop_now(0.2)

    def initialise(self, state, policy):
        self._begin("initialise", "")

    def clone(self, state, source):
        self._begin("clone", source)

    def rewind(self, state, source, timeline):
        self._begin("rewind", source, timeline)

    def _begin(self, kind, source, timeline=0):
        self.job = self.host.job = Job(self.world, self.host, kind, source, timeline)
        self._mortal()

    def _server(self):
        if self.host.server is None:
            raise PostgresError("psql", None, ["no connection"])
        return self.host.server

    # the monitor's part

    def shown_sync_version(self):
        return self._server().shown_sync_version()

    def mark_wal(self):
        return self._server().mark_wal()

    def end_walsenders(self, member):
        self._server().end_senders(member)

    def checkpoint(self, limit_s, *, twice=False):
        return self._server().checkpoint(twice=twice)

    def create_slot(self, name):
        """All members have one from the beginning."""

    def drop_slot(self, name):
        """It is made again before it is missed."""


class Observer:
    """What `observe.Observer` makes of directory, guard and PostgreSQL's answer, of the simulated ones."""

    answer = None

    def __init__(self, world, host, local, signalled):
        self.world, self.host, self._local, self._signalled = world, host, local, signalled
        self._answered_s = host.clock()

    def look(self, state, policy, guard, notes, lease, contact_s, reports, log_incarnation=0):
        host, signalled, now_s = self.host, self._signalled, self.host.clock()
        server = host.server
        runs = guard.postmaster is not None if guard is not None else server is not None
        stray = server.pid if guard is not None and guard.postmaster is None and server is not None else 0
        instance = server.look() if runs and server is not None else None
        if instance is not None or not state.initialised:
            self._answered_s = now_s
        if not runs:
            signalled.stop_s = signalled.promote_s = None
            signalled.sync = type(signalled.sync)()
        signalled.look_at_gate(instance, runs=runs)
        self._settle_checkpoint(server, now_s)
        if instance is not None and not instance.in_recovery:
            signalled.promote_s = None
        directory = host.directory.seen(stray)
        seen = Observation(
            me=member_of(host.name),
            directory=directory,
            notes=notes,
            lease=lease,
            postmaster=PostmasterSeen(server.age_s if server is not None else 1.0) if runs else None,
            instance=instance,
            job=self._local.job.seen() if self._local.job is not None else None,
            answer_age_s=now_s - self._answered_s,
            stopping_s=_age(signalled.stop_s, now_s),
            promoting_s=_age(signalled.promote_s, now_s),
            contact_s=_age(contact_s, now_s),
            switch=self._switch(state),
            checkpointing=signalled.checkpointing,
            checkpointed_operation=signalled.checkpointed_operation,
            sync=signalled.sync,
            admitted=signalled.admitted,
            opened_lsn=signalled.opened_lsn,
            told_upstream=self._told_upstream(),
            log_incarnation=log_incarnation,
        )
        self._local.admits = admits(state, seen)
        return replace(seen, settings_changed=instance is not None and self._differ(state, notes, instance))

    def _told_upstream(self):
        told = self._local.loaded
        return None if told is None else self.world.address(told.upstream) if told.upstream else ""

    def _differ(self, state, notes, instance):
        source = upstream(state, self.host.name, notes.pledge) if instance.in_recovery else ""
        return self._local.differ(state, source)

    def _switch(self, state):
        held, wal = state.appointment, self.host.directory.wal
        if held is None or held.opened or held.node != self.host.name or held.timeline not in wal.parents:
            return {}
        parent, count = wal.parents[held.timeline]
        return {held.timeline: Position(parent, lsn_of(count))}

    def _settle_checkpoint(self, server, now_s):
        signalled = self._signalled
        if not signalled.checkpointing or (server is not None and server.checkpoint_running):
            return
        signalled.checkpointing = False
        if server is None or server is not signalled.checkpoint_server:
            return
        signalled.checkpointed_operation = signalled.checkpoint_operation
        if signalled.checkpoint_sync_version == signalled.sync.version:
            signalled.sync = replace(signalled.sync, checkpointed=True)


class Loop(ControlLoop):
    """Nothing is published: there is no API here."""

    def _published(self, *_):
        return None


class Node:
    def __init__(self, world, host):
        self.world, self.host, self.alive = world, host, True
        world.clock.host = host
        self._due_s = None
        self._last_s = 0.0
        self.replica = Replica(world, host, ClusterMachine(judge=world.checks.judge), self.wake, self._on_request)
        self._guard = GuardPort(world, host)
        notes = NotesOnDisk(host, self._mortal)
        self.local = Local(world, host, self._guard, self._mortal)
        signalled = Signalled()
        events = SimpleNamespace(emit=self._emit)
        executor = Executor(host.name, self.replica, self.local, self._guard, notes, signalled, events, self.wake)
        self._signalled = signalled
        self.reporter = Reporter(self.replica, self.wake)
        self.failsafe = Failsafe(host.name, self.replica, notes, self.wake)
        self.coordinator = Coordinator(self.replica, self.wake, self._log)
        alarm = SimpleNamespace(ring=self.wake, descriptor=0)
        self.loop = Loop(
            SimpleNamespace(name=host.name, cluster="simulated", role=NodeRole.DATA, watchdog=NO_WATCHDOG),
            replica=self.replica,
            guard=self._guard,
            local=self.local,
            notes=notes,
            observer=Observer(world, host, self.local, signalled),
            executor=executor,
            reporter=self.reporter,
            failsafe=self.failsafe,
            coordinator=self.coordinator,
            policies=Policies(),
            alarm=alarm,
            answers=alarm,
            events=events,
            publish=lambda _: None,
        )

    def begin(self):
        self.world.clock.host = self.host
        self.replica.begin()
        self._guard.ensure()
        self.loop.adopt()
        self.wake()

    def end(self):
        self.alive = False
        self.replica.end()
        if self.local.job is not None:
            self.local.job.kill()

    def wake(self):
        self._at(self.world.now_s + 0.0005)

    def _at(self, when_s):
        when_s = max(when_s, self._last_s + STEP_S)
        if self.alive and (self._due_s is None or when_s < self._due_s):
            self._due_s = when_s
            self.world.schedule.at(when_s, self._step, when_s)

    def _step(self, when_s):
        if not self.alive or when_s != self._due_s:
            return
        if self.world.now_s < self.host.agent_stands_until_s:
            self._due_s = min(self.host.agent_stands_until_s, self.world.now_s + LOOK_AGAIN_S)
            self.world.schedule.at(self._due_s, self._step, self._due_s)
            return
        self._due_s, self._last_s = None, self.world.now_s
        self.world.clock.host = self.host
        began = self._signalled.checkpointing
        try:
            pause_s = self.loop.step()
        except Crash:
            self.world.tell(self.host.name, "node process dies in the middle of a step")
            self.world.kill_node(self.host)
            return
        if self._signalled.checkpointing and not began:
            self._signalled.checkpoint_server = self.host.server
        self._at(self.world.now_s + pause_s / self.host.rate)

    def _mortal(self):
        """Between two things that it does, a process may be killed."""
        if self.host.dies_in is not None:
            self.host.dies_in -= 1
            if self.host.dies_in <= 0:
                self.host.dies_in = None
                raise Crash

    def _on_request(self, peer, message, answer):
        """`PeerDoor`: what is waited for there by a thread is by the schedule here."""
        self.world.clock.host = self.host
        if isinstance(message, AskPromise):
            assert message.node == peer
            self.failsafe.ask(message).add_done_callback(lambda done: answer(done.result()))
            return
        assert isinstance(message, SendReport)
        view = self.coordinator.take(message.report)
        if view is None:
            answer(ReportAnswer(leader=False))
        elif message.report.renew_epoch is None:
            answer(self.coordinator.answer(message.report, view, current=False))
        else:
            self.replica.barrier(BARRIER_LIMIT_S).add_done_callback(
                lambda done: self._passed(message.report, view, done.result(), answer)
            )

    def _passed(self, report, view, outcome, answer):
        if self.alive:
            self.world.clock.host = self.host
            answer(self.coordinator.answer(report, view, current=is_applied(outcome)))

    def _log(self, rule, because):
        self.world.tell(self.host.name, f"coordinator: {rule}: {because}")

    def _emit(self, event, level="info", **fields):
        if event == "lease.vouched":
            self.world.count("vouched")
            self.world.tell(self.host.name, f"goes on by the word of {fields['by']}")
        if event == "decision.changed":
            self.world.tell(self.host.name, f"{fields['rule']}: {fields['because']}")
        elif event in {"action.failed", "proposal.refused"}:
            self.world.tell(self.host.name, f"{event}: {fields}")


def _age(since_s, now_s):
    return None if since_s is None else now_s - since_s
