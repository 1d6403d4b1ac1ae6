"""One node under test: its file, its processes and how to hurt them, its API and its PostgreSQL."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import psycopg
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.harness.places import give
from tests.harness.processes import alive, kill_all, processes_of, send
from tests.harness.sweeper import REPOSITORY

Document = dict[str, Any]
APPLICATION = "app"
"""role and database"""
ASK_LIMIT_S = 10.0
END_LIMIT_S = 30.0
LOG_TAIL_LINES = 60
LOG_LINE_CHARACTERS = 300


@dataclass(frozen=True, slots=True)
class Place:
    """Addresses of a node, and the network namespace it lives in."""

    host: str
    raft_port: int
    http_port: int
    postgres_port: int
    namespace: str = ""

    @property
    def ports(self) -> tuple[int, int, int]:
        return self.raft_port, self.http_port, self.postgres_port


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    body: Document


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a node's unix socket: reaches every network namespace."""

    def __init__(self, path: Path) -> None:
        super().__init__("node", timeout=ASK_LIMIT_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(ASK_LIMIT_S)
        self.sock.connect(str(self._path))


class Node:
    def __init__(self, directory: Path, place: Place, config: Document) -> None:
        self.name: str = config["name"]
        self.directory = directory
        self.place = place
        self.config = config
        self.config_file = directory / "node.yml"
        self.data_dir = directory / "data"
        self.log_file = directory / "node.log"
        self.sources = REPOSITORY
        """Of the version that its node process runs from its next start on."""
        self.environment: dict[str, str] = {}
        """More of it, from its next start on."""
        self._process: subprocess.Popen[bytes] | None = None
        self._log_mark = 0
        directory.mkdir(exist_ok=True)
        give(directory)

    # Its life

    def start(self, stdout: int | None = None) -> None:
        """It logs into its file, or into a descriptor of the test's."""
        self.config_file.write_text(yaml.safe_dump(self.config))
        give(self.config_file)
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                [*self._enter(), sys.executable, "-m", "appliance.cli.main", "node", "--config", str(self.config_file)],
                cwd="/",
                env={**os.environ, "PYTHONPATH": str(self.sources), **self.environment},
                stdin=subprocess.DEVNULL,
                stdout=log if stdout is None else stdout,
                stderr=log,
                start_new_session=True,
            )

    def _enter(self) -> list[str]:
        """How a command gets onto its host's network."""
        return ["nsenter", f"--net=/run/netns/{self.place.namespace}"] if self.place.namespace else []

    @property
    def pid(self) -> int:
        assert self._process is not None, f"{self.name} was never started"
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def tell(self, number: signal.Signals) -> None:
        """To the node process alone."""
        send(self.pid, number)

    def end(self, number: signal.Signals) -> int:
        """Signal the node process and wait for its end; its exit status."""
        assert self._process is not None
        self.tell(number)
        return self._process.wait(END_LIMIT_S)

    def wait(self, limit_s: float) -> int:
        """For a node process that ends by itself; its exit status."""
        assert self._process is not None
        return self._process.wait(limit_s)

    def lose_host(self) -> None:
        """Everything of this node dies in the same instant."""
        kill_all(self.directory)
        if self._process is not None:
            self._process.wait(END_LIMIT_S)

    @property
    def postmaster(self) -> int | None:
        """Its pid while it lives."""
        try:
            pid = int((self.data_dir / "postmaster.pid").read_text().split("\n", 1)[0])
        except (FileNotFoundError, ValueError):
            return None
        return pid if alive(pid) else None

    def everything(self) -> dict[int, str]:
        """All living processes of this node."""
        return processes_of(self.directory)

    def postgres_processes(self) -> dict[int, str]:
        """The postmaster and everything it has started."""
        found = processes_of(self.data_dir)
        return {pid: line for pid, line in found.items() if "postgres" in line.split(" ", 1)[0]}

    def guard(self) -> int:
        return int((self.directory / "guard" / "guard.pid").read_text().split()[0])

    def walreceiver(self) -> int:
        return next(pid for pid, line in self.postgres_processes().items() if "walreceiver" in line)

    # What it says

    def view(self) -> Document:
        """`GET /api/v1/cluster` over its unix socket."""
        return self._ask("GET", "/api/v1/cluster").body

    def get(self, what: str) -> Document:
        """`GET /api/v1/WHAT`."""
        return self._ask("GET", f"/api/v1/{what}").body

    def post(self, what: str, body: Mapping[str, object] | None = None, **query: str) -> Answer:
        """`POST /api/v1/WHAT`."""
        return self._ask("POST", f"/api/v1/{what}", body or {}, query)

    def health(self, path: str) -> int:
        """The status code of a health route."""
        return self._ask("GET", path).status

    def metrics(self) -> dict[str, float]:
        """The samples of `GET /metrics` that are alone under their name."""
        families = text_string_to_metric_families(self._said("GET", "/metrics")[1].decode())
        return {sample.name: sample.value for family in families for sample in family.samples}

    def _ask(
        self, method: str, path: str, body: Mapping[str, object] | None = None, query: Mapping[str, str] | None = None
    ) -> Answer:
        status, said = self._said(
            method, f"{path}?{urlencode(query or {})}", None if body is None else json.dumps(body)
        )
        return Answer(status, json.loads(said or b"{}"))

    def _said(self, method: str, target: str, body: str | None = None) -> tuple[int, bytes]:
        connection = _UnixConnection(self.directory / "run" / "api.sock")
        try:
            connection.request(method, target, body, {"content-type": "application/json"})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def command(self, *words: str, limit_s: float = 60, user: str | None = None) -> subprocess.CompletedProcess[str]:
        """The command line, as on this node's host; as another user, if one is named."""
        with self.begin(*words, user=user) as process:
            try:
                output, errors = process.communicate(timeout=limit_s)
            finally:
                process.kill()
        return subprocess.CompletedProcess(words, process.returncode, output, errors)

    def begin(self, *words: str, user: str | None = None) -> subprocess.Popen[str]:
        """The same, and nobody waits for it."""
        return subprocess.Popen(
            [*self._enter(), sys.executable, "-m", "appliance.cli.main", "--config", str(self.config_file), *words],
            cwd="/",
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            user=user,
        )

    def log(self) -> list[Document]:
        """What the node process has logged since `mark_log`."""
        lines = self.log_file.read_bytes()[self._log_mark :].decode(errors="replace").splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    def logged(self, event: str, **fields: object) -> list[Document]:
        found = (line for line in self.log() if line["event"] == event)
        return [line for line in found if all(line.get(key) == value for key, value in fields.items())]

    def guard_log(self) -> list[Document]:
        """What its guards have logged: the node may miss what a guard says when it ends."""
        return [json.loads(line) for line in (self.directory / "guard" / "guard.log").read_text().splitlines()]

    def jobs(self) -> list[tuple[str, str]]:
        """What was copied or rewound since `mark_log`, and how it ended."""
        ended = (job for job in self.logged("job.ended") if job["job"] != "discard")
        return [(job["job"], "failed" if job["failed"] else "done") for job in ended]

    def mark_log(self) -> None:
        self._log_mark = self.log_file.stat().st_size if self.log_file.exists() else 0

    def evidence(self) -> str:
        """The ends of its logs, for a failure's report."""
        texts = [self._tail(self.log_file, self._log_mark)]
        texts += [self._tail(self.directory / name) for name in ("guard/guard.log", "postgres.log")]
        return "\n".join(texts)

    def _tail(self, file: Path, start: int = 0) -> str:
        if not file.exists():
            return f"--- {file}: none"
        lines = file.read_bytes()[start:].decode(errors="replace").splitlines()
        return "\n".join([f"--- {file}", *(line[:LOG_LINE_CHARACTERS] for line in lines[-LOG_TAIL_LINES:])])

    # Its PostgreSQL

    def password(self) -> str:
        return (self.directory / "application.password").read_text().strip()

    def sql(self, query: str, *arguments: object) -> list[tuple[Any, ...]]:
        """As the application role, over the unix socket: reaches every namespace."""
        with psycopg.connect(
            host=str(self.directory / "run"),
            port=self.place.postgres_port,
            user=APPLICATION,
            dbname=APPLICATION,
            password=self.password(),
            connect_timeout=3,
            autocommit=True,
            options="-c statement_timeout=20s",
        ) as connection:
            cursor = connection.execute(query, arguments or None)
            return cursor.fetchall() if cursor.description else []

    def order(self, statement: str) -> list[tuple[Any, ...]]:
        """As the superuser, over the unix socket."""
        with psycopg.connect(
            host=str(self.directory / "run"),
            port=self.place.postgres_port,
            user="postgres",
            dbname="postgres",
            connect_timeout=5,
            autocommit=True,
        ) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def writable(self) -> bool | None:
        """Whether its PostgreSQL is out of recovery; None when it does not answer."""
        try:
            return not self.sql("SELECT pg_is_in_recovery()")[0][0]
        except (psycopg.Error, OSError):
            return None

    def wait_postgres_gone(self, limit_s: float) -> None:
        until_s = time.monotonic() + limit_s
        while left := self.postgres_processes():
            assert time.monotonic() < until_s, f"{self.name}: PostgreSQL runs on after {limit_s} s: {left}"
            time.sleep(0.05)
