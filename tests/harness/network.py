"""Hosts of a test: network namespaces around a bridge, which has one of its own, so that this machine's network is
not touched. Cuts are made where packets arrive; nobody is told."""

import ctypes
import os
import subprocess
from collections.abc import Callable, Iterable

from tests.harness.node import Place

SUBNET = "10.231.7"
BRIDGE = "switch"
CLIENT = "client"
CLONE_NEWNET = 0x40000000


class Network:
    """Hosts n1 … nN and a client. Its namespaces are deleted by whoever was given `namespaces`."""

    def __init__(self, size: int = 3, name: str = "pga") -> None:
        self._name = name
        self._addresses = {f"n{i}": f"{SUBNET}.{i}" for i in range(1, size + 1)} | {CLIENT: f"{SUBNET}.100"}
        self.namespaces = [self.namespace(host) for host in (*self._addresses, BRIDGE)]
        self.places = [
            Place(address, 7400, 8008, 5432, self.namespace(host))
            for host, address in self._addresses.items()
            if host != CLIENT
        ]

    def namespace(self, host: str) -> str:
        return f"{self._name}-{os.getpid()}-{host}"

    def build(self) -> None:
        for namespace in self.namespaces:
            _ip("netns", "add", namespace)
        switch = self.namespace(BRIDGE)
        _ip("-n", switch, "link", "add", BRIDGE, "type", "bridge", "forward_delay", "0")
        _ip("-n", switch, "link", "set", BRIDGE, "up")
        for host, address in self._addresses.items():
            namespace = self.namespace(host)
            _ip("-n", switch, "link", "add", host, "type", "veth", "peer", "name", "eth0", "netns", namespace)
            _ip("-n", switch, "link", "set", host, "master", BRIDGE, "up")
            _ip("-n", namespace, "address", "add", f"{address}/24", "dev", "eth0")
            for device in ("lo", "eth0"):
                _ip("-n", namespace, "link", "set", device, "up")

    def part(self, one: str, others: Iterable[str]) -> None:
        """Nothing passes between `one` and the others, in either direction."""
        for other in others:
            self.deafen(one, other)
            self.deafen(other, one)

    def deafen(self, host: str, to: str) -> None:
        """What `to` sends no longer arrives at `host`; the other direction stays."""
        self._tables(host, "-A", "INPUT", "-s", self._addresses[to], "-j", "DROP")

    def hear(self, host: str, to: str) -> None:
        """Undoes one `deafen`; of two of the same, one stays."""
        self._tables(host, "-D", "INPUT", "-s", self._addresses[to], "-j", "DROP")

    def unplug(self, host: str) -> None:
        _ip("-n", self.namespace(BRIDGE), "link", "set", host, "down")

    def plug(self, host: str) -> None:
        _ip("-n", self.namespace(BRIDGE), "link", "set", host, "up")

    def heal(self) -> None:
        for host in self._addresses:
            self._tables(host, "-F", "INPUT")
            self.plug(host)

    def enter(self, host: str = CLIENT) -> Callable[[], None]:
        """For a thread: moves the one that calls it, and no other, to that host."""
        path = f"/run/netns/{self.namespace(host)}"

        def move() -> None:
            libc = ctypes.CDLL(None, use_errno=True)
            descriptor = os.open(path, os.O_RDONLY)
            try:
                if libc.setns(descriptor, CLONE_NEWNET) != 0:
                    raise OSError(ctypes.get_errno(), f"setns {path}")
            finally:
                os.close(descriptor)

        return move

    def _tables(self, host: str, *words: str) -> None:
        net = f"--net=/run/netns/{self.namespace(host)}"
        subprocess.run(["nsenter", net, "iptables", "-w", *words], check=True, capture_output=True)


def _ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], check=False, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"ip {' '.join(words)}: {done.stderr.strip()}")
