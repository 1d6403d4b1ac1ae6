"""What `decide` can ask the executor for: frozen data, safe to repeat and safe to leave half done."""

from dataclasses import dataclass
from enum import StrEnum

from appliance.cluster.commands import Command


class StopMode(StrEnum):
    FAST = "fast"
    IMMEDIATE = "immediate"
    KILL = "kill"
    """immediate, and a moment later whatever is left: a postmaster that is stuck passes nothing on"""


@dataclass(frozen=True, slots=True)
class StopPostgres:
    mode: StopMode


@dataclass(frozen=True, slots=True)
class EndStray:
    """End a postmaster that has no guard, at once."""

    pid: int


@dataclass(frozen=True, slots=True)
class StartPrimary:
    """Start as the primary of `epoch`; the guard is armed with its lease before PostgreSQL runs (R4)."""

    epoch: int


@dataclass(frozen=True, slots=True)
class StartStandby:
    """Start read-only; `upstream` is a member's name, or empty for no source."""

    upstream: str


@dataclass(frozen=True, slots=True)
class Follow:
    """Point a running standby at `upstream` by reload; empty: take WAL from nowhere (R6)."""

    upstream: str


@dataclass(frozen=True, slots=True)
class Promote:
    """Open as primary on the assigned timeline (R14)."""

    epoch: int
    timeline: int


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """In the background; what it is for is remembered when it has returned."""

    operation: str = ""
    sync_version: int = 0


@dataclass(frozen=True, slots=True)
class Pledge:
    """Write and sync the pledge before anything else is done for that election (R6)."""

    election: int


@dataclass(frozen=True, slots=True)
class NoteFenced:
    """Remember that this epoch is over for this node (R4)."""

    epoch: int


@dataclass(frozen=True, slots=True)
class NoteNeedsClone:
    """Remember that only a clone helps: a rewind would find nothing to do (R15)."""


@dataclass(frozen=True, slots=True)
class BeginNotes:
    """Have notes that are of the present history (R13a)."""

    recovery: int
    keep: bool
    """what they say holds on; else it is set aside, under another name, with the guard's record of fences"""


@dataclass(frozen=True, slots=True)
class MarkDirectory:
    """Write into the data directory that it is of this recovery (R13a)."""

    recovery: int


@dataclass(frozen=True, slots=True)
class Propose:
    command: Command


@dataclass(frozen=True, slots=True)
class Initialise:
    """initdb with roles and first database, as a job."""


@dataclass(frozen=True, slots=True)
class Clone:
    source: str


@dataclass(frozen=True, slots=True)
class Rewind:
    source: str
    timeline: int
    """the source's: wait for its first checkpoint on it (R15)"""


@dataclass(frozen=True, slots=True)
class FinishJob:
    """Take over a job's result: the new incarnation, or that a clone is needed."""


@dataclass(frozen=True, slots=True)
class DiscardReplaced:
    """Remove the directory that a clone replaced, as a job (R12)."""


@dataclass(frozen=True, slots=True)
class ForgetIncarnation:
    """Take the directory's incarnation away, on disk: from here on it votes for nothing (R13)."""


@dataclass(frozen=True, slots=True)
class SettleHistory:
    """R14: the new primary's history names no timeline that has no WAL, before anybody reads it."""

    timeline: int


@dataclass(frozen=True, slots=True)
class CreateSlots:
    members: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class DropSlots:
    members: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ShowSync:
    """Ask on a new connection whether this synchronous version is loaded (R8)."""

    version: int


@dataclass(frozen=True, slots=True)
class MarkWal:
    """Write a record, flush it here without waiting for a standby, and remember where WAL ends then (R8)."""

    version: int
    first: bool


@dataclass(frozen=True, slots=True)
class EndSenders:
    """End the walsenders of these members; who comes again has one with the present settings (R8)."""

    members: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ApplySettings:
    """Render the configuration and reload."""


Action = (
    StopPostgres
    | EndStray
    | StartPrimary
    | StartStandby
    | Follow
    | Promote
    | Checkpoint
    | Pledge
    | NoteFenced
    | NoteNeedsClone
    | BeginNotes
    | MarkDirectory
    | Propose
    | Initialise
    | Clone
    | Rewind
    | FinishJob
    | DiscardReplaced
    | ForgetIncarnation
    | SettleHistory
    | CreateSlots
    | DropSlots
    | ShowSync
    | MarkWal
    | EndSenders
    | ApplySettings
)


@dataclass(frozen=True, slots=True)
class Decision:
    because: str
    """a sentence with numbers, for people; no code reads it"""
    actions: tuple[Action, ...] = ()
    rule: str = ""
