"""The seam between the node and its API: one published value to read, one door for requests.

Health answers come from `Published` only; nothing here waits for SQL, for consensus or for a lock.
"""

from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Literal, Protocol

from appliance.api.raft_view import RaftView
from appliance.cluster.config import Policy
from appliance.cluster.state import AcceptedLoss, ClusterState, NodeRole
from appliance.ha.candidates import Prospect
from appliance.ha.checks import Check
from appliance.ha.membership import ReplicaRole
from appliance.ha.seen import Observation, Report, ReportSeen


@dataclass(frozen=True, slots=True)
class ReplicaSeen:
    """A member of consensus."""

    role: ReplicaRole
    """voter, learner, or joining: a voter as soon as it has caught up"""
    address: str


@dataclass(frozen=True, slots=True)
class RaftSeen:
    """This node's replica."""

    role: str
    """leader, follower or candidate"""
    leader: str | None
    term: int
    index: int
    """applied"""
    log_entries: int = 0
    log_bytes: int = 0
    members: Mapping[str, ReplicaSeen] = field(default_factory=dict)
    """everybody that the log is for; empty before the group exists"""
    peers: Mapping[str, bool] = field(default_factory=dict)
    """connected or not, as seen from here"""
    refusals: Mapping[str, str] = field(default_factory=dict)
    """why a peer is refused: another cluster name, a name used twice"""
    away: Mapping[str, str] = field(default_factory=dict)
    """why there is no connection to a peer"""
    votes: bool = True
    """the others count it as a voter"""
    commit_index: int = 0
    last_index: int = 0
    fsync_count: int = 0
    fsync_total_s: float = 0.0
    fsync_longest_s: float = 0.0
    tick_late_longest_s: float = 0.0
    """of the last minute"""
    ticks_late: int = 0
    """by more than 100 ms, since the start"""
    refused: Mapping[str, int] = field(default_factory=dict)
    """how many connections were not let in, or not kept, by reason"""
    certificate_expires_s: float | None = None
    """seconds since 1970; None without TLS, or when it cannot be read"""
    removed_by: tuple[str, ...] = ()
    """by whose word this node was removed: a majority of the other voters that it knows of; else empty"""


@dataclass(frozen=True, slots=True)
class WalSenderSeen:
    """One row of pg_stat_replication, as `/patroni` shows it."""

    usename: str
    application_name: str
    client_addr: str
    state: str
    sync_state: str
    sync_priority: int


@dataclass(frozen=True, slots=True)
class Published:
    """Everything this node knows at one moment; the control loop replaces it, anybody reads it."""

    node: str
    cluster: str
    version: str
    taken_s: float
    """CLOCK_BOOTTIME when it was taken: readers subtract its age from every duration in it"""
    wall_time: float
    state: ClusterState
    policy: Policy
    seen: Observation
    report: Report
    reports: Mapping[str, ReportSeen]
    """of all members, as the raft leader last passed them on; ages as of `taken_s`"""
    raft: RaftSeen
    rule: str
    doing: str
    """the present decision in words"""
    coordinating: str = ""
    """what this node does as raft leader, in words; empty on the others"""
    leader_says: str = ""
    """the same of whoever leads, as it told this node with its last answer"""
    waiting_for: str = ""
    """what start-up waits for, in words: unreachable peers, bootstrap"""
    walsenders: tuple[WalSenderSeen, ...] = ()
    replay_timestamp: str | None = None
    """of the last replayed commit, the primary's clock; None on a primary and before the first"""
    replay_paused: bool = False
    last_renewal_s: float | None = None
    """age of the last confirmed renewal or report round trip to the raft leader, as of `taken_s`"""


@dataclass(frozen=True, slots=True)
class OperatorRequest:
    """What an operator asked for, as it travels to the raft leader."""

    kind: Literal["bootstrap", "switchover", "failover", "remove", "raft_transfer", "config"]
    id: str
    """operation id and idempotency key"""
    requester: str
    reason: str = ""
    target: str = ""
    expected_primary: str = ""
    """Patroni's `leader`: refuse if somebody else is primary"""
    dry_run: bool = False
    allow_data_loss: bool = False
    force: bool = False
    """remove: also a member that runs"""
    cluster: str = ""
    """the cluster's name, as whoever accepts a loss has typed it"""
    accepts: AcceptedLoss | None = None
    """what was shown to them; None: what is known when the request arrives"""
    patch: Mapping[str, object] = field(default_factory=dict)
    """config: what changes in the document (RFC 7386)"""
    version: int | None = None
    """config: refuse unless this version is current"""


@dataclass(frozen=True, slots=True)
class InviteRequest:
    """One node shall be able to join: the answer's message is the token."""

    id: str
    requester: str
    member: str
    role: NodeRole
    valid_for_s: float


@dataclass(frozen=True, slots=True)
class OperatorAnswer:
    """accepted: follow the operation `id`; refused: nothing changed; unknown: it may still happen."""

    outcome: Literal["accepted", "refused", "unknown", "no_quorum"]
    id: str = ""
    code: str = ""
    message: str = ""
    hint: str = ""
    checks: tuple[Check, ...] = ()
    prospect: Prospect | None = None
    """of a failover that may lose data"""


class Gateway(Protocol):
    """What the API needs of its node."""

    def published(self) -> Published: ...

    def submit(self, request: OperatorRequest | InviteRequest, limit_s: float) -> Future[OperatorAnswer]:
        """Forward to the raft leader; the future always completes within about `limit_s`."""
        ...

    def raft(self) -> RaftView:
        """This node's replica as it is now. Waits for nothing."""
        ...

    def now_s(self) -> float:
        """CLOCK_BOOTTIME."""
        ...
