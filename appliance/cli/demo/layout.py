"""What a demo is on disk: `demo.json`, and one directory a node with its file, secrets, log and data."""

import json
import os
import socket
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path

import yaml

from appliance.cli.exits import Code, CommandError
from appliance.node.config import NodeConfig
from appliance.node.config_problems import ConfigProblem

ROOTS_DIRECTORY = Path("/var/tmp/appliance-demo")  # noqa: S108  # its owner and its mode are checked
MANIFEST = "demo.json"
HOST = "127.0.0.1"
CLUSTER = "demo"
APPLICATION = "app"
PREFERRED = {"raft": 7401, "http": 8008, "postgres": 5432}
PORTS_TRIED = 1000
AUTHORITY_LIFE = timedelta(days=3650)
CERTIFICATE_LIFE = timedelta(days=365)


@dataclass(frozen=True, slots=True)
class DemoNode:
    name: str
    directory: Path
    """its state directory too"""
    raft_port: int
    http_port: int
    postgres_port: int

    @property
    def config(self) -> Path:
        return self.directory / "node.yml"

    @property
    def data_dir(self) -> Path:
        return self.directory / "data"

    @property
    def log(self) -> Path:
        return self.directory / "node.log"

    @property
    def pid_file(self) -> Path:
        return self.directory / "node.pid"

    @property
    def hold(self) -> Path:
        """CLOCK_BOOTTIME before which the supervisor does not start it again."""
        return self.directory / "hold"

    @property
    def api_url(self) -> str:
        return f"http://{HOST}:{self.http_port}"


@dataclass(frozen=True, slots=True)
class Layout:
    directory: Path
    nodes: tuple[DemoNode, ...]

    @property
    def supervisor_file(self) -> Path:
        return self.directory / "supervisor.pid"

    @property
    def ready_file(self) -> Path:
        return self.directory / "ready"

    @property
    def log(self) -> Path:
        return supervisor_log(self.directory)

    @property
    def certificates(self) -> Path:
        """Its authority, and the nodes' certificates; demos of earlier versions have none."""
        return self.directory / "tls"

    @staticmethod
    def load(directory: Path) -> "Layout":
        """Raises CommandError when there is no demo."""
        try:
            manifest = json.loads((directory / MANIFEST).read_text(encoding="utf-8"))
            nodes = [DemoNode(directory=directory / node["name"], **node) for node in manifest["nodes"]]
        except PermissionError:
            raise  # there may well be one
        except (OSError, ValueError, KeyError, TypeError) as error:
            why = (error.strerror or "unreadable").lower() if isinstance(error, OSError) else "not readable as one"
            message = f"{directory}: no demo there ({MANIFEST}: {why}); `appliance demo up` starts one"
            raise CommandError(Code.USAGE, message) from None
        return Layout(directory, tuple(nodes))

    def store(self, ttl: str) -> None:
        """Write every file; the manifest last, since it says that the others are complete."""
        files = {node: self._settings(node, ttl) for node in self.nodes}
        _check(files[self.nodes[0]])
        self._issue()
        for node, settings in files.items():
            node.directory.mkdir(mode=0o700, exist_ok=True)
            write(node.config, yaml.safe_dump(settings, sort_keys=False))
        nodes = [{k: v for k, v in asdict(node).items() if k != "directory"} for node in self.nodes]
        write(self.directory / MANIFEST, json.dumps({"nodes": nodes}, indent=2))

    def _issue(self) -> None:
        from appliance.node import certificates  # half of what `demo status` needs altogether

        certificates.make_authority(self.certificates, CLUSTER, AUTHORITY_LIFE)
        for node in self.nodes:
            hosts = [HOST, "localhost", node.name]
            certificates.issue(self.certificates, node.name, hosts, CERTIFICATE_LIFE, self.certificates)

    def _settings(self, node: DemoNode, ttl: str) -> dict[str, object]:
        return {
            "name": node.name,
            "cluster": CLUSTER,
            "members": {other.name: f"{HOST}:{other.raft_port}" for other in self.nodes},
            "state_dir": str(node.directory),
            "raft": {"listen": f"{HOST}:{node.raft_port}"},
            "http": {"listen": f"{HOST}:{node.http_port}"},
            "postgresql": {"listen": f"{HOST}:{node.postgres_port}"},
            "bootstrap": {
                "config": {"ttl": ttl} if ttl else {},
                "application": {"user": APPLICATION, "database": APPLICATION},
            },
            "tls": {
                "ca": str(self.certificates / "ca.crt"),
                "cert": str(self.certificates / f"{node.name}.crt"),
                "key": str(self.certificates / f"{node.name}.key"),
            },
            "log": {"format": "json"},
        }


def _check(settings: dict[str, object]) -> None:
    """Before anything is written: what was asked for may not make a node's file."""
    try:
        NodeConfig.read(settings)
    except ConfigProblem as problem:
        first, *others = problem.problems
        raise CommandError(Code.USAGE, first, others) from None


def write(path: Path, text: str) -> None:
    """Atomically, for the owner of the directory only: root may write into a demo that runs as another user."""
    fresh = path.with_name(f".{path.name}.new")
    descriptor = made_anew(fresh)
    if os.geteuid() == 0:
        owner = path.parent.stat()
        os.fchown(descriptor, owner.st_uid, owner.st_gid)
    with open(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    fresh.rename(path)


def made_anew(path: Path) -> int:
    """A descriptor of a new file for its owner only, never of what a link leads to: the directory may not be ours."""
    path.unlink(missing_ok=True)
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)


def supervisor_log(directory: Path) -> Path:
    return directory / "supervisor.log"


def default_directory() -> Path:
    """For root a place that the run user can enter too, whatever the mode of root's home."""
    if os.geteuid() == 0:
        return ROOTS_DIRECTORY
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "appliance" / "demo"


def chosen(directory: str) -> Path:
    """`--dir`, else the demo that --config names, else the default."""
    named = directory or os.environ.get("APPLIANCE_CONFIG", "")
    if named and (directory or is_demo(Path(named))):
        return Path(named).absolute()
    return default_directory()


def is_demo(directory: Path) -> bool:
    return os.path.exists(directory / MANIFEST)  # also where this user may not look: no


def plan(directory: Path, count: int) -> Layout:
    """Free ports for `count` nodes: the well-known ones and those after them, where nobody listens."""
    ports = {kind: _free(first) for kind, first in PREFERRED.items()}
    return Layout(
        directory,
        tuple(
            DemoNode(
                name=f"n{number}",
                directory=directory / f"n{number}",
                raft_port=next(ports["raft"]),
                http_port=next(ports["http"]),
                postgres_port=next(ports["postgres"]),
            )
            for number in range(1, count + 1)
        ),
    )


def _free(first: int) -> Iterator[int]:
    for port in range(first, first + PORTS_TRIED):
        if is_free(port):
            yield port
    raise CommandError(Code.FAILED, f"no free port from {first} to {first + PORTS_TRIED - 1} on {HOST}")


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True
