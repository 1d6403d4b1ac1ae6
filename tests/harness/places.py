"""Where a test's cluster lives: a directory of its own that the nodes' user may enter, and ports that nobody uses."""

import os
import random
import socket
import tempfile
from pathlib import Path

from appliance.node.privileges import run_user

PORTS = range(20000, 32000)
"""below the range that the kernel gives to outgoing connections: a port of a dead node must stay free"""


def fresh_directory() -> Path:
    """Below /var/tmp: short enough for unix sockets, and every user may pass."""
    directory = Path(tempfile.mkdtemp(prefix="pga-", dir="/var/tmp"))
    give(directory)
    return directory


def give(path: Path) -> None:
    """To the user that nodes run as."""
    if os.geteuid() == 0:
        user = run_user()
        os.chown(path, user.pw_uid, user.pw_gid)


def free_ports(count: int) -> list[int]:
    """Neighbours, free at this moment."""
    for _ in range(100):
        first = random.randrange(PORTS.start, PORTS.stop - count)
        ports = list(range(first, first + count))
        if all(map(_free, ports)):
            return ports
    raise RuntimeError(f"no {count} free ports in a row between {PORTS.start} and {PORTS.stop}")


def _free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
