"""What PostgreSQL is configured with: the appliance's own include file, client authentication, and the command line.

The user's own lines in postgresql.conf stay untouched; the include at its end wins over them.
"""

import os
import pwd
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

from appliance.postgres.auto_conf import clean_auto_conf, foreign_auto_conf
from appliance.postgres.binaries import Binaries
from appliance.postgres.certificate import Certificate
from appliance.postgres.control import ControlData
from appliance.postgres.credentials import REPLICATION_ROLE, REWIND_ROLE
from appliance.postgres.errors import SettingsError
from appliance.postgres.files import differs, read_text, write_atomically, write_if_changed
from appliance.postgres.unix_socket import PATH_LIMIT_BYTES, socket_file

SUPERUSER = "postgres"
INCLUDE_FILE = "appliance.conf"
HBA_FILE = "appliance_hba.conf"
IDENT_FILE = "appliance_ident.conf"
STANDBY_SIGNAL = "standby.signal"
_INCLUDE_LINE = f"include '{INCLUDE_FILE}'"
_HEAD = "# Written by pg-appliance and overwritten by it: change the cluster's configuration instead.\n"
SYNC_VERSION = "appliance.sync_version"
"""The agreed synchronous set that was written, as any session shows it."""
SYNC_NAMES = "appliance.sync_names"
"""What was written with it as `synchronous_standby_names`: if that shows something else, the set is not loaded."""
NOBODY = 'ANY 1 ("appliance: not the primary")'
"""`synchronous_standby_names` of a PostgreSQL that is not appointed: no member has this name (R5, T7)."""
ADMITS = "appliance.admits"
"""Shows a session, and the next look, whether the hba file beside it lets applications in."""
_SYNCHRONOUS = frozenset({"synchronous_standby_names", SYNC_NAMES, SYNC_VERSION, ADMITS})
"""What ALTER SYSTEM must not win over while PostgreSQL runs either (R5, R8)."""
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_$]*(\.[A-Za-z_][A-Za-z0-9_$]*)*")

DEFAULTS: Mapping[str, str] = MappingProxyType(
    {
        "max_connections": "100",
        "max_locks_per_transaction": "64",
        "max_prepared_transactions": "0",
        "max_replication_slots": "10",
        "max_wal_senders": "10",
        "max_worker_processes": "8",
        "track_commit_timestamp": "off",
        "wal_level": "replica",
        # R15: a rewind needs the WAL back to the last common checkpoint; slots keep it, but never fill the disk.
        "wal_keep_size": "128MB",
        "max_slot_wal_keep_size": "10GB",
        "password_encryption": "scram-sha-256",
        "ssl_min_protocol_version": "TLSv1.2",
        # The guard gives the postmaster a log file; PostgreSQL's own collector would be one process more.
        "logging_collector": "off",
        "log_destination": "stderr",
        "log_line_prefix": "%m [%p] %q%u@%d ",
        # Until a standby asks again at a primary that was not there; the default of 5 s would be most of a failover.
        # A change of primary_conninfo does not wait for it (tried: 15 to 40 ms from the reload to streaming).
        "wal_retrieve_retry_interval": "500ms",
        # A dead peer is noticed on either side well before somebody waits for it. The sender's limit is also how long a
        # vanished standby's slot stays "active" and refuses the standby that comes back.
        "wal_receiver_timeout": "5s",
        "wal_sender_timeout": "5s",
    }
)
"""What the configuration may change."""

_REQUIRED: Mapping[str, str] = MappingProxyType(
    {
        "fsync": "on",
        "full_page_writes": "on",
        "hot_standby": "on",
        "recovery_target_timeline": "latest",
        # A PostgreSQL that comes back by itself would show commits that nobody has confirmed (R5a): it ends instead.
        "restart_after_crash": "off",
        "wal_log_hints": "on",
    }
)
"""What the promises rest on: a configuration that says otherwise is refused."""

_SAME: Mapping[str, frozenset[str]] = MappingProxyType(
    {"on": frozenset({"on", "true", "yes", "1"}), "off": frozenset({"off", "false", "no", "0"})}
)

