"""Clients of one node's API, in a process of their own: so many reads a second, and now and then the largest body.

As a program: `python -m tests.harness.load HOST PORT TOKEN SECONDS RATE`; a line of JSON tells what came of it.
"""

import asyncio
import json
import os
import subprocess
import sys
import time
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Self

from appliance.api.front import BODY_LIMIT_BYTES
from tests.harness.node import Node
from tests.harness.sweeper import REPOSITORY

READS = ("/patroni", "/cluster", "/api/v1/cluster", "/metrics")
READERS = 20
POST_EACH_S = 0.5
END_LIMIT_S = 30.0


@dataclass(slots=True)
class Served:
    statuses: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    """by method and status"""
    slowest_s: float = 0.0
    took_s: float = 0.0

    @property
    def reads_a_second(self) -> float:
        return self.statuses["GET 200"] / self.took_s


class Load:
    """A context: begins to ask this node when it is entered."""

    def __init__(self, node: Node, *, seconds: float, rate: int) -> None:
        token = (node.directory / "api.token").read_text().strip()
        place = (node.place.host, str(node.place.http_port))
        self._command = [sys.executable, "-m", "tests.harness.load", *place, token, str(seconds), str(rate)]
        self._limit_s = seconds + END_LIMIT_S

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            self._command, cwd="/", env={**os.environ, "PYTHONPATH": str(REPOSITORY)}, stdout=subprocess.PIPE
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def served(self) -> Served:
        """Waits for the end."""
        said, _ = self._process.communicate(timeout=self._limit_s)
        assert self._process.returncode == 0
        return Served(**json.loads(said))


def largest_bodies() -> tuple[bytes, bytes]:
    """One that means something, and the one that costs most: each of its keys is refused in words."""
    much = {"to": "nobody", "reason": "x" * 1000}
    plain = json.dumps(much).encode().ljust(BODY_LIMIT_BYTES)
    keys = b",".join(b'"%d":0' % number for number in range(BODY_LIMIT_BYTES))
    dense = keys[: keys.rindex(b",", 0, BODY_LIMIT_BYTES - 1)]
    return plain, b"{" + dense + b"}"


class _Client:
    def __init__(self, host: str, port: int, served: Served) -> None:
        self._place = (host, port)
        self._served = served

    async def ask(self, requests: list[tuple[str, bytes]], period_s: float, until_s: float) -> None:
        """In turn, each when its time has come; late ones at once."""
        reader, writer = await asyncio.open_connection(*self._place)
        due_s, number = time.monotonic(), 0
        while due_s < until_s:
            await asyncio.sleep(max(0.0, due_s - time.monotonic()))
            method, request = requests[number % len(requests)]
            began_s = time.monotonic()
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
            await reader.readexactly(int(length.split(b":")[1]))
            self._served.statuses[f"{method} {head.split(b' ', 2)[1].decode()}"] += 1
            self._served.slowest_s = max(self._served.slowest_s, time.monotonic() - began_s)
            due_s, number = due_s + period_s, number + 1
        writer.close()


async def _ask_all(host: str, port: int, token: str, seconds: float, rate: int) -> Served:
    served, began_s = Served(), time.monotonic()
    client, until_s = _Client(host, port, served), began_s + seconds
    reads = [("GET", f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode()) for path in READS]
    head = f"POST /api/v1/switchovers?dry_run=true HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n"
    posts = [("POST", f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body) for body in largest_bodies()]
    async with asyncio.TaskGroup() as group:
        for reader in range(READERS):
            group.create_task(client.ask(reads[reader % 4 :] + reads[: reader % 4], READERS / rate, until_s))
        group.create_task(client.ask(posts, POST_EACH_S, until_s))
    served.took_s = time.monotonic() - began_s
    return served


if __name__ == "__main__":
    _host, _port, _token, _seconds, _rate = sys.argv[1:]
    _served = asyncio.run(_ask_all(_host, int(_port), _token, float(_seconds), int(_rate)))
    print(json.dumps({"statuses": _served.statuses, "slowest_s": _served.slowest_s, "took_s": _served.took_s}))
