"""What a node sees of itself, and what it tells the raft leader. Frozen values; durations, never instants.

`None` means unknown, never "no": a question without an answer in time.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from appliance.cluster.state import Member, Position, Vote


class DirectoryKind(StrEnum):
    MISSING = "missing"
    EMPTY = "empty"
    CLUSTER = "cluster"
    FOREIGN = "foreign"
    """not empty and no PostgreSQL data directory: never touched"""


@dataclass(frozen=True, slots=True)
class DirectorySeen:
    """The data directory on disk, whether or not a postmaster runs in it."""

    kind: DirectoryKind
    system_identifier: str = ""
    timeline: int = 0
    """of the last checkpoint"""
    shut_down: bool = False
    """cleanly: as a primary (then `checkpoint_lsn` ends its WAL) or in recovery"""
    was_primary: bool = False
    """the control file was last written by a primary"""
    checkpoint_lsn: int = 0
    standby_signal: bool = False
    """it starts, or runs, as a standby"""
    incarnation: str = ""
    recovery: int = 0
    """number of the recovery after which it was written (R13a)"""
    problem: str = ""
    """why it cannot be used: another major version, unreadable"""
    stray_pid: int = 0
    """a postmaster that runs in it without a guard: nobody could fence it (R4); 0 for none"""


@dataclass(frozen=True, slots=True)
class InstanceSeen:
    """An answer of the running PostgreSQL to one query."""

    in_recovery: bool
    timeline: int
    lsn: int
    """primary: flushed; standby: the later of received and replayed"""
    received_lsn: int
    replayed_lsn: int
    receiver_running: bool
    upstream: str
    """host:port in primary_conninfo, empty for none"""
    checkpoint_timeline: int
    slots: frozenset[str] = frozenset()
    streaming: bool = False
    replay_waits: bool = True
    """recovery waits for more WAL: all that is on this disk has been replayed"""
    pending_restart: bool = False
    idle_slots: frozenset[str] = frozenset()
    """physical slots that nobody streams through"""
    lost_slots: frozenset[str] = frozenset()
    """idle slots whose WAL is gone: PostgreSQL 18 refuses a standby that names one"""
    oldest_lsn: int = 0
    """a primary with an idle slot: where the WAL on its disk begins; 0: not looked at"""


@dataclass(frozen=True, slots=True)
class PostmasterSeen:
    age_s: float


@dataclass(frozen=True, slots=True)
class FailedStart:
    """PostgreSQL ended by itself before it answered, or was not started at all."""

    seconds: float
    """since it ended"""
    in_a_row: int
    error: str
    """the reason in words, its own if it has any; empty where its log has none"""


@dataclass(frozen=True, slots=True)
class FailedCheckpoint:
    """The last checkpoint that this node asked for."""

    seconds: float
    """since it failed"""
    error: str


@dataclass(frozen=True, slots=True)
class JobSeen:
    """Long work as a child process: initialise, clone or rewind."""

    kind: str
    running: bool
    failed: bool
    seconds: float
    """since it began, or since it ended when it runs no more"""
    took_s: float = 0.0
    """from beginning to end, or until now"""
    phase: str = ""
    done_bytes: int | None = None
    total_bytes: int | None = None
    error: str = ""
    needs_clone: bool = False
    source_away: bool = False
    """it failed because its source gave no answer"""


@dataclass(frozen=True, slots=True)
class Notes:
    """What this node must not forget over a restart; on disk, outside the data directory."""

    epoch: int = 0
    """highest epoch whose appointment it obeyed (R5)"""
    pledge: int = 0
    """highest election it pledged itself to (R6)"""
    fenced_epoch: int = 0
    """highest epoch it was fenced in, or gave back: it never resumes that one (R4)"""
    needs_clone: bool = False
    """a rewind failed or left the directory unusable, or the WAL that it needs is gone (R15)"""
    rewinds_failed: int = 0
    """in a row, without having touched the directory"""
    recovery: int = 0
    """number of the recovery after which they began (R13a): those of another one are not believed"""


@dataclass(frozen=True, slots=True)
class LeaseSeen:
    epoch: int
    left_s: float


@dataclass(frozen=True, slots=True)
class Observation:
    me: Member
    """this node as it announces itself"""
    directory: DirectorySeen
    notes: Notes
    lease: LeaseSeen | None
    postmaster: PostmasterSeen | None
    """as the guard says"""
    instance: InstanceSeen | None
    """None: not running, starting, or no answer in time"""
    job: JobSeen | None = None
    failed_start: FailedStart | None = None
    """the last start, when it failed"""
    answer_age_s: float = 0.0
    """since PostgreSQL last answered a look, or since the node process began, or since the cluster has data"""
    stopping_s: float | None = None
    """since a stop was signalled; None when none is under way"""
    promoting_s: float | None = None
    """since a promotion was signalled"""
    wall_time: str = ""
    """RFC 3339; goes into commands for people, no rule reads it"""
    contact_s: float | None = None
    """age of the last proof of contact with a quorum; None: none yet"""
    switch: Mapping[int, Position] = field(default_factory=dict)
    """from this node's history file of each timeline: where its parent ended"""
    checkpointing: bool = False
    checkpointed_operation: str = ""
    """the operation before whose stop a checkpoint was made"""
    failed_checkpoint: FailedCheckpoint | None = None
    """the last one, when it failed"""
    replaced_kept_s: float | None = None
    """how long the directory that a clone replaced has been kept; None: there is none (R12)"""
    settings_changed: bool = False
    """the configuration's rendering differs from the files that PostgreSQL reads"""
    source_oldest_lsn: int = 0
    """where the WAL of the open primary begins, as it reported; 0: it did not say"""
    log_incarnation: int = 0
    """of the group that this replica belongs to: the state is to hold the recovery of this number (R13a)"""


