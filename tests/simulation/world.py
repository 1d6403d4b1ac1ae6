"""Three simulated hosts around one log, with clocks that drift and a network that delays, loses and cuts.

The log stands for a correct Raft: whatever is committed stays, in one order. Everything else is unkind: proposals and
renewals come late or never, followers apply late, node processes freeze, die and come back, hosts crash.
"""

from dataclasses import replace
from random import Random

from appliance.cluster.apply import apply
from appliance.cluster.commands import Command, Depose, NotePosition, StartOperation
from appliance.cluster.config import Policy, policy_in_force
from appliance.cluster.state import (
    Appointment,
    ClusterState,
    LeaseStatus,
    OperationKind,
    Position,
    Timeline,
)
from appliance.ha.plan import Situation, plan
from appliance.ha.seen import LeaderSeen, Report, ReportSeen
from appliance.node.coordinator import PROMOTION_LIMIT_S, LeaseLedger, Watch
from appliance.node.reporter import ANSWER_LIMIT_S

from .machine import NAMES, SYSTEM, Machine, member

STEP_S = 0.1
ELECTION_S = 1.0


def beginning() -> ClusterState:
    """pg1 was initialised and is the primary of epoch 1; nothing else has happened yet."""
    return ClusterState(
        name="shop",
        system_identifier=SYSTEM,
        members={n: replace(member(n), incarnation=f"inc-{n}") for n in NAMES},
        epoch=1,
        appointment=Appointment(1, "pg1", "inc-pg1", 1, Position(1, 1000), opened=True),
        lease=LeaseStatus.HELD,
        timelines=(Timeline(1, 1, "pg1", 0, 0),),
        last_known=Position(1, 1000),
    )


