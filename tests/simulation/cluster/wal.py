"""A data directory of the simulated PostgreSQL: WAL as a list of records, history files, control file, settings."""

import re
from dataclasses import dataclass, field, replace

from appliance.ha.seen import DirectoryKind, DirectorySeen

SYSTEM = "7423474350493388827"
RECORD_BYTES = 100
BEGIN_LSN = 1000


@dataclass(frozen=True, slots=True, eq=False)
class Record:
    """One is like no other: two nodes have the same WAL when they have the very same records."""

    timeline: int
    value: int | None = None


def lsn_of(count):
    """Where WAL ends with so many records."""
    return BEGIN_LSN + RECORD_BYTES * count


@dataclass
class Wal:
    records: list = field(default_factory=list)
    flushed: int = 0
    """how many of the records a loss of power leaves"""
    parents: dict = field(default_factory=dict)
    """timeline to the one before it and how many records that had: what its history file says"""
    files: set = field(default_factory=set)
    """numbers of all history files, placeholders too (R14)"""

    @property
    def timeline(self):
        return self.records[-1].timeline if self.records else 1

    @property
    def end_lsn(self):
        return lsn_of(len(self.records))

    def lose(self, kept):
        """A crash: what was written and not flushed may be there or not."""
        del self.records[kept:]
        self.flushed = len(self.records)

    def left_at(self, timeline):
        """How many records of `timeline`, one of its ancestors, this WAL's history has; None: no ancestor of it."""
        line = self.line(self.timeline)
        if timeline not in line[1:]:
            return None
        return min(self.parents[step][1] for step in line[: line.index(timeline)])

    def settle(self, timeline):
        """Ancestors without a record are left out of its history."""
        parent, count = self.parents[timeline]
        while parent in self.parents and count <= self.parents[parent][1]:
            parent = self.parents[parent][0]
        changed, self.parents[timeline] = (parent, count) != self.parents[timeline], (parent, count)
        return changed

    def line(self, timeline):
        """`timeline` and its ancestors as far as they are known, newest first."""
        line = [timeline]
        while line[-1] in self.parents:
            line.append(self.parents[line[-1]][0])
        return line

    def take_history(self, source):
        """A receiver fetches the history files between its own timeline and its source's."""
        self.files |= {number for number in source.files if number > self.timeline}
        self.parents.update(source.parents)

    def remove_placeholders_above_real(self):
        """Left there, they would keep a standby from becoming ready (R14)."""
        newest = max(self.parents, default=1)
        self.files = {number for number in self.files if number <= newest}

    def copy(self, count=None):
        """All, or so many records, as a copy that is complete has them on disk."""
        records = self.records[:count]
        return Wal(records, len(records), dict(self.parents), set(self.parents))


@dataclass(frozen=True, slots=True)
class Conf:
    """What the settings files say, as far as it matters here."""

    names: str = ""
    """synchronous_standby_names"""
    version: int = 0
    upstream: str = ""
    """member in primary_conninfo"""
    admits: bool = True
    """the hba file lets applications in"""

    @property
    def waits(self):
        return self.names != ""

    @property
    def standbys(self):
        """How many, of whom, and whether by priority."""
        if not self.names:
            return 0, (), False
        how, k, members = re.fullmatch(r"(ANY|FIRST) (\d+) \((.*)\)", self.names).groups()
        return int(k), tuple(name.strip('"') for name in members.split(", ")), how == "FIRST"


@dataclass
class Directory:
    kind: DirectoryKind = DirectoryKind.MISSING
    wal: Wal = field(default_factory=Wal)
    incarnation: str = ""
    control_timeline: int = 0
    checkpoint_lsn: int = 0
    shut_down: bool = False
    was_primary: bool = False
    standby_signal: bool = False
    conf: Conf = Conf()
    torn: bool = False
    """a rewind was killed in it"""
    needs: tuple[int, int] | None = None
    """of a rewound one: timeline and number of the last record that its pages come from"""

    @property
    def consistent(self):
        if self.needs is None:
            return True
        timeline, count = self.needs
        return self.wal.flushed >= count and self.wal.records[count - 1].timeline == timeline

    def seen(self, stray_pid):
        if self.kind is not DirectoryKind.CLUSTER:
            return DirectorySeen(self.kind)
        timeline, count = self.needs or (0, 0)
        return DirectorySeen(
            kind=self.kind,
            system_identifier=SYSTEM,
            timeline=max(self.control_timeline, timeline),
            min_recovery_lsn=lsn_of(count) if count else 0,
            shut_down=self.shut_down,
            was_primary=self.was_primary,
            checkpoint_lsn=self.checkpoint_lsn,
            standby_signal=self.standby_signal,
            incarnation="" if self.torn else self.incarnation,
            stray_pid=stray_pid,
        )

    def checkpoint(self):
        self.control_timeline = self.wal.timeline
        self.checkpoint_lsn = self.wal.end_lsn - RECORD_BYTES

    def fill(self, incarnation):
        """initdb: a first checkpoint, shut down as a primary."""
        self.kind, self.incarnation = DirectoryKind.CLUSTER, incarnation
        self.wal = Wal([Record(1) for _ in range(3)], 3)
        self.shut_down = self.was_primary = True
        self.checkpoint()

    def copy_from(self, source, count, incarnation, *, short=0):
        """A base backup or a rewind that is complete: the source's WAL and settings, to be started as a standby.

        A rewind copies the WAL before it asks how far the source is: it may be `short` of some that its pages need.
        """
        self.kind, self.incarnation, self.torn = DirectoryKind.CLUSTER, incarnation, False
        self.wal = source.wal.copy(max(1, count - short))
        self.needs = (source.wal.records[count - 1].timeline, count) if short else None
        self.control_timeline = source.control_timeline
        self.checkpoint_lsn = source.checkpoint_lsn
        self.shut_down, self.was_primary, self.standby_signal = False, False, True
        self.conf = replace(source.conf, upstream="")
