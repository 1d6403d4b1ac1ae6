"""What can happen next in a small world. The decisions in it are those of the real `plan`, `decide` and `apply`.

A step is one thing that happens at one place: an agent looks and acts, the raft leader plans, a command is applied,
late or never, a record is written or streamed, one process of PostgreSQL reads its settings, something dies. An
acknowledgement takes no step of its own: it happens as soon as PostgreSQL may, which is when it can do most harm.
"""

from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations
from typing import NamedTuple

from appliance.cluster.apply import apply
from appliance.cluster.commands import ChangeSync, Command, OpenElection
from appliance.cluster.config import read_policy
from appliance.cluster.state import ClusterState, LeaseStatus, Position
from appliance.ha.actions import (
    Action,
    ApplySettings,
    Checkpoint,
    Clone,
    Decision,
    EndSenders,
    Follow,
    ForgetIncarnation,
    MarkWal,
    NoteFenced,
    NoteNeedsClone,
    Pledge,
    Promote,
    Propose,
    Rewind,
    SettleHistory,
    ShowSync,
    StartPrimary,
    StartStandby,
    StopPostgres,
)
from appliance.ha.decide import decide, slot_name, wants_lease
from appliance.ha.gate import admits
from appliance.ha.plan import plan
from appliance.ha.seen import (
    NO_PROGRESS,
    DirectoryKind,
    DirectorySeen,
    InstanceSeen,
    LeaderSeen,
    LeaseSeen,
    Notes,
    Observation,
    PostmasterSeen,
    Report,
    ReportSeen,
    SenderSeen,
    SyncProgress,
)
from appliance.ha.situation import Situation
from appliance.ha.standby import upstream
from appliance.ha.sync import to_load
from appliance.node.report import make_report
from tests.model.world import NAMES, SYSTEM, Node, Sender, Setting, Wal, World, setting

Step = tuple[str, World]
ENOUGH_S = 1000.0
"""of a lease whose holder's clock does not tell that it ran out"""
HEARD_S, SUSPECT_S, DEPOSE_S = 0.1, 3.0, 10.0
"""since the primary was last heard of: renewed, silent for `failure_timeout`, silent for ttl"""


class Look(NamedTuple):
    """What a node makes of what it sees."""

    decision: Decision
    report: Report
    renews: int | None


