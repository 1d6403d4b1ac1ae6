"""The node's side of the guard: start one or find the one that lives, ask it, and hear from it.

Every call is bounded. One connection stays open for the calls, as long as each is answered, and one for the events.
"""

import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from appliance.node.guard import ANOTHER_LIVES, PROTOCOL, SOCKET_NAME
from appliance.node.guard_connection import Connection, GuardError, Message, granted
from appliance.node.guard_record import FENCE_NAME
from appliance.postgres.files import sync_directory

PACKAGE_ROOT = Path(__file__).resolve().parents[2]
# Isolated and without site-packages: small, and independent of whatever else is installed or in the way.
LAUNCH = "import sys; sys.path.append(sys.argv.pop(1)); from appliance.node.guard import main; main()"

CALL_LIMIT_S = 2.0
START_LIMIT_S = 5.0
HELLO_LIMIT_S = 0.5
SILENCE_LIMIT_S = 3.0
"""A guard that answers nobody for so long keeps no deadline either. Shorter than what a lease leaves after that."""
RETRY_S = 0.02
EVENTS_LIMIT = 1000


@dataclass(frozen=True, slots=True)
class Deadline:
    """When the guard ends PostgreSQL unless it is told otherwise before."""

    epoch: int
    at_s: float
    """CLOCK_BOOTTIME of SIGQUIT."""
    half_margin_s: float
    """From SIGQUIT to SIGKILL for all that is left."""


@dataclass(frozen=True, slots=True)
class Watchdog:
    """The device that the guard arms with every deadline."""

    device: str
    timeout_s: int
    required: bool
    """refused: `watchdog`, where a postmaster is to start with a deadline, or to have its first one"""


@dataclass(frozen=True, slots=True)
class WatchdogStatus:
    device: str | None
    """what is to be armed; None: nothing, at present"""
    timeout_s: int | None
    """of the device that runs; None: none does"""
    problem: str
    """why it does not, or could not lately; empty: nothing is known to be wrong"""


@dataclass(frozen=True, slots=True)
class Postmaster:
    pid: int
    started_at_s: float
    """CLOCK_BOOTTIME, to a hundredth of a second."""
    data_dir: Path


@dataclass(frozen=True, slots=True)
class Exited:
    """The postmaster ended: with an exit code or by a signal.

    Code 0 is no proof of a clean shutdown: an immediate one ends with it too. The control file knows.
    """

    pid: int
    code: int | None
    signal: int | None
    clean: bool
    """Nothing of the instance is left. False: something hangs in the kernel; another event will follow."""


@dataclass(frozen=True, slots=True)
class Fenced:
    """A deadline passed and the guard ended PostgreSQL. Followed by `Exited`."""

    epoch: int
    how: Literal["quit", "kill"]
    took_s: float


GuardEvent = Exited | Fenced


@dataclass(frozen=True, slots=True)
class GuardStatus:
    pid: int
    protocol: int
    locked_memory: bool
    postmaster: Postmaster | None
    """None only when nothing of the instance is left."""
    ending: bool
    """The postmaster is being ended, or is dead and its leftovers are."""
    last_exit: Exited | None
    deadline_s: float | None
    deadline_epoch: int | None
    fenced_epoch: int | None
    """Epoch of the last fence, also of one that is under way or that an earlier guard recorded."""
    watchdog: WatchdogStatus | None = None
    """None: the guard is from before there were any"""


@dataclass(frozen=True, slots=True)
class Silence:
    """A guard that takes connections and says nothing: stopped, or stuck."""

    pid: int
    from_s: float
    """Monotonic: the time that a host is suspended is nobody's silence."""


