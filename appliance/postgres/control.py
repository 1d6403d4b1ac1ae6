"""The control file as `pg_controldata` prints it: identity, how the instance ended, and what a standby must match."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from appliance.cluster.lsn import parse_lsn
from appliance.postgres.binaries import Binaries
from appliance.postgres.commands import run
from appliance.postgres.errors import PostgresError

_LIMIT_S = 5.0


class ControlState(StrEnum):
    """The values are PostgreSQL's words."""

    STARTING_UP = "starting up"
    SHUT_DOWN = "shut down"
    SHUT_DOWN_IN_RECOVERY = "shut down in recovery"
    SHUTTING_DOWN = "shutting down"
    IN_CRASH_RECOVERY = "in crash recovery"
    IN_ARCHIVE_RECOVERY = "in archive recovery"
    IN_PRODUCTION = "in production"


@dataclass(frozen=True, slots=True)
class ControlData:
    system_identifier: str
    state: ControlState
    checkpoint_lsn: int
    """start of the last checkpoint record; after SHUT_DOWN it is the last record"""
    timeline: int
    """of the last checkpoint: after a promotion the old one until the first checkpoint"""
    min_recovery_lsn: int
    """a standby's pages may need the WAL up to here, or a copy's that is not consistent yet; 0: none"""
    min_recovery_timeline: int
    """0: none"""
    checksums: bool
    wal_log_hints: bool
    wal_segment_bytes: int
    max_connections: int
    max_worker_processes: int
    max_wal_senders: int
    max_prepared_xacts: int
    max_locks_per_xact: int

    @property
    def cleanly_shut_down(self) -> bool:
        return self.state in {ControlState.SHUT_DOWN, ControlState.SHUT_DOWN_IN_RECOVERY}

    @property
    def newest_timeline(self) -> int:
        """As far as the control file knows; WAL beyond it may be on a newer one."""
        return max(self.timeline, self.min_recovery_timeline)


def read_control(binaries: Binaries, data_dir: Path) -> ControlData:
    """Raises PostgresError when the control file is missing, damaged or of another major version.

    A server that is writing the file at that moment looks like damage, so one failure is looked at again.
    """
    argv = [binaries.tool("pg_controldata"), "-D", str(data_dir)]
    try:
        return parse_control(run(argv, limit_s=_LIMIT_S))
    except PostgresError:
        return parse_control(run(argv, limit_s=_LIMIT_S))


def parse_control(text: str) -> ControlData:
    """Raises PostgresError for anything but the complete output for an undamaged file."""
    if "WARNING" in text:
        raise PostgresError("pg_controldata", None, ["the control file is damaged, or of another version", text[:200]])
    values = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    value = {key.strip(): written.strip() for key, written in values.items()}
    try:
        return _control(value)
    except (KeyError, ValueError) as error:
        raise PostgresError("pg_controldata", None, [f"says nothing usable about {error}"]) from error


def _control(value: dict[str, str]) -> ControlData:
    return ControlData(
        system_identifier=value["Database system identifier"],
        state=ControlState(value["Database cluster state"]),
        checkpoint_lsn=parse_lsn(value["Latest checkpoint location"]),
        timeline=int(value["Latest checkpoint's TimeLineID"]),
        min_recovery_lsn=parse_lsn(value["Minimum recovery ending location"]),
        min_recovery_timeline=int(value["Min recovery ending loc's timeline"]),
        checksums=int(value["Data page checksum version"]) != 0,
        wal_log_hints=value["wal_log_hints setting"] == "on",
        wal_segment_bytes=int(value["Bytes per WAL segment"]),
        max_connections=int(value["max_connections setting"]),
        max_worker_processes=int(value["max_worker_processes setting"]),
        max_wal_senders=int(value["max_wal_senders setting"]),
        max_prepared_xacts=int(value["max_prepared_xacts setting"]),
        max_locks_per_xact=int(value["max_locks_per_xact setting"]),
    )
