"""The one clock of a replica: it also counts while the machine is suspended (R3 counts on that)."""

from __future__ import annotations

import time


def boottime_s() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)
