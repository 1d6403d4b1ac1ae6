"""One simulated host: PostgreSQL as decisions see it, the guard's deadline, and the agent with the real `decide`."""

from dataclasses import dataclass, field, replace

from appliance.cluster.commands import Command
from appliance.cluster.config import Policy
from appliance.cluster.state import ClusterState, Member, NodeRole, Position
from appliance.ha.actions import (
    Checkpoint,
    Clone,
    CreateSlots,
    DropSlots,
    FinishJob,
    Follow,
    ForgetIncarnation,
    NoteFenced,
    Pledge,
    Promote,
    Propose,
    Rewind,
    StartPrimary,
    StartStandby,
    StopMode,
    StopPostgres,
)
from appliance.ha.decide import cast_vote, decide, slot_name, wants_lease
from appliance.ha.seen import (
    DirectoryKind,
    DirectorySeen,
    InstanceSeen,
    JobSeen,
    Notes,
    Observation,
    PostmasterSeen,
    Report,
)
from appliance.node.lease import NO_LEASE, Lease

SYSTEM = "7423474350493388827"
NAMES = ("pg1", "pg2", "pg3")
SLOTS = frozenset(slot_name(n) for n in NAMES)


def member(name: str) -> Member:
    n = name[-1]
    return Member(name, NodeRole.DATA, f"10.0.0.{n}:7400", f"http://10.0.0.{n}:8008", f"10.0.0.{n}:5432")


@dataclass
class Postgres:
    """A data directory and the server in it. `past` is where each older timeline of its WAL was left."""

    timeline: int = 1
    lsn: int = 1000
    past: dict[int, int] = field(default_factory=dict)
    incarnation: str = ""
    mode: str = ""
    """empty, standby or primary"""
    was_primary: bool = False
    shut_down: bool = False
    signal: bool = False
    upstream: str = ""
    ready_s: float = 0.0
    stop_s: float | None = None
    stop_clean: bool = False
    promote_s: float | None = None
    promote_to: int = 0
    streaming: bool = False

    def writable(self, now_s: float) -> bool:
        return self.mode == "primary" and now_s >= self.ready_s

    def start(self, mode: str, upstream: str, ready_s: float) -> None:
        self.mode, self.upstream, self.ready_s, self.signal = mode, upstream, ready_s, mode == "standby"
        self.was_primary, self.shut_down = mode == "primary", False

    def end(self, *, clean: bool) -> None:
        self.mode, self.shut_down, self.streaming = "", clean, False
        self.stop_s = self.promote_s = None

    def promote(self) -> None:
        self.past = {**self.past, self.timeline: self.lsn}
        self.timeline, self.mode, self.promote_s = self.promote_to, "primary", None
        self.was_primary, self.signal, self.lsn = True, False, self.lsn + 10

    def extends(self, other: "Postgres") -> bool:
        """Whether this WAL continues the other's, so that the other can stream from here."""
        if other.timeline == self.timeline:
            return other.past == self.past and other.lsn <= self.lsn
        return other.lsn <= self.past.get(other.timeline, -1)

    def copy_wal(self, source: "Postgres") -> None:
        self.timeline, self.lsn, self.past = source.timeline, source.lsn, dict(source.past)