class World:
    def __init__(self, rng: Random) -> None:
        self.rng, self.now_s, self.policy = rng, 0.0, Policy()
        self.policies: dict[tuple[int, int], Policy] = {}
        self.story: list[str] = []
        self.states = [beginning()]
        self.cuts: set[tuple[str, str]] = set()
        self.loss = 0.05
        self.mail: list[tuple[float, object]] = []
        self.leader, self.term, self.led_s, self.vacant_s = "", 0, 0.0, 0.0
        self.coordinators: dict[str, Coordinator] = {}
        self.opened: dict[int, str] = {1: "pg1"}
        self.machines: dict[str, Machine] = {}
        slowest = 1 - self.policy.clock_drift
        for name in NAMES:
            self.machines[name] = machine = Machine(self, name, rng.choice((1.0, slowest, rng.uniform(slowest, 1.0))))
            machine.postgres.incarnation = f"inc-{name}"
            machine.postgres.signal = name != "pg1"
            machine.postgres.was_primary = name == "pg1"

    def tell(self, who: str, what: str) -> None:
        self.story.append(f"[{self.now_s:6.1f}] {who}: {what}")

    def writable(self) -> list[str]:
        return [m.name for m in self.machines.values() if m.postgres.writable(self.now_s)]

    def healthy(self) -> bool:
        """One primary, and everybody else streams from it."""
        return len(self.writable()) == 1 and sum(m.postgres.streaming for m in self.machines.values()) == len(NAMES) - 1

    # The network and the log

    def reaches(self, sender: str, receiver: str) -> bool:
        return (sender, receiver) not in self.cuts

    def has_quorum(self, name: str) -> bool:
        peers = [m for m in self.machines.values() if m.alive]
        return (
            self.machines[name].alive
            and sum(self.reaches(name, m.name) and self.reaches(m.name, name) for m in peers) >= 2
        )

    def send(
        self, sender: str, receiver: str, deliver: object, *, late: tuple[float, ...] = (0, 0, 0, 0.1, 0.6, 1.4)
    ) -> None:
        if self.rng.random() >= self.loss and self.reaches(sender, receiver):
            self.mail.append((self.now_s + self.rng.choice(late), deliver))

    def follow_log(self, machine: Machine) -> tuple[int, ClusterState]:
        """How far this node has applied: the raft leader everything, others what has reached them."""
        newest = len(self.states) - 1
        applied = machine.applied
        if machine.name == self.leader:
            applied = newest
        elif self.leader and self.reaches(self.leader, machine.name) and self.rng.random() < 0.7:
            applied = min(newest, applied + self.rng.choice((1, 5, 1000)))
        return applied, self.states[applied]

    def policy_of(self, state: ClusterState) -> Policy:
        version = state.config.version
        key = (version, state.appointment.epoch if state.appointment else 0)
        if key not in self.policies:
            self.policies[key] = policy_in_force(state)
        return self.policies[key]

    def propose(self, machine: Machine, command: Command) -> None:
        self.send(
            machine.name,
            self.leader or machine.name,
            lambda: self.commit(machine, command),
            late=(0, 0, 0.1, 0.3, 3, 9),
        )

    def commit(self, machine: Machine, command: Command) -> bool:
        if not self.leader or not self.has_quorum(self.leader):
            return False
        applied = apply(self.states[-1], command)
        self.tell(machine.name, f"{type(command).__name__} {applied.refused or 'applied'}")
        self.states.append(applied.state)
        machine.proposed.pop(type(command), None)
        return True

    def send_report(self, machine: Machine, report: Report) -> None:
        asked_s, session = machine.clock(self.now_s), machine.replica_session
        if not self.leader:
            return
        to = self.leader
        self.send(machine.name, to, lambda: self.coordinators[to].receive(machine, session, report, asked_s))

    # Time

    def step(self) -> None:
        self.now_s += STEP_S
        self.elect()
        for machine in self.machines.values():
            machine.guard_step(self.now_s)
            if self.now_s >= machine.host_up_s:
                machine.postgres_step(self.now_s)
        due = [m for m in self.mail if m[0] <= self.now_s]
        self.mail = [m for m in self.mail if m[0] > self.now_s]
        for _, deliver in due:
            deliver()
        for machine in self.rng.sample(list(self.machines.values()), len(NAMES)):
            if machine.alive:
                machine.agent_step(self.now_s)
        for name, coordinator in list(self.coordinators.items()):
            if self.machines[name].alive:
                coordinator.step()
        for machine in self.machines.values():
            self.check_timeline(machine)

    def check_timeline(self, machine: Machine) -> None:
        """R14: a timeline number has one owner, ever."""
        if machine.postgres.writable(self.now_s):
            owner = self.opened.setdefault(machine.postgres.timeline, machine.name)
            assert owner == machine.name, f"timeline {machine.postgres.timeline} of {owner} opened on {machine.name}"

    def elect(self) -> None:
        """A raft leader that has lost its quorum is replaced after an election timeout."""
        if self.leader and self.has_quorum(self.leader):
            self.vacant_s = self.now_s
            return
        self.leader = ""
        able = [n for n in NAMES if self.has_quorum(n)]
        if able and self.now_s - self.vacant_s >= ELECTION_S:
            self.leader, self.term, self.led_s = self.rng.choice(able), self.term + 1, self.now_s
            self.coordinators[self.leader] = Coordinator(self, self.leader, self.term)
            self.tell(self.leader, f"leads raft term {self.term}")

    # Faults

    def hurt(self) -> None:
        machine = self.rng.choice(list(self.machines.values()))
        name, long_s = machine.name, self.rng.choice((0.5, 2.0, 5.0, 8.0, 15.0))
        primary = self.states[-1].primary
        if primary and self.rng.random() < 0.4:
            machine, name = self.machines[primary], primary
        fault = self.rng.choice(("kill", "freeze", "crash", "postgres", "cut", "one-way", "heal", "depose", "move"))
        self.tell("fault", f"{fault} {name} {long_s} s")
        match fault:
            case "kill":
                machine.begin_agent(self.now_s + long_s)
            case "freeze":
                machine.frozen_until_s = self.now_s + long_s
            case "crash":
                machine.kill_postgres()
                machine.begin_agent(self.now_s + long_s)
                machine.host_up_s = self.now_s + long_s
            case "postgres":
                machine.kill_postgres()
            case "cut":
                self.cuts |= {(name, o) for o in NAMES if o != name} | {(o, name) for o in NAMES if o != name}
            case "one-way":
                other = self.rng.choice([o for o in NAMES if o != name])
                self.cuts.add((name, other))
            case "heal":
                self.cuts.clear()
            case "depose":
                self.leader = ""
            case "move":
                self.ask_switchover(self.rng.choice((*NAMES, "")))

    def ask_switchover(self, target: str) -> None:
        state = self.states[-1]
        command = StartOperation(
            f"op{self.now_s:.1f}", OperationKind.SWITCHOVER, "me", "", target, state.appointment.epoch, ""
        )
        self.commit(self.machines["pg1"], command)

    def heal(self) -> None:
        self.cuts.clear()
        self.loss = 0.0
        for machine in self.machines.values():
            machine.frozen_until_s = min(machine.frozen_until_s, self.now_s)
            machine.host_up_s = min(machine.host_up_s, self.now_s)
            machine.agent_up_s = min(machine.agent_up_s, self.now_s)


