"""The clocks of the shell. The core never reads one."""

import time
from datetime import UTC, datetime


def boottime_s() -> float:
    """CLOCK_BOOTTIME: goes on while the machine sleeps, never steps. All leases count on it."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def wall_time() -> str:
    """RFC 3339 in UTC, for people; no rule reads it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def wall_s() -> float:
    """Seconds since 1970, for people."""
    return time.time()
