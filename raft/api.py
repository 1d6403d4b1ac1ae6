"""What users of a replica see: frozen values, a protocol for the state machine, and the errors.

Nothing here knows PySyncObj, sockets or files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Generic, Literal, Protocol, TypeAlias, TypeVar

from raft.members import Members
from raft.refusals import Reason

if TYPE_CHECKING:
    from raft.tls import CertificateStatus, Tls

S = TypeVar("S")

COMMAND_LIMIT_BYTES = 1024 * 1024
"""A larger command is refused before it enters the log: one log message must hold it whole."""


class ReplicaError(Exception):
    """A replica cannot begin or go on; the message names what is wrong and what would do."""


class ListenError(ReplicaError):
    """The port cannot be opened: taken, or not of this host."""


class DirectoryInUse(ReplicaError):  # noqa: N818  the interface's names read as facts
    """Another process works in this directory."""


class JournalDamaged(ReplicaError):  # noqa: N818
    """The journal is damaged before its last batch, so acknowledged entries may be lost."""


class ReplicaFailed(ReplicaError):  # noqa: N818
    """The replica ended itself (fail-stop): going on could break a promise."""


class NewerVersionNeeded(Exception):  # noqa: N818
    """What is here was written by a newer version, and this one must not go on past it. Raised by a `Machine`.

    Its words go on from the entry or the snapshot: `holds …: install the newer version on this host`.
    """


class PeerUnreachable(ReplicaError):  # noqa: N818
    """A request got no answer because there is no connection to the peer."""


class RequestTimeout(ReplicaError):  # noqa: N818
    """A request got no answer in time; the peer may have acted on it."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the state machine said about a command it was given."""

    refused: str | None = None
    """None: applied. Otherwise why not, in words."""


class Machine(Protocol[S]):
    """A pure and total state machine: no clock, no I/O, no randomness, equal on every replica."""

    def initial(self) -> S: ...

    def objection(self, state: S, command: bytes) -> str | None:
        """Why this command should not enter the log as things are, or None: asked where it is proposed, and of the
        leader, so that what the leader does not know stays out. `apply` decides again at the command's place in the
        log. It may raise NewerVersionNeeded too.
        """
        ...

    def apply(self, state: S, command: bytes) -> tuple[S, Verdict]:
        """Answer the next state. Must not raise; if it does, the command counts as refused.

        But for NewerVersionNeeded: other versions may make something else of this command. The replica ends before it.
        """
        ...

    def dump(self, state: S) -> bytes:
        """A state as bytes, for snapshots; equal states may have different bytes."""
        ...

    def load(self, dumped: bytes) -> S:
        """The state that was dumped, also by another version that wrote a format this one knows.

        Else ValueError, or NewerVersionNeeded.
        """
        ...


@dataclass(frozen=True, slots=True)
class Applied:
    """Committed, and applied on this replica: `view()` shows it from now on."""

    index: int


@dataclass(frozen=True, slots=True)
class Refused:
    """Not applied, and never will be under this submission."""

    reason: str
    index: int | None
    """Where the state machine refused it; None when it never entered the log."""


@dataclass(frozen=True, slots=True)
class Unknown:
    """May still commit: look before trying again (with the same command id it is safe)."""

    reason: str


Outcome: TypeAlias = Applied | Refused | Unknown


@dataclass(frozen=True, slots=True)
class View(Generic[S]):
    """What this replica knows, as one immutable value. Times are CLOCK_BOOTTIME of this host."""

    state: S
    index: int
    """Log index up to which `state` has been applied."""
    term: int
    leader: str | None
    is_leader: bool
    leading_since_s: float | None
    """When this replica became leader of `term`; None when it is not leader."""
    contact_s: float | None
    """Last proof of contact with a majority; None before the first.

    As leader: a majority has answered messages that were sent at or after this time. As follower:
    the last message of the leader arrived then.
    """


