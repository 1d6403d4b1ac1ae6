"""A wall clock of a test's own for the processes that are started with it, to be stepped while they run."""

import os
import subprocess
import time
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[1] / "lab" / "skewclock.c"
NOTICED_S = 0.25
"""Whoever has this clock looks at its file ten times a second."""


class WallClock:
    def __init__(self, directory: Path) -> None:
        self._file = directory / "skew"
        library = directory / "skewclock.so"
        subprocess.run(["gcc", "-shared", "-fPIC", "-O2", "-o", library, SOURCE], check=True)
        self.environment = {"LD_PRELOAD": str(library), "SKEWCLOCK_FILE": str(self._file)}
        self.step(0)

    def step(self, seconds: float) -> None:
        """So far from the true time; returns when everybody has seen it."""
        new = self._file.with_suffix(".new")
        new.write_text(f"{seconds}\n")
        os.replace(new, self._file)
        time.sleep(NOTICED_S)