_OWN = frozenset(
    {
        "cluster_name", "hba_file", "ident_file", "listen_addresses", "port", "primary_conninfo", "primary_slot_name",
        "restore_command", "synchronous_standby_names", SYNC_NAMES, SYNC_VERSION, ADMITS, "unix_socket_directories",
    }
)  # fmt: skip
"""What the appliance itself sets from other things than `parameters`."""

_FOREIGN = frozenset(
    {
        "config_file", "data_directory", "external_pid_file", "promote_trigger_file", "recovery_end_command",
        "recovery_target", "recovery_target_action", "recovery_target_inclusive", "recovery_target_lsn",
        "recovery_target_name", "recovery_target_time", "recovery_target_xid",
    }
)  # fmt: skip
"""What would make PostgreSQL do something that the cluster did not decide."""

_ON_COMMAND_LINE = (
    "listen_addresses", "port", "unix_socket_directories", "cluster_name", "hba_file", "ident_file", "hot_standby",
    "restart_after_crash", "wal_log_hints", "wal_level", "max_connections", "max_worker_processes", "max_wal_senders",
    "max_replication_slots", "max_prepared_transactions", "max_locks_per_transaction", "track_commit_timestamp",
)  # fmt: skip
"""They need a restart anyway, or must never change, and there nothing in a file, ALTER SYSTEM included, wins over
them."""

CONTROLLED = frozenset(DEFAULTS) | frozenset(_REQUIRED) | _OWN | _FOREIGN

REFUSES_WRITES = "appliance.refuses_writes"
"""Shows a session, and the next look, whether new transactions are read-only for want of disk space."""

_SOUND_PROTOCOLS = frozenset({"tlsv1.2", "tlsv1.3"})


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that one start or reload is rendered from."""

    cluster_name: str
    """the member's name: standbys are known by it (application_name)"""
    port: int
    unix_socket_dir: Path
    listen: str = "localhost"
    """PostgreSQL's listen_addresses"""
    parameters: Mapping[str, str] = field(default_factory=dict)
    hba: tuple[str, ...] = ()
    """lines for applications, empty: the default ones; the appliance's own come before them, so that no list can lock
    it out"""
    ident: tuple[str, ...] = ()
    primary_conninfo: str = ""
    primary_slot_name: str = ""
    synchronous_standby_names: str = ""
    sync_version: int = 0
    """of the agreed synchronous set that these names are; a session shows it as `appliance.sync_version`"""
    slot_wal_mb: int | None = None
    """the default of max_slot_wal_keep_size that the disk at hand has room for; None: DEFAULTS'"""
    refuses_writes: bool = False
    """transactions are read-only unless they say otherwise: the disk is about to be full"""
    admits: bool = True
    """applications are let in; else members and the run user's superuser are, and nobody else (R5a)"""
    certificate: Certificate | None = None
    """with one, members come encrypted or not at all, and so do applications unless `hba` says otherwise"""

    @property
    def socket(self) -> Path:
        return socket_file(self.unix_socket_dir, self.port)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        lists = {name: tuple(document[name]) for name in ("hba", "ident")}
        socket_dir, certificate = Path(document["unix_socket_dir"]), document["certificate"]
        found = Certificate.from_json(certificate) if certificate else None
        return cls(**{**document, **lists, "unix_socket_dir": socket_dir, "certificate": found})


def standby_names(k: int, members: Iterable[str], *, by_priority: bool) -> str:
    """`synchronous_standby_names` that wait for `k` of these; empty for k = 0.

    PostgreSQL compares the names without regard to case, and takes "*" for everybody, also in quotes. A list without
    names is an error to it, and a reload with an error leaves what was loaded before.
    """
    quoted_names = ", ".join('"{}"'.format(name.replace('"', '""')) for name in members)
    if k and not quoted_names:
        return NOBODY
    return f"{'FIRST' if by_priority else 'ANY'} {k} ({quoted_names})" if k else ""


