"""`demo up`: from nothing to a cluster whose standbys stream, then supervise it."""

import contextlib
import secrets
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from appliance.cli.change import expect_bootstrap
from appliance.cli.client import Client, Document
from appliance.cli.demo.layout import (
    DemoNode,
    Layout,
    chosen,
    default_directory,
    is_demo,
    made_anew,
    plan,
    supervisor_log,
)
from appliance.cli.demo.place import become_run_user, prepare
from appliance.cli.demo.processes import noted, own_command
from appliance.cli.demo.status import demo_client, demo_uri
from appliance.cli.demo.supervisor import Supervisor, last_line
from appliance.cli.exits import Code, CommandError
from appliance.cli.output import say

LOOK_S = 0.1
EXITS_LIMIT = 3
"""A node that ended so often before the cluster stood will not stay up."""


@dataclass(frozen=True, slots=True)
class Asked:
    nodes: int
    ttl: str
    timeout_s: float


def foreground(directory: str, asked: Asked) -> int:
    """Returns when it was told to stop; every process has ended then."""
    place = chosen(directory)
    # Root's default is another one than that of the user whom root becomes.
    default = place == default_directory()
    prepare(place)
    become_run_user(place)
    layout = _layout(place, asked)
    supervisor = Supervisor(layout)
    with supervisor.supervising():
        if _bring_up(supervisor, asked.timeout_s):
            layout.ready_file.touch()
            say(sys.stdout, *banner(layout, default=default), "or      Ctrl-C here", "")
        while not supervisor.stopping:
            supervisor.look()
            supervisor.pause()
        say(sys.stderr, "ending the nodes")
    say(sys.stderr, f"ended; the data is in {place}: `demo up` goes on with it, `demo down` removes it")
    return Code.DONE


def _layout(place: Path, asked: Asked) -> Layout:
    if is_demo(place):
        layout = Layout.load(place)
        say(sys.stderr, f"going on with the {len(layout.nodes)} nodes in {place}, as they were set up")
        return layout
    layout = plan(place, asked.nodes)
    layout.store(asked.ttl)
    return layout


def _bring_up(supervisor: Supervisor, timeout_s: float) -> bool:
    """Bootstrap and wait until all stream; False when told to stop before. Raises CommandError when it fails."""
    start = _Start(supervisor.layout)
    deadline_s = time.monotonic() + timeout_s
    while not supervisor.stopping:
        supervisor.look()
        if start.done():
            return True
        for child in supervisor.children:
            if child.exits >= EXITS_LIMIT:
                raise _failed(child.node, f"node {child.node.name} does not stay up")
        if time.monotonic() > deadline_s:
            raise _failed(supervisor.layout.nodes[0], f"not all nodes stream after {timeout_s:g} s: {start.missing}")
        supervisor.pause()
    return False


def _failed(node: DemoNode, what: str) -> CommandError:
    return CommandError(Code.FAILED, f"{what}; see {node.log}, which ends:", [last_line(node)])


class _Start:
    """One attempt after the other: bootstrap until it is accepted or was done before, then wait for the standbys."""

    def __init__(self, layout: Layout) -> None:
        self.client = demo_client(layout)
        # Only one is asked, so that every demo begins with the same primary.
        self.first = Client(self.client.endpoints[:1])
        self.nodes = len(layout.nodes)
        self.bootstrapped = False
        self.missing = "the nodes do not answer yet"
        self._said = ""
        self._operation = ""
        self._began_s = time.monotonic()

    def done(self) -> bool:
        try:
            if not self.bootstrapped:
                self._bootstrap()
            view = self.client.cluster()
        except CommandError as error:
            self.missing = " ".join([str(error), *error.lines])
            return False
        expect_bootstrap(view, self._operation)
        kind, self.missing = _missing(view, self.nodes)
        if kind != self._said:
            took_s = time.monotonic() - self._began_s
            say(sys.stderr, f"{took_s:5.1f} s  {self.missing or 'all nodes are up'}")
            self._said = kind
        return not self.missing

    def _bootstrap(self) -> None:
        self._operation = secrets.token_hex(8)
        answer = self.first.change("/api/v1/bootstrap", {}, operation=self._operation)
        if not answer.ok and answer.code not in {"bootstrap.done", "bootstrap.running"}:
            # The raft leader has not heard of the node yet, say: asked again.
            raise CommandError(Code.REFUSED, f"bootstrap: {answer.text('detail')}")
        self.bootstrapped = True


def _missing(view: Document, nodes: int) -> tuple[str, str]:
    """What is not as it will be: which kind of thing, and in words, whose numbers change all the time.

    Empty words when the primary is open and every other node streams.
    """
    if not view["quorum"]:
        return "quorum", view["waiting_for"] or "no quorum yet"
    if view["primary"] is None:
        return "primary", "no primary yet"
    critical = [problem for problem in view["problems"] if problem["severity"] == "critical"]
    if critical:
        return critical[0]["code"], critical[0]["message"]
    streaming = [m for m in view["members"] if m["name"] == view["primary"] or m["state"] == "streaming"]
    words = "" if len(streaming) == nodes else f"{len(streaming)} of {nodes} nodes are there"
    return words or "up", words


def banner(layout: Layout, *, default: bool) -> list[str]:
    command, where = _command(), "" if default else f" --dir {layout.directory}"
    return [
        "",
        f"DSN     {demo_uri(layout)}",
        *(f"{node.name}      {node.api_url}/   (data {node.data_dir})" for node in layout.nodes),
        "",
        f"try     {command} status --watch --config {layout.directory}",
        f"        {command} demo load{where}",
        f"        {command} demo kill-primary{where}",
        f"end     {command} demo down{where}",
    ]


def _command() -> str:
    """What a person can type: the command may not be on the path of a shell."""
    beside = Path(sys.executable).with_name("appliance")
    return str(beside) if shutil.which("appliance") is None and beside.exists() else "appliance"


def detached(directory: str, asked: Asked) -> int:
    """Start the foreground form in the background, and come back when the cluster stands."""
    place = chosen(directory)
    prepare(place)
    command = [*own_command(), "demo", "up", "--dir", str(place)]
    command += ["--nodes", str(asked.nodes), "--ttl", asked.ttl, "--timeout", f"{asked.timeout_s:g}s"]
    log = supervisor_log(place)
    # It shows the connection string, password included.
    with open(made_anew(log), "wb") as output:
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
    try:
        _wait_ready(place, child)
    except BaseException:
        # Nobody is left behind in the background of a start that failed or was interrupted.
        child.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(60)
        raise
    say(sys.stdout, *banner(Layout.load(place), default=place == default_directory()))
    say(sys.stderr, f"the supervisor is pid {child.pid}, its log {log}")
    return Code.DONE


def _wait_ready(place: Path, child: subprocess.Popen[bytes]) -> None:
    while True:
        code = child.poll()
        if code is not None:
            lines = supervisor_log(place).read_text(encoding="utf-8", errors="replace").splitlines()
            raise CommandError(Code.FAILED if code <= 0 else Code(code), "the demo did not start:", lines[-10:])
        if is_demo(place):
            layout = Layout.load(place)
            running = noted(layout.supervisor_file)
            if running is not None and running.pid == child.pid and layout.ready_file.exists():
                return
        time.sleep(LOOK_S)
