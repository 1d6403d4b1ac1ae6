"""The guard: parent of PostgreSQL, which ends it at a deadline whatever becomes of the node process (safety.md R4).

A process of its own that outlives the node while PostgreSQL runs. Standard library only, everything imported
before PostgreSQL starts, no dataclasses: it must stay small and never need the disk to do its work.
"""

import fcntl
import json
import os
import selectors
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn

from appliance.node.guard_keeper import Keeper, Refused
from appliance.node.guard_record import Fields, Recorder
from appliance.node.guard_request import answer
from appliance.node.guard_system import Timer, become_keeper_of_orphans, boottime_s, family, lock_memory
from appliance.node.guard_watchdog import Watchdog

PROTOCOL = 1
SOCKET_NAME = "guard.sock"
LOCK_NAME = "guard.pid"
ANOTHER_LIVES = 3
"""Exit status when the lock of the run directory is taken."""

IDLE_LIMIT_S = 10.0
RETRY_S = 0.05
LINE_LIMIT_BYTES = 1024 * 1024
CONNECTIONS_LIMIT = 16
ENDING_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP)


class Connection:
    """A client that may speak, and what it has said of its next line."""

    __slots__ = ("heard", "socket")

    def __init__(self, client: socket.socket) -> None:
        self.socket = client
        self.heard = b""


