"""A durable Raft replica of any deterministic state machine, on a pinned and mended PySyncObj.

Everything a user needs is named here; the other modules are this package's own.
"""

from raft.api import (
    COMMAND_LIMIT_BYTES,
    Applied,
    DirectoryInUse,
    Event,
    Failed,
    JournalDamaged,
    LeaderChanged,
    ListenError,
    Machine,
    MembersChanged,
    Outcome,
    PeerRefused,
    PeerStatus,
    PeerUnreachable,
    Refused,
    ReplicaConfig,
    ReplicaError,
    ReplicaFailed,
    ReplicaStatus,
    RequestTimeout,
    Role,
    StateApplied,
    Unknown,
    Verdict,
    View,
)
from raft.members import Introduction, Member, Members
from raft.recover import Copy, begin_anew, furthest, read_copy
from raft.replica import Replica
from raft.tls import Tls

__all__ = [
    "COMMAND_LIMIT_BYTES",
    "Applied",
    "Copy",
    "DirectoryInUse",
    "Event",
    "Failed",
    "Introduction",
    "JournalDamaged",
    "LeaderChanged",
    "ListenError",
    "Machine",
    "Member",
    "Members",
    "MembersChanged",
    "Outcome",
    "PeerRefused",
    "PeerStatus",
    "PeerUnreachable",
    "Refused",
    "Replica",
    "ReplicaConfig",
    "ReplicaError",
    "ReplicaFailed",
    "ReplicaStatus",
    "RequestTimeout",
    "Role",
    "StateApplied",
    "Tls",
    "Unknown",
    "Verdict",
    "View",
    "begin_anew",
    "furthest",
    "read_copy",
]