def check_settings(settings: Settings) -> None:
    """Raises SettingsError for what PostgreSQL, or a promise, cannot do with; values are PostgreSQL's to judge."""
    for name, value in settings.parameters.items():
        check_parameter(name, value)
    check_lines((*settings.hba, *settings.ident))
    if len(os.fsencode(settings.socket)) > PATH_LIMIT_BYTES:
        raise SettingsError(
            f"the socket path {settings.socket} has more than {PATH_LIMIT_BYTES} bytes; use a shorter directory"
        )


def check_lines(lines: Iterable[str]) -> None:
    """Of client authentication. Raises SettingsError."""
    for line in lines:
        if "\n" in line or "\r" in line:
            raise SettingsError(f"a line of pg_hba or pg_ident contains a line break: {line!r}; write two lines")


def check_parameter(name: str, value: str) -> None:
    """Raises SettingsError for a name that is none, and for what a promise cannot do with."""
    name = name.lower()
    if not _NAME.fullmatch(name):
        raise SettingsError(f"postgresql.parameters: {name!r} is no parameter name")
    if name in _OWN | _FOREIGN:
        raise SettingsError(f"postgresql.parameters.{name}: is set by the appliance; remove it")
    if name in _REQUIRED and value.lower() not in _SAME.get(_REQUIRED[name], {_REQUIRED[name]}):
        raise SettingsError(f"postgresql.parameters.{name}: must be {_REQUIRED[name]}, not {value!r}; remove it")
    if name == "wal_level" and value.lower() == "minimal":
        raise SettingsError("postgresql.parameters.wal_level: standbys need replica or logical, not 'minimal'")
    if name == "ssl_min_protocol_version" and value.lower() not in _SOUND_PROTOCOLS:
        raise SettingsError(f"postgresql.parameters.{name}: must be TLSv1.2 or TLSv1.3, not {value!r}")
    if "\0" in value:
        raise SettingsError(f"postgresql.parameters.{name}: contains a zero byte")


def effective(settings: Settings, data_dir: Path, floor: ControlData | None = None) -> dict[str, str]:
    """Every parameter that the appliance sets. `floor` is a standby's control data: with less it does not start."""
    check_settings(settings)
    fitted = {} if settings.slot_wal_mb is None else {"max_slot_wal_keep_size": f"{settings.slot_wal_mb}MB"}
    values = {
        **DEFAULTS,
        **fitted,
        **{name.lower(): value for name, value in settings.parameters.items()},
        **_REQUIRED,
        "cluster_name": settings.cluster_name,
        "hba_file": str(data_dir / HBA_FILE),
        "ident_file": str(data_dir / IDENT_FILE),
        "listen_addresses": settings.listen,
        "port": str(settings.port),
        "primary_conninfo": settings.primary_conninfo,
        "primary_slot_name": settings.primary_slot_name,
        "restore_command": "",
        "synchronous_standby_names": settings.synchronous_standby_names,
        SYNC_NAMES: settings.synchronous_standby_names,
        SYNC_VERSION: str(settings.sync_version),
        ADMITS: "on" if settings.admits else "off",
        REFUSES_WRITES: "on" if settings.refuses_writes else "off",
        **({"default_transaction_read_only": "on"} if settings.refuses_writes else {}),
        "unix_socket_directories": str(settings.unix_socket_dir),
        **(settings.certificate.parameters() if settings.certificate else {}),
    }
    return {**values, **_raised(values, floor)}


def _raised(values: Mapping[str, str], floor: ControlData | None) -> dict[str, str]:
    if floor is None:
        return {}
    least = {
        "max_connections": floor.max_connections,
        "max_worker_processes": floor.max_worker_processes,
        "max_wal_senders": floor.max_wal_senders,
        "max_prepared_transactions": floor.max_prepared_xacts,
        "max_locks_per_transaction": floor.max_locks_per_xact,
    }
    return {
        name: str(number)
        for name, number in least.items()
        if not values[name].isdecimal() or int(values[name]) < number
    }


def server_argv(binaries: Binaries, data_dir: Path, settings: Settings, floor: ControlData | None = None) -> list[str]:
    """How the guard starts the postmaster. The files must have been written with the same arguments."""
    values = effective(settings, data_dir, floor)
    options = [part for name in _ON_COMMAND_LINE for part in ("-c", f"{name}={values[name]}")]
    return [binaries.tool("postgres"), "-D", str(data_dir), *options]


