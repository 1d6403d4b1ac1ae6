"""Clocks of a test's own, for the processes that are started with them: stepped, or made faster, while they run."""

import os
import subprocess
import time
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[1] / "lab" / "skewclock.c"
NOTICED_S = 0.25
"""Whoever has this clock looks at its file ten times a second."""


class SkewClock:
    def __init__(self, directory: Path) -> None:
        self._file = directory / "skew"
        library = directory / "skewclock.so"
        subprocess.run(["gcc", "-shared", "-fPIC", "-O2", "-o", library, SOURCE], check=True)
        self.environment = {"LD_PRELOAD": str(library), "SKEWCLOCK_FILE": str(self._file)}
        self._seconds, self._rate = 0.0, (0.0, 0.0)
        self._write()

    def step(self, seconds: float) -> None:
        """So far from the true time; returns when everybody has seen it."""
        self._seconds = seconds
        self._write()

    def drift(self, share: float) -> None:
        """From now on CLOCK_BOOTTIME runs faster by that share; never a second time: it must not go back."""
        self._rate = (share, time.clock_gettime(time.CLOCK_BOOTTIME))
        self._write()

    def _write(self) -> None:
        share, since_s = self._rate
        new = self._file.with_suffix(".new")
        new.write_text(f"{self._seconds} {share} {since_s:.9f}\n")
        os.replace(new, self._file)
        time.sleep(NOTICED_S)
