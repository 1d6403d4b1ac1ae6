"""What `GET /api/v1/raft` says: this node's replica and what it knows of the others. For people, not for decisions."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RaftMember:
    name: str
    role: str
    """voter, learner, or joining: a voter once it has caught up"""
    replica_id: str
    """drawn with its journal: a node with another journal is another replica"""
    address: str
    leads: bool
    connected: bool | None
    """as seen from here; None for this node itself"""
    match_index: int | None
    """the last entry that it is known to have on disk; None unless this node leads"""
    lag: int | None
    """entries behind this node's log; None unless this node leads"""
    problem: str | None
    """why there is no connection"""
    refused_us: str | None
    """why it would not talk to this node, in its own words, when it was reached last"""
    refused_us_age_s: float | None


@dataclass(frozen=True, slots=True)
class Fsyncs:
    count: int
    last_s: float
    longest_s: float


@dataclass(frozen=True, slots=True)
class RaftCertificate:
    expires_at: str | None
    problem: str | None


@dataclass(frozen=True, slots=True)
class RaftView:
    node: str
    cluster: str
    cluster_id: str
    """empty until it belongs to a group"""
    incarnation: int
    """rises with `appliance raft recover`"""
    replica_id: str
    role: str
    votes: bool
    """whether the members count this replica as a voter"""
    term: int
    leader: str | None
    commit_index: int
    applied_index: int
    first_index: int
    last_index: int
    log_bytes: int
    fsyncs: Fsyncs
    tick_late_s: float
    """how late the last tick of the raft thread was"""
    tick_late_longest_s: float
    """of the last minute"""
    failure: str | None
    members: tuple[RaftMember, ...]
    refusals: Mapping[str, int]
    """connections that were not let in or not kept since the start, by reason"""
    certificate: RaftCertificate | None
    """None without TLS"""
    removed_by: tuple[str, ...]
    """members by whose word this node belongs to the group no more; empty unless they are a majority of the others"""
