"""A cluster under test: real node processes with real PostgreSQL in one directory, swept away in the end."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

from appliance.postgres.conninfo import keywords
from appliance.postgres.dsn import CLIENT_PATIENCE
from tests.harness.certificates import Certificates, write
from tests.harness.network import Network
from tests.harness.node import APPLICATION, Document, Node, Place
from tests.harness.places import free_ports, fresh_directory
from tests.harness.sweeper import Sweeper

T = TypeVar("T")
NAME = "tested"
TTL_S = 6.0
FAILURE_TIMEOUT_S = 2.0
FAILOVER_LIMIT_S = FAILURE_TIMEOUT_S + 3
"""With votes as fences (R9). A raft leader that is lost as well is replaced at the second try at worst, and its
successor waits as long from its own election."""
LEASE_LIMIT_S = TTL_S + 3
"""The same where the lease has to run out first: in asynchronous mode (R10)."""
ASYNCHRONOUS = {"synchronous_mode": "off"}
HEARD_LIMIT_S = 5.0
LOOK_S = 0.05
START_LIMIT_S = 40.0
HEAL_LIMIT_S = 60.0


class Cluster:
    """N nodes n1 … nN, on loopback or each on a host of `network`.

    A context: leaving it ends every process, removes every file and deletes the network.
    """

    living: ClassVar[list["Cluster"]] = []
    last_words: ClassVar[list[tuple[str, str]]] = []
    """of clusters that a failure ended; both for the failure's report"""

    def __init__(
        self,
        size: int = 3,
        *,
        network: Network | None = None,
        settings: Mapping[str, object] | None = None,
        config: Mapping[str, object] | None = None,
        roles: Mapping[str, str] | None = None,
    ) -> None:
        """`settings` go into the configuration document, which has the defaults otherwise; `config` into `node.yml`."""
        self.directory = fresh_directory()
        self._sweeper = Sweeper(self.directory, network.namespaces if network is not None else ())
        if network is not None:
            network.build()
        places = network.places if network is not None else _loopback(size)
        members = {f"n{i}": f"{place.host}:{place.raft_port}" for i, place in enumerate(places, 1)}
        self.certificates = Certificates(self.directory / "tls", NAME)
        self.nodes = {
            name: Node(self.directory / name, place, self._node_file(name, members, place, config or {}))
            for name, place in zip(members, places, strict=True)
        }
        for node in self if settings else ():
            node.config["bootstrap"]["config"] |= settings
        for name, role in (roles or {}).items():
            self[name].config["role"] = role
        self.living.append(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object = None, *_: object) -> None:
        if kind is not None:
            self.last_words += self.evidence()
        self.living.remove(self)
        self._sweeper.sweep()
        for node in self:
            if node.running:
                node.wait(5)

    def __iter__(self) -> Iterator[Node]:
        return iter(self.nodes.values())

    def __getitem__(self, name: str) -> Node:
        return self.nodes[name]

    def _node_file(
        self, name: str, members: Mapping[str, str], place: Place, more: Mapping[str, object]
    ) -> dict[str, Any]:
        directory = self.directory / name
        return {
            "name": name,
            "cluster": NAME,
            "members": dict(members),
            "state_dir": str(directory),
            "raft": {"listen": f"{place.host}:{place.raft_port}"},
            "http": {"listen": f"{place.host}:{place.http_port}"},
            "postgresql": {"listen": f"{place.host}:{place.postgres_port}"},
            "bootstrap": {
                "config": {"ttl": f"{TTL_S:g}s", "failure_timeout": f"{FAILURE_TIMEOUT_S:g}s"},
                "application": {"user": APPLICATION, "database": APPLICATION},
            },
            "tls": self.certificates.deliver(name, place.host, self.certificates.directory / name),
            "log": {"format": "json"},
            **more,
        }

    # Its life

    def start(self) -> None:
        for node in self:
            node.start()

    def up(self) -> Self:
        """Nodes started, bootstrapped on n1, all streaming."""
        self.start()
        self.bootstrap()
        self.wait_whole(START_LIMIT_S)
        return self

    def entrust(self, node: Node) -> None:
        """The authority's key lies with this node too: it issues certificates from now on."""
        key = self.certificates.store_key(self.certificates.authority).read_bytes()
        write(Path(node.config["tls"]["ca"]).with_name("ca.key"), key)

    def bootstrap(self, on: str = "n1") -> None:
        self.wait_until(lambda: len(self[on].view()["members"]) == len(self.nodes), 15, "all nodes have announced")
        answer = self[on].post("bootstrap")
        assert answer.status in {200, 202}, answer.body

    # What it is

    def primary(self) -> Node:
        """As any living node says; it is open."""
        return self.wait_until(self._open_primary, HEAL_LIMIT_S, "a primary is open")

    def data(self) -> list[Node]:
        """The nodes with PostgreSQL."""
        return [node for node in self if node.config.get("role") != "witness"]

    def standbys(self) -> list[Node]:
        primary = self.primary()
        return [node for node in self.data() if node is not primary]

    def _open_primary(self) -> Node | None:
        for node in self:
            view = view_of(node)
            if view.get("primary") and view["quorum"] and self[view["primary"]].writable():
                return self[view["primary"]]
        return None

    def wait_whole(self, limit_s: float = HEAL_LIMIT_S) -> Node:
        """One primary, everybody else streams from it and counts, and all nodes say the same; the primary."""
        return self.wait_until(self._whole, limit_s, "one primary, all others stream")

    def whole(self) -> bool:
        try:
            return self._whole() is not None
        except Exception:
            return False

    def raft_leader(self) -> Node | None:
        """As all nodes that run say; None while they do not agree."""
        said = {view_of(node).get("raft", {}).get("leader") for node in self if node.running}
        return self[name] if len(said) == 1 and (name := said.pop()) else None

    def lead(self, node: Node) -> None:
        """Raft is led by this one: if by the primary, for a minute at least."""
        self.wait_until(self.raft_leader, HEAL_LIMIT_S, "Raft is led")
        if self.raft_leader() is not node:
            answer = node.post("raft/leader", {"to": node.name})
            assert answer.status == 200, answer.body
        self.wait_until(lambda: self.raft_leader() is node, HEARD_LIMIT_S, f"Raft is led by {node.name}")

    def _whole(self) -> Node | None:
        views = [node.view() for node in self]
        agreed = {(view["verdict"], view["primary"], view["epoch"], view["timeline"]) for view in views}
        if len(agreed) != 1 or views[0]["verdict"] != "healthy" or views[0]["operation"] is not None:
            return None
        primary = self[views[0]["primary"]]
        others = [m for m in views[0]["members"] if m["name"] != primary.name and m["role"] != "witness"]
        streaming = all(m["state"] == "streaming" for m in others) and _waited_for(views[0]["sync"], others)
        writable = {node.name: node.writable() for node in self.data()}
        right = all(value is (name == primary.name) for name, value in writable.items())
        return primary if streaming and right else None

    def wait_until(self, predicate: Callable[[], T], limit_s: float, what: str) -> T:
        """Until the predicate answers something true; what it raises counts as no. With all states when it fails."""
        until_s = time.monotonic() + limit_s
        while True:
            raised = ""
            try:
                if answer := predicate():
                    return answer
            except Exception as error:
                raised = f" (last: {type(error).__name__}: {error})"
            if time.monotonic() > until_s:
                raise AssertionError(f"not within {limit_s:g} s: {what}{raised}\n{self.status()}")
            time.sleep(LOOK_S)

    def status(self) -> str:
        return "\n".join(_status(node) for node in self)

    def evidence(self) -> list[tuple[str, str]]:
        return [("status", self.status()), *((f"logs of {node.name}", node.evidence()) for node in self)]

    def mark_logs(self) -> None:
        for node in self:
            node.mark_log()

    # Clients

    def dsn(self, nodes: Sequence[Node]) -> str:
        """What `appliance dsn` tells an application, for these nodes: the one that takes writes."""
        hosts = ",".join(node.place.host for node in nodes)
        ports = ",".join(str(node.place.postgres_port) for node in nodes)
        return (
            f"host={hosts} port={ports} user={APPLICATION} dbname={APPLICATION} password={self.primary().password()}"
            f" target_session_attrs=read-write {keywords(CLIENT_PATIENCE)}"
        )