def server_environment() -> dict[str, str]:
    """How the guard starts the postmaster: nothing of the node's own environment that PostgreSQL would act on."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_", "LANG", "NOTIFY_"))}
    return {**kept, "LC_ALL": "C.UTF-8"}


def write_settings(data_dir: Path, settings: Settings, floor: ControlData | None = None) -> bool:
    """Whether anything changed, that is, whether a running PostgreSQL needs a reload."""
    rendered = _rendered(data_dir, settings, floor)
    changed = [write_if_changed(data_dir / name, text) for name, text in rendered.items()]
    return any([*changed, _include(data_dir), clean_auto_conf(data_dir, _SYNCHRONOUS)])


def settings_differ(data_dir: Path, settings: Settings, floor: ControlData | None = None) -> bool:
    """Whether `write_settings` would change anything."""
    rendered = _rendered(data_dir, settings, floor)
    if not _included(data_dir) or foreign_auto_conf(data_dir, _SYNCHRONOUS):
        return True
    return any(differs(data_dir / name, text) for name, text in rendered.items())


def _rendered(data_dir: Path, settings: Settings, floor: ControlData | None) -> dict[str, str]:
    values = effective(settings, data_dir, floor)
    lines = [f"{name} = {quoted(values[name])}" for name in sorted(values)]
    network = "hostssl" if settings.certificate else "host"
    return {
        # The first to be written: whatever shows `appliance.admits` as off has a closed one beside it.
        HBA_FILE: _file([*_own_hba(network), *_applications_hba(settings, network)]),
        IDENT_FILE: _file([*_own_ident(), *settings.ident]),
        INCLUDE_FILE: _file(lines),
    }


def _file(lines: list[str]) -> str:
    return _HEAD + "".join(f"{line}\n" for line in lines)


def _own_hba(network: str) -> list[str]:
    return [
        f"local all {SUPERUSER} peer map=appliance",
        f"{network} replication {REPLICATION_ROLE} all scram-sha-256",
        f"{network} postgres {REWIND_ROLE} all scram-sha-256",
        f"local all {REPLICATION_ROLE},{REWIND_ROLE} reject",
        f"host all {REPLICATION_ROLE},{REWIND_ROLE} all reject",
    ]


def _applications_hba(settings: Settings, network: str) -> Iterable[str]:
    """A closed gate has no line of the user's, so that none of them can keep PostgreSQL from loading it."""
    if not settings.admits:
        return ("local all all reject", "host all all all reject")
    return settings.hba or _default_hba(network)


def _default_hba(network: str) -> list[str]:
    return ["local all all scram-sha-256", f"{network} all all all scram-sha-256"]


def _own_ident() -> list[str]:
    """Root may become the run user anyway; so `appliance psql` needs no `su`."""
    users = dict.fromkeys((run_user(), "root"))
    return [f'appliance "{user}" {SUPERUSER}' for user in users]


def run_user() -> str:
    return pwd.getpwuid(os.geteuid()).pw_name


def quoted(value: str) -> str:
    """As postgresql.conf wants it: backslashes are escapes there, and a string ends with its line."""
    escaped = value.replace("\\", "\\\\").replace("'", "''").replace("\n", "\\n").replace("\r", "\\r")
    return f"'{escaped}'"


def _include(data_dir: Path) -> bool:
    """Append the include to postgresql.conf once; whether it was missing."""
    if _included(data_dir):
        return False
    path = data_dir / "postgresql.conf"
    present = read_text(path) or ""
    gap = "" if not present or present.endswith("\n") else "\n"
    content = f"{present}{gap}\n# Settings of pg-appliance win over the lines above.\n{_INCLUDE_LINE}\n"
    write_atomically(path, content)
    return True


def _included(data_dir: Path) -> bool:
    lines = (read_text(data_dir / "postgresql.conf") or "").splitlines()
    return _INCLUDE_LINE in (line.strip() for line in lines)


def write_standby_signal(data_dir: Path) -> None:
    """From now on it starts as a standby."""
    write_if_changed(data_dir / STANDBY_SIGNAL, "")
