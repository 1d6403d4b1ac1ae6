"""Real PostgreSQL for every public function of appliance.postgres; postmasters are started directly, without a guard.

PostgreSQL refuses root: there each file runs in a pytest of its own as user `postgres`, on a copy that this user can
read, and is one test in the outer summary.
"""

import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from appliance.postgres.binaries import Binaries, find
from appliance.postgres.certificate import Certificate
from appliance.postgres.conninfo import conninfo
from appliance.postgres.control import ControlData
from appliance.postgres.credentials import REPLICATION_ROLE, REWIND_ROLE, Credentials, write_passfile
from appliance.postgres.directory import inspect
from appliance.postgres.history import place_placeholders, remove_placeholders_above_real
from appliance.postgres.incarnation import Incarnation
from appliance.postgres.instance import InstanceSeen
from appliance.postgres.jobs import Job, JobSeen
from appliance.postgres.monitor import Monitor
from appliance.postgres.settings import Settings, server_argv, server_environment, write_settings, write_standby_signal
from appliance.postgres.specs import Clone, Initialise, Rewind, Spec

HERE = Path(__file__).parent
SOURCES = HERE.parents[2]
SMALL_DISK = "APPLIANCE_TEST_SMALL_DISK"
ROOM = "APPLIANCE_TEST_ROOM"
SERVERS = "APPLIANCE_TEST_SERVERS"
"""Directories of programs, with colons between: tests that are about PostgreSQL itself run on each, instead of on every
release that Debian has installed."""
OF_EACH_RELEASE = "test_synchronous_"
"""Such files run once for each release, so that none takes too long."""
SMALL_DISK_BYTES = 160 << 20
ROOM_BYTES = 4 << 30
RUN_USER = "postgres"
FILE_LIMIT_S = 110


def pytest_pycollect_makemodule(module_path, parent):
    if os.geteuid() == 0:
        return AsPostgres.from_parent(parent, path=module_path)
    return None


class AsPostgres(pytest.File):
    def collect(self):
        if self.path.name.startswith(OF_EACH_RELEASE):
            for one in _servers():
                yield WholeFile.from_parent(self, name=f"as_{RUN_USER}_on_{one.major}", servers=str(one.directory))
        else:
            yield WholeFile.from_parent(self, name=f"as_{RUN_USER}")


