"""Leaves nothing behind: a process that outlives the tests and, when they end in whatever way, clears up after them.

It reads what to clear from its standard input, one JSON document, and begins when that is closed: by the cluster that
has come to its end, or by the kernel when pytest was killed.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
SWEEP_LIMIT_S = 30.0


class Sweeper:
    """Clears `directory` with all its processes, mounts, and the network namespaces named."""

    def __init__(self, directory: Path, namespaces: Sequence[str] = ()) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.harness.sweeper"],
            cwd=REPOSITORY,
            stdin=subprocess.PIPE,
            start_new_session=True,
        )
        assert self._process.stdin is not None
        order = {"directory": str(directory), "namespaces": list(namespaces)}
        self._process.stdin.write(json.dumps(order).encode() + b"\n")
        self._process.stdin.flush()

    def sweep(self) -> None:
        """Returns when nothing is left; raises when something is."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        code = self._process.wait(SWEEP_LIMIT_S)
        if code != 0:
            raise RuntimeError(f"the sweeper ended with {code}: look for what the tests have left")


def main() -> None:
    from tests.harness.disk import thaw
    from tests.harness.processes import kill_all

    order = json.loads(sys.stdin.readline())
    sys.stdin.read()
    directory = Path(order["directory"])
    for mount in _mounts_below(directory):
        thaw(mount)  # who writes to a frozen disk cannot be killed
    kill_all(directory)
    for mount in _mounts_below(directory):
        subprocess.run(["umount", mount], check=True)
    for name in order["namespaces"]:
        if os.path.exists(f"/run/netns/{name}"):
            subprocess.run(["ip", "netns", "delete", name], check=True)
    shutil.rmtree(directory)


def _mounts_below(directory: Path) -> list[str]:
    """Innermost first."""
    points = (line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines())
    return sorted((point for point in points if point.startswith(f"{directory}/")), reverse=True)


if __name__ == "__main__":
    main()
