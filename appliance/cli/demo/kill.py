"""`demo kill-primary`: the accident, on purpose."""

import sys
import time

import psutil

from appliance.cli.demo.layout import DemoNode, Layout, chosen, write
from appliance.cli.demo.processes import kill_all, postmaster
from appliance.cli.demo.status import member_roles
from appliance.cli.exits import Code, CommandError
from appliance.cli.output import say

HOST_AWAY_S = 5.0


def kill_primary(directory: str, *, host: bool) -> int:
    layout = Layout.load(chosen(directory))
    node = _primary(layout)
    try:
        return _kill_host(node) if host else _kill_postmaster(node)
    except (psutil.AccessDenied, PermissionError):
        owner = layout.directory.owner()
        raise CommandError(Code.NOT_ALLOWED, f"this demo runs as user {owner}; be root or {owner}") from None


def _primary(layout: Layout) -> DemoNode:
    roles = member_roles(layout)
    if not roles:
        raise CommandError(Code.UNREACHABLE, "no node answers; is the demo up? see `appliance demo status`")
    node = next((node for node in layout.nodes if roles.get(node.name) == "primary"), None)
    if node is None:
        raise CommandError(Code.FAILED, "there is no primary just now; see `appliance status`")
    return node


def _kill_postmaster(node: DemoNode) -> int:
    process = postmaster(node)
    if process is None:
        raise CommandError(Code.FAILED, f"no PostgreSQL runs in {node.data_dir}")
    process.kill()
    say(sys.stdout, f"killed the postmaster of primary {node.name}, pid {process.pid}")
    return Code.DONE


def _kill_host(node: DemoNode) -> int:
    """The hold first, so that the supervisor does not start the node at once."""
    write(node.hold, f"{time.clock_gettime(time.CLOCK_BOOTTIME) + HOST_AWAY_S}")
    count = kill_all(node)
    say(sys.stdout, f"killed all {count} processes of primary {node.name}; it starts again after {HOST_AWAY_S:g} s")
    return Code.DONE