class Coordinator:
    """The raft leader's part of one term, as appliance.node.coordinator does it, with its own ledger."""

    def __init__(self, world: World, name: str, term: int) -> None:
        self.world, self.name, self.term = world, name, term
        self.ledger, self.received = LeaseLedger(), {}
        self.epoch, self.election, self.phase = Watch(), Watch(), Watch()
        self.noted_s, self.busy_until_s = 0.0, 0.0
        self.session = world.machines[name].replica_session
        self.began_s = self.clock()

    def clock(self) -> float:
        return self.world.machines[self.name].clock(self.world.now_s)

    @property
    def leads(self) -> bool:
        """A barrier or a commit succeeds only in the present term, with a majority."""
        world = self.world
        return (world.leader, world.term) == (self.name, self.term) and world.has_quorum(self.name)

    def receive(self, machine: Machine, session: float, report: Report, asked_s: float) -> None:
        if not self.world.machines[self.name].alive or not self.leads:
            return
        self.received[report.node] = (self.clock(), report)
        # The barrier takes its time; what it confirms is read when it returns.
        self.world.mail.append(
            (
                self.world.now_s + self.world.rng.choice((0, 0, 0.2, 0.9)),
                lambda: self.answer(machine, session, report, asked_s),
            )
        )

    def answer(self, machine: Machine, session: float, report: Report, asked_s: float) -> None:
        if not self.leads:
            return
        state, epoch = self.world.states[-1], report.renew_epoch
        held = state.appointment
        stands = state.lease is LeaseStatus.HELD and state.election is None
        stands = stands and (held.node, held.epoch) == (report.node, epoch)
        stands = stands and (held.opened or self.epoch.age_s(held.epoch, self.clock()) <= PROMOTION_LIMIT_S)
        confirmed = epoch if stands and self.ledger.confirm(self.term, epoch, self.clock()) else None
        index = len(self.world.states) - 1

        def deliver() -> None:
            in_time = machine.clock(self.world.now_s) - asked_s <= ANSWER_LIMIT_S
            if in_time and machine.alive and machine.replica_session == session:
                machine.renewed(asked_s, index, confirmed)

        self.world.send(self.name, machine.name, deliver)

    def step(self) -> None:
        machine, now_s = self.world.machines[self.name], self.clock()
        if machine.replica_session != self.session:
            return
        if self.world.now_s < self.busy_until_s or (not self.leads and self.world.rng.random() < 0.5):
            return
        state = self.world.states[-1] if self.leads else machine.state
        held, operation = state.appointment, state.running_operation()
        confirmed_s = self.ledger.confirmed_s(self.term, held.epoch)
        leader = LeaderSeen(
            leading_s=now_s - self.began_s,
            confirmed_s=None if confirmed_s is None else now_s - confirmed_s,
            epoch_s=self.epoch.age_s(held.epoch, now_s),
            election_s=self.election.age_s(state.election and state.election.number, now_s),
            phase_s=self.phase.age_s(operation and (operation.id, operation.phase), now_s),
            noted_s=now_s - self.noted_s,
        )
        reports = {n: ReportSeen(r, now_s - at_s) for n, (at_s, r) in self.received.items()}
        policy = self.world.policy_of(state)
        for command in plan(Situation(state, reports, leader, policy)).commands:
            if isinstance(command, Depose) and not self.ledger.begin_deposing(
                self.term, command.epoch, now_s - policy.depose_after_s
            ):
                continue
            self.noted_s = now_s if isinstance(command, NotePosition) else self.noted_s
            self.busy_until_s = self.world.now_s + 2.0
            self.world.mail.append(
                (self.world.now_s + self.world.rng.choice((0, 0, 0.1, 0.5, 1.5)), lambda c=command: self.commit(c))
            )

    def commit(self, command: Command) -> None:
        """In its own term; otherwise nobody ever hears of it."""
        if self.leads:
            self.world.commit(self.world.machines[self.name], command)
            self.busy_until_s = 0.0
