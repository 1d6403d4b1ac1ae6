"""What all nodes agree on. Frozen values only; `apply` is the only place that makes a new one.

Volatile facts (positions, lag, "last seen") and secrets never go in.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

FORMAT = 1
"""The highest format of log and state that this version knows; which one is used is agreed (docs/decisions/0013)."""

Scalar = str | int | float | bool


class NodeRole(StrEnum):
    """What a node takes part in: data and vote, vote only, data only. The vote is one in Raft."""

    DATA = "data"
    WITNESS = "witness"
    LEARNER = "learner"


class LeaseStatus(StrEnum):
    """Whether the appointed primary may be writable. Nothing but an appointment leads back to HELD."""

    NONE = "none"
    HELD = "held"
    RELEASED = "released"
    """given back by its holder, who had stopped PostgreSQL before"""
    EXPIRED = "expired"
    """a full ttl passed on the raft leader without a confirmed renewal (R3)"""


@dataclass(frozen=True, slots=True)
class Member:
    name: str
    role: NodeRole
    raft: str
    """host:port of its replica"""
    api_url: str
    """scheme://host:port of its HTTP API"""
    postgres: str
    """host:port where clients and standbys reach its PostgreSQL; empty for a witness"""
    tags: Mapping[str, Scalar] = field(default_factory=dict)
    incarnation: str = ""
    """random id of its present data directory (R13); empty while it has none"""
    rebuilding: bool = False
    """between Rebuild and Rebuilt: votes for nothing, is appointed to nothing (R13)"""


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """The one node that may run initdb, until it reports the system identifier."""

    node: str
    operation: str = ""


@dataclass(frozen=True, slots=True)
class FailedBootstrap:
    """The last bootstrap, when it was given up: nothing of it was kept."""

    node: str
    operation: str
    reason: str


@dataclass(frozen=True, slots=True)
class Position:
    """A place in the WAL. Ordered by timeline, then by LSN: that is the order R7 uses."""

    timeline: int
    lsn: int


@dataclass(frozen=True, slots=True)
class Vote:
    """A voter's pledge for one election and the end of the WAL on its disk (R6)."""

    election: int
    node: str
    incarnation: str
    position: Position


@dataclass(frozen=True, slots=True)
class Election:
    number: int
    """above every number ever used, also by elections that came to nothing"""
    reason: str
    target: str = ""
    """a switchover's candidate: it is appointed if it is not behind the recorded last position"""


@dataclass(frozen=True, slots=True)
class Appointment:
    """The last node made primary. It stays here after its lease is gone: R7 asks for it."""

    epoch: int
    node: str
    incarnation: str
    timeline: int
    """assigned (R14)"""
    start: Position
    """position of the winning vote: the node's WAL must contain it before it opens (R5)"""
    opened: bool = False
    """it reported that it was promoted to `timeline`"""
    holders: frozenset[str] = frozenset()
    """voters at exactly the winning position, and the previous primary (R7a)"""
    ttl_s: float = 6.0
    clock_drift: float = 0.01
    """of the configuration at its place in the log: holder and raft leader count this lease alike, whatever the
    configuration becomes meanwhile (R3)"""


@dataclass(frozen=True, slots=True)
class SyncVersion:
    """One version of `ANY k (members)`; the list has more than one entry while a change is joint (R8)."""

    version: int
    epoch: int
    k: int
    members: frozenset[str]


@dataclass(frozen=True, slots=True)
class Timeline:
    """A timeline number, to whom it was given, and where the one before it ended (R14)."""

    number: int
    epoch: int
    node: str
    parent: int
    switch_lsn: int | None = None
    """end of `parent` on this timeline's history; None until the promotion was reported"""


@dataclass(frozen=True, slots=True)
class Recovery:
    """The last time the cluster went on from a minority (R13a); number 0: it never had to."""

    number: int = 0
    """the incarnation of the replicated log that began with it: seconds since 1970"""
    kept: Mapping[str, str] = field(default_factory=dict)
    """member to the id of its data directory: whose data the cluster went on with"""


class OperationKind(StrEnum):
    SWITCHOVER = "switchover"
    FAILOVER = "failover"


class Phase(StrEnum):
    """Phases of a switchover or failover, in order; the last two are ends."""

    REQUESTED = "requested"
    STOPPING = "stopping"
    """the old primary checkpoints, stops fast and gives its lease back"""
    ELECTING = "electing"
    PROMOTING = "promoting"
    DONE = "done"
    FAILED = "failed"

    @property
    def ended(self) -> bool:
        return self in {Phase.DONE, Phase.FAILED}