class Machine:
    """`world` gives it randomness, the log, and a network; it keeps nothing in memory that a kill may lose."""

    def __init__(self, world, name: str, rate: float) -> None:
        self.world, self.rng, self.name, self.rate = world, world.rng, name, rate
        self.postgres, self.notes = Postgres(), Notes()
        self.guard: tuple[int, float] | None = None
        self.fenced_epoch = 0
        self.host_up_s = 0.0
        self.begin_agent(0.0)

    def begin_agent(self, at_s: float) -> None:
        """A new node process: all it knows is on disk, in the log, and with the guard (see ControlLoop.adopt)."""
        margin_s = self.world.policy.guard_margin_s
        self.agent_up_s, self.frozen_until_s, self.applied, self.state = at_s, 0.0, 0, ClusterState()
        self.lease = Lease(self.guard[0], self.guard[1] + margin_s) if self.guard else NO_LEASE
        self.proposed: dict[type, float] = {}
        self.contact_s: float | None = None
        self.answered_s, self.next_report_s, self.leads_term = self.clock(at_s), 0.0, 0
        self.job: tuple[str, str, float] | None = None
        self.checkpointed, self.rule, self.told = "", "", ()
        self.replica_session = self.rng.random()

    def clock(self, now_s: float) -> float:
        return 1000.0 + now_s * self.rate

    @property
    def alive(self) -> bool:
        """Host and node process run, and the process is not frozen."""
        return self.world.now_s >= max(self.host_up_s, self.agent_up_s, self.frozen_until_s)

    def kill_postgres(self) -> None:
        self.postgres.end(clean=False)
        self.guard = None

    def stop_postgres(self, now_s: float, *, clean: bool) -> None:
        """Signalled now and gone later, sometimes much: until then it may answer its clients, whatever the mode."""
        pg = self.postgres
        if pg.mode and (pg.stop_s is None or (pg.stop_clean and not clean)):
            pg.stop_s, pg.stop_clean = now_s + self.rng.choice((0.0, 0.1, 0.3, 0.6, 6.0)), clean

    def guard_step(self, now_s: float) -> None:
        """The guard needs up to its margin to end everything (R4)."""
        if self.guard is None or now_s < self.host_up_s:
            return
        epoch, at_s = self.guard
        late_s = self.rng.random() * self.world.policy.guard_margin_s
        if self.postgres.mode and self.clock(now_s) >= at_s + late_s:
            self.world.tell(self.name, f"guard fences epoch {epoch}")
            self.fenced_epoch = epoch
            self.kill_postgres()

    def postgres_step(self, now_s: float) -> None:
        pg = self.postgres
        if pg.stop_s is not None and now_s >= pg.stop_s and not pg.stop_clean:
            self.kill_postgres()
        elif pg.stop_s is not None and now_s >= pg.stop_s:
            for other in self.world.machines.values():
                other.stream(now_s)
            pg.end(clean=True)
            self.guard = None
        elif pg.promote_s is not None and now_s >= pg.promote_s:
            pg.promote()
        elif pg.writable(now_s) and (pg.stop_s is None or not pg.stop_clean):
            pg.lsn += self.rng.choice((0, 100, 20_000))
        self.stream(now_s)

    def stream(self, now_s: float) -> None:
        pg, source = self.postgres, self.world.machines.get(self.postgres.upstream)
        able = pg.mode == "standby" and now_s >= pg.ready_s and pg.promote_s is None and source is not None
        pg.streaming = (
            able
            and source.postgres.writable(now_s)
            and self.world.reaches(source.name, self.name)
            and source.postgres.extends(pg)
        )
        if pg.streaming and self.rng.random() < 0.9:
            pg.copy_wal(source.postgres)

    def look(self, now_s: float) -> Observation:
        pg, clock_s = self.postgres, self.clock(now_s)
        if self.fenced_epoch > self.notes.fenced_epoch:
            self.notes = replace(self.notes, fenced_epoch=self.fenced_epoch)
        answers = bool(pg.mode) and now_s >= pg.ready_s
        recovering = pg.mode == "standby"
        if answers:
            self.answered_s = clock_s
        upstream = self.world.machines[pg.upstream].postgres_address if pg.upstream else ""
        instance = InstanceSeen(
            recovering, pg.timeline, pg.lsn, pg.lsn if recovering else 0, pg.lsn if recovering else 0,
            pg.streaming, upstream, pg.timeline, SLOTS, pg.streaming,
        )  # fmt: skip
        job = None
        if self.job is not None:
            kind, _, until_s = self.job
            job = JobSeen(kind, running=now_s < until_s, failed=False, seconds=0.0)
        return Observation(
            me=member(self.name),
            directory=DirectorySeen(
                DirectoryKind.CLUSTER, SYSTEM, pg.timeline, pg.shut_down, pg.was_primary, pg.lsn - 1, pg.signal,
                pg.incarnation,
            ),
            notes=self.notes,
            lease=self.lease.seen(clock_s) if self.lease.epoch else None,
            postmaster=PostmasterSeen(1.0) if pg.mode else None,
            instance=instance if answers else None,
            job=job,
            answer_age_s=clock_s - self.answered_s,
            stopping_s=0.1 if pg.stop_s is not None else None,
            promoting_s=0.1 if pg.promote_s is not None else None,
            contact_s=None if self.contact_s is None else clock_s - self.contact_s,
            switch={pg.timeline: Position(max(pg.past, default=0), pg.past[max(pg.past)])} if pg.past else {},
            checkpointed_operation=self.checkpointed,
        )  # fmt: skip

    @property
    def postgres_address(self) -> str:
        return member(self.name).postgres

    def agent_step(self, now_s: float) -> None:
        self.applied, self.state = self.world.follow_log(self)
        policy = self.world.policy_of(self.state)
        seen = self.look(now_s)
        decision = decide(self.state, seen, policy)
        if decision.rule != self.rule and decision.actions:
            self.world.tell(self.name, f"{decision.rule}: {decision.because}")
        self.rule = decision.rule
        for action in decision.actions:
            if not self.perform(action, now_s, policy):
                break
        report = self.report(self.look(now_s))
        news = (report.vote, report.renew_epoch, report.running, report.in_recovery)
        if news != self.told or self.clock(now_s) >= self.next_report_s:
            self.told, self.next_report_s = news, self.clock(now_s) + policy.renew_interval_s
            self.world.send_report(self, report)

    def report(self, seen: Observation) -> Report:
        pg, answers = self.postgres, seen.instance is not None
        return Report(
            self.name, pg.incarnation, self.notes, seen.directory.kind, bool(pg.mode),
            seen.instance.in_recovery if answers else None, pg.timeline, pg.lsn if answers else 0, 0, 0, pg.streaming,
            "running" if answers else "stopped", "", cast_vote(self.state, seen), wants_lease(self.state, seen),
            self.checkpointed,
        )  # fmt: skip

    def renewed(self, asked_s: float, index: int, epoch: int | None) -> None:
        """An answer of the raft leader to a report that was sent at `asked_s` of this host's clock (R3)."""
        if self.applied >= index:
            self.contact_s = asked_s
        if epoch is None or epoch <= self.notes.fenced_epoch:
            return
        policy = self.world.policy_of(self.state)
        self.lease = self.lease.renewed(epoch, asked_s, policy)
        if self.guard is not None and self.guard[0] == epoch:
            self.guard = (epoch, self.lease.deadline(policy).at_s)

    def perform(self, action: object, now_s: float, policy: Policy) -> bool:
        """One action as the executor begins it; False: it failed, and what follows is left."""
        pg, soon_s = self.postgres, now_s + self.rng.uniform(0.0, 0.6)
        match action:
            case Propose(command):
                self.propose(command, now_s)
            case StopPostgres(mode):
                self.stop_postgres(now_s, clean=mode is StopMode.FAST)
            case StartPrimary(epoch) if self.arm(epoch, policy):
                pg.start("primary", "", soon_s)
            case Promote(epoch, timeline) if pg.timeline < timeline and self.arm(epoch, policy):
                pg.promote_to, pg.promote_s = timeline, soon_s
            case StartPrimary() | Promote():
                return False
            case StartStandby(source):
                self.obey_source(source)
                pg.start("standby", source, soon_s)
            case Follow(source):
                self.obey_source(source)
                pg.upstream = source
            case Pledge(election):
                self.notes = replace(self.notes, pledge=max(election, self.notes.pledge))
            case NoteFenced(epoch):
                self.notes = replace(self.notes, fenced_epoch=max(epoch, self.notes.fenced_epoch))
            case ForgetIncarnation():
                pg.incarnation = ""
            case Rewind(source) | Clone(source):
                self.job = (type(action).__name__.lower(), source, now_s + self.rng.uniform(0.5, 3.0))
            case FinishJob():
                self.finish_job(now_s)
            case Checkpoint(operation):
                self.checkpointed = operation
            case CreateSlots() | DropSlots():
                pass
            case _:
                raise AssertionError(f"the simulation has no {action}")
        return True

    def arm(self, epoch: int, policy: Policy) -> bool:
        """The guard holds the deadline before anything is writable (R4)."""
        if self.lease.epoch != epoch:
            return False
        self.notes = replace(self.notes, epoch=max(epoch, self.notes.epoch))
        self.guard = (epoch, self.lease.deadline(policy).at_s)
        return True

    def obey_source(self, source: str) -> None:
        if source:
            self.notes = replace(self.notes, epoch=max(self.state.appointment.epoch, self.notes.epoch))

    def finish_job(self, now_s: float) -> None:
        _, source, _ = self.job
        self.job = None
        origin = self.world.machines[source].postgres
        if origin.writable(now_s) and self.world.reaches(self.name, source):
            self.postgres.copy_wal(origin)
            self.postgres.incarnation = f"inc-{self.rng.random()}"
            self.postgres.was_primary, self.postgres.signal, self.postgres.shut_down = False, True, False

    def propose(self, command: Command, now_s: float) -> None:
        """One of a kind at a time; the answer comes, or is given up after two seconds."""
        kind = type(command)
        if self.proposed.get(kind, -9.0) <= now_s:
            self.proposed[kind] = now_s + 2.0
            self.world.propose(self, command)
