"""`demo status`: the connection string, and each node with its role and its processes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from appliance.cli.client import Client
from appliance.cli.demo.layout import HOST, DemoNode, Layout, chosen
from appliance.cli.demo.processes import noted, postmaster
from appliance.cli.dsn import Role, read_application, write_uri
from appliance.cli.exits import Code, CommandError
from appliance.cli.output import Format, Table, emit
from appliance.cli.target import Endpoint

UNKNOWN = "unknown"


def demo_client(layout: Layout) -> Client:
    """Over the nodes' unix sockets: this user owns them, so no token is needed."""
    return Client([Endpoint(node.api_url, socket=_socket(node)) for node in layout.nodes])


def _socket(node: DemoNode) -> Path:
    return node.directory / "run" / "api.sock"


def demo_uri(layout: Layout) -> str:
    """Names every node; with the password where this user may read it."""
    hosts = [(HOST, node.postgres_port) for node in layout.nodes]
    return write_uri(hosts, read_application([node.config for node in layout.nodes]), Role.RW)


def status(directory: str, output: Format) -> int:
    """Exits 3 when no node answers; the document is printed all the same."""
    layout = Layout.load(chosen(directory))
    roles = member_roles(layout)
    members = [_member(node, roles.get(node.name, UNKNOWN)) for node in layout.nodes]
    supervisor = noted(layout.supervisor_file)
    document = {
        "dsn": demo_uri(layout),
        "directory": str(layout.directory),
        "supervisor_pid": supervisor.pid if supervisor is not None else None,
        "members": members,
    }
    rows = [
        [m["name"], m["role"], m["api_url"], _pid(m["pid"]), _pid(m["postmaster_pid"]), m["data_dir"]] for m in members
    ]
    table = Table(["NODE", "ROLE", "API", "PID", "POSTMASTER", "DATA"], rows)
    emit(document, table, output, text=[*table.lines(), "", f"DSN  {document['dsn']}"])
    return Code.DONE if roles else Code.UNREACHABLE


def member_roles(layout: Layout) -> Mapping[str, str]:
    """Roles as a node with a quorum knows them; empty when none answers."""
    try:
        view = demo_client(layout).cluster()
    except CommandError:
        return {}
    return {member["name"]: member["role"] for member in view["members"]} or {view["node"]: UNKNOWN}


def _member(node: DemoNode, role: str) -> dict[str, Any]:
    process, database = noted(node.pid_file), postmaster(node)
    return {
        "name": node.name,
        "api_url": node.api_url,
        "role": role,
        "data_dir": str(node.data_dir),
        "pid": process.pid if process is not None else None,
        "postmaster_pid": database.pid if database is not None else None,
        "log": str(node.log),
    }


def _pid(pid: int | None) -> str:
    return "-" if pid is None else str(pid)