class Model:
    """Rules and what they have answered so far: an answer depends on its arguments alone, so it is asked for once."""

    def __init__(self, start: ClusterState, *, late_reports: bool = False) -> None:
        self._states: list[ClusterState] = []
        self._numbers: dict[str, int] = {}
        self._applied: dict[tuple[int, Command], int | None] = {}
        self._looks: dict[object, Look] = {}
        self._planned: dict[object, tuple[Command, ...]] = {}
        self.policy = read_policy(start.config.document)
        self.by_lease = self.policy.fencing == "lease"
        self.late_reports = late_reports
        """the raft leader plans by what it was told some time ago"""
        self.names = tuple(start.members)
        self._me = {name: replace(member, incarnation="") for name, member in start.members.items()}
        self._slots = frozenset(slot_name(name) for name in self.names)
        self._number(start)

    # The agreed state

    @property
    def count(self) -> int:
        """Agreed states that were met."""
        return len(self._states)

    def state(self, number: int) -> ClusterState:
        return self._states[number]

    def _number(self, state: ClusterState) -> int:
        """What no rule reads is left out: then states that differ in nothing else are the same."""
        election = replace(state.election, reason="") if state.election is not None else None
        state = replace(state, history=(), last_known=None, election=election)
        key = repr((state.epoch, state.appointment, state.lease, state.election, state.sync, state.timelines,
                    state.operations, sorted(state.members.items())))  # fmt: skip
        if key not in self._numbers:
            self._numbers[key] = len(self._states)
            self._states.append(state)
        return self._numbers[key]

    def applied(self, number: int, command: Command) -> int | None:
        """The state after it, or None: refused."""
        key = (number, command)
        if key not in self._applied:
            answer = apply(self._states[number], command)
            self._applied[key] = None if answer.refused is not None else self._number(answer.state)
        return self._applied[key]

    # What a node sees

    def look(self, world: World, i: int) -> Look:
        """What node i makes of all that it can see."""
        node = world.nodes[i]
        told, flushed = node.told, tuple(self.flushed(world, i, s) for s in node.senders)
        key = (i, node if told is None else node._replace(told=None), flushed)
        if (known := self._looks.get(key)) is None:
            state, seen = self.state(node.view), self.observe(world, i)
            known = Look(decide(state, seen, self.policy), make_report(state, seen, None, ""), wants_lease(state, seen))
            self._looks[key] = known
        return known

    def flushed(self, world: World, i: int, sender: Sender) -> int:
        """What a walsender of node i knows its standby to have on disk."""
        end = sender.left if sender.left is not None else len(world.nodes[self._index(sender.standby)].wal)
        return end if sender.cap is None else min(end, sender.cap)

    def _index(self, name: str) -> int:
        return NAMES.index(name)

    def observe(self, world: World, i: int) -> Observation:
        node, name = world.nodes[i], self.names[i]
        state = self.state(node.view)
        held = state.appointment
        instance = self._instance(world, i) if node.running else None
        source = upstream(state, name, node.notes.pledge) if node.running == "standby" else ""
        switch = {}
        if held is not None and held.timeline in node.wal:
            start = node.wal.index(held.timeline)
            switch = {held.timeline: Position(node.wal[start - 1], start)} if start else {}
        seen = Observation(
            me=self._me[name],
            directory=DirectorySeen(
                kind=DirectoryKind.CLUSTER if node.wal else DirectoryKind.EMPTY,
                system_identifier=SYSTEM if node.wal else "",
                timeline=node.wal[-1] if node.wal else 0,
                was_primary=node.was_primary,
                checkpoint_lsn=len(node.wal),
                standby_signal=node.signal,
                incarnation=node.incarnation,
            ),
            notes=node.notes,
            lease=LeaseSeen(node.lease, ENOUGH_S) if node.lease else None,
            postmaster=PostmasterSeen(100.0) if node.running else None,
            instance=instance,
            contact_s=0.1,
            switch=switch,
            sync=node.progress,
            opened_lsn=node.shows if node.running == "primary" else None,
        )
        expected = setting(state, name, in_recovery=node.signal, admits=admits(state, seen))
        changed = instance is not None and (node.file != expected or node.upstream != source)
        return replace(seen, settings_changed=changed)

    def _instance(self, world: World, i: int) -> InstanceSeen:
        node, end = world.nodes[i], len(world.nodes[i].wal)
        primary = node.running == "primary"
        return InstanceSeen(
            in_recovery=not primary,
            timeline=node.wal[-1],
            lsn=end,
            received_lsn=0 if primary else end,
            replayed_lsn=0 if primary else end,
            receiver_running=bool(node.source),
            upstream=self._me[node.upstream].postgres if node.upstream else "",
            checkpoint_timeline=node.wal[-1],
            slots=self._slots,
            streaming=bool(node.source),
            senders=tuple(SenderSeen(s.standby, self.flushed(world, i, s), streaming=True) for s in node.senders),
            sync_version=node.shown.version,
            admits=node.shown.admits,
        )

    # What can happen

    def steps(self, world: World) -> Iterator[Step]:
        """All that may come next, each with a name. What changes nothing is left out."""
        for name, after in self._every(world):
            if after != world:
                yield name, self.acknowledged(after)

    def _every(self, world: World) -> Iterator[Step]:
        for i, node in enumerate(world.nodes):
            if node.dead:
                continue
            if not node.up:
                yield from self._down(world, i)
                continue
            yield from self._agent(world, i)
            yield from self._postgres(world, i)
            yield from self._faults(world, i)
        yield from self._leader(world)
        for command in world.late:
            rest = world._replace(late=tuple(c for c in world.late if c is not command))
            yield f"at last: {command}", self._propose(rest, command)
            yield f"never: {type(command).__name__}", rest

    def _agent(self, world: World, i: int) -> Iterator[Step]:
        node, name = world.nodes[i], self.names[i]
        if node.view != world.log:
            yield f"{name} reads the log", with_node(world, i, node._replace(view=world.log))
        if self._renews(world, i) and node.lease != self._epoch(world):
            yield f"{name} renews", with_node(world, i, node._replace(lease=self._epoch(world)))
        if self.late_reports:
            yield f"{name} reports", with_node(world, i, node._replace(told=self.look(world, i).report))
        yield from self._acts(world, i)

    def _renews(self, world: World, i: int) -> bool:
        """R3: confirmed by the newest state, after it was asked for."""
        if self.state(world.log).primary != self.names[i] or world.expired == self._epoch(world):
            return False
        return self.look(world, i).renews == self._epoch(world)

    def _epoch(self, world: World) -> int:
        held = self.state(world.log).appointment
        return held.epoch if held is not None else 0

    def _acts(self, world: World, i: int) -> Iterator[Step]:
        """All actions of its decision; or, killed in between, only the first of them."""
        decision, name = self.look(world, i).decision, self.names[i]
        said = f"{name} {decision.rule} ({decision.because})"
        now = world
        # there are no history files here: a record says which timeline it is of
        actions = [action for action in decision.actions if not isinstance(action, SettleHistory)]
        for count, action in enumerate(actions):
            if count and world.left.crashes:
                killed = with_node(now, i, now.nodes[i]._replace(progress=NO_PROGRESS))
                yield f"{said}: killed after {count}", spend(killed, crashes=1)
            if isinstance(action, Propose):
                command = plain(action.command)
                if world.left.late and command not in now.late:
                    yield f"{said}: late", spend(now._replace(late=(*now.late, command)), late=1)
            after = self.performed(now, i, action)
            if after is None:
                break
            now = after
        yield said, now

    def _postgres(self, world: World, i: int) -> Iterator[Step]:
        node, name = world.nodes[i], self.names[i]
        if not node.running:
            return
        if node.running == "primary" and world.left.writes:
            yield f"{name} writes", spend(with_node(world, i, node._replace(wal=(*node.wal, node.wal[-1]))), writes=1)
        if node.shown != node.file:
            yield f"{name}: postmaster reads settings {node.file.version}", self._signalled(world, i)
        if node.waits != (node.shown.k > 0):
            yield f"{name}: checkpointer reads settings", with_node(world, i, node._replace(waits=node.shown.k > 0))
        for at, sender in enumerate(node.senders):
            of = f"{name}: walsender of {sender.standby}"
            if sender.setting != node.file and (sender.cap is not None):
                new = sender._replace(setting=node.file, cap=None)
                yield f"{of} reads settings {node.file.version}", with_sender(world, i, at, new)
            if sender.left is not None:
                yield f"{of} ends", with_sender(world, i, at, None)
        if node.running == "standby":
            yield from self._receives(world, i)

    def _signalled(self, world: World, i: int) -> World:
        node = world.nodes[i]
        senders = tuple(
            s._replace(cap=len(node.wal)) if s.cap is None and s.setting != node.file else s for s in node.senders
        )
        return with_node(world, i, node._replace(shown=node.file, senders=senders))

    def _receives(self, world: World, i: int) -> Iterator[Step]:
        node, name = world.nodes[i], self.names[i]
        if node.source:
            source = world.nodes[self._index(node.source)]
            if len(source.wal) > len(node.wal):
                more = source.wal[: len(node.wal) + 1]
                yield f"{name} receives from {node.source}", with_node(world, i, node._replace(wal=more))
            if node.upstream != node.source:
                yield f"{name} ends its receiver", self.disconnected(world, i)
            elif world.left.cuts:
                yield f"{name} loses {node.source}", spend(self.disconnected(world, i), cuts=1)
        elif node.upstream:
            joined = self._connected(world, i)
            if joined is not None:
                yield f"{name} streams from {node.upstream}", joined

    def _connected(self, world: World, i: int) -> World | None:
        """PostgreSQL gives WAL to whoever is not past it; one walsender for a slot."""
        node, name = world.nodes[i], self.names[i]
        at = self._index(node.upstream)
        source = world.nodes[at]
        if not source.running or source.wal[: len(node.wal)] != node.wal:
            return None
        if any(sender.standby == name for sender in source.senders):
            return None
        world = with_node(world, at, source._replace(senders=(*source.senders, Sender(name, source.shown))))
        return with_node(world, i, node._replace(source=node.upstream))

    def _faults(self, world: World, i: int) -> Iterator[Step]:
        node, name = world.nodes[i], self.names[i]
        if world.left.crashes:
            yield f"{name}: host crashes", spend(self._crashed(world, i), crashes=1)
            if node.running:
                yield f"{name}: PostgreSQL dies", spend(self._ended(world, i), crashes=1)
            if node.lease:
                yield (
                    f"{name}: its clock says that the lease is over",
                    spend(with_node(world, i, node._replace(lease=0)), crashes=1),
                )
            for view in self._earlier(node):
                again = node._replace(view=view, progress=NO_PROGRESS)
                yield f"{name}: agent restarts at {view}", spend(with_node(world, i, again), crashes=1)
        if world.left.deaths:
            gone = self._crashed(world, i)
            yield f"{name}: dies for ever", spend(with_node(gone, i, gone.nodes[i]._replace(dead=True)), deaths=1)

    def _earlier(self, node: Node) -> tuple[int, ...]:
        """What a replica that restarts has applied: all that it had, or nothing; what lies between does less harm."""
        return (node.view,) if node.view == 0 else (node.view, 0)

    def _down(self, world: World, i: int) -> Iterator[Step]:
        node, name = world.nodes[i], self.names[i]
        for view in self._earlier(node):
            yield f"{name}: comes back at {view}", with_node(world, i, node._replace(up=True, view=view))
        if world.left.losses and node.wal:
            empty = node._replace(wal=(), incarnation="", was_primary=False)
            yield f"{name}: data directory is lost", spend(with_node(world, i, empty), losses=1)
            yield f"{name}: notes are lost", spend(with_node(world, i, notes_lost(node)), losses=1)
        if world.left.copies and len(node.wal) > 1:
            copy = node._replace(wal=node.wal[:-1], incarnation="copy")
            yield f"{name}: an older copy of its data is put back", spend(with_node(world, i, copy), copies=1)

    def _leader(self, world: World) -> Iterator[Step]:
        state = self.state(world.log)
        if self.by_lease and state.lease is LeaseStatus.HELD and world.expired != self._epoch(world):
            yield "the lease runs out", self._expired(world)
        for command in self._plans(world):
            yield from self._proposes(world, command)

    def _plans(self, world: World) -> tuple[Command, ...]:
        """Whoever leads plans by the reports of some of the nodes, any of them, and by a silence of any length."""
        if self.late_reports:
            told = tuple(node.told for node in world.nodes if node.told is not None)
        else:
            told = tuple(self.look(world, i).report for i, node in enumerate(world.nodes) if node.up)
        ran_out = world.expired == self._epoch(world)
        key = (world.log, told, ran_out)
        if key not in self._planned:
            state = self.state(world.log)
            found = {
                plain(command)
                for size in range(len(told) + 1)
                for heard in combinations(told, size)
                for silent_s in self._silences(state, ran_out=ran_out)
                for away_s in (0.0, ENOUGH_S)
                for command in self._planned_by(state, heard, silent_s, away_s)
            }
            self._planned[key] = tuple(sorted(found, key=repr))
        return self._planned[key]

    def _silences(self, state: ClusterState, *, ran_out: bool) -> tuple[float, ...]:
        if state.lease is not LeaseStatus.HELD:
            return (HEARD_S,)
        if self.by_lease:
            return (DEPOSE_S,) if ran_out else (HEARD_S,)
        return (HEARD_S, SUSPECT_S, DEPOSE_S)

    def _planned_by(
        self, state: ClusterState, heard: tuple[Report, ...], silent_s: float, away_s: float
    ) -> tuple[Command, ...]:
        served = {s.member for report in heard for s in report.senders}
        unconnected = {name: away_s for name in self.names if name not in served}
        leader = LeaderSeen(
            leading_s=60.0, confirmed_s=silent_s, epoch_s=60.0, election_s=4.0, noted_s=0.0, away_s=unconnected
        )
        seen = {report.node: ReportSeen(report, 0.1) for report in heard}
        return plan(Situation(state, seen, leader, self.policy)).commands

    def _proposes(self, world: World, command: Command) -> Iterator[Step]:
        if isinstance(command, OpenElection):
            if not world.left.elections:
                return
            world = spend(world, elections=1)
        elif isinstance(command, ChangeSync):
            if not world.left.changes:
                return
            world = spend(world, changes=1)
        yield f"raft leader: {command}", self._propose(world, command)
        if world.left.late and command not in world.late:
            late = spend(world._replace(late=(*world.late, command)), late=1)
            yield f"raft leader, late: {command}", late

    def _propose(self, world: World, command: Command) -> World:
        number = self.applied(world.log, command)
        return world if number is None else world._replace(log=number)

    def _expired(self, world: World) -> World:
        """R3, R4: by then its holder's own deadline has passed, and the guard has ended PostgreSQL."""
        epoch, held = self._epoch(world), self.state(world.log).appointment
        assert held is not None
        i = self._index(held.node)
        node = world.nodes[i]
        if node.running == "primary" and node.epoch == epoch:
            world = self._ended(world, i)
            node = world.nodes[i]
        notes = replace(node.notes, fenced_epoch=max(epoch, node.notes.fenced_epoch))
        return with_node(world, i, node._replace(lease=0, notes=notes))._replace(expired=epoch)

    # What ends

    def disconnected(self, world: World, i: int) -> World:
        """Its receiver is gone; the walsender there may still have to read what it had said."""
        node = world.nodes[i]
        if not node.source:
            return world
        at = self._index(node.source)
        source = world.nodes[at]
        senders = tuple(
            s._replace(left=len(node.wal)) if s.standby == self.names[i] and s.left is None else s
            for s in source.senders
        )
        world = with_node(world, at, source._replace(senders=senders))
        return with_node(world, i, node._replace(source=""))

    def _ended(self, world: World, i: int) -> World:
        """PostgreSQL is gone with all its processes (R11)."""
        world = self.disconnected(world, i)
        for at, other in enumerate(world.nodes):
            if other.source == self.names[i]:
                world = with_node(world, at, other._replace(source=""))
        node = world.nodes[i]
        return with_node(world, i, node._replace(running="", epoch=0, shows=0, senders=(), progress=NO_PROGRESS))

    def _crashed(self, world: World, i: int) -> World:
        world = self._ended(world, i)
        return with_node(world, i, world.nodes[i]._replace(up=False, lease=0, told=None))

    # What an agent can do, as `appliance.node.execute` does it

    def performed(self, world: World, i: int, action: Action) -> World | None:
        """None: it failed, so what stands after it is not done."""
        match action:
            case Propose(command):
                return self._propose(world, plain(command))
            case StopPostgres():
                return self._ended(world, i)
            case ShowSync() | MarkWal() | EndSenders() | Checkpoint() | ApplySettings() | Follow():
                return self._on_running(world, i, action) if world.nodes[i].running else None
            case StartPrimary() | StartStandby() | Promote() | Clone() | Rewind():
                return self._opens(world, i, action)
            case _:
                return with_node(world, i, noted(world.nodes[i], action))

    def _on_running(self, world: World, i: int, action: Action) -> World | None:
        node, state = world.nodes[i], self.state(world.nodes[i].view)
        match action:
            case ShowSync(version):
                shown = node.shown.version == version
                return with_node(world, i, node._replace(progress=SyncProgress(version))) if shown else None
            case MarkWal(version, first):
                return with_node(world, i, marked(node, version, first=first))
            case EndSenders(members):
                return self._senders_ended(world, i, members)
            case Checkpoint(_, version):
                done = replace(
                    node.progress, checkpointed=node.progress.checkpointed or node.progress.version == version
                )
                return with_node(world, i, node._replace(waits=node.shown.k > 0, progress=done))
            case Follow(source):
                notes = obeyed(node.notes, self._epoch_of(state) if source else 0)
                return with_node(world, i, node._replace(upstream=source, file=self._file(world, i), notes=notes))
            case _:
                source = upstream(state, self.names[i], node.notes.pledge) if node.running == "standby" else ""
                return with_node(world, i, self._loading(world, i)._replace(upstream=source))

    def _epoch_of(self, state: ClusterState) -> int:
        return state.appointment.epoch if state.appointment is not None else 0

    def _loading(self, world: World, i: int) -> Node:
        """R8, T8: the version is noted before PostgreSQL may load it."""
        node = world.nodes[i]
        loaded = to_load(self.state(node.view), self.names[i])
        notes = node.notes
        if loaded is not None and loaded.version > notes.sync_version:
            notes = replace(notes, sync_version=loaded.version)
        return node._replace(file=self._file(world, i), notes=notes)

    def _file(self, world: World, i: int) -> Setting:
        node = world.nodes[i]
        state = self.state(node.view)
        lets_in = admits(state, self.observe(world, i))
        return setting(state, self.names[i], in_recovery=node.signal, admits=lets_in)

    def _senders_ended(self, world: World, i: int, members: tuple[str, ...]) -> World:
        for name in members:
            at = self._index(name)
            if world.nodes[at].source == self.names[i]:
                world = with_node(world, at, world.nodes[at]._replace(source=""))
        node = world.nodes[i]
        return with_node(world, i, node._replace(senders=tuple(s for s in node.senders if s.standby not in members)))

    def _opens(self, world: World, i: int, action: Action) -> World | None:
        node, state = world.nodes[i], self.state(world.nodes[i].view)
        match action:
            case StartPrimary(epoch):
                if node.running or node.lease != epoch:
                    return None
                node = started(self._loading(with_node(world, i, node._replace(signal=False)), i))
                notes = obeyed(node.notes, epoch)
                if notes.pledge > epoch:
                    world = world._replace(fault=f"R5: starts in epoch {epoch} with pledge {notes.pledge}")
                node = node._replace(running="primary", epoch=epoch, shows=len(node.wal), was_primary=True, notes=notes)
                return with_node(world, i, node)
            case StartStandby(source):
                if node.running:
                    return None
                notes = obeyed(node.notes, self._epoch_of(state) if source else 0)
                node = node._replace(signal=True, was_primary=False, notes=notes)
                file = self._file(with_node(world, i, node), i)
                node = started(node._replace(file=file._replace(admits=True)))
                return with_node(world, i, node._replace(running="standby", upstream=source))
            case Promote(epoch, timeline):
                return self._promoted(world, i, epoch, timeline)
            case Clone(source) | Rewind(source, _):
                copied = world.nodes[self._index(source)]
                timeline = action.timeline if isinstance(action, Rewind) else None
                if node.running or not copied.running or (timeline is not None and copied.wal[-1] != timeline):
                    return None
                return with_node(world, i, rebuilt(node, self.names[i], copied.wal))
            case _:
                raise AssertionError(action)

    def _promoted(self, world: World, i: int, epoch: int, timeline: int) -> World | None:
        if world.nodes[i].running != "standby" or world.nodes[i].lease != epoch:
            return None
        world = self.disconnected(world, i)
        node = world.nodes[i]
        fault = self._wrong_promotion(world, node, epoch, timeline)
        node = node._replace(
            notes=obeyed(node.notes, epoch), wal=(*node.wal, timeline), running="primary", signal=False,
            was_primary=True, epoch=epoch, shows=len(node.wal), upstream="", senders=promoted(node),
        )  # fmt: skip
        opened = (*world.opened, (timeline, epoch))
        return with_node(world, i, node)._replace(opened=opened, fault=world.fault or fault)

    def _wrong_promotion(self, world: World, node: Node, epoch: int, timeline: int) -> str:
        """R5, R14 as one sees them from outside."""
        if any(timeline == number for number, _ in world.opened):
            return f"R14: timeline {timeline} is opened again"
        if node.notes.pledge > epoch:
            return f"R5: opens in epoch {epoch} with pledge {node.notes.pledge}"
        held = self.state(node.view).appointment
        if held is not None and held.epoch == epoch and (node.wal[-1], len(node.wal)) < (
            held.start.timeline, held.start.lsn
        ):  # fmt: skip
            return "R5: opens without the WAL of the winning vote"
        return ""

    # What clients are told

    def acknowledged(self, world: World) -> World:
        for i, node in enumerate(world.nodes):
            if node.running == "primary":
                world = confirm(world, node, node.wal[: self._confirmed(world, i)])
                if node.shown.admits:
                    world = read(world, node.wal[: node.shows])
        return world

    def _confirmed(self, world: World, i: int) -> int:
        """How far commits need wait no more: by the walsender that is content with the least."""
        node = world.nodes[i]
        if not node.waits:
            return len(node.wal)
        counted = sorted(
            (self.flushed(world, i, s) for s in node.senders if s.standby in s.setting.members), reverse=True
        )
        needs = [s.setting.k for s in node.senders if s.standby in s.setting.members]
        return max((counted[k - 1] for k in needs if 0 < k <= len(counted)), default=0)


