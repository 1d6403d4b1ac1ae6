"""The data directory on disk: what it is, whether a postmaster lives in it, and what its control file says."""

import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from appliance.ha.seen import DirectoryKind
from appliance.postgres.binaries import Binaries
from appliance.postgres.control import ControlData, read_control
from appliance.postgres.errors import PostgresError
from appliance.postgres.files import remove_durably


@dataclass(frozen=True, slots=True)
class Directory:
    kind: DirectoryKind
    control: ControlData | None = None
    """None for a cluster: `problem` says why. While a postmaster runs it is as of the first look at that one, unless
    that is stopping"""
    standby_signal: bool = False
    postmaster_pid: int | None = None
    """alive, and running in this directory"""
    rewind_unfinished: bool = False
    """a rewind began and did not end well: only a clone helps"""
    problem: str = ""


def inspect(data_dir: Path, binaries: Binaries, *, stopping: bool = False) -> Directory:
    """Look, without changing anything. Cheap when nothing changed: the control data are kept until the file changes.

    A postmaster changes it with every checkpoint, and nobody asks for it meanwhile; one that is `stopping` writes into
    it that it is shut down, while it still waits for others.
    """
    try:
        names = {entry.name for entry in os.scandir(data_dir)}
    except FileNotFoundError:
        return Directory(DirectoryKind.MISSING, rewind_unfinished=rewind_mark(data_dir).exists())
    except OSError as error:
        return Directory(DirectoryKind.FOREIGN, problem=f"{data_dir} cannot be read: {error.strerror}")
    if not names:
        return Directory(DirectoryKind.EMPTY)
    if "PG_VERSION" not in names:
        return Directory(DirectoryKind.FOREIGN, problem=f"{data_dir} holds files but no PostgreSQL cluster")
    try:
        pid = postmaster_pid(data_dir)
    except OSError as error:
        return Directory(DirectoryKind.CLUSTER, problem=f"{data_dir}/postmaster.pid cannot be read: {error.strerror}")
    control, problem = _identity(data_dir, binaries, None if stopping else pid)
    return Directory(
        DirectoryKind.CLUSTER,
        control=control,
        standby_signal="standby.signal" in names,
        postmaster_pid=pid,
        rewind_unfinished=rewind_mark(data_dir).exists(),
        problem=problem,
    )


def _identity(data_dir: Path, binaries: Binaries, pid: int | None) -> tuple[ControlData | None, str]:
    try:
        major = int((data_dir / "PG_VERSION").read_text().strip())
    except (OSError, ValueError) as error:
        return None, f"{data_dir}/PG_VERSION cannot be read: {error}"
    if major != binaries.major:
        wrong = f"{data_dir} is of PostgreSQL {major}, the programs in {binaries.directory} are {binaries.version}"
        return None, f"{wrong}; set postgresql.bin_dir to PostgreSQL {major}"
    try:
        written = (data_dir / "global" / "pg_control").stat()
        key = (pid, 0) if pid else (written.st_ino, written.st_mtime_ns)
        return _control(binaries, data_dir, key), ""
    except (OSError, PostgresError) as error:
        return None, str(error)


@lru_cache(maxsize=4)
def _control(binaries: Binaries, data_dir: Path, key: tuple[int, int]) -> ControlData:  # noqa: ARG001
    return read_control(binaries, data_dir)


def postmaster_pid(data_dir: Path) -> int | None:
    """Of the postmaster that lives in this directory, whoever started it. A reused process id is not believed.

    Raises OSError where the file cannot be read, as in another user's directory.
    """
    try:
        pid = int((data_dir / "postmaster.pid").read_text().split("\n", 1)[0])
    except (FileNotFoundError, ValueError):
        return None
    try:
        return pid if pid > 0 and os.path.samefile(f"/proc/{pid}/cwd", data_dir) else None
    except (FileNotFoundError, ProcessLookupError):
        return None
    except PermissionError:  # another user's process, and PostgreSQL runs as nobody but the owner of its directory
        return None if data_dir.stat().st_uid == os.geteuid() else pid


def processes_in(data_dir: Path) -> list[int]:
    """All processes that live in this directory: a postmaster and everything it forked have it as working directory."""
    return [int(name) for name in os.listdir("/proc") if name.isdecimal() and _lives_in(name, data_dir)]


def _lives_in(pid: str, data_dir: Path) -> bool:
    try:
        return os.path.samefile(f"/proc/{pid}/cwd", data_dir)
    except OSError:  # gone, or another user's
        return False


def remove_stale_lock(data_dir: Path, socket: Path | None = None) -> bool:
    """Remove the locks that a server has left, postmaster.pid and that of its socket; whether there were any.

    PostgreSQL refuses to start when the process id in it belongs to any other process of this user: a new one, which is
    common where ids are few, or what died and was not yet waited for. Call it with no start under way.
    """
    locks = [lock for lock in (data_dir / "postmaster.pid", *_lock_of(socket, data_dir)) if lock.exists()]
    if not locks or postmaster_pid(data_dir) or processes_in(data_dir):
        return False
    for lock in locks:
        remove_durably(lock)
    return True


def _lock_of(socket: Path | None, data_dir: Path) -> list[Path]:
    """Unless another server has made it, whose data directory its second line then names."""
    if socket is None:
        return []
    lock = socket.with_name(f"{socket.name}.lock")
    try:
        return [lock] if os.path.samefile(lock.read_text().split("\n")[1], data_dir) else []
    except (OSError, UnicodeDecodeError, IndexError):
        return []


def beside(data_dir: Path, suffix: str) -> Path:
    """A name on the same file system as the data directory itself, also where `data_dir` is a link to it."""
    real = data_dir.resolve()
    return real.with_name(f"{real.name}.{suffix}")


def rewind_mark(data_dir: Path) -> Path:
    """Beside the data directory, since pg_rewind removes what its source does not have."""
    return beside(data_dir, "rewinding")