def view_of(node: Node) -> Document:
    """Its view, or nothing when it does not answer."""
    try:
        return node.view()
    except Exception:
        return {}


def _waited_for(sync: Document, others: Sequence[Document]) -> bool:
    """By the defaults commits wait for any of all standbys, and no election asks for an older set (R8)."""
    expected = {m["name"] for m in others} if sync["mode"] == "quorum" else set(sync["members"])
    return sync["settled"] and set(sync["members"]) == expected


def _loopback(size: int) -> list[Place]:
    ports = free_ports(3 * size)
    return [Place("127.0.0.1", *ports[3 * i : 3 * i + 3]) for i in range(size)]


def _status(node: Node) -> str:
    view = view_of(node)
    process = f"pid {node.pid}" if node.running else "no node process"
    head = f"{node.name}: {process}, postmaster {node.postmaster}, writable {node.writable()}"
    if not view:
        return f"{head}, no answer"
    lease, problems = view["lease"], [f"{p['code']}: {p['message']}" for p in view["problems"]]
    return (
        f"{head}, {view['verdict']}, primary {view['primary']} epoch {view['epoch']} timeline {view['timeline']}"
        f" lease {lease['status']} {lease['left_s']}, raft {view['raft']['role']} of {view['raft']['leader']} term"
        f" {view['raft']['term']}, {view['rule']}: {view['doing']}{', waits for ' * bool(view['waiting_for'])}"
        f"{view['waiting_for']}\n    " + "\n    ".join(problems)
    )
