"""The faults, and what operators do meanwhile: each a generator that begins it, yields while it lasts, and ends it.

A new one is a function under `@fault` or `@operation`; the schedule takes it up by itself.
"""

import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from random import Random

from tests.chaos.field import Field, alternating, go_on, stop
from tests.chaos.schedule import TARGETS, FaultKind
from tests.harness.node import Node
from tests.harness.processes import send

Fault = Callable[[Field, Node, float], Iterator[None]]
"""Gets the node that is struck, and a number from 0 to 1 for whatever else is to be chosen."""

FAULTS: dict[FaultKind, Fault] = {}
OPERATIONS: dict[FaultKind, Fault] = {}

SHORT, LONG = (0.5, 3.0), (0.5, 9.0)
HANG_S = 6.0
"""Nobody who writes to a hung disk can be killed, so it breathes before those who wait for that give up."""
MODES = (
    ("synchronous_mode=quorum", "synchronous_node_count=2"),
    ("synchronous_mode=on", "synchronous_node_count=2"),
    ("synchronous_mode=on", "synchronous_node_count=1"),
    ("synchronous_mode=quorum", "synchronous_node_count=1"),
    ("synchronous_mode_strict=true",),
    ("synchronous_mode=on", "synchronous_mode_strict=true"),
)
CLOCK_STEPS_S = (-200.0, 200.0, -86400.0, 30 * 86400.0)
"""Within and beyond what certificates tolerate backwards; forwards within their life."""


def fault(
    name: str, hold_s: tuple[float, float] = (0.0, 0.0), *, halts: bool = False, asynchronous: bool = True
) -> Callable[[Fault], Fault]:
    kind = FaultKind(name, hold_s, halts=halts, asynchronous=asynchronous)
    return lambda function: FAULTS.setdefault(kind, function)


def operation(
    name: str,
    hold_s: tuple[float, float] = (0.0, 0.0),
    *,
    targets: tuple[str, ...] = TARGETS,
    asynchronous: bool = True,
) -> Callable[[Fault], Fault]:
    kind = FaultKind(name, hold_s, targets, asynchronous=asynchronous)
    return lambda function: OPERATIONS.setdefault(kind, function)


# Processes


@fault("postmaster killed")
def postmaster_killed(field: Field, node: Node, pick: float) -> Iterator[None]:
    if node.postmaster is not None:
        send(node.postmaster, signal.SIGKILL)
    yield


@fault("postmaster stopped", LONG, halts=True)
def postmaster_stopped(field: Field, node: Node, pick: float) -> Iterator[None]:
    yield from _stopped([node.postmaster] if node.postmaster else [])


@fault("a backend killed")
def backend_killed(field: Field, node: Node, pick: float) -> Iterator[None]:
    """As the kernel does when memory is short: PostgreSQL restarts all of them."""
    _kill_one(_postgres(node, "app app"), pick)
    yield


@fault("walreceiver killed")
def walreceiver_killed(field: Field, node: Node, pick: float) -> Iterator[None]:
    _kill_one(_postgres(node, "walreceiver"), pick)
    yield


@fault("walreceivers stopped", LONG, halts=True)
def walreceivers_stopped(field: Field, node: Node, pick: float) -> Iterator[None]:
    """Of all standbys but one, so that commits wait for it, or of all."""
    standbys = Random(pick).sample(list(field.cluster), len(field.cluster.nodes) - (pick < 0.7))
    yield from _stopped([pid for standby in standbys for pid in _postgres(standby, "walreceiver")])


@fault("walsenders killed")
def walsenders_killed(field: Field, node: Node, pick: float) -> Iterator[None]:
    _kill_one(_postgres(node, "walsender"), pick)
    yield


@fault("walsenders stopped", LONG, halts=True)
def walsenders_stopped(field: Field, node: Node, pick: float) -> Iterator[None]:
    yield from _stopped(_postgres(node, "walsender"))


