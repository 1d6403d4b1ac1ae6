"""pg_rewind with what it takes to trust it: the source's first checkpoint, a mark while it runs, and what it leaves."""

import re
import time
from pathlib import Path

from appliance.cluster.lsn import format_lsn, parse_lsn
from appliance.postgres.auto_conf import clean_auto_conf
from appliance.postgres.commands import stream
from appliance.postgres.control import ControlState, read_control
from appliance.postgres.directory import postmaster_pid, remove_stale_lock, rewind_mark
from appliance.postgres.errors import PostgresError, RewindError
from appliance.postgres.files import read_text, remove_durably, write_atomically
from appliance.postgres.history import remove_placeholders_above_real
from appliance.postgres.incarnation import write_incarnation
from appliance.postgres.progress import Progress
from appliance.postgres.segments import oldest_lsn
from appliance.postgres.settings import CONTROLLED, STANDBY_SIGNAL, write_standby_signal
from appliance.postgres.specs import Rewind
from appliance.postgres.wire import ask

_SILENCE_LIMIT_S = 600.0
_CHECKPOINT_LIMIT_S = 60.0
_ASK_LIMIT_S = 5.0
_POLL_S = 0.1
_SOURCE_TIMELINE = "SELECT timeline_id FROM pg_control_checkpoint()"
_SOURCE_LSN = "SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_flush_lsn() END"
_BEGINS_AT = re.compile(r"START WAL LOCATION: ([0-9A-F]+/[0-9A-F]+)")
_WRITES_NOW = "need to copy"
"""said right before pg_rewind changes the first file; until then the directory is as it was"""
_SOURCE_TROUBLE = (
    "connection to server",
    "could not connect",
    "server closed the connection",
    "terminating connection",
)


def rewind(spec: Rewind, progress: Progress) -> None:
    """Runs crash recovery first where the directory needs it."""
    data_dir = spec.data_dir.resolve()
    _check_target(spec, data_dir)
    progress.phase("waiting for the source's checkpoint")
    _await_checkpoint(spec)
    source_lsn = parse_lsn(ask(spec.source_database, _SOURCE_LSN, limit_s=_ASK_LIMIT_S)[0][0] or "")
    progress.phase("comparing")
    watch = _Watch(progress)
    mark = rewind_mark(data_dir)
    write_atomically(mark, "a rewind began and has not ended well: only a clone helps\n")
    # The crash recovery that pg_rewind runs is in single-user mode, which refuses to be a standby.
    was_standby = remove_durably(data_dir / STANDBY_SIGNAL)
    try:
        stream(_pg_rewind(spec, data_dir), watch.said, silence_limit_s=_SILENCE_LIMIT_S)
    except PostgresError as error:
        if not watch.writing:
            if was_standby:
                write_standby_signal(data_dir)
            remove_durably(mark)
        raise RewindError(error, needs_clone=watch.writing or not _source_trouble(error)) from error
    if watch.writing:
        _check_wal(spec, data_dir, source_lsn)
    progress.phase("becoming a standby")
    _become_standby(data_dir)
    write_incarnation(data_dir, spec.incarnation)
    remove_durably(mark)  # last: until then nobody starts it


def _check_target(spec: Rewind, data_dir: Path) -> None:
    """Refuse what pg_rewind would get wrong.

    Single-user recovery of an interrupted standby writes a checkpoint record that its source never had; where the fork
    is later than that, pg_rewind then says "no rewind required" (tried). A primary's WAL never ends before the fork.
    """
    if rewind_mark(data_dir).exists():
        raise RewindError(PostgresError(f"an earlier rewind of {data_dir} did not end well"), needs_clone=True)
    if pid := postmaster_pid(data_dir):
        raise PostgresError(f"{data_dir} is in use by the postmaster {pid}; stop it first")
    remove_stale_lock(data_dir)
    control = read_control(spec.binaries, data_dir)
    if control.state is ControlState.IN_ARCHIVE_RECOVERY:
        raise PostgresError(
            f"{data_dir} is a standby that was not shut down; start it without a source and stop it before the rewind"
        )
    if not (control.checksums or control.wal_log_hints):
        raise RewindError(
            PostgresError(f"{data_dir} has neither checksums nor wal_log_hints; pg_rewind needs one of them"),
            needs_clone=True,
        )


def _await_checkpoint(spec: Rewind) -> None:
    until_s = time.monotonic() + _CHECKPOINT_LIMIT_S
    while (seen := _source_timeline(spec)) < spec.source_timeline:
        if time.monotonic() > until_s:
            raise PostgresError(
                f"the source's last checkpoint is still on timeline {seen}, not {spec.source_timeline}, "
                f"after {_CHECKPOINT_LIMIT_S:g} s"
            )
        time.sleep(_POLL_S)


def _source_timeline(spec: Rewind) -> int:
    return int(ask(spec.source_database, _SOURCE_TIMELINE, limit_s=_ASK_LIMIT_S)[0][0] or 0)


def _pg_rewind(spec: Rewind, data_dir: Path) -> list[str]:
    return [
        spec.binaries.tool("pg_rewind"),
        f"--target-pgdata={data_dir}",
        f"--source-server={spec.source_database}",
        "--progress",
    ]


def _check_wal(spec: Rewind, data_dir: Path, source_lsn: int) -> None:
    """Refuse a directory that would wait for ever for the WAL which makes it consistent.

    It is replayed from the last common checkpoint on. pg_rewind has copied all WAL that the source has, and does not
    look whether that reaches back so far.
    """
    begins = _BEGINS_AT.search(read_text(data_dir / "backup_label") or "")
    if begins is None:
        return
    segment_bytes = read_control(spec.binaries, data_dir).wal_segment_bytes
    oldest = oldest_lsn(data_dir / "pg_wal", source_lsn, segment_bytes)
    if oldest > parse_lsn(begins[1]):
        raise RewindError(
            PostgresError(f"WAL is needed from {begins[1]} on, and what the source has begins at {format_lsn(oldest)}"),
            needs_clone=True,
        )


def _become_standby(data_dir: Path) -> None:
    write_standby_signal(data_dir)
    clean_auto_conf(data_dir, CONTROLLED)
    remove_placeholders_above_real(data_dir / "pg_wal")


def _source_trouble(error: PostgresError) -> bool:
    return any(trouble in line for line in error.lines for trouble in _SOURCE_TROUBLE)


class _Watch:
    """Knows from pg_rewind's lines whether it has begun to write."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self.writing = False

    def said(self, line: str) -> None:
        if _WRITES_NOW in line:
            self.writing = True
            self._progress.phase("copying")
