"""What faults strike: a cluster on hosts of its own, each with a wall clock and a small disk, and who mends it."""

import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from random import Random

from appliance.cli.exits import Code
from tests.harness.cluster import Cluster, view_of
from tests.harness.disk import Disk
from tests.harness.network import Network
from tests.harness.node import Document, Node
from tests.harness.processes import send
from tests.harness.skew_clock import SkewClock

DISK_MIB = 2048
"""for the data, WAL for members that are away, and what a clone replaced, which is kept for an hour"""
RESTART_SEC_S = 1.0
"""A node process that has ended is started again then, as by systemd."""
COMMAND_LIMIT_S = 60.0
ERRAND_LIMIT_S = 40.0
FURNITURE = frozenset({"node.yml", "node.log", "disk.img", "disk", "skew", "skewclock.so"})
"""What of a node's directory is its host's, and stays when everything of the node is removed."""
PARAMETERS = {"max_wal_size": "128MB", "min_wal_size": "32MB", "wal_keep_size": "64MB"}


class Field:
    """A context; leaving it ends everything."""

    def __init__(self, size: int, mode: str) -> None:
        self.network = Network(size, name="chaos")
        self.cluster = Cluster(network=self.network)
        self.disks: dict[str, Disk] = {}
        self.clocks: dict[str, SkewClock] = {}
        self.down: set[Node] = set()
        """whose node process is not to be started, as a fault holds it down"""
        self.silent: set[Node] = set()
        """who would not answer, so nobody asks"""
        self.restarts = 0
        """of node processes that ended by themselves"""
        self._ended_s: dict[Node, float] = {}
        self._commands: list[subprocess.Popen[str]] = []
        self._owed: list[Callable[[], None]] = []
        self.mode = mode

    def __enter__(self) -> "Field":
        try:
            for node in self.cluster:
                self._furnish(node)
            self.cluster.up()
        except BaseException as error:
            self.cluster.__exit__(type(error))
            raise
        return self

    def __exit__(self, kind: object = None, *_: object) -> None:
        self._end_commands()
        for disk in self.disks.values():
            disk.thaw()
        self.cluster.__exit__(kind)

    def _furnish(self, node: Node) -> None:
        """A disk for its data, a clock, the mode."""
        disk = self.disks[node.name] = Disk(node.directory / "disk", DISK_MIB)
        node.data_dir = disk.place / "data"
        node.config["postgresql"]["data_dir"] = str(node.data_dir)
        clock = self.clocks[node.name] = SkewClock(node.directory)
        node.environment = clock.environment
        node.config["bootstrap"]["config"] |= {
            "synchronous_mode": self.mode,
            "postgresql": {"parameters": PARAMETERS},
        }

    # Whom a fault means

    def find(self, target: str, pick: float) -> Node:
        """`primary`, `raft leader`, `standby` or `any`, as one that answers sees it; `pick` is 0 to 1."""
        view = next((view for node in self.cluster if node not in self.silent and (view := view_of(node))), {})
        nodes = list(self.cluster)
        primary = self.cluster.nodes.get(view.get("primary") or "")
        if target == "primary" and primary is not None:
            return primary
        if target == "raft leader" and view and view["raft"]["leader"] in self.cluster.nodes:
            return self.cluster[view["raft"]["leader"]]
        if target == "standby":
            nodes = [node for node in nodes if node is not primary]
        return nodes[int(pick * len(nodes))]

    def others(self, node: Node) -> list[str]:
        return [other.name for other in self.cluster if other is not node]

    def sides(self, node: Node, pick: float) -> tuple[list[str], list[str]]:
        """This node and some of the others, and the rest."""
        rng = Random(pick)
        others = rng.sample(self.others(node), len(self.cluster.nodes) - 1)
        count = rng.randrange(len(others))
        return [node.name, *others[:count]], others[count:]

    # Whoever mends it

    def command(self, node: Node, *words: str) -> subprocess.Popen[str]:
        """The command line, as an operator's on that host; nobody waits for it."""
        self._commands.append(node.begin(*words))
        return self._commands[-1]

    def owe(self, errand: Callable[[], None]) -> None:
        """What the operator is to do when all faults are over, and before anything is asked of the cluster."""
        self._owed.append(errand)

    def insist(
        self, *words: str, codes: Collection[int] = (Code.DONE,), but: Node | None = None
    ) -> subprocess.CompletedProcess[str]:
        """The command line on any host that has a quorum, but for one, until it ends with one of these."""

        def done() -> subprocess.CompletedProcess[str] | None:
            self.tend()
            found = next(self._with_quorum(but), None)
            ended = found[0].command(*words, limit_s=COMMAND_LIMIT_S) if found is not None else None
            assert ended is None or ended.returncode in codes, ended
            return ended

        return self.cluster.wait_until(done, ERRAND_LIMIT_S, f"appliance {' '.join(words)}")

    def _with_quorum(self, but: Node | None) -> Iterator[tuple[Node, Document]]:
        views = ((node, view_of(node)) for node in self.cluster if node is not but)
        return ((node, view) for node, view in views if view.get("quorum"))

    def remove(self, node: Node) -> bool:
        """Whether it is no member now; a primary may not leave, unless it became one after it was to."""
        words = ("members", "remove", node.name, "--force", "--yes")
        self.insist(*words, codes=(Code.DONE, Code.REFUSED), but=node)

        def settled() -> str | None:
            _, view = next(self._with_quorum(node))
            if node.name not in {member["name"] for member in view["members"]}:
                return "gone"
            if not any(one["code"] == "member.leaving" and one["member"] == node.name for one in view["problems"]):
                return "stays"
            if view["primary"] == node.name:
                self.insist("switchover", "--yes", codes=(Code.DONE, Code.REFUSED), but=node)
            return None

        return self.cluster.wait_until(settled, ERRAND_LIMIT_S, f"{node.name} leaves or stays") == "gone"

    def join(self, node: Node) -> None:
        """A member that was removed comes back as a new one, with nothing of its own."""
        self.down.add(node)
        node.lose_host()
        for path in (path for path in node.directory.iterdir() if path.name not in FURNITURE):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        shutil.rmtree(node.data_dir, ignore_errors=True)
        for other in self.cluster:
            if other is not node:
                self.cluster.entrust(other)
        token = self.insist("members", "add", node.name, but=node).stdout.split()[3]

        def joined() -> bool:
            self.tend()
            return node.command("join", "--token", token).returncode == Code.DONE

        self.cluster.wait_until(joined, ERRAND_LIMIT_S, f"{node.name} joins")
        self.down.discard(node)
        node.start()

    def tend(self) -> None:
        """Start node processes that have ended unasked."""
        now_s = time.monotonic()
        for node in self.cluster:
            if node.running or node in self.down:
                self._ended_s.pop(node, None)
            elif now_s - self._ended_s.setdefault(node, now_s) > RESTART_SEC_S:
                node.start()
                self.restarts += 1

    def heal(self) -> None:
        """Whatever is left of faults; they end themselves, so it should be nothing."""
        self.network.heal()
        self.down.clear()
        self.silent.clear()

    def wait_whole(self, limit_s: float) -> Node:
        """One primary, all others stream; node processes that end are started again meanwhile."""
        while self._owed:
            self._owed.pop(0)()

        def whole() -> Node | None:
            self.tend()
            return self.cluster.primary() if self.cluster.whole() else None

        primary = self.cluster.wait_until(whole, limit_s, "one primary, all others stream")
        self._end_commands()
        return primary

    def _end_commands(self) -> None:
        for command in self._commands:
            with command:
                try:
                    _, errors = command.communicate(timeout=COMMAND_LIMIT_S)
                finally:
                    command.kill()
            if command.returncode == Code.USAGE:
                raise AssertionError(f"an operator's command is none: {command.args}: {errors}")
        self._commands.clear()


def stop(pids: list[int]) -> None:
    for pid in pids:
        send(pid, signal.SIGSTOP)


def go_on(pids: list[int]) -> None:
    for pid in pids:
        send(pid, signal.SIGCONT)


@contextmanager
def alternating(first: Callable[[], None], second: Callable[[], None], pauses_s: tuple[float, float]) -> Iterator[None]:
    """Both in turn, in a thread, with these pauses after each; `second` is the last."""
    over, raised = threading.Event(), list[BaseException]()

    def run() -> None:
        try:
            while not over.is_set():
                first()
                over.wait(pauses_s[0])
                second()
                over.wait(pauses_s[1])
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        if raised:
            raise raised[0]
