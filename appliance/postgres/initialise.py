"""A new cluster: initdb, then the roles in single-user mode, so that it is never reachable before it is complete."""

import re
from collections.abc import Iterator
from pathlib import Path

from appliance.postgres.commands import run
from appliance.postgres.control import read_control
from appliance.postgres.copies import begin_copy, discard_attempt, install_copy, own_name
from appliance.postgres.credentials import REPLICATION_ROLE, REWIND_ROLE
from appliance.postgres.errors import PostgresError
from appliance.postgres.incarnation import write_incarnation
from appliance.postgres.progress import Progress
from appliance.postgres.scram import verifier
from appliance.postgres.settings import SUPERUSER
from appliance.postgres.specs import Initialise
from appliance.postgres.trial import try_start

_INITDB_LIMIT_S = 300.0
_TOLD = re.compile(r"\b(error|hint|detail|FATAL|PANIC|HINT|DETAIL):")
_SQL_LIMIT_S = 120.0
_SYNC_LIMIT_S = 300.0

_REWIND_FUNCTIONS = (
    "pg_ls_dir(text, boolean, boolean)",
    "pg_stat_file(text, boolean)",
    "pg_read_binary_file(text)",
    "pg_read_binary_file(text, bigint, bigint, boolean)",
)
"""What pg_rewind asks of its source, https://www.postgresql.org/docs/current/app-pgrewind.html"""

_SINGLE_USER = (
    "exit_on_error=on",
    "log_min_error_statement=panic",  # a failed statement would show its verifier
    "log_checkpoints=off",
    "logging_collector=off",
)


def initialise(spec: Initialise, progress: Progress) -> None:
    """Raises PostgresError when something is at its place already."""
    data_dir = spec.data_dir.resolve()
    if data_dir.exists() and any(data_dir.iterdir()):
        raise PostgresError(f"{data_dir} is not empty; a new cluster needs an empty or missing data_dir")
    wal_dir = own_name(spec.wal_dir / data_dir.name) if spec.wal_dir else None
    growing = begin_copy(data_dir, [wal_dir] if wal_dir else [])
    try:
        _grow(spec, growing, wal_dir, progress)
    except (PostgresError, OSError, ValueError):
        discard_attempt(data_dir)
        raise
    install_copy(data_dir)


def _grow(spec: Initialise, growing: Path, wal_dir: Path | None, progress: Progress) -> None:
    progress.phase("initdb")
    _run_initdb(_initdb(spec, growing, wal_dir))
    progress.phase("creating roles")
    _execute(spec, growing)
    if spec.settings is not None:
        progress.phase("trying the settings")
        try_start(spec.binaries, growing, spec.settings)
    progress.phase("syncing")
    run([spec.binaries.tool("initdb"), "--sync-only", "-D", str(growing)], limit_s=_SYNC_LIMIT_S)
    read_control(spec.binaries, growing)  # what cannot be read must not get in place
    write_incarnation(growing, spec.incarnation)


def _run_initdb(argv: list[str]) -> None:
    """What it says beside its errors is the same for everybody."""
    try:
        run(argv, limit_s=_INITDB_LIMIT_S)
    except PostgresError as error:
        told = [line for line in error.lines if _TOLD.search(line)]
        raise PostgresError(error.command, error.exit_code, told or error.lines) from error


def _initdb(spec: Initialise, growing: Path, wal_dir: Path | None) -> list[str]:
    """Peer on the socket: the superuser has no password and cannot come over TCP at all."""
    options = spec.options
    return [
        spec.binaries.tool("initdb"),
        f"--pgdata={growing}",
        f"--username={SUPERUSER}",
        "--auth-local=peer",
        "--auth-host=scram-sha-256",
        f"--encoding={options.encoding}",
        f"--locale={options.locale}",
        f"--wal-segsize={options.wal_segment_mb}",
        "--no-sync",
        "--no-instructions",
        "--data-checksums",
        *([f"--waldir={wal_dir}"] if wal_dir else []),
    ]


def _execute(spec: Initialise, growing: Path) -> None:
    """All statements in single-user mode; the first that fails ends it. Synced as a whole afterwards."""
    argv = [spec.binaries.tool("postgres"), "--single", "-j", "-F", "-D", str(growing)]
    options = [part for option in _SINGLE_USER for part in ("-c", option)]
    run([*argv, *options, "postgres"], limit_s=_SQL_LIMIT_S, text="".join(f"{s};\n\n" for s in _statements(spec)))


def _statements(spec: Initialise) -> Iterator[str]:
    secrets = spec.credentials
    yield f"CREATE ROLE {REPLICATION_ROLE} LOGIN REPLICATION PASSWORD '{verifier(secrets.replication)}'"
    yield f"CREATE ROLE {REWIND_ROLE} LOGIN PASSWORD '{verifier(secrets.rewind)}'"
    for function in _REWIND_FUNCTIONS:
        yield f"GRANT EXECUTE ON FUNCTION pg_catalog.{function} TO {REWIND_ROLE}"
    yield f"GRANT pg_monitor TO {REWIND_ROLE}"
    if spec.binaries.major >= 15:
        yield f"GRANT pg_checkpoint TO {REWIND_ROLE}"
    yield from _application(spec)


def _application(spec: Initialise) -> Iterator[str]:
    if not spec.application_role:
        return
    if spec.credentials.application is None:
        raise ValueError(f"no password for the application role {spec.application_role}: generate one with it")
    role = _identifier(spec.application_role)
    yield f"CREATE ROLE {role} LOGIN PASSWORD '{verifier(spec.credentials.application)}'"
    if spec.application_database:
        yield f"CREATE DATABASE {_identifier(spec.application_database)} OWNER {role}"


def _identifier(name: str) -> str:
    if not name or "\n" in name or "\0" in name:
        raise ValueError(f"{name!r} is no name for a role or database")
    return '"' + name.replace('"', '""') + '"'
