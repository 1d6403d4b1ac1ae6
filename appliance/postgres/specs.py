"""What a job is asked to do, as frozen data that travels to the child process in one file.

No job writes settings: the node does that before every start, whatever happened to the directory in between.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from appliance.postgres.binaries import Binaries
from appliance.postgres.credentials import Credentials
from appliance.postgres.incarnation import NONE, Incarnation
from appliance.postgres.settings import Settings


@dataclass(frozen=True, slots=True)
class InitdbOptions:
    locale: str = "C.UTF-8"
    """the same on every host and in every release of its C library, unlike a language's collation"""
    encoding: str = "UTF8"
    wal_segment_mb: int = 16


@dataclass(frozen=True, slots=True)
class Initialise:
    """A new cluster with its roles; nothing is at its place before it is complete."""

    binaries: Binaries
    data_dir: Path
    credentials: Credentials
    application_role: str = ""
    """gets the application's password; empty: none is made"""
    application_database: str = ""
    """made with that role as its owner; empty: none is made"""
    wal_dir: Path | None = None
    """the WAL lives in a directory of its own in there, which pg_wal links to"""
    options: InitdbOptions = InitdbOptions()
    settings: Settings | None = None
    """what it is to run with: it is started once with them, where nobody can reach it; None: it is not"""
    incarnation: Incarnation = NONE
    """given to the directory before it is in place (R13)"""


@dataclass(frozen=True, slots=True)
class Clone:
    """A base backup that becomes a standby; the old directory stays until the new one is complete, and once after."""

    binaries: Binaries
    data_dir: Path
    source: str
    """conninfo of the replication role"""
    source_database: str
    """conninfo of the rewind role in database postgres: it says where the tablespaces are"""
    wal_dir: Path | None = None
    slot: str = ""
    """exists on the source and keeps the WAL from the beginning of the backup on; empty: none"""
    incarnation: Incarnation = NONE
    """given to the directory before it is in place (R13)"""


@dataclass(frozen=True, slots=True)
class Rewind:
    """Take a stopped, diverged directory back to the source's history; it becomes a standby."""

    binaries: Binaries
    data_dir: Path
    source_database: str
    """conninfo of the rewind role in database postgres"""
    source_timeline: int
    """awaited in the source's control file (R15): before its first checkpoint pg_rewind takes the old one for true"""
    incarnation: Incarnation = NONE
    """given to the directory once it is a standby's again (R13)"""


@dataclass(frozen=True, slots=True)
class Discard:
    """Remove the replaced directory once its successor streams."""

    data_dir: Path


Spec = Initialise | Clone | Rewind | Discard

_KINDS: Mapping[str, type[Spec]] = {kind.__name__.lower(): kind for kind in (Initialise, Clone, Rewind, Discard)}

_READERS: Mapping[str, Callable[[Any], Any]] = {
    "binaries": lambda value: Binaries(**{**value, "directory": Path(value["directory"])}),
    "credentials": Credentials.from_json,
    "data_dir": Path,
    "incarnation": lambda value: Incarnation(**value),
    "options": lambda value: InitdbOptions(**value),
    "settings": lambda value: Settings.from_json(value) if value else None,
    "wal_dir": lambda value: Path(value) if value else None,
}


def kind_of(spec: Spec) -> str:
    return type(spec).__name__.lower()


def encode(spec: Spec) -> str:
    return json.dumps({"kind": kind_of(spec), "spec": asdict(spec)}, default=str)


def decode(text: str) -> Spec:
    document = json.loads(text)
    values = {name: _READERS[name](value) if name in _READERS else value for name, value in document["spec"].items()}
    return _KINDS[document["kind"]](**values)
