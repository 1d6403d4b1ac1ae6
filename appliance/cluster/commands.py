"""The closed union of commands: everything that can change the agreed state.

A command carries every id, time and random value it needs, so `apply` is the same on every node. Each one
names what its proposer believed (epoch, election, version), and `apply` refuses it when that is no longer so.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from appliance.cluster.state import AcceptedLoss, JoinToken, Member, OperationKind, Phase, Position, SyncSet, Vote


@dataclass(frozen=True, slots=True)
class Announce:
    """A node makes itself known, or changes its addresses, tags or role."""

    member: Member


@dataclass(frozen=True, slots=True)
class RemoveMember:
    """It is no member any more; the raft leader takes its replica out of consensus after that.

    One for whom commits wait is only marked: it leaves when no synchronous set names it any more (R13).
    """

    node: str


@dataclass(frozen=True, slots=True)
class BeginBootstrap:
    """Choose the one node that may run initdb, and store the first configuration."""

    cluster: str
    node: str
    document: Mapping[str, object]
    operation: str = ""
    """id of the request, by which whoever asked recognises a failure"""


@dataclass(frozen=True, slots=True)
class AbandonBootstrap:
    """The chosen node gives up before anything was opened; another bootstrap may begin."""

    node: str
    reason: str


@dataclass(frozen=True, slots=True)
class FinishBootstrap:
    """The new data directory exists: it becomes epoch 1 on timeline 1."""

    node: str
    system_identifier: str
    incarnation: str
    position: Position
    at: str


@dataclass(frozen=True, slots=True)
class Depose:
    """The raft leader confirmed no renewal of `epoch` for a full ttl (R3)."""

    epoch: int
    reason: str


@dataclass(frozen=True, slots=True)
class Release:
    """The holder of `epoch` gives its lease back after it stopped PostgreSQL (R11) or was fenced (R4)."""

    epoch: int
    node: str
    reason: str
    position: Position | None = None
    """true end of its WAL after a clean shutdown; None when it is not known"""


@dataclass(frozen=True, slots=True)
class OpenElection:
    number: int
    epoch: int
    """the epoch it follows"""
    reason: str
    target: str = ""
    last_known: Position | None = None
    """the coordinator's last report from the primary, if newer than the state's"""
    last_known_at: str = ""
    at: str = ""


@dataclass(frozen=True, slots=True)
class Appoint:
    """Make `node` the primary of epoch `election`. `apply` evaluates R7 and R10 on `votes`."""

    election: int
    node: str
    votes: tuple[Vote, ...]
    timeline: int
    wanted: SyncSet
    """what its commits will wait for, from the first one on (R7a)"""
    reason: str
    at: str


@dataclass(frozen=True, slots=True)
class Promoted:
    """The appointed node opened on its timeline; its parent ended at `switch_lsn` (R14)."""

    epoch: int
    node: str
    timeline: int
    parent: int
    switch_lsn: int
    at: str = ""


@dataclass(frozen=True, slots=True)
class ChangeSync:
    """Let commits wait for another set from now on; joint with what is listed until it is finalised (R8)."""

    epoch: int
    version: int
    """the next one"""
    wanted: SyncSet


@dataclass(frozen=True, slots=True)
class FinaliseSync:
    """The primary of `epoch` has seen that every commit now waits for this version's set, and that its members have
    all that was acknowledged before (R8, a to d): it stands alone from here on."""

    epoch: int
    version: int


@dataclass(frozen=True, slots=True)
class NotePosition:
    """The primary's position every few seconds, for R10's bound."""

    epoch: int
    position: Position
    at: str = ""
    """when it reported that, wall clock"""


@dataclass(frozen=True, slots=True)
class Rebuild:
    """`node` is about to rewind, clone or empty its data directory (R13)."""

    node: str


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """`node` has a complete data directory again, a new incarnation (R13)."""

    node: str
    incarnation: str


@dataclass(frozen=True, slots=True)
class Recovered:
    """A majority was lost for good, and the cluster goes on from one that is left (R13a).

    Written by `raft recover` together with the new incarnation of the log: whatever follows it in a log, and every
    replica of that incarnation, knows it.
    """

    number: int
    kept: Mapping[str, str]
    """member to the id of its data directory"""


@dataclass(frozen=True, slots=True)
class SetConfig:
    expected_version: int
    document: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class StartOperation:
    id: str
    kind: OperationKind
    requester: str
    reason: str
    target: str
    epoch: int
    at: str
    allow_data_loss: bool = False
    accepted: AcceptedLoss | None = None
    """what the person who asks was shown"""


@dataclass(frozen=True, slots=True)
class AdvanceOperation:
    id: str
    phase: Phase
    at: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class IssueToken:
    """An operator lets a node join."""

    token: JoinToken
    now_unix_s: float


@dataclass(frozen=True, slots=True)
class UseToken:
    """A node comes with a token's secret, and the key that its certificate will be for."""

    id: str
    digest: str
    member: str
    key: str
    now_unix_s: float


@dataclass(frozen=True, slots=True)
class RevokeToken:
    id: str


@dataclass(frozen=True, slots=True)
class RaiseFormat:
    """Every member knows this format: its commands may be used from here on. Who does not know it ends here."""

    format: int


Command = (
    Announce
    | RemoveMember
    | BeginBootstrap
    | AbandonBootstrap
    | FinishBootstrap
    | Depose
    | Release
    | OpenElection
    | Appoint
    | Promoted
    | ChangeSync
    | FinaliseSync
    | NotePosition
    | Rebuild
    | Rebuilt
    | Recovered
    | SetConfig
    | StartOperation
    | AdvanceOperation
    | IssueToken
    | UseToken
    | RevokeToken
    | RaiseFormat
)