# On values


def with_node(world: World, i: int, node: Node) -> World:
    return world._replace(nodes=(*world.nodes[:i], node, *world.nodes[i + 1 :]))


def with_sender(world: World, i: int, at: int, sender: Sender | None) -> World:
    senders = world.nodes[i].senders
    kept = (*senders[:at], *(() if sender is None else (sender,)), *senders[at + 1 :])
    return with_node(world, i, world.nodes[i]._replace(senders=kept))


def spend(world: World, **counts: int) -> World:
    left = world.left
    return world._replace(left=left._replace(**{name: getattr(left, name) - count for name, count in counts.items()}))


def plain(command: Command) -> Command:
    """Without words, which no rule reads."""
    changes = {name: "" for name in ("reason", "at") if hasattr(command, name)}
    if isinstance(command, OpenElection):
        changes["last_known"] = None
    return replace(command, **changes)


def obeyed(notes: Notes, epoch: int) -> Notes:
    return replace(notes, epoch=max(epoch, notes.epoch))


def noted(node: Node, action: Action) -> Node:
    match action:
        case Pledge(election):
            return node._replace(notes=replace(node.notes, pledge=max(election, node.notes.pledge)))
        case NoteFenced(epoch):
            return node._replace(notes=replace(node.notes, fenced_epoch=max(epoch, node.notes.fenced_epoch)))
        case NoteNeedsClone():
            return node._replace(notes=replace(node.notes, needs_clone=True))
        case ForgetIncarnation():
            return node._replace(incarnation="")
        case _:
            raise AssertionError(action)


