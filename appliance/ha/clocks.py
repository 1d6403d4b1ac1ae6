"""Whether the members' clocks are what leases take them for (safety.md R3): rates within `clock_drift` of each other.

Every report carries what its sender's clocks said. A message takes time, so the sender's clock looks late by that much;
of many messages the one that looks latest took the least. Rates are compared over tens of seconds, against the median
of the members, so that of three the one that runs wild is named. Also a host that was stopped as a whole, and whose
clock stood meanwhile, shows: it has lost time.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from statistics import median

from appliance.cluster.config import Policy
from appliance.ha.seen import ClockReading, ClockSeen

BUCKET_S = 10.0
"""Some twenty reports: one of them came without delay."""
APART_S = 30.0
"""Least time between two that a rate is made of: 0.1 s of delay in one of them is a third of a percent then."""
KEPT_S = 120.0
WALL_LIMIT_S = 10.0
"""People who read logs of two hosts side by side, and certificates that are valid from now on, bear no more."""


@dataclass(frozen=True, slots=True)
class Point:
    local_s: float
    """when it arrived, on the receiver's clock since boot"""
    ahead_s: float
    """the sender's clock since boot less the receiver's"""


@dataclass(frozen=True, slots=True)
class Track:
    """What one member's clocks said, as one receiver heard it; the newest point last, one for each bucket."""

    boot: str = ""
    points: tuple[Point, ...] = ()
    wall_ahead_s: float = 0.0
    """by the newest message: late by what it took on its way"""


def heard(track: Track, said: ClockReading, local_s: float, wall_s: float) -> Track:
    """The clock of a host that was booted anew has nothing to do with that of before."""
    point = Point(local_s, said.boot_s - local_s)
    points = track.points if said.boot == track.boot else ()
    if points and _bucket(points[-1]) == _bucket(point):
        latest = points[-1]
        points = (*points[:-1], latest if latest.ahead_s >= point.ahead_s else point)
    else:
        points = (*points, point)
    kept = tuple(p for p in points if p.local_s > local_s - KEPT_S)
    return Track(said.boot, kept, said.wall_s - wall_s)


def _bucket(point: Point) -> int:
    return int(point.local_s // BUCKET_S)


def rate(track: Track) -> float | None:
    """How much faster the sender's clock runs than the receiver's; None: not heard for long enough.

    Without the buckets that may not be whole: all that the first or the last has may be a message that was long on its
    way.
    """
    if len(track.points) < 4:
        return None
    first, last = track.points[1], track.points[-2]
    apart_s = last.local_s - first.local_s
    return (last.ahead_s - first.ahead_s) / apart_s if apart_s >= APART_S else None


def compared(tracks: Mapping[str, Track], now_s: float) -> Mapping[str, ClockSeen]:
    """Each member against the others; `now_s` on the receiver's clock, who is one of them. The silent are left out."""
    heard_of = {n: t for n, t in tracks.items() if t.points and t.points[-1].local_s > now_s - 2 * BUCKET_S}
    rates = {name: found for name, track in heard_of.items() if (found := rate(track)) is not None}
    usual, wall_s = _usual(tuple(rates.values())), _usual(tuple(t.wall_ahead_s for t in heard_of.values()))
    seen = {name: ClockSeen(wall_ahead_s=track.wall_ahead_s - wall_s) for name, track in heard_of.items()}
    return {n: replace(c, drift=rates[n] - usual) if n in rates else c for n, c in seen.items()}


def _usual(values: tuple[float, ...]) -> float:
    """Of two nobody can say which is right: the receiver's own then, which is next to nothing."""
    return median(values) if len(values) > 2 else min(values, key=abs, default=0.0)


def wild(clock: ClockSeen | None, policy: Policy) -> bool:
    """It runs faster or slower than leases allow for."""
    return clock is not None and clock.drift is not None and abs(clock.drift) > policy.clock_drift


def in_words(clock: ClockSeen) -> str:
    drift = clock.drift or 0.0
    return f"its clock runs {abs(drift):.1%} {'fast' if drift > 0 else 'slow'}"
