"""Whether a new cluster starts with its settings: the postmaster itself, for a moment, where nobody can reach it.

Values are checked before; that they fit together, that the memory is there, and that client authentication can be
read, PostgreSQL says at a start only.
"""

import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path

from appliance.postgres.binaries import Binaries
from appliance.postgres.errors import PostgresError
from appliance.postgres.files import read_text
from appliance.postgres.last_words import last_words
from appliance.postgres.settings import Settings, server_argv, server_environment, write_settings

_START_LIMIT_S = 60.0
_STOP_LIMIT_S = 60.0
_LOOK_S = 0.02
_STATUS_LINE = 7
"""of postmaster.pid, https://doxygen.postgresql.org/pidfile_8h.html"""
_OPTIONS = ("-F", "-c", "logging_collector=off", "-c", "log_destination=stderr")
"""It is synced as a whole afterwards; and what it says must be found."""


def try_start(binaries: Binaries, data_dir: Path, settings: Settings) -> None:
    """Start and stop it. Raises PostgresError with PostgreSQL's reason; the data directory is shut down either way."""
    # A relative directory of sockets lies in the data directory, which nobody else may enter.
    private = replace(settings, listen="", unix_socket_dir=Path())
    write_settings(data_dir, private)
    log = data_dir / "trial.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*server_argv(binaries, data_dir, private), *_OPTIONS],
            stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=server_environment(),
        )  # fmt: skip
    try:
        _await_ready(process, data_dir, log)
        process.send_signal(signal.SIGINT)
        if _ended(process, _STOP_LIMIT_S) != 0:
            raise PostgresError(f"PostgreSQL does not stop cleanly with these settings: {_reason(log)}")
    finally:
        process.kill()
        process.wait()
        log.unlink()


def _await_ready(process: subprocess.Popen[bytes], data_dir: Path, log: Path) -> None:
    until_s = time.monotonic() + _START_LIMIT_S
    while process.poll() is None:
        lines = (read_text(data_dir / "postmaster.pid") or "").split("\n")
        if len(lines) > _STATUS_LINE and lines[_STATUS_LINE].strip() == "ready":
            return
        if time.monotonic() > until_s:
            raise PostgresError(f"PostgreSQL is not ready after {_START_LIMIT_S:g} s: {_reason(log)}")
        time.sleep(_LOOK_S)
    raise PostgresError(f"PostgreSQL does not start with these settings: {_reason(log)}")


def _ended(process: subprocess.Popen[bytes], limit_s: float) -> int | None:
    try:
        return process.wait(limit_s)
    except subprocess.TimeoutExpired:
        return None


def _reason(log: Path) -> str:
    return last_words(log) or "no reason was given"
