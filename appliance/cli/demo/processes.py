"""The processes of a demo: found by pid files with a start time, and by what they work on."""

import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import psutil

from appliance.cli.demo.layout import DemoNode, write

LOOK_S = 0.05
KILL_LIMIT_S = 5.0
_OURS = ("python", "postgres", "pg_", "initdb")


def own_command() -> list[str]:
    """This command again, as another process. `-P`: what happens to lie where the person stands is not imported."""
    return [sys.executable, "-P", "-m", "appliance.cli.main"]


def note(file: Path, pid: int) -> None:
    write(file, json.dumps({"pid": pid, "started": psutil.Process(pid).create_time()}))


def noted(file: Path) -> psutil.Process | None:
    """The process that a pid file means; None when it has ended, also when its number is somebody else's now."""
    try:
        known = json.loads(file.read_text(encoding="utf-8"))
        process = psutil.Process(known["pid"])
        same = abs(process.create_time() - known["started"]) < 0.02 and process.status() != psutil.STATUS_ZOMBIE
    except (OSError, ValueError, KeyError, psutil.NoSuchProcess):
        return None
    return process if same else None


def postmaster(node: DemoNode) -> psutil.Process | None:
    """The live postmaster of a node's data directory."""
    try:
        first = (node.data_dir / "postmaster.pid").read_text(encoding="utf-8").partition("\n")[0]
        process = psutil.Process(int(first))
        return process if process.cwd() == str(node.data_dir.resolve()) else None
    except (OSError, ValueError, psutil.Error):
        return None


def of_node(node: DemoNode) -> list[psutil.Process]:
    """Node process, guard, postmaster and its children, and tasks: whatever works in the node's directory."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.pid != os.getpid() and _works_on(process, node.directory.resolve()):
                found.append(process)
    return found


def _works_on(process: psutil.Process, directory: Path) -> bool:
    command = process.cmdline()
    if not command or process.status() == psutil.STATUS_ZOMBIE:
        return False
    if not Path(command[0]).name.startswith(_OURS):
        return False
    below = f"{directory}/"
    return f"{process.cwd()}/".startswith(below) or any(part.startswith(below) for part in command[1:])


def kill_all(node: DemoNode) -> int:
    """kill -9 until nothing of the node is left. Says how many there were."""
    killed: set[int] = set()
    deadline_s = time.monotonic() + KILL_LIMIT_S
    while (left := of_node(node)) and time.monotonic() < deadline_s:
        killed.update(process.pid for process in left)
        send(left, signal.SIGKILL)
        time.sleep(LOOK_S)
    return len(killed)


def send(processes: Iterable[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)


def wait_gone(processes: Sequence[psutil.Process], limit_s: float) -> bool:
    """Whether all have ended within the limit."""
    _, alive = psutil.wait_procs(processes, timeout=limit_s)
    return not alive


def end_leftovers(nodes: Iterable[DemoNode]) -> int:
    """After the nodes have ended: stop what still runs, PostgreSQL fast before all. Says how many it had to kill."""
    nodes = list(nodes)
    running = [process for node in nodes if (process := postmaster(node)) is not None]
    send(running, signal.SIGINT)
    wait_gone(running, 20.0)
    helpers = [process for node in nodes for process in of_node(node)]
    send(helpers, signal.SIGTERM)
    wait_gone(helpers, 3.0)
    return sum(kill_all(node) for node in nodes)
