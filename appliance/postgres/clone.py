"""A base backup of a running member that becomes a standby, with its tablespaces and a WAL directory of its own."""

import re
import shutil
from pathlib import Path

from appliance.postgres.auto_conf import clean_auto_conf
from appliance.postgres.commands import stream
from appliance.postgres.control import read_control
from appliance.postgres.copies import begin_copy, install_copy, own_name, settle
from appliance.postgres.errors import PostgresError
from appliance.postgres.incarnation import write_incarnation
from appliance.postgres.progress import Progress
from appliance.postgres.settings import CONTROLLED, write_standby_signal
from appliance.postgres.specs import Clone
from appliance.postgres.wire import ask

COPY_NAME = "appliance_copy"
"""Under the member's own name it could confirm commits: pg_basebackup with a slot says what it has flushed."""
_SILENCE_LIMIT_S = 600.0
"""a checkpoint of a busy source, or the sync of a large copy on a slow disk, says nothing for that long"""
_ASK_LIMIT_S = 10.0
_TABLESPACES = "SELECT pg_tablespace_location(oid) FROM pg_tablespace WHERE pg_tablespace_location(oid) <> ''"
_SIZE = "SELECT sum(pg_tablespace_size(oid)) FROM pg_tablespace WHERE pg_tablespace_location(oid) = ''"
_SIZE_LIMIT_S = 60.0
"""PostgreSQL looks at every file for it"""
_PROGRESS = re.compile(r"(\d+)/(\d+) kB")


def clone(spec: Clone, progress: Progress) -> None:
    """The old directory is untouched until the new one is complete and on disk."""
    data_dir = spec.data_dir.resolve()
    settle(data_dir)
    progress.phase("asking for sizes")
    mapping = _mapping(ask(spec.source_database, _TABLESPACES, limit_s=_ASK_LIMIT_S))
    wal_dir = own_name(spec.wal_dir / data_dir.name) if spec.wal_dir else None
    growing = begin_copy(data_dir, [*mapping.values(), *([wal_dir] if wal_dir else [])])
    _check_space(growing.parent, int(ask(spec.source_database, _SIZE, limit_s=_SIZE_LIMIT_S)[0][0] or 0))
    progress.phase("waiting for a checkpoint")
    watch = _Watch(progress)
    stream(_basebackup(spec, growing, wal_dir, mapping), watch.said, silence_limit_s=_SILENCE_LIMIT_S)
    progress.phase("putting in place")
    write_standby_signal(growing)  # before it can be started by anybody
    clean_auto_conf(growing, CONTROLLED)
    read_control(spec.binaries, growing)  # what cannot be read must not get in place
    write_incarnation(growing, spec.incarnation)
    install_copy(data_dir)


def _check_space(directory: Path, needed_bytes: int) -> None:
    """Before hours of copying; its WAL and what is written meanwhile come on top."""
    free_bytes = shutil.disk_usage(directory).free
    if needed_bytes > free_bytes:
        raise PostgresError(
            f"the copy needs {needed_bytes >> 20} MiB and {directory} has {free_bytes >> 20} MiB free; "
            "the old data directory is untouched"
        )


def _basebackup(spec: Clone, growing: Path, wal_dir: Path | None, mapping: dict[Path, Path]) -> list[str]:
    return [
        spec.binaries.tool("pg_basebackup"),
        f"--pgdata={growing}",
        # A disk that is busy with the copy may stall the WAL for longer than a standby is given.
        f"--dbname={spec.source} application_name={COPY_NAME} options='-c wal_sender_timeout=60s'",
        "--wal-method=stream",
        "--checkpoint=fast",
        "--progress",
        "--no-password",
        # Sooner than the source's wal_sender_timeout takes silence for death.
        "--status-interval=1",
        *([f"--slot={spec.slot}"] if spec.slot else []),
        *([f"--waldir={wal_dir}"] if wal_dir else []),
        *(f"--tablespace-mapping={_escaped(old)}={_escaped(new)}" for old, new in mapping.items()),
    ]


def _escaped(path: Path) -> str:
    return str(path).replace("=", "\\=")


def _mapping(rows: list[list[str | None]]) -> dict[Path, Path]:
    """Where a tablespace's own path is taken here, by the copy that is to be replaced or by anything else."""
    locations = [Path(row[0]) for row in rows if row[0]]
    return {location: own_name(location) for location in locations if location.is_absolute() and _taken(location)}


def _taken(location: Path) -> bool:
    try:
        return any(location.iterdir())
    except FileNotFoundError:
        return False


class _Watch:
    """Turns pg_basebackup's lines into progress."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._copying = False

    def said(self, line: str) -> None:
        match = _PROGRESS.search(line)
        if match is None:
            return
        done_bytes, total_bytes = int(match[1]) * 1024, int(match[2]) * 1024
        if self._copying:
            self._progress.bytes(done_bytes, total_bytes)
        else:
            self._copying = True
            self._progress.phase("copying", done_bytes, total_bytes)