class Guard:
    """The event loop: one listener, a few clients, one timer, the signals. Nothing here waits for anybody."""

    def __init__(self, listener: socket.socket, recorder: Recorder, watchdog: Watchdog, *, locked_memory: bool) -> None:
        self._listener = listener
        self._recorder = recorder
        self._hello = {"event": "hello", "protocol": PROTOCOL, "pid": os.getpid()}
        self.locked_memory = locked_memory
        self._about = {"pid": os.getpid(), "protocol": PROTOCOL, "locked_memory": locked_memory}
        self._watchdog = watchdog
        self._keeper = Keeper(recorder, self._tell, watchdog)
        self._connections: set[Connection] = set()
        self._timer = Timer()
        self._idle_from_s: float | None = None
        self._last_refusal: tuple[str, str] | None = None
        self._last_failure: tuple[str, str] | None = None
        self._over = False
        self._selector = selectors.DefaultSelector()
        self._signals = self._catch_signals()
        self._selector.register(self._signals, selectors.EVENT_READ, self._hear_signals)
        self._selector.register(self._timer, selectors.EVENT_READ, self._timer.clear)
        self._selector.register(listener, selectors.EVENT_READ, self._accept)

    def _catch_signals(self) -> socket.socket:
        """Turn signals into bytes, and so into events."""
        heard, woken = socket.socketpair()
        heard.setblocking(False)
        woken.setblocking(False)
        for number in (signal.SIGCHLD, *ENDING_SIGNALS):
            signal.signal(number, lambda _number, _frame: None)
        signal.set_wakeup_fd(woken.detach(), warn_on_full_buffer=False)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        return heard

    def serve(self) -> None:
        """Work until nobody needs a guard any more."""
        while not self._over:
            self._timer.set(self._step())
            for key, _ in self._selector.select():
                self._attend(key.data)
                self._step()
        self._watchdog.close()

    def _attend(self, handle: Callable[[], None]) -> None:
        try:
            handle()
        except Exception as error:  # noqa: BLE001  nothing that a client does may end the guard
            self._log_failure("event.failed", error)
            time.sleep(RETRY_S)  # what cannot be accepted, for want of files, is offered again at once

    def _step(self) -> float | None:
        """Do what is due; answer when there is more to do although nothing happens."""
        try:
            self._keeper.step()
            wake_at_s = self._keeper.wake_at_s()
        except Exception as error:  # noqa: BLE001  out of memory or files: PostgreSQL must end all the same
            self._log_failure("step.failed", error)
            return boottime_s() + RETRY_S
        if self._connections or self._keeper.postmaster is not None:
            self._idle_from_s = None
            return wake_at_s
        return self._idle()

    def _idle(self) -> float:
        now_s = boottime_s()
        if self._idle_from_s is None:
            self._idle_from_s = now_s
        over_at_s = self._idle_from_s + IDLE_LIMIT_S
        self._over |= now_s >= over_at_s
        return over_at_s

    def _hear_signals(self) -> None:
        for number in set(self._signals.recv(4096)) & {*ENDING_SIGNALS}:
            name = signal.Signals(number).name
            if self._keeper.postmaster is None:
                self._recorder.log("guard.signalled", signal=name)
                self._over = True
            else:
                pid = self._keeper.postmaster.pid
                self._recorder.log("signal.ignored", signal=name, because=f"postmaster {pid} runs")

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        client.setblocking(False)
        _, user, _ = struct.unpack("=iII", client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        connection = Connection(client)
        if user != os.geteuid():
            self._turn_away(connection, "forbidden", f"user {user} is not served")
        elif len(self._connections) >= CONNECTIONS_LIMIT:
            self._turn_away(connection, "busy", f"{CONNECTIONS_LIMIT} clients are connected")
        else:
            self._connections.add(connection)
            self._selector.register(client, selectors.EVENT_READ, lambda: self._hear(connection))
            self._send(connection, self._hello)

    def _turn_away(self, connection: Connection, code: str, because: str) -> None:
        self._recorder.log("client.refused", error=code, because=because)
        self._send(connection, {"ok": False, "error": code, "detail": because})
        connection.socket.close()

    def _hear(self, connection: Connection) -> None:
        try:
            heard = connection.socket.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            heard = b""
        connection.heard += heard
        *lines, connection.heard = connection.heard.split(b"\n")
        for line in lines:
            # The host may have slept since select: what is due comes before a renewal that came too late.
            self._step()
            self._serve_line(connection, line)
        if not heard or len(connection.heard) > LINE_LIMIT_BYTES:
            self._drop(connection)

    def _serve_line(self, connection: Connection, line: bytes) -> None:
        if self._over:  # or a start would be accepted by a guard on its way out
            return
        try:
            request = json.loads(line)
            if not isinstance(request, dict):
                raise Refused("bad_request", "a request is a JSON object")
        except (ValueError, RecursionError, Refused):
            self._send(connection, {"id": None, "ok": False, "error": "bad_request", "detail": "no JSON object"})
            return
        number = request.get("id")
        self._send(connection, {"id": number if isinstance(number, int) else None, **self._answer(request)})

    def _answer(self, request: dict[str, object]) -> Fields:
        op = request.get("op")
        try:
            result = answer(self._keeper, self._about, request)
            self._over |= op == "quit"
            return {"ok": True, **result}
        except Refused as refusal:
            self._log_refusal(str(op)[:40], refusal)
            return {"ok": False, "error": refusal.code, "detail": str(refusal)}

    def _log_failure(self, event: str, error: Exception) -> None:
        if self._last_failure != (event, repr(error)):
            self._recorder.log(event, error=repr(error))
        self._last_failure = (event, repr(error))

    def _log_refusal(self, op: str, refusal: Refused) -> None:
        """Log what is new: a node that asks in vain twice a second must not drive the rest out of the log."""
        if self._last_refusal != (op, refusal.code):
            self._recorder.log("request.refused", op=op, error=refusal.code, detail=str(refusal))
        self._last_refusal = (op, refusal.code)

    def _send(self, connection: Connection, message: Fields) -> None:
        """Send a line whole, or give the client up: one that does not read must not hold the others."""
        line = json.dumps(message).encode() + b"\n"
        try:
            whole = connection.socket.send(line) == len(line)
        except OSError:
            whole = False
        if not whole:
            self._drop(connection)

    def _tell(self, event: Fields) -> None:
        for connection in tuple(self._connections):
            self._send(connection, event)

    def _drop(self, connection: Connection) -> None:
        if connection in self._connections:
            self._connections.remove(connection)
            self._selector.unregister(connection.socket)
            connection.socket.close()


def listen(run_dir: str) -> socket.socket:
    """Bind the socket of the run directory; whoever holds the lock may remove the one of a dead guard."""
    address = os.path.join(run_dir, SOCKET_NAME)
    if os.path.lexists(address):
        os.unlink(address)
    listener = socket.socket(socket.AF_UNIX)
    listener.setblocking(False)
    listener.bind(address)
    os.chmod(address, 0o600)
    listener.listen(CONNECTIONS_LIMIT)
    return listener


def lock(run_dir: str) -> None:
    """Become the only guard of the run directory, as long as this process lives, and note its pid there.

    The file is never closed: closing it would give the lock back.
    """
    file = os.open(os.path.join(run_dir, LOCK_NAME), os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.ftruncate(file, 0)
    os.write(file, f"{os.getpid()}\n".encode())


def detach() -> int:
    """Go on in a child that no terminal, session or working directory holds; answer where to report to.

    The first process stays until the child reports, so that whoever waits for it knows how that went.
    """
    report_read, report_write = os.pipe()
    if os.fork() > 0:
        os.close(report_write)
        with open(report_read, "rb") as file:
            report = file.read().decode() or "the guard died while it started"
        status, _, message = report.partition(" ")
        print(message, file=sys.stderr)  # noqa: T201  the one who started it reads this
        os._exit(int(status) if status.isdigit() else 1)
    os.close(report_read)
    os.setsid()
    os.chdir("/")
    os.umask(0o077)
    for number in range(3):
        os.dup2(os.open(os.devnull, os.O_RDWR), number)
    return report_write


def tell(report: int, status: int, message: str) -> None:
    os.write(report, f"{status} {message}".encode())
    os.close(report)


def finish(report: int, status: int, message: str) -> NoReturn:
    tell(report, status, message)
    os._exit(status)


def begin(run_dir: str) -> tuple[Guard, Recorder]:
    lock(run_dir)
    become_keeper_of_orphans("pg-guard")
    recorder = Recorder(run_dir)
    listener = listen(run_dir)
    family(os.getpid(), run_dir)  # a rehearsal: what it touches is in memory, and locked, when it matters
    watchdog = Watchdog(recorder)  # its stack is there before memory is locked
    return Guard(listener, recorder, watchdog, locked_memory=lock_memory()), recorder


def main() -> NoReturn:
    """Start a guard for a run directory; the caller gets an exit status when it listens or cannot."""
    if len(sys.argv) != 3 or sys.argv[1] != "--dir":
        sys.exit("usage: guard --dir RUN_DIR")
    run_dir = os.path.abspath(sys.argv[2])
    report = detach()
    try:
        guard, recorder = begin(run_dir)
    except BlockingIOError:
        finish(report, ANOTHER_LIVES, f"another guard lives in {run_dir}")
    except OSError as error:
        finish(report, 1, f"no guard in {run_dir}: {error}")
    recorder.log("guard.started", pid=os.getpid(), protocol=PROTOCOL, locked_memory=guard.locked_memory)
    tell(report, 0, "ready")
    try:
        guard.serve()
    except Exception as error:  # noqa: BLE001  PostgreSQL gets SIGQUIT from the kernel when this process ends
        recorder.log("guard.failed", error=repr(error))
    with suppress(OSError):
        os.unlink(os.path.join(run_dir, SOCKET_NAME))
    recorder.log("guard.ended", pid=os.getpid())
    recorder.close()
    os._exit(0)
