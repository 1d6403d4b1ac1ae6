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
    min_recovery_lsn: int = 0
    """a standby's, or a copy's that is not consistent yet: its pages may need the WAL up to here"""
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
class SenderSeen:
    """A walsender of this PostgreSQL that serves a member."""

    member: str
    flushed_lsn: int
    """what the member has said that it has on disk"""
    streaming: bool
    """it has caught up once"""


@dataclass(frozen=True, slots=True)
class SyncProgress:
    """How far the newest synchronous set has been followed on its way into force (R8); begins anew with the node
    process."""

    version: int = 0
    """a new connection has shown that this one is loaded"""
    checkpointed: bool = False
    """a checkpoint that was asked for after that has ended"""
    first_lsn: int | None = None
    """end of WAL that was written after that"""
    second_lsn: int | None = None
    """end of WAL when every walsender had acknowledged the first"""


NO_PROGRESS = SyncProgress()


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
    senders: tuple[SenderSeen, ...] = ()
    sync_version: int = 0
    """of the synchronous set that it has loaded; 0: that of a PostgreSQL which is not to be primary"""
    refuses_writes: bool = False
    """it has loaded that transactions are read-only unless they ask for more: the disk is about to be full"""
    admits: bool = True
    """it has loaded that applications are let in (R5a)"""
    silent_s: float = 0.0
    """a standby: since it last streamed, or since it has its present source if that came later"""
    histories: frozenset[int] = frozenset()
    """a standby that has been silent for SILENT_LIMIT_S: the timelines above its own of which its PostgreSQL has a
    history that is no placeholder"""


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
class PlaceSeen:
    """A directory that PostgreSQL writes to, as the probe of it says."""

    stalled_s: float = 0.0
    """since the first write began that has not succeeded yet; 0: the last one did, or none is tried"""
    error: str = ""
    """of the last one that ended, in words"""
    free_bytes: int | None = None
    """what PostgreSQL's user may still write; None: not known"""
    total_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class StorageSeen:
    """What this node's PostgreSQL lives on."""

    data: PlaceSeen
    wal: PlaceSeen | None = None
    """None: in the file system of the data directory"""
    door_stalled_s: float = 0.0
    """since the first connection began that the postmaster has not taken up yet"""


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
    sync_version: int = 0
    """highest version of a synchronous set that it let PostgreSQL load: a lower one is never loaded again (R8, T8)"""
    promised_epoch: int = 0
    """highest epoch to whose primary it promised not to vote (R16)"""
    promised_s: float = 0.0
    """for how long, counted from the last promise, or from the start of its process if that came later"""


@dataclass(frozen=True, slots=True)
class WatchdogSeen:
    """The device that resets the host when its guard cannot end PostgreSQL in time (R4)."""

    device: str
    required: bool
    """without it this node is not made primary"""
    armed_s: int | None = None
    """its timeout; None: it does not run"""
    problem: str = ""
    """why it could not be armed, or is not fed; empty: nothing is known to stand in the way"""

    @property
    def keeps_from_promotion(self) -> bool:
        return self.required and bool(self.problem)


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
    shut_down_s: float | None = None
    """since all of its WAL is written, by its control file, and the postmaster waits only for others to take it"""
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
    told_upstream: str | None = None
    """host:port that PostgreSQL was last told to take WAL from, empty for none; None: not in this process's life"""
    settings_changed: bool = False
    """the configuration's rendering differs from the files that PostgreSQL reads"""
    source_oldest_lsn: int = 0
    """where the WAL of the open primary begins, as it reported; 0: it did not say"""
    sync: SyncProgress = NO_PROGRESS
    admitted: bool = True
    """whether PostgreSQL, when it last answered, let applications in"""
    opened_lsn: int | None = None
    """end of WAL at the first look at which this postmaster was a primary: all that nobody waited for ends there (R5a);
    None: it is none"""
    log_incarnation: int = 0
    """of the group that this replica belongs to: the state is to hold the recovery of this number (R13a)"""
    watchdog: WatchdogSeen | None = None
    """None: none is asked for"""
    storage: StorageSeen | None = None
    """None: not known yet, or a witness"""
    successors: frozenset[str] = frozenset()
    """the members that could take over from this node as primary now, by their reports"""
    promised_left_s: float = 0.0
    """how long this node does not vote, because it promised so (R16)"""
    vouched_by: frozenset[str] | None = None
    """by whose promises this node's lease was renewed the last time (R16); None: by the raft leader"""


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
    senders: tuple[SenderSeen, ...] = ()
    """of a primary"""
    wants_rebuild: bool = False
    """its data directory has to be made anew: it leaves the synchronous set first (R13)"""
    storage: StorageSeen | None = None
    objection: str = ""
    """what of its node.yml the cluster does not take, in words: it goes on as it was known"""
    format: int = 0
    """the highest format of log and state that it knows; 0: it is from before there were any"""
    watchdog: WatchdogSeen | None = None
    """None: none is asked for"""
    ending: bool = False
    """the node is about to end with its PostgreSQL: nobody is to wait for it, and it does not become primary"""
    restarting: bool = False
    """the node process was told to end and leaves PostgreSQL to the next one, which comes as a rule"""
    gate: str = ""
    """what a primary waits for before it lets applications in, in words; empty: it does, or is none (R5a)"""


@dataclass(frozen=True, slots=True)
class ClockReading:
    """What a host's clocks said when a message left it."""

    boot_s: float
    """CLOCK_BOOTTIME"""
    wall_s: float
    """since 1970"""
    boot: str
    """which boot of the host it counts from"""


@dataclass(frozen=True, slots=True)
class ClockSeen:
    """A member's clocks against those of the members together (appliance/ha/clocks.py)."""

    wall_ahead_s: float
    drift: float | None = None
    """how much faster it runs, as a share of one; None: not known yet"""


@dataclass(frozen=True, slots=True)
class ReportSeen:
    report: Report
    age_s: float
    """since the raft leader received it"""
    clock: ClockSeen | None = None
    """as the raft leader found it; None: not known"""


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
    away_s: Mapping[str, float] = field(default_factory=dict)
    """of each member that the primary reports no walsender of, or one that has got nothing confirmed although there is
    more: for how long"""
    replicas: frozenset[str] = frozenset()
    """all that belong to consensus, with a vote or without, announced or not"""
    log_incarnation: int = 0
    """of the group that it leads (R13a)"""
