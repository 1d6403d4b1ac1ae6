"""A small world: nodes with a WAL, walsenders with settings of their own, the agreed state, commands under way.

Values only. WAL is a tuple with the timeline of each record, so that a record is known by its place and its timeline;
one "byte" is one record. Only what matters for commits is here: PostgreSQL flushes what it writes, and replays what it
has received. Time is abstract: that a lease ran out, or that a clock says so, is an event.
"""

from typing import NamedTuple

from appliance.cluster.commands import Command
from appliance.cluster.state import (
    Appointment,
    ClusterState,
    Config,
    LeaseStatus,
    Member,
    NodeRole,
    Position,
    SyncSet,
    SyncVersion,
    Timeline,
)
from appliance.ha.seen import NO_PROGRESS, Notes, Report, SyncProgress
from appliance.ha.sync import NOT_APPOINTED, to_load, waits_for

NAMES = ("n0", "n1", "n2", "n3", "n4")
SYSTEM = "7423474350493388827"
Wal = tuple[int, ...]


class Setting(NamedTuple):
    """synchronous_standby_names, as a process of PostgreSQL has read it: ANY k (members)."""

    version: int
    k: int
    members: frozenset[str]
    admits: bool = True
    """applications are let in (R5a)"""


NOBODY = Setting(NOT_APPOINTED, 1, frozenset({"nobody"}))
"""What a PostgreSQL loads that is not appointed (docs/safety.md, R5)."""


class Sender(NamedTuple):
    """A walsender: it counts by its own reading of the settings."""

    standby: str
    setting: Setting
    cap: int | None = None
    """end of WAL when it was signalled to reload, until it has: replies about later records are read after that"""
    left: int | None = None
    """what its standby had said when the connection ended; None while it is connected"""


class Node(NamedTuple):
    """A host: what is on its disk, its PostgreSQL, its agent."""

    up: bool = True
    dead: bool = False
    """for ever"""
    view: int = 0
    """the agreed state as its replica has applied it"""
    lease: int = 0
    """epoch of the lease that it believes to hold"""
    progress: SyncProgress = NO_PROGRESS
    notes: Notes = Notes()
    incarnation: str = ""
    made: int = 0
    """how often its data directory was made anew"""
    wal: Wal = ()
    signal: bool = True
    """standby.signal"""
    was_primary: bool = False
    running: str = ""
    """standby, primary, or empty: stopped"""
    epoch: int = 0
    """in which it was opened or started as a primary"""
    shows: int = 0
    """how much of its WAL it had when it became a primary: it is seen by whoever is let in, acknowledged or not"""
    file: Setting = NOBODY
    shown: Setting = NOBODY
    """what the postmaster has read, and so what a new connection shows and a new walsender begins with"""
    waits: bool = True
    """the checkpointer's flag: whether a commit waits at all (T7)"""
    upstream: str = ""
    """in primary_conninfo"""
    source: str = ""
    """whom its WAL receiver is connected with"""
    senders: tuple[Sender, ...] = ()
    told: Report | None = None
    """the last report of it that the raft leader has, where reports may be late"""


class Budget(NamedTuple):
    """How much more may happen; None: without limit (walks)."""

    writes: int = 0
    elections: int = 0
    changes: int = 0
    crashes: int = 0
    """of a host, of PostgreSQL, or of an agent between two actions"""
    deaths: int = 0
    losses: int = 0
    """of a data directory, or of notes"""
    copies: int = 0
    """an older copy of a data directory is put in its place, which is another incarnation"""
    cuts: int = 0
    """connections of a standby"""
    late: int = 0
    """commands that are applied later than others proposed after them"""


class World(NamedTuple):
    log: int
    """the agreed state"""
    nodes: tuple[Node, ...]
    left: Budget
    late: tuple[Command, ...] = ()
    """proposed, and neither applied nor lost so far"""
    acked: Wal = ()
    """the WAL up to the last commit that was acknowledged to a client, or could be read from a primary: nothing of it
    may ever be missing"""
    acked_epoch: int = 0
    """of the last acknowledgement"""
    opened: tuple[tuple[int, int], ...] = ()
    """timeline and epoch of each promotion"""
    expired: int = 0
    """fencing by lease: the epoch whose lease has run out on the raft leader's clock, after its holder's own"""
    fault: str = ""
    """what a step did that no rule allows"""


def sync_set(k: int, *members: str) -> SyncSet:
    return SyncSet(k, frozenset(members))


def setting(state: ClusterState, name: str, *, in_recovery: bool, admits: bool) -> Setting:
    """As `appliance.node.local` writes it."""
    loaded, wanted = to_load(state, name), waits_for(state, name, in_recovery=in_recovery)
    version = loaded.version if loaded is not None else NOT_APPOINTED
    if wanted is None:
        return NOBODY._replace(version=version, admits=admits)
    return Setting(version, wanted.k, wanted.members, admits)


def agreed(count: int, *versions: SyncSet, fencing: str = "quorum", wanted_k: int = 1, mode: str = "quorum"):
    """n0 is the open primary of epoch 1 on timeline 1, the others are standbys; `versions` are listed."""
    document = {
        "synchronous_mode": mode,
        "synchronous_node_count": wanted_k,
        "failover": {"fencing": fencing},
    }
    names = NAMES[:count]
    members = {
        n: Member(n, NodeRole.DATA, f"10.0.0.{i}:7400", f"http://10.0.0.{i}:8008", f"10.0.0.{i}:5432", {}, f"{n}-0")
        for i, n in enumerate(names)
    }
    return ClusterState(
        name="shop",
        system_identifier=SYSTEM,
        members=members,
        epoch=1,
        appointment=Appointment(1, "n0", "n0-0", 1, Position(1, 1), opened=True, holders=frozenset({"n0"})),
        lease=LeaseStatus.HELD,
        sync=tuple(SyncVersion(i, 1, wanted) for i, wanted in enumerate(versions, 1)),
        timelines=(Timeline(1, 1, "n0", 0, 0),),
        config=Config(1, document),
    )


def running(count: int, *versions: SyncSet, left: Budget, streaming: bool = True) -> World:
    """Everybody runs; n0 has loaded the newest set, and all stream from it."""
    loaded = Setting(len(versions), versions[-1].k, versions[-1].members)
    names = NAMES[:count]
    senders = tuple(Sender(n, loaded) for n in names[1:]) if streaming else ()
    notes = Notes(epoch=1, sync_version=loaded.version)
    first = Node(
        lease=1, notes=notes, incarnation="n0-0", wal=(1,), signal=False, was_primary=True, running="primary",
        epoch=1, shows=1, file=loaded, shown=loaded, waits=loaded.k > 0, senders=senders,
    )  # fmt: skip
    others = [
        Node(
            notes=Notes(epoch=1), incarnation=f"{n}-0", wal=(1,), running="standby", upstream="n0",
            source="n0" if streaming else "",
        )
        for n in names[1:]
    ]  # fmt: skip
    return World(0, (first, *others), left, acked=(1,), acked_epoch=1, opened=((1, 1),))
