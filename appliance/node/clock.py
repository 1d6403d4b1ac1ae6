"""The clocks of the shell. The core never reads one."""

import time
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

from appliance.ha.seen import ClockReading

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
"""https://man7.org/linux/man-pages/man4/random.4.html"""


def boottime_s() -> float:
    """CLOCK_BOOTTIME: goes on while the machine sleeps, never steps. All leases count on it."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def wall_time(ago_s: float = 0.0) -> str:
    """RFC 3339 in UTC, for people; no rule reads it."""
    return (datetime.now(UTC) - timedelta(seconds=ago_s)).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def wall_s() -> float:
    """Seconds since 1970, for people."""
    return time.time()


def clock_reading() -> ClockReading:
    """What the clocks of this host say now, for those who compare them."""
    return ClockReading(boottime_s(), wall_s(), _boot())


@cache
def _boot() -> str:
    return _BOOT_ID.read_text().strip()