@fault("node process killed", LONG)
def node_process_killed(field: Field, node: Node, pick: float) -> Iterator[None]:
    field.down.add(node)
    if node.running:
        node.end(signal.SIGKILL)
    yield
    _start(field, node)


@fault("node process stopped", LONG, halts=True)
def node_process_stopped(field: Field, node: Node, pick: float) -> Iterator[None]:
    field.silent.add(node)
    yield from _stopped([node.pid])
    field.silent.discard(node)


@fault("guard killed")
def guard_killed(field: Field, node: Node, pick: float) -> Iterator[None]:
    _kill_one(_guard(node), pick)
    yield


@fault("guard stopped", LONG, halts=True)
def guard_stopped(field: Field, node: Node, pick: float) -> Iterator[None]:
    yield from _stopped(_guard(node))


# Hosts


@fault("host lost", LONG)
def host_lost(field: Field, node: Node, pick: float) -> Iterator[None]:
    field.down.add(node)
    node.lose_host()
    yield
    _start(field, node)


@fault("host cut off and lost", LONG)
def host_cut_off_and_lost(field: Field, node: Node, pick: float) -> Iterator[None]:
    """Nobody hears of its end: no connection is reset."""
    field.down.add(node)
    field.network.unplug(node.name)
    node.lose_host()
    yield
    field.network.plug(node.name)
    _start(field, node)


@fault("all hosts lost", SHORT)
def all_hosts_lost(field: Field, node: Node, pick: float) -> Iterator[None]:
    """As by a power cut; they come back in any order."""
    nodes = Random(pick).sample(list(field.cluster), len(field.cluster.nodes))
    field.down.update(nodes)
    for each in nodes:
        each.lose_host()
    yield
    for each in nodes:
        _start(field, each)


@fault("host stopped", LONG, halts=True, asynchronous=False)
def host_stopped(field: Field, node: Node, pick: float) -> Iterator[None]:
    """As a virtual machine that is paused: everything goes on, also its primary, which nobody could end meanwhile."""
    field.silent.add(node)
    yield from _stopped(list(node.everything()))
    field.silent.discard(node)


# Networks


@fault("parted", LONG)
def parted(field: Field, node: Node, pick: float) -> Iterator[None]:
    """From all other nodes; its clients, on its own host and elsewhere, still reach it."""
    others = field.others(node)
    yield from _deaf(field, [*((node.name, other) for other in others), *((other, node.name) for other in others)])


@fault("split", LONG)
def split(field: Field, node: Node, pick: float) -> Iterator[None]:
    here, there = field.sides(node, pick)
    pairs = [(one, other) for one in here for other in there]
    yield from _deaf(field, [*pairs, *((other, one) for one, other in pairs)])


@fault("hears nobody", LONG)
def hears_nobody(field: Field, node: Node, pick: float) -> Iterator[None]:
    yield from _deaf(field, [(node.name, other) for other in field.others(node)])


@fault("is heard by nobody", LONG)
def is_heard_by_nobody(field: Field, node: Node, pick: float) -> Iterator[None]:
    yield from _deaf(field, [(other, node.name) for other in field.others(node)])


@fault("one link cut", LONG)
def one_link_cut(field: Field, node: Node, pick: float) -> Iterator[None]:
    """Everybody else still reaches both."""
    other = Random(pick).choice(field.others(node))
    yield from _deaf(field, [(node.name, other), (other, node.name)])


@fault("unplugged", LONG)
def unplugged(field: Field, node: Node, pick: float) -> Iterator[None]:
    """From everybody but the client on its own host."""
    field.network.unplug(node.name)
    yield
    field.network.plug(node.name)


@fault("flapping", LONG)
def flapping(field: Field, node: Node, pick: float) -> Iterator[None]:
    network, pause_s = field.network, 0.1 + pick
    with alternating(lambda: network.unplug(node.name), lambda: network.plug(node.name), (pause_s, pause_s)):
        yield


# Disks and clocks