class GuardClient:
    """The guard of one run directory. Not for use by several threads."""

    def __init__(self, run_dir: Path, python: str = sys.executable) -> None:
        self._run_dir = run_dir
        self._python = python
        self._events: Connection | None = None
        self._calls: Connection | None = None
        self._waiting: deque[GuardEvent] = deque(maxlen=EVENTS_LIMIT)
        self._silence: Silence | None = None
        self.watchdog: Watchdog | None = None
        """what each deadline from now on is told to arm"""

    def ensure(self, limit_s: float = 3.0) -> None:
        """Connect to the living guard, or start one and connect. Cheap when connected."""
        self._hear()
        until_s = time.monotonic() + limit_s
        while self._events is None:
            try:
                self._events = self._connect(min(until_s, time.monotonic() + HELLO_LIMIT_S))
            except GuardError as error:
                if error.code not in {"unreachable", "timeout"} or time.monotonic() >= until_s:
                    raise
                if error.code == "unreachable":
                    self._launch(until_s)

    def silent_s(self) -> float:
        """For how long the guard has taken connections and not answered, as far as it was asked."""
        return time.monotonic() - self._silence.from_s if self._silence is not None else 0.0

    def kill_silent(self) -> int:
        """End a silent guard, and with it its PostgreSQL: the kernel sends that SIGQUIT. Answers the guard's pid."""
        assert self._silence is not None, "it is silent"
        pid, self._silence = self._silence.pid, None
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        self.close()
        return pid

    def fileno(self) -> int | None:
        """Tell the selector where events arrive; None without a connection."""
        return self._events.socket.fileno() if self._events is not None else None

    def events(self) -> list[GuardEvent]:
        """Take what has happened since the last call. Events of a lost connection are lost: see the status."""
        self._hear()
        heard = list(self._waiting)
        self._waiting.clear()
        return heard

    def close(self) -> None:
        """Let go of the guard, which goes on."""
        for connection in (self._events, self._calls):
            if connection is not None:
                connection.socket.close()
        self._events = self._calls = None

    def status(self, limit_s: float = 0.5) -> GuardStatus:
        """Ask what the guard knows."""
        return _status(self._call("status", limit_s=limit_s))

    def start_postgres(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        data_dir: Path,
        log_file: Path,
        deadline: Deadline | None,
    ) -> int:
        """Start the postmaster and answer its pid; with a deadline, it is held from before the start."""
        answer = self._call(
            "start",
            limit_s=START_LIMIT_S,
            argv=list(argv),
            env=dict(env),
            data_dir=str(data_dir),
            log_file=str(log_file),
            deadline=None if deadline is None else asdict(deadline),
            watchdog=self._asked_watchdog(),
        )
        return int(answer["pid"])

    def set_deadline(self, deadline: Deadline | None) -> None:
        """Replace the deadline. Refused: `old_epoch`, and `fenced` for an epoch that came to its end."""
        fields = {"at_s": None} if deadline is None else asdict(deadline)
        self._call("deadline", **fields, watchdog=self._asked_watchdog())

    def _asked_watchdog(self) -> Message | None:
        return None if self.watchdog is None else asdict(self.watchdog)

    def stop_postgres(self, mode: Literal["fast", "immediate"]) -> None:
        """Ask the postmaster to end; returns when it is signalled. The deadline stays."""
        self._call("stop", mode=mode)

    def kill_postgres(self) -> None:
        """Begin to end the instance as at a deadline: SIGQUIT now, SIGKILL half a margin later."""
        self._call("kill")

    def clean(self, data_dir: Path) -> None:
        """End every process that a dead postmaster left in the data directory; returns when none is left."""
        self._call("clean", data_dir=str(data_dir))

    def reload(self) -> None:
        """Have PostgreSQL read its configuration again."""
        self._call("reload")

    def quit(self) -> None:
        """End the guard. Refused while a postmaster runs."""
        self._call("quit")
        self.close()

    def set_fence_aside(self, recovery: int) -> None:
        """R13a: end the guard, which must run nothing, and keep what it fenced under another name.

        The next one knows of no fence, and takes a deadline of any epoch. Returns when this one answers no more: it
        would say again what it fenced.
        """
        until_s = time.monotonic() + CALL_LIMIT_S
        try:
            self.quit()
            while time.monotonic() < until_s:
                self._connect(until_s).socket.close()
                time.sleep(RETRY_S)
            raise GuardError("timeout", "it was told to end and goes on")
        except GuardError as error:
            if error.code != "unreachable":
                raise
        fence = self._run_dir / FENCE_NAME
        with suppress(FileNotFoundError):
            fence.rename(fence.with_name(f"{fence.stem}.before-recovery-{recovery}{fence.suffix}"))
        with suppress(FileNotFoundError):
            # Also when a killed process has renamed it. The notes are begun anew after this, and nobody looks again: a
            # fence that a power cut brings back would be believed for ever.
            sync_directory(self._run_dir)

    def _hear(self) -> None:
        """Move what has arrived from the connection to `_waiting`."""
        if self._events is None:
            return
        try:
            for message in self._events.arrived():
                event = _event(message)
                if event is not None:
                    self._waiting.append(event)
        except GuardError:
            self.close()

    def _call(self, op: str, limit_s: float = CALL_LIMIT_S, **arguments: object) -> Message:
        until_s = time.monotonic() + limit_s
        connection = self._take_calls() or self._connect(until_s)
        try:
            connection.send({"id": 1, "op": op, **arguments}, until_s)
            while (answer := connection.next(until_s)).get("id") != 1:
                pass  # an event, which the other connection gets too
        except GuardError as error:
            if error.code == "timeout":
                self._note_silence(connection)
            connection.socket.close()  # an answer that comes later is nobody's
            raise
        self._calls, self._silence = connection, None
        return granted(answer)

    def _take_calls(self) -> Connection | None:
        """The connection that the last call was answered on, if the guard has not closed it."""
        connection, self._calls = self._calls, None
        if connection is not None:
            try:
                for _ in connection.arrived():
                    pass  # events again
            except GuardError:
                connection.socket.close()
                return None
        return connection

    def _note_silence(self, connection: Connection) -> None:
        if self._silence is None or self._silence.pid != connection.peer():
            self._silence = Silence(connection.peer(), time.monotonic())

    def _connect(self, until_s: float) -> Connection:
        try:
            connection = Connection(str(self._run_dir / SOCKET_NAME), until_s)
        except GuardError as error:
            if error.code == "unreachable":
                self._silence = None
            raise
        try:
            hello = granted({"ok": True, **connection.next(until_s)})
            if hello.get("protocol") != PROTOCOL:
                raise GuardError("protocol", f"it speaks {hello.get('protocol')}, this node {PROTOCOL}")
        except GuardError as error:
            if error.code == "timeout":
                self._note_silence(connection)
            connection.socket.close()
            raise
        self._silence = None
        return connection

    def _launch(self, until_s: float) -> None:
        """Start a guard in a session of its own; returns when it listens or another one does."""
        try:
            starter = self._starter()
        except OSError as error:
            raise GuardError("no_start", f"{self._run_dir}: {error.strerror or error}") from error
        try:
            _, said = starter.communicate(timeout=max(RETRY_S, until_s - time.monotonic()))
        except subprocess.TimeoutExpired:
            starter.kill()
            starter.communicate()
            raise GuardError("timeout", f"it did not start in {self._run_dir}") from None
        if starter.returncode == ANOTHER_LIVES:
            time.sleep(RETRY_S)  # it is about to listen, or about to leave
        elif starter.returncode != 0:
            raise GuardError("no_start", said.decode(errors="replace").strip()[-500:])

    def _starter(self) -> subprocess.Popen[bytes]:
        self._run_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        argv = [self._python, "-I", "-S", "-c", LAUNCH, str(PACKAGE_ROOT), "--dir", str(self._run_dir)]
        return subprocess.Popen(
            argv,
            # One arena: the 64 MiB that a second one reserves would count against the limit of locked memory.
            env={**os.environ, "MALLOC_ARENA_MAX": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )


def _event(message: Message) -> GuardEvent | None:
    match message.get("event"):
        case "exited":
            return _exited(message)
        case "fenced":
            return Fenced(message["epoch"], message["how"], message["took_s"])
        case _:
            return None


def _exited(fields: Message) -> Exited:
    return Exited(fields["pid"], fields["code"], fields["signal"], fields["clean"])


def _status(answer: Message) -> GuardStatus:
    postmaster, deadline, fenced = answer["postmaster"], answer["deadline"], answer["fenced"]
    return GuardStatus(
        pid=answer["pid"],
        protocol=answer["protocol"],
        locked_memory=answer["locked_memory"],
        postmaster=postmaster
        and Postmaster(postmaster["pid"], postmaster["started_at_s"], Path(postmaster["data_dir"])),
        ending=answer["ending"],
        last_exit=answer["last_exit"] and _exited(answer["last_exit"]),
        deadline_s=deadline and deadline["at_s"],
        deadline_epoch=deadline and deadline["epoch"],
        fenced_epoch=fenced and fenced["epoch"],
        watchdog=WatchdogStatus(**answer["watchdog"]) if "watchdog" in answer else None,
    )
