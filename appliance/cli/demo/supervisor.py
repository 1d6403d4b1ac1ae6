"""Keeps a demo's node processes running, as systemd would, until it is told to stop."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from threading import Event

import psutil

from appliance.cli.demo.layout import DemoNode, Layout
from appliance.cli.demo.processes import end_leftovers, note, own_command
from appliance.cli.output import say

RESTART_AFTER_S = 1.0
LOOK_S = 0.1
END_LIMIT_S = 65.0
"""a node bounds its own orderly stop by a minute"""


@dataclass(slots=True)
class Child:
    """A node's process, or when to start it again."""

    node: DemoNode
    process: subprocess.Popen[bytes] | None = None
    start_at_s: float = 0.0
    exits: int = 0


class Supervisor:
    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.children = [Child(node) for node in layout.nodes]
        self._stop = Event()

    @contextlib.contextmanager
    def supervising(self) -> Iterator[None]:
        """Signals ask to stop; on the way out every process of the demo ends."""
        before = {number: signal.signal(number, self._on_signal) for number in _STOPPING}
        note(self.layout.supervisor_file, os.getpid())
        try:
            yield
        finally:
            self._end()
            self.layout.supervisor_file.unlink(missing_ok=True)
            self.layout.ready_file.unlink(missing_ok=True)
            for number, handler in before.items():
                signal.signal(number, handler)

    def _on_signal(self, _number: int, _frame: object) -> None:
        self._stop.set()

    @property
    def stopping(self) -> bool:
        return self._stop.is_set()

    def pause(self) -> None:
        self._stop.wait(LOOK_S)

    def look(self) -> None:
        """Start what is due, notice what has ended."""
        for child in self.children:
            if child.process is None:
                if _now_s() >= child.start_at_s:
                    self._start(child)
            elif child.process.poll() is not None:
                self._ended(child, child.process.returncode)

    def _start(self, child: Child) -> None:
        node = child.node
        command = [*own_command(), "node", "--config", str(node.config)]
        with node.log.open("ab") as log:
            child.process = subprocess.Popen(
                command,
                cwd=node.directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Ctrl-C at the terminal is for the supervisor; it ends the nodes in order.
                start_new_session=True,
            )
        with contextlib.suppress(psutil.NoSuchProcess):
            note(node.pid_file, child.process.pid)

    def _ended(self, child: Child, code: int) -> None:
        held_s = _held_until_s(child.node)
        child.process = None
        child.exits += 1
        child.start_at_s = max(_now_s() + RESTART_AFTER_S, held_s)
        again_s = child.start_at_s - _now_s()
        # One that was killed had nothing to say.
        why = f": {last_line(child.node)}" if code > 0 else ""
        say(sys.stderr, f"{child.node.name}: node process ended ({_shown(code)}){why}; again in {again_s:.0f} s")

    def _end(self) -> None:
        """SIGINT: each node stops PostgreSQL, then its guard and itself; what is left then is ended from here."""
        running = [child.process for child in self.children if child.process is not None]
        for process in running:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGINT)
        _wait(running, END_LIMIT_S)
        end_leftovers(self.layout.nodes)
        _wait(running, 1.0)
        for node in self.layout.nodes:
            node.pid_file.unlink(missing_ok=True)


_STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def _wait(processes: Sequence[subprocess.Popen[bytes]], limit_s: float) -> None:
    deadline_s = time.monotonic() + limit_s
    for process in processes:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(max(0.01, deadline_s - time.monotonic()))


def _held_until_s(node: DemoNode) -> float:
    try:
        return float(node.hold.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return 0.0


def _now_s() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _shown(code: int) -> str:
    return f"exit {code}" if code >= 0 else signal.Signals(-code).name


def last_line(node: DemoNode) -> str:
    """What a node said last; for a node that does not stay up."""
    try:
        lines = node.log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return "no log"
    return lines[-1][:400] if lines else "nothing in its log"