@dataclass(frozen=True, slots=True)
class ReplicaConfig:
    """Who this replica is, who the others are, and its timings."""

    cluster: str
    name: str
    directory: Path
    listen: str
    """host:port; an empty host, or `*`, is every address."""
    members: Mapping[str, str]
    """Name to advertised host:port of those that found the group, this one included.

    Once the group knows its members, only this replica's own address counts, and the others' where they are not found
    at the addresses that the members say.
    """
    election_min_s: float = 0.5
    election_max_s: float = 1.0
    heartbeat_s: float = 0.1
    compact_entries: int = 4096
    """So many entries after a snapshot call for the next one."""
    keep_entries: int = 1024
    """Kept before the snapshot at most."""
    tls: Tls | None = None
    """None: everything between members is in the clear, and whoever reaches the port is believed."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What the consensus of one replica is made with; times in seconds of its own clock."""

    name: str
    addresses: Mapping[str, str]
    """Name to address of those that found the group; once it exists, what this replica says of its own."""
    election_min_s: float = 0.5
    election_max_s: float = 1.0
    heartbeat_s: float = 0.1
    compact_entries: int = 4096
    """So many entries after a snapshot, or `compact_bytes` of journal, call for the next one."""
    compact_bytes: int = 8 * 1024 * 1024
    keep_entries: int = 1024
    """Kept before the snapshot at most, so that a follower that lags a little needs no snapshot."""
    batch_bytes: int = COMMAND_LIMIT_BYTES
    part_bytes: int = 256 * 1024


Role: TypeAlias = Literal["leader", "follower", "candidate", "failed"]


@dataclass(frozen=True, slots=True)
class HeardRefusal:
    """What a peer said when it would not talk to us."""

    words: str
    age_s: float
    no_member: bool
    """By its word we do not belong to its group, or not any more."""


@dataclass(frozen=True, slots=True)
class PeerStatus:
    name: str
    address: str
    connected: bool
    match_index: int | None
    """What the peer is known to have on disk; None unless this replica leads."""
    refusal: str | None
    """Why one of the two would not talk to the other: another cluster, a name in use, a wrong address."""
    problem: str | None
    """Why there is no connection, in words; None when there is one."""
    refused_us: HeardRefusal | None = None
    """The peer's own last word, also when it has not been reached since; None when it takes us for a member."""


@dataclass(frozen=True, slots=True)
class ReplicaStatus:
    """For people and metrics; no decision should be made from it."""

    name: str
    cluster: str
    cluster_id: str
    """Empty until the replica belongs to a group."""
    incarnation: int
    role: Role
    term: int
    leader: str | None
    commit_index: int
    applied_index: int
    first_index: int
    last_index: int
    log_bytes: int
    replica_id: str
    members: Members
    votes: bool
    """False while the members do not count this replica as a voter (see DESIGN.md, D18)."""
    fsync_count: int
    fsync_last_s: float
    fsync_longest_s: float
    fsync_total_s: float
    tick_late_s: float
    """How late the last tick of the raft thread was."""
    tick_late_longest_s: float
    """The latest of the last minute."""
    ticks_late: int
    """Later than 100 ms, since the start."""
    failure: str | None = None
    peers: tuple[PeerStatus, ...] = field(default=())
    refusals: Mapping[Reason, int] = field(default_factory=dict)
    """Connections that were not let in, or not kept, since the start."""
    certificate: CertificateStatus | None = None
    """None without TLS."""
    removed_by: tuple[str, ...] = ()
    """Members by whose word this replica belongs to the group no more, if they are a majority of the other voters."""


@dataclass(frozen=True, slots=True)
class StateApplied:
    index: int


@dataclass(frozen=True, slots=True)
class LeaderChanged:
    leader: str | None
    term: int


@dataclass(frozen=True, slots=True)
class PeerRefused:
    peer: str
    """Member name; of somebody who came in, the name it gives and where it came from."""
    reason: str


@dataclass(frozen=True, slots=True)
class Failed:
    reason: str


@dataclass(frozen=True, slots=True)
class MembersChanged:
    """Other members are in force; the change may not be committed yet."""

    members: Members


Event: TypeAlias = StateApplied | LeaderChanged | PeerRefused | MembersChanged | Failed