@fault("disk full", LONG)
def disk_full(field: Field, node: Node, pick: float) -> Iterator[None]:
    disk = field.disks[node.name]
    disk.fill()
    yield
    disk.empty()


@fault("disk slow", LONG)
def disk_slow(field: Field, node: Node, pick: float) -> Iterator[None]:
    """Most of the time it takes nothing."""
    disk = field.disks[node.name]
    with alternating(disk.freeze, disk.thaw, (0.1 + pick, 0.05)):
        yield


@fault("disk hung", LONG)
def disk_hung(field: Field, node: Node, pick: float) -> Iterator[None]:
    disk = field.disks[node.name]
    with alternating(disk.freeze, disk.thaw, (HANG_S, 0.2)):
        yield


@fault("clock stepped", LONG)
def clock_stepped(field: Field, node: Node, pick: float) -> Iterator[None]:
    clock = field.clocks[node.name]
    clock.step(CLOCK_STEPS_S[int(pick * len(CLOCK_STEPS_S))])
    yield
    clock.step(0)


# What operators do


@operation("switchover")
def switchover(field: Field, node: Node, pick: float) -> Iterator[None]:
    field.command(node, "switchover", "--yes", "--timeout", "20s")
    yield


@operation("node process restarted")
def node_process_restarted(field: Field, node: Node, pick: float) -> Iterator[None]:
    """PostgreSQL runs on."""
    yield from _ended(field, node, signal.SIGTERM)


@operation("node ended and started", SHORT)
def node_ended(field: Field, node: Node, pick: float) -> Iterator[None]:
    """With its PostgreSQL; a primary hands the role over."""
    yield from _ended(field, node, signal.SIGINT)


@operation("synchronous mode changed", LONG, asynchronous=False)
def synchronous_mode_changed(field: Field, node: Node, pick: float) -> Iterator[None]:
    """And back in the end, whatever has become of the first: a run is one of its mode."""
    field.command(node, "config", "set", *MODES[int(pick * len(MODES))], "--yes")
    yield
    before = (f"synchronous_mode={field.mode}", "synchronous_node_count=1", "synchronous_mode_strict=false")
    field.owe(lambda: field.insist("config", "set", *before, "--yes"))


@operation("member leaves and joins", SHORT, targets=("standby", "standby", "raft leader", "any"))
def member_leaves_and_joins(field: Field, node: Node, pick: float) -> Iterator[None]:
    """Whether or not it was there to hear that it is removed. A primary may not, and stays."""
    other = field.cluster[Random(pick).choice(field.others(node))]
    field.command(other, "members", "remove", node.name, "--force", "--yes")
    yield
    field.owe(lambda: _join(field, node))


def _join(field: Field, node: Node) -> None:
    if field.remove(node):
        field.join(node)


def _stopped(pids: list[int]) -> Iterator[None]:
    stop(pids)
    yield
    go_on(pids)


def _deaf(field: Field, pairs: list[tuple[str, str]]) -> Iterator[None]:
    """The first of each pair hears nothing of the second."""
    with ExitStack() as cuts:
        for host, to in pairs:
            field.network.deafen(host, to)
            cuts.callback(field.network.hear, host, to)
        yield


def _ended(field: Field, node: Node, number: signal.Signals) -> Iterator[None]:
    field.down.add(node)
    node.tell(number)
    yield
    _start(field, node)


def _start(field: Field, node: Node) -> None:
    """At the latest by `Field.tend`, should it still be on its way out."""
    field.down.discard(node)
    if not node.running:
        node.start()


def _postgres(node: Node, what: str) -> list[int]:
    return [pid for pid, line in node.postgres_processes().items() if what in line]


def _guard(node: Node) -> list[int]:
    """While it lives."""
    try:
        guard = node.guard()
    except (OSError, ValueError, IndexError):
        return []
    return [guard] if guard in node.everything() else []


def _kill_one(pids: list[int], pick: float) -> None:
    if pids:
        send(pids[int(pick * len(pids))], signal.SIGKILL)