@dataclass(frozen=True, slots=True)
class PhaseMark:
    phase: Phase
    at: str
    """wall clock of the proposer, RFC 3339; for people, no rule reads it"""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Operation:
    id: str
    kind: OperationKind
    requester: str
    reason: str
    source: str
    """the primary when it was requested; empty when there was none"""
    target: str
    """the wanted primary; empty: the best candidate"""
    epoch: int
    """the epoch it was requested in: a step for another one is refused"""
    phase: Phase
    marks: tuple[PhaseMark, ...] = ()
    message: str = ""
    allow_data_loss: bool = False


class Change(StrEnum):
    """Why the primary changed, for `history`."""

    BOOTSTRAP = "bootstrap"
    FAILOVER = "failover"
    SWITCHOVER = "switchover"
    REAPPOINTED = "reappointed"


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """One appointment, as `history` shows it."""

    at: str
    change: Change
    epoch: int
    timeline: int
    lsn: int
    """where the previous timeline ended, 0 until known"""
    previous: str
    primary: str
    reason: str


@dataclass(frozen=True, slots=True)
class Config:
    """The versioned configuration document (appliance.cluster.config reads it)."""

    version: int = 0
    document: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class JoinToken:
    """One new member's way in (appliance.cluster.tokens). The secret itself is nowhere in the state."""

    id: str
    digest: str
    """SHA-256 of the secret, hexadecimal"""
    member: str
    role: NodeRole
    expires_unix_s: float
    used_by: str = ""
    """SHA-256 of the public key that it was used with, hexadecimal; empty while it was not"""


HISTORY_LIMIT = 200
OPERATIONS_LIMIT = 50


@dataclass(frozen=True, slots=True)
class ClusterState:
    name: str = ""
    system_identifier: str = ""
    bootstrap: Bootstrap | None = None
    failed_bootstrap: FailedBootstrap | None = None
    members: Mapping[str, Member] = field(default_factory=dict)
    epoch: int = 0
    """highest number ever used by an appointment or an election"""
    appointment: Appointment | None = None
    lease: LeaseStatus = LeaseStatus.NONE
    election: Election | None = None
    sync: tuple[SyncVersion, ...] = ()
    timelines: tuple[Timeline, ...] = ()
    last_known: Position | None = None
    """last position known of the appointed primary (R10); a few seconds old while it runs"""
    config: Config = field(default_factory=Config)
    operations: tuple[Operation, ...] = ()
    history: tuple[HistoryEntry, ...] = ()
    tokens: tuple[JoinToken, ...] = ()
    removed: frozenset[str] = frozenset()
    """names of members that were removed: whoever comes with one is refused until that member is added again"""
    format: int = 1
    """that all may use now: raised when every member knows a higher one, and never lowered"""
    recovery: Recovery = field(default_factory=Recovery)

    @property
    def primary(self) -> str | None:
        """The node whose right to be writable has not ended; its promotion may still be under way."""
        if self.appointment is None or self.lease is not LeaseStatus.HELD:
            return None
        return self.appointment.node

    @property
    def initialised(self) -> bool:
        return self.system_identifier != ""

    @property
    def highest_timeline(self) -> int:
        return max((t.number for t in self.timelines), default=0)

    @property
    def synchronous(self) -> bool:
        """Whether any listed version makes commits wait for a standby (then R7 needs more than R10)."""
        return any(v.k > 0 for v in self.sync)

    def counts(self, incarnation: str, recovery: int) -> bool:
        """R13a: whether a data directory with this id, written after this recovery, is of the present history.

        Exactly this recovery: one of another number, also of a higher one, was made by others from the same past.
        """
        return recovery == self.recovery.number or (incarnation != "" and incarnation in self.recovery.kept.values())

    @property
    def has_source(self) -> bool:
        """Whether the appointed primary is open, on the data that was appointed, so that WAL may come from there.

        R13a: one whose data was not kept may run on, in another history.
        """
        held = self.appointment
        member = self.members.get(held.node) if held is not None else None
        return held is not None and held.opened and member is not None and member.incarnation == held.incarnation

    def running_operation(self) -> Operation | None:
        """The switchover or failover under way; there is at most one."""
        return next((o for o in self.operations if not o.phase.ended), None)