@dataclass(frozen=True, slots=True)
class CertificateSeen:
    """A node's own certificate, as it looked at it last."""

    expires_at: str
    """UTC; empty when it cannot be read"""
    problem: str = ""
    usable: bool = True
    """False: the other members do not accept it"""
    issuer: str = ""
    """the authority that has signed it; empty when that cannot be read"""
    trusts: tuple[str, ...] = ()
    """the authorities whose certificates this node accepts"""


@dataclass(frozen=True, slots=True)
class Report:
    """What a node tells the raft leader, at every renewal and at once when something changed. Never logged."""

    node: str
    incarnation: str
    notes: Notes
    directory: DirectoryKind
    running: bool
    """a postmaster runs"""
    in_recovery: bool | None
    timeline: int
    lsn: int
    received_lsn: int
    replayed_lsn: int
    streaming: bool
    status: str
    """running, starting, stopped, creating replica …, as Patroni's `state` says it"""
    doing: str
    """the present decision in words"""
    vote: Vote | None = None
    renew_epoch: int | None = None
    """it holds, or wants, the lease of this epoch"""
    checkpointed_operation: str = ""
    progress: str = ""
    postmaster_start: str = ""
    server_version: int = 0
    pending_restart: bool = False
    version: str = ""
    oldest_lsn: int = 0
    """a primary that a member does not stream from: where the WAL on its disk begins"""
    certificate: CertificateSeen | None = None
    """None without TLS"""
    format: int = 0
    """the highest format of log and state that it knows; 0: it is from before there were any"""


@dataclass(frozen=True, slots=True)
class ReportSeen:
    report: Report
    age_s: float
    """since the raft leader received it"""


@dataclass(frozen=True, slots=True)
class LeaderSeen:
    """What the raft leader knows besides the state and the reports: ages on its own clock."""

    leading_s: float
    confirmed_s: float | None
    """since it last confirmed a renewal of the present epoch in this term; None: never in this term"""
    epoch_s: float = 0.0
    """since it first saw the present epoch"""
    election_s: float = 0.0
    """since it first saw the open election"""
    phase_s: float = 0.0
    """since it first saw the running operation in its phase"""
    noted_s: float = 1e9
    """since it last proposed a position"""
    replicas: frozenset[str] = frozenset()
    """all that belong to consensus, with a vote or without, announced or not"""
    log_incarnation: int = 0
    """of the group that it leads (R13a)"""