class WholeFile(pytest.Item):
    def __init__(self, *, servers="", **more):
        super().__init__(**more)
        self.servers = servers

    def runtest(self):
        root = Path(tempfile.mkdtemp(prefix="appliance-", dir="/var/tmp"))
        room = Path(tempfile.mkdtemp(prefix="appliance-", dir=_roomy()))
        small = root / "small"
        small.mkdir()
        try:
            self._copy_to(root)
            subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SMALL_DISK_BYTES}", "tmpfs", small], check=True)
            for path in (root, small, room):
                shutil.chown(path, RUN_USER)
            places = {ROOM: str(room), SMALL_DISK: str(small), "TMPDIR": str(root), "PYTHONPATH": str(root)}
            self._run(root, places | {SERVERS: self.servers})
        finally:
            for path in (root, room):
                _end_processes_in(path)
            subprocess.run(["umount", "-l", small], check=False)
            for path in (root, room):
                shutil.rmtree(path, ignore_errors=True)

    def _copy_to(self, root):
        for part in ("appliance", "raft", HERE.relative_to(SOURCES)):
            shutil.copytree(SOURCES / part, root / part, ignore=shutil.ignore_patterns("__pycache__"))
        for file in ("pyproject.toml", "tests/harness/certificates.py", "tests/harness/places.py"):
            (root / file).parent.mkdir(exist_ok=True)
            shutil.copy(SOURCES / file, root / file)

    def _run(self, root, variables):
        file = root / self.path.relative_to(SOURCES)
        written = [f"{name}={value}" for name, value in variables.items()]
        done = subprocess.run(
            ["setpriv", "--reuid", RUN_USER, "--regid", RUN_USER, "--init-groups", "--reset-env",
             "env", *written, "PYTHONDONTWRITEBYTECODE=1",
             sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--durations=5", str(file)],
            cwd=root, capture_output=True, text=True, timeout=FILE_LIMIT_S, check=False,
        )  # fmt: skip
        if done.returncode != 0 or " skipped" in done.stdout:
            pytest.fail(f"{done.stdout[-8000:]}\n{done.stderr[-1000:]}", pytrace=False)

    def reportinfo(self):
        return self.path, 0, f"{self.path.name} as {RUN_USER}"


def _end_processes_in(directory):
    """What a run that was itself killed left behind; a postmaster and its children live in their data directory."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if (entry / "cwd").readlink().is_relative_to(directory):
                os.kill(int(entry.name), signal.SIGKILL)
        except OSError:
            continue


@dataclass
class Member:
    """One data directory of a test's cluster and, while it runs, its postmaster."""

    name: str
    root: Path
    binaries: Binaries
    credentials: Credentials
    wal_dir: Path | None = None
    parameters: dict[str, str] = field(default_factory=dict)
    certificate: Certificate | None = None
    process: subprocess.Popen | None = None

    def __post_init__(self):
        self.root.mkdir(parents=True, exist_ok=True)
        self.data_dir = self.root / "data"
        self.port = free_port()
        self.passfile = self.root / "pgpass"
        write_passfile(self.passfile, self.credentials)
        self.monitor = Monitor(self.root, self.port)
        self.settings = Settings(
            cluster_name=self.name,
            port=self.port,
            unix_socket_dir=self.root,
            listen="127.0.0.1",
            parameters={"shared_buffers": "16MB", "max_wal_size": "64MB", **self.parameters},
            certificate=self.certificate,
        )

    # jobs

    def job(self, spec: Spec) -> Job:
        return Job.start(spec, self.root / "job")

    def initialise(self, **more) -> JobSeen:
        given = {"wal_dir": self.wal_dir, "incarnation": Incarnation(f"{self.name} initialised")} | more
        return ended(self.job(Initialise(self.binaries, self.data_dir, self.credentials, **given)))

    def clone_of(self, source: "Member", *, slot: str = "") -> Clone:
        return Clone(
            self.binaries,
            self.data_dir,
            source=source.conninfo(REPLICATION_ROLE, self),
            source_database=source.conninfo(REWIND_ROLE, self, dbname="postgres"),
            wal_dir=self.wal_dir,
            slot=slot,
            incarnation=Incarnation(f"{self.name} cloned"),
        )

    def clone(self, source: "Member", *, slot: str = "") -> JobSeen:
        return ended(self.job(self.clone_of(source, slot=slot)))

    def rewind(self, source: "Member", timeline: int) -> JobSeen:
        database = source.conninfo(REWIND_ROLE, self, dbname="postgres")
        return ended(
            self.job(Rewind(self.binaries, self.data_dir, database, timeline, Incarnation(f"{self.name} rewound")))
        )

    def conninfo(self, role: str, by: "Member", dbname: str = "") -> str:
        return conninfo(
            host="127.0.0.1",
            port=self.port,
            user=role,
            passfile=by.passfile,
            dbname=dbname,
            application_name=by.name,
            ca=by.certificate.ca if by.certificate else None,
            major=by.binaries.major,
        )

    # the postmaster

    def follow(self, source: "Member | None", slot: str = "") -> None:
        upstream = source.conninfo(REPLICATION_ROLE, self) if source else ""
        self.settings = replace(self.settings, primary_conninfo=upstream, primary_slot_name=slot if source else "")

    def start(self, *, standby: bool = False, wait: bool = True) -> None:
        floor: ControlData | None = None
        if standby:
            remove_placeholders_above_real(self.data_dir / "pg_wal")
            write_standby_signal(self.data_dir)
            floor = inspect(self.data_dir, self.binaries).control
        write_settings(self.data_dir, self.settings, floor)
        with (self.root / "log").open("ab") as log:
            self.process = subprocess.Popen(
                server_argv(self.binaries, self.data_dir, self.settings, floor),
                env=server_environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        if wait:
            self.until(lambda seen: True)

    def stop(self, how: int = signal.SIGINT) -> None:
        if self.process:
            self.process.send_signal(signal.SIGCONT)
            self.process.send_signal(how)
            self.process.wait(20)
        self.process = None
        self.monitor.close()

    def crash(self) -> None:
        """As the guard ends it: no checkpoint, and no process left."""
        self.stop(signal.SIGQUIT)

    def reload(self) -> None:
        write_settings(self.data_dir, self.settings)
        self.process.send_signal(signal.SIGHUP)

    def promote(self, timeline: int) -> None:
        place_placeholders(self.data_dir / "pg_wal", self.seen().timeline, timeline)
        self.monitor.promote()
        self.until(lambda seen: not seen.in_recovery)

    # what it says

    def sql(self, statement: str, *parameters: str):
        return self.monitor.execute(statement, parameters, limit_s=10)

    def value(self, statement: str, *parameters: str):
        return self.sql(statement, *parameters)[0][0]

    def seen(self) -> InstanceSeen:
        seen = self.monitor.look(2)
        assert seen is not None, f"{self.name}: no answer\n{self.log()[-3000:]}"
        return seen

    def until(self, claim, limit_s: float = 15) -> InstanceSeen:
        """The first look for which `claim` holds."""
        until_s = time.monotonic() + limit_s
        seen = None
        while time.monotonic() < until_s:
            seen = self.monitor.look(1)
            if seen is not None and claim(seen):
                return seen
            time.sleep(0.02)
        raise AssertionError(f"{self.name}: not within {limit_s} s: {seen or 'no answer'}\n{self.log()[-4000:]}")

    def caught_up(self, source: "Member") -> InstanceSeen:
        target = source.seen().flushed_lsn
        return self.until(lambda seen: (seen.replayed_lsn or 0) >= target)

    def log(self) -> str:
        path = self.root / "log"
        return path.read_text(errors="replace") if path.exists() else ""


@pytest.fixture
def measured(server):
    """Takes a duration in seconds; it has to be below a second, and is printed with `-rP`."""

    def take(what, duration_s):
        print(f"PostgreSQL {server.version}: {what} {duration_s * 1000:.1f} ms")
        assert duration_s < 1

    return take


def ended(job: Job, limit_s: float = 60) -> JobSeen:
    until_s = time.monotonic() + limit_s
    while (seen := job.look()).running:
        assert time.monotonic() < until_s, seen
        time.sleep(0.02)
    return seen


def _roomy() -> Path:
    if ROOM in os.environ:
        return Path(os.environ[ROOM])
    memory = Path("/dev/shm")
    return memory if memory.is_dir() and shutil.disk_usage(memory).free > ROOM_BYTES else Path("/var/tmp")


def free_port() -> int:
    """Below the range that the kernel hands out, so that no outgoing connection takes it meanwhile."""
    while True:
        port = random.randrange(20000, 32000)
        with socket.socket() as listener:
            try:
                listener.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port


@pytest.fixture(scope="session")
def binaries() -> Binaries:
    return _usual()


def _usual() -> Binaries:
    debian = Path("/usr/lib/postgresql/15/bin")
    return find(debian if debian.exists() else None)


def _servers() -> list[Binaries]:
    named = [find(Path(place)) for place in os.environ.get(SERVERS, "").split(":") if place]
    usual = _usual()
    debian = [find(place.parent) for place in Path("/usr/lib/postgresql").glob("*/bin/postgres")]
    found = named or [*(one for one in debian if one.major != usual.major), usual]
    return sorted(found, key=lambda one: one.major)


@pytest.fixture(scope="session", params=_servers() if os.geteuid() else [], ids=lambda one: one.version)
def server(request) -> Binaries:
    """Each release in turn."""
    return request.param


@pytest.fixture
def root():
    """Short enough for a socket's path, and in memory if there is enough of it: what is tested is not the disk."""
    path = Path(tempfile.mkdtemp(prefix="appliance-", dir=_roomy()))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="session")
def template(binaries):
    """An initialised data directory and its passwords, copied by the tests that are not about its making."""
    yield from _template(binaries)


@pytest.fixture(scope="session")
def template_of_each(server):
    yield from _template(server)


def _template(binaries):
    path = Path(tempfile.mkdtemp(prefix="appliance-", dir=_roomy()))
    one = Member("template", path, binaries, Credentials.generate(application=True))
    seen = one.initialise()
    assert seen.ok, seen
    yield one
    shutil.rmtree(path)


@pytest.fixture
def member(root, binaries):
    """Makes members of one cluster; every postmaster is ended with the test."""
    members: list[Member] = []
    generated = Credentials.generate(application=True)

    def make(
        name: str, *, on: Path | None = None, of: Binaries = binaries, like: Member | None = None, **more
    ) -> Member:
        credentials = like.credentials if like else members[0].credentials if members else generated
        members.append(Member(name, (on or root) / name, of, credentials, **more))
        if like:
            shutil.copytree(like.data_dir, members[-1].data_dir)
        return members[-1]

    yield make
    for one in members:
        one.monitor.close()
        if one.process and one.process.poll() is None:
            one.crash()
        Job.kill_leftovers(one.root / "job")


@pytest.fixture
def primary(member, template):
    one = member("pg1", like=template)
    one.start()
    return one


@pytest.fixture
def copies(member, template_of_each, server):
    """Makes members of one cluster by copying: nothing is written in the template, so each copy may follow another."""
    return lambda name, **more: member(name, of=server, like=template_of_each, **more)


@pytest.fixture
def pair(primary, member):
    """A primary and a streaming standby."""
    standby = member("pg2")
    primary.monitor.create_slot("pg2")
    seen = standby.clone(primary, slot="pg2")
    assert seen.ok, seen
    standby.follow(primary, slot="pg2")
    standby.start(standby=True)
    standby.until(lambda seen: seen.streaming)
    return primary, standby