def notes_lost(node: Node) -> Node:
    """As `open_notes` does: they may have held a pledge, so the directory is no voter's any more."""
    return node._replace(notes=Notes(), incarnation="")


def marked(node: Node, version: int, *, first: bool) -> Node:
    if node.progress.version != version:
        return node
    wal = (*node.wal, node.wal[-1])
    progress = replace(node.progress, **{"first_lsn" if first else "second_lsn": len(wal)})
    return node._replace(wal=wal, progress=progress)


def started(node: Node) -> Node:
    """A new postmaster: every process begins with what the file says, and the flag is set before anybody connects."""
    return node._replace(shown=node.file, waits=node.file.k > 0, senders=(), source="", upstream="")


def rebuilt(node: Node, name: str, wal: Wal) -> Node:
    made = node.made + 1
    notes = replace(node.notes, needs_clone=False)
    return node._replace(wal=wal, made=made, incarnation=f"{name}-{made}", signal=True, was_primary=False, notes=notes)


def promoted(node: Node) -> tuple[Sender, ...]:
    """A cascading walsender counts for nobody; it begins anew on the new timeline, and reads the settings first."""
    return tuple(sender._replace(setting=node.shown, cap=None) for sender in node.senders if sender.left is None)


def read(world: World, wal: Wal) -> World:
    """R5a: a client that is let in sees these commits, whoever has confirmed them."""
    if len(wal) <= len(world.acked):
        return world  # that one of an older epoch shows less is no loss
    fault = "" if wal[: len(world.acked)] == world.acked else f"{wal} is read, and {world.acked} was acknowledged"
    return world._replace(acked=wal, fault=world.fault or fault)


def confirm(world: World, node: Node, wal: Wal) -> World:
    """Clients are told that all commits in `wal` are done."""
    if len(wal) <= len(world.acked) and world.acked[: len(wal)] == wal:
        return world
    fault = world.fault
    if wal[: len(world.acked)] != world.acked:
        fault = fault or f"epoch {node.epoch} acknowledges without what was acknowledged before: {wal} {world.acked}"
    elif node.epoch < world.acked_epoch:
        fault = fault or f"epoch {node.epoch} acknowledges after epoch {world.acked_epoch} did"
    return world._replace(acked=wal, acked_epoch=max(node.epoch, world.acked_epoch), fault=fault)
