"""`demo down`: end every process of a demo, and remove what it left."""

import contextlib
import shutil
import signal
import sys
from pathlib import Path

import psutil

from appliance.cli.demo.layout import MANIFEST, Layout, chosen, is_demo, supervisor_log
from appliance.cli.demo.processes import end_leftovers, noted, send, wait_gone
from appliance.cli.exits import Code, CommandError
from appliance.cli.output import say

SUPERVISOR_LIMIT_S = 100.0


def down(directory: str, *, keep: bool) -> int:
    place = chosen(directory)
    if not is_demo(place):
        say(sys.stderr, f"no demo in {place}: nothing to end")
        return Code.DONE
    layout = Layout.load(place)
    try:
        _end(layout)
        if not keep:
            _remove(layout)
    except (psutil.AccessDenied, PermissionError):
        owner = place.owner()
        raise CommandError(Code.NOT_ALLOWED, f"the demo in {place} belongs to {owner}; be root or {owner}") from None
    say(sys.stdout, f"kept {place}" if keep else f"removed {place}")
    return Code.DONE


def _end(layout: Layout) -> None:
    supervisor = noted(layout.supervisor_file)
    if supervisor is not None:
        send([supervisor], signal.SIGTERM)
        if not wait_gone([supervisor], SUPERVISOR_LIMIT_S):
            send([supervisor], signal.SIGKILL)
        say(sys.stdout, f"ended the supervisor, pid {supervisor.pid}, and its nodes")
    # A supervisor that was killed leaves its nodes behind.
    nodes = [process for node in layout.nodes if (process := noted(node.pid_file)) is not None]
    send(nodes, signal.SIGINT)
    wait_gone(nodes, SUPERVISOR_LIMIT_S)
    killed = end_leftovers(layout.nodes)
    if nodes or killed:
        say(sys.stdout, f"ended {len(nodes)} nodes without a supervisor, killed {killed} processes")


def _remove(layout: Layout) -> None:
    """Only what a demo makes; the manifest last, so that an interrupted removal can be repeated."""
    for node in layout.nodes:
        shutil.rmtree(node.directory)
    with contextlib.suppress(FileNotFoundError):  # a demo of an earlier version
        shutil.rmtree(layout.certificates)
    for file in (supervisor_log(layout.directory), layout.supervisor_file, layout.ready_file):
        file.unlink(missing_ok=True)
    (layout.directory / MANIFEST).unlink()
    _remove_if_empty(layout.directory)


def _remove_if_empty(directory: Path) -> None:
    try:
        directory.rmdir()
    except OSError as error:
        say(sys.stderr, f"{directory} stays: {(error.strerror or str(error)).lower()}")
