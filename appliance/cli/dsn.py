"""Connection strings that name every member, so that a client finds the primary by itself."""

import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from appliance.cli.client import Client
from appliance.cli.exits import Code, CommandError
from appliance.cli.node_file import load
from appliance.cli.output import Format, Table, emit, say
from appliance.cli.target import find_target
from appliance.node.config import NodeConfig
from appliance.postgres.dsn import CLIENT_PATIENCE
from appliance.postgres.dsn import dsn as uri


class Role(StrEnum):
    RW = "rw"
    RO = "ro"
    ANY = "any"


class Form(StrEnum):
    URI = "uri"
    KV = "kv"
    ENV = "env"


_SESSION: Mapping[Role, str] = {Role.RW: "read-write", Role.RO: "prefer-standby", Role.ANY: "any"}
# libpq has no variables for keepalives and tcp_user_timeout.
_ENVIRONMENT = {
    "host": "PGHOST",
    "port": "PGPORT",
    "dbname": "PGDATABASE",
    "user": "PGUSER",
    "password": "PGPASSWORD",
    "target_session_attrs": "PGTARGETSESSIONATTRS",
    "connect_timeout": "PGCONNECT_TIMEOUT",
    "sslmode": "PGSSLMODE",
    "sslrootcert": "PGSSLROOTCERT",
}


@dataclass(frozen=True, slots=True)
class Application:
    """Role and database that bootstrap made, as far as this user may know."""

    user: str = ""
    database: str = "postgres"
    password: str = ""
    ca: str = ""
    """where the client finds the authorities of the members' certificates; empty: they have none"""
    hint: str = ""

    @property
    def verification(self) -> Mapping[str, str]:
        """With it a client speaks to a member or to nobody."""
        return {"sslmode": "verify-full", "sslrootcert": self.ca} if self.ca else {}


def dsn(role: Role, form: Form, output: Format, ca: str = "") -> int:
    """`ca` is a path at the client."""
    target = find_target()
    hosts = member_hosts(Client(target.endpoints))
    application = read_application(target.configs)
    if application.hint:
        say(sys.stderr, f"appliance: {application.hint}")
    if ca:
        application = replace(application, ca=ca)
    elif application.ca and not os.access(application.ca, os.R_OK):
        say(sys.stderr, f"appliance: {application.ca} is not for this user to read: copy it, and give --ca its place")
    document = {"dsn": write_uri(hosts, application, role), **_pairs(hosts, application, role)}
    table = Table([key.upper() for key in document], [list(document.values())])
    emit(document, table, output, text=render(hosts, application, role, form))
    return Code.DONE


def member_hosts(client: Client) -> list[tuple[str, int]]:
    """The primary first: a client then connects at once, and finds another when it has moved."""
    view = client.cluster()
    members = sorted(view["members"], key=lambda m: (m["role"] != "primary", m["name"]))
    hosts = [(m["host"], m["port"]) for m in members if m["port"]]
    if not hosts:
        raise CommandError(Code.FAILED, "no member has announced a PostgreSQL address yet; see `appliance status`")
    return hosts


def read_application(configs: Sequence[Path]) -> Application:
    """From the node files on this host; the first password that this user may read."""
    if not configs:
        return Application(hint="no role and no password: those are known on the cluster's hosts (--config)")
    known = [_application(load(config)) for config in configs]
    return next((application for application in known if application.password), known[0])


def _application(config: NodeConfig) -> Application:
    wanted, ca = config.bootstrap.application, str(config.tls.ca) if config.tls is not None else ""
    if wanted is None:
        where = config.postgresql.socket_dir
        hint = f"{config.name} has no bootstrap.application; a superuser connects on {where} locally"
        return Application(ca=ca, hint=hint)
    file = config.application_password_file
    try:
        return Application(wanted.user, wanted.database, file.read_text(encoding="utf-8").strip(), ca)
    except OSError as error:
        hint = f"without the password: {file}: {(error.strerror or 'unreadable').lower()}"
        return Application(wanted.user, wanted.database, ca=ca, hint=hint)


def render(hosts: Sequence[tuple[str, int]], application: Application, role: Role, form: Form) -> list[str]:
    if form is Form.URI:
        return [write_uri(hosts, application, role)]
    pairs = _pairs(hosts, application, role)
    if form is Form.ENV:
        known = ((_ENVIRONMENT[key], value) for key, value in pairs.items() if key in _ENVIRONMENT)
        return [f"{name}={shlex.quote(value)}" for name, value in known]
    return [" ".join(f"{key}={_quoted(value)}" for key, value in pairs.items())]


def _pairs(hosts: Sequence[tuple[str, int]], application: Application, role: Role) -> dict[str, str]:
    """As libpq names them; what is not known is left out."""
    pairs = {
        "host": ",".join(host for host, _ in hosts),
        "port": ",".join(str(port) for _, port in hosts),
        "dbname": application.database,
        "user": application.user,
        "password": application.password,
        "target_session_attrs": _SESSION[role],
        **application.verification,
        **CLIENT_PATIENCE,
    }
    return {key: value for key, value in pairs.items() if value}


def write_uri(hosts: Sequence[tuple[str, int]], application: Application, role: Role) -> str:
    return uri(
        hosts,
        dbname=application.database,
        user=application.user,
        password=application.password,
        target_session_attrs=_SESSION[role],
        parameters={**application.verification, **CLIENT_PATIENCE},
    )


def _quoted(value: str) -> str:
    """As libpq reads a value in a key=value string."""
    if value and not set(value) & set(" '\\"):
        return value
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
