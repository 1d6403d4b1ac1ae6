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
    CONTESTED = "contested"
    """an election was opened while it was held (R9): it is confirmed no more, and its holder stops when it hears of
    that; until then it may still be writable, and can get no commit acknowledged"""


UNENDED = frozenset({LeaseStatus.HELD, LeaseStatus.CONTESTED})
"""While the last primary may be writable."""


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
    leaving: bool = False
    """it is to be removed, and no new synchronous set names it; those that do have to be replaced first (R13)"""


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


@dataclass(frozen=True, slots=True, order=True)
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
    at: str = ""
    """when it opened, by the wall clock of the proposer; for people, no rule reads it"""


@dataclass(frozen=True, slots=True)
class SyncSet:
    """What a commit waits for before it is acknowledged: `k` of `members`."""

    k: int = 0
    """0: nobody, so that the primary alone has every acknowledged commit"""
    members: frozenset[str] = frozenset()
    order: tuple[str, ...] = ()
    """by priority, the same names (mode `on`, FIRST); empty: any of them (mode `quorum`, ANY)"""
    asynchronous: bool = False
    """the operator wants no commit to wait, and accepts what R10 may lose"""
    blocked: bool = False
    """there is nobody, and commits wait all the same until somebody comes (strict mode)"""
    failsafe: bool = False
    """without a quorum the primary may go on as long as all members promise not to vote (R16)"""


ASYNCHRONOUS = SyncSet(asynchronous=True)
BLOCKED = SyncSet(blocked=True)


@dataclass(frozen=True, slots=True)
class SyncVersion:
    """One version of the synchronous set; the list has a second entry while a change is joint (R8)."""

    version: int
    epoch: int
    wanted: SyncSet


@dataclass(frozen=True, slots=True)
class Grounds:
    """What the votes of an election are judged by (R7), as of one appointment."""

    node: str
    """who was appointed: it has every acknowledged commit, on this data directory"""
    incarnation: str
    sync: tuple[SyncVersion, ...] = ()
    holders: frozenset[str] = frozenset()
    """who else had everything when it was appointed (R7a)"""


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
    before: tuple[Grounds, ...] = ()
    """what sufficed until this appointment, and until the ones before it that were not finalised either, the last one
    first; empty once its own synchronous set is finalised (R7a)"""


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
class AcceptedLoss:
    """What a person was shown and accepted with `failover --allow-data-loss`: no more than this may be lost."""

    candidate: Position
    """of the one that was named: it has this at least"""
    known: Position
    """the furthest that anybody was known to be: nothing beyond it comes to light"""
    stopped: str = ""
    """the last primary, if the person states that it runs no more (R16); empty: they say nothing of it"""


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
    accepted: AcceptedLoss | None = None
    """with `allow_data_loss`, and only then"""


class Change(StrEnum):
    """Why the primary changed, for `history`."""

    BOOTSTRAP = "bootstrap"
    FAILOVER = "failover"
    SWITCHOVER = "switchover"
    REAPPOINTED = "reappointed"


@dataclass(frozen=True, slots=True)
class Lost:
    """What an appointment gave up because a person had accepted it, as far as it was known."""

    known: Position
    """the furthest that anybody was known to be"""
    known_at: str
    """when the lost primary had reported that, wall clock; empty: it comes from a vote, or nobody knows.
    What it acknowledged later is lost as well, and in no number"""
    bytes: int | None
    """of WAL that the new primary lacks; None: nobody knows where the two histories parted"""
    refusal: str
    """code of the rule that was in the way"""
    requester: str
    operation: str
    reason: str
    """the person's own words"""
    stopped: str = ""
    """the last primary, if the person stated that it runs no more (R16)"""


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
    start: Position | None = None
    """of the winning vote; None: there was no election"""
    votes: Mapping[str, Position] = field(default_factory=dict)
    """who had voted, with what"""
    election_at: str = ""
    """when the election had opened; wall clocks of the raft leader here and in `at`"""
    opened_at: str = ""
    """when the new primary had opened, by its own wall clock"""
    lost: Lost | None = None
    """None: nothing that was acknowledged, by the rules"""


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
    """the newest last; one or two once the cluster is initialised (R8)"""
    timelines: tuple[Timeline, ...] = ()
    last_known: Position | None = None
    """last position known of the appointed primary (R10); a few seconds old while it runs"""
    last_known_at: str = ""
    """when it had reported that, wall clock, for people; empty: not known"""
    lease_over: str = ""
    """why the lease of the last appointment is over, in words; empty while it is held"""
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
        """Whether every acknowledged commit is where R7 looks for it. With an asynchronous set listed R10 decides."""
        return bool(self.sync) and not any(listed.wanted.asynchronous for listed in self.sync)

    @property
    def sync_now(self) -> SyncVersion:
        """The newest: what the primary is to load."""
        return self.sync[-1] if self.sync else SyncVersion(0, 0, ASYNCHRONOUS)

    @property
    def settled(self) -> bool:
        """Whether the newest synchronous set is finalised: it stands alone, and R7a asks for nothing more."""
        return len(self.sync) <= 1 and (self.appointment is None or not self.appointment.before)

    @property
    def grounds(self) -> tuple[Grounds, ...]:
        """What the votes of an election are judged by now, then what was before; empty: there was no primary."""
        held = self.appointment
        if held is None:
            return ()
        return (Grounds(held.node, held.incarnation, self.sync, held.holders), *held.before)

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
