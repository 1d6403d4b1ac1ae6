"""A real PostgreSQL under a real guard, with a stand-in for the node that can be killed and stopped."""

import contextlib
import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import asdict
from pathlib import Path, PosixPath

import psycopg

from appliance.node.guard_client import (
    Deadline,
    Exited,
    Fenced,
    GuardStatus,
    Postmaster,
    WatchdogStatus,
)
from appliance.node.guard_connection import GuardError

BINARIES = Path(os.environ.get("PG_BIN", "/usr/lib/postgresql/15/bin"))
PROJECT = Path(__file__).resolve().parents[2]
STAND_IN = PROJECT / "tests" / "postgres" / "guard_stand_in.py"
HALF_MARGIN_S = 0.25
SLACK_S = 0.3
VALUES = {it.__name__: it for it in (Exited, Fenced, GuardStatus, Postmaster, WatchdogStatus, PosixPath)}


def as_postgres() -> dict:
    """Name the user for a child process: PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return {}
    user = pwd.getpwnam("postgres")
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


def now_s() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def wait_until(claim, limit_s: float = 5.0):
    until_s = time.monotonic() + limit_s
    while not (seen := claim()):
        assert time.monotonic() < until_s, "not in time"
        time.sleep(0.005)
    return seen


def living_in(data_dir: Path) -> set[int]:
    found = set()
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and (entry / "cwd").readlink() == data_dir:
                state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
                found |= {int(entry.name)} if state not in "ZX" else set()
    return found


class StandIn:
    """A node process, as far as a guard can tell."""

    def __init__(self, run_dir: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, STAND_IN, run_dir],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={"PYTHONPATH": str(PROJECT), "PYTHONDONTWRITEBYTECODE": "1"},
            text=True,
            **as_postgres(),
        )

    def __call__(self, call: str, **arguments):
        self.process.stdin.write(json.dumps([call, arguments]) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        if "error" in answer:
            raise GuardError(answer["error"], call)
        return eval(answer["value"], VALUES)

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


class Bench:
    """A cluster of its own, its guard, and a stand-in for the node."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.run_dir = root / "run"
        self.data_dir = root / "data"
        self.node = StandIn(self.run_dir)
        self.node("ensure")
        self.guard = self.node("status").pid
        self.heard: list[Exited | Fenced] = []

    def start(self, deadline: Deadline | None = None, **settings: str) -> int:
        pid = self.launch(deadline, **settings)
        self.connect().close()
        return pid

    def launch(self, deadline: Deadline | None = None, preload: Path | None = None, **settings: str) -> int:
        """Start PostgreSQL and do not wait until it answers."""
        argv = [BINARIES / "postgres", "-D", self.data_dir, "-k", self.root]
        settings = {"listen_addresses": "", "shared_buffers": "16MB", "fsync": "off", **settings}
        for name, value in settings.items():
            argv += ["-c", f"{name}={value}"]
        env = {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"}
        return self.node(
            "start_postgres",
            argv=[str(word) for word in argv],
            env=env if preload is None else {**env, "LD_PRELOAD": str(preload)},
            data_dir=str(self.data_dir),
            log_file=str(self.root / "postgres.log"),
            deadline=deadline and asdict(deadline),
        )

    def connect(self) -> psycopg.Connection:
        def attempt():
            with contextlib.suppress(psycopg.OperationalError):
                return psycopg.connect(
                    host=str(self.root), user="postgres", dbname="postgres", autocommit=True, connect_timeout=5
                )

        return wait_until(attempt)

    def hold_at(self, at_s: float, epoch: int = 5) -> None:
        self.node("set_deadline", deadline=asdict(Deadline(epoch, at_s, HALF_MARGIN_S)))

    def exited(self) -> Exited:
        def last_is_exit():
            self.heard += self.node("events")
            return self.heard and isinstance(self.heard[-1], Exited)

        wait_until(last_is_exit)
        return self.heard[-1]

    def replace_guard(self) -> None:
        """Kill the guard, and have the node notice and start another."""
        os.kill(self.guard, signal.SIGKILL)
        wait_until(lambda: self.node("events") == [] and self.node("fileno") is None)
        self.node("ensure")
        self.guard = self.node("status").pid

    def fence(self) -> dict:
        """The record of the fence, once it is complete: the disk may lag behind the signals."""

        def complete():
            with contextlib.suppress(FileNotFoundError):
                record = json.loads((self.run_dir / "fenced.json").read_text())
                return record if record["how"] else None

        return wait_until(complete)

    def end(self) -> None:
        self.node.end()
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.guard, signal.SIGKILL)
        while left := living_in(self.data_dir):
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


class Statement:
    """A statement in progress on a connection of its own, and when it came to its end."""

    def __init__(self, bench: Bench, work) -> None:
        self.connection = bench.connect()
        self.acknowledged_s = 0.0
        self.ended_s = 0.0
        self.thread = threading.Thread(target=self._run, args=(work,))
        self.thread.start()

    def _run(self, work) -> None:
        with contextlib.suppress(psycopg.Error):
            work(self)
        self.ended_s = now_s()
        self.connection.close()

    def end_s(self) -> float:
        self.thread.join(10)
        assert not self.thread.is_alive(), "the statement still runs"
        return self.ended_s


def sleep(statement: Statement) -> None:
    statement.connection.execute("select pg_sleep(60)")


def insert(statement: Statement) -> None:
    statement.connection.execute("create table if not exists rows (n int)")
    while True:
        statement.connection.execute("insert into rows values (1)")
        statement.acknowledged_s = now_s()


def make_template() -> Path:
    """Make a data directory to copy; its parent is the caller's to remove."""
    root = own_directory("guard-template-")
    command = [BINARIES / "initdb", "-D", root / "data", "-A", "trust", "-N", "--no-instructions"]
    subprocess.run(command, check=True, capture_output=True, cwd="/", timeout=60, **as_postgres())
    return root / "data"


def own_directory(prefix: str) -> Path:
    root = Path(tempfile.mkdtemp(prefix=prefix, dir="/var/tmp"))
    if os.geteuid() == 0:
        shutil.chown(root, "postgres", "postgres")
    return root


@contextlib.contextmanager
def bench_on(template: Path):
    root = own_directory("guard-")
    try:
        subprocess.run(["/bin/cp", "-a", template, root / "data"], check=True, timeout=60)
        bench = Bench(root)
        try:
            yield bench
        finally:
            bench.end()
    finally:
        shutil.rmtree(root)
