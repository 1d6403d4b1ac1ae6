"""What may go wrong in a run, how often, and how the replicas are set.

A profile is one choice from each of the tables below. A named profile fixes some of them; the seed draws the rest.
Rates are events per virtual second in the whole cluster.
"""

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Size:
    voters: int = 3
    spares: int = 0
    """Machines that are not members at first."""


@dataclass(frozen=True)
class Net:
    latency_s: tuple[float, float] = (0.0005, 0.004)
    spikes: float = 0.0
    """Share of the batches that take up to `spike_s`."""
    spike_s: float = 0.5
    slow_s: float = 2.5
    """Longest delay on a path while it is slow."""
    patience_s: tuple[float, float] = (1.0, 4.0)
    """How long a connection that gets nothing through lives on."""
    one_way_lasts: bool = False
    """A connection survives when only the way back is cut, which TCP does not."""
    linger: float = 0.0
    """Share of the connections whose data arrives late, after that of their successors."""
    linger_s: float = 4.0
    duplicates: float = 0.0
    """Share of the frames that arrive twice."""
    losses: float = 0.0
    """Share of the frames that are lost while their connection lives on: the mailbox that they came to was full."""
    cuts: float = 0.0
    resets: float = 0.0
    slows: float = 0.0


@dataclass(frozen=True)
class Machines:
    kills: float = 0.0
    """Processes killed between two steps."""
    powers: float = 0.0
    blackouts: float = 0.0
    """Losses of power of all machines at once."""
    inner: float = 0.0
    """Crashes, by kill or loss of power, within a call of the disk."""
    power_share: float = 0.0
    """How many of the crashes within a call of the disk are losses of power."""
    full: float = 0.0
    failed_syncs: float = 0.0
    failed_calls: float = 0.0
    rots: float = 0.0
    wipes: float = 0.0
    exact: bool = False
    """The first start of one machine crashes in exactly one call of its disk; which one goes up with the seed."""
    early: bool = False
    """Faults begin before the cluster has been founded."""


@dataclass(frozen=True)
class Clocks:
    drift: float = 0.0
    """A clock may be faster or slower by this share."""
    stalls: float = 0.0
    stall_s: float = 3.0
    lag_s: float = 0.002
    """How late a step may be."""


@dataclass(frozen=True)
class Log:
    compact_entries: int = 100_000
    compact_bytes: int = 64 * 1024 * 1024
    keep_entries: int = 512
    chunk_bytes: int = 256 * 1024
    batch_bytes: int = 1024 * 1024
    large: float = 0.0
    """Share of the commands that are large."""
    large_bytes: int = 20_000


@dataclass(frozen=True)
class Changes:
    transfers: float = 0.0
    members: float = 0.0
    upgrades: float = 0.0
    """Hosts that get another version; all begin with the first."""


@dataclass(frozen=True)
class Profile:
    name: str
    size: Size
    net: Net
    machines: Machines
    clocks: Clocks
    log: Log
    changes: Changes
    hurt_s: float = 18.0
    operations: float = 10.0
    """Operations of clients per virtual second."""


SIZES = {
    "three": Size(3),
    "five": Size(5),
    "seven": Size(7),
    "spares": Size(3, spares=2),
    "five-spares": Size(5, spares=1),
    "seven-spares": Size(7, spares=1),
}
NETS = {
    "steady": Net(),
    "cuts": Net(cuts=0.35, resets=0.1),
    "slow": Net(cuts=0.1, slows=0.4, spikes=0.02, resets=0.1),
    "linger": Net(cuts=0.25, resets=1.0, slows=0.3, linger=0.7, spikes=0.01),
    "duplicates": Net(cuts=0.15, resets=0.4, linger=0.5, duplicates=0.08, slows=0.1),
    "one-way": Net(cuts=0.4, one_way_lasts=True, resets=0.1),
    "losses": Net(cuts=0.1, losses=0.03, resets=0.1, slows=0.1),
}
MACHINES = {
    "healthy": Machines(),
    "kills": Machines(kills=0.25, inner=0.25),
    "powers": Machines(powers=0.2, inner=0.3, power_share=0.8, blackouts=0.04),
    "blackouts": Machines(blackouts=0.2, inner=0.1, power_share=0.5),
    "early": Machines(kills=0.1, powers=0.1, inner=0.4, power_share=0.5, early=True),
    "disks": Machines(full=0.12, failed_syncs=0.08, failed_calls=0.08, rots=0.1, powers=0.05, kills=0.05),
    "one-call": Machines(exact=True, power_share=0.7),
    "wipes": Machines(wipes=0.12, kills=0.05, powers=0.05, inner=0.1, power_share=0.5),
}
CLOCKS = {
    "good": Clocks(),
    "drift": Clocks(drift=0.05),
    "stalls": Clocks(drift=0.01, stalls=0.25),
    "busy": Clocks(stalls=0.8, stall_s=0.6, lag_s=0.05),
}
LOGS = {
    "whole": Log(),
    "compact": Log(compact_entries=12, keep_entries=4, chunk_bytes=150, batch_bytes=400),
    "none-kept": Log(compact_entries=8, keep_entries=0, chunk_bytes=64),
    "by-size": Log(compact_bytes=4096, keep_entries=6, chunk_bytes=1000, large=0.05),
    "small-batches": Log(batch_bytes=150),
    "large": Log(large=0.1, large_bytes=300_000, compact_entries=60, keep_entries=20),
}
CHANGES = {
    "none": Changes(),
    "transfers": Changes(transfers=0.3),
    "members": Changes(members=0.5, transfers=0.1),
}
TABLES = {"size": SIZES, "net": NETS, "machines": MACHINES, "clocks": CLOCKS, "log": LOGS, "changes": CHANGES}

CALM = {"net": "steady", "machines": "healthy", "clocks": "good", "log": "whole", "changes": "none", "size": "three"}
PROFILES = {
    "all": {},
    "calm": CALM,
    "cuts": {"net": ("cuts", "one-way"), "size": ("three", "five")},
    "losses": {"net": "losses"},
    "linger": {"net": ("linger", "duplicates"), "machines": ("healthy", "kills")},
    "power": {"machines": ("powers", "blackouts", "early")},
    "kills": {"machines": "kills"},
    "disks": {"machines": "disks"},
    "one-call": {
        "machines": "one-call",
        "size": "three",
        "net": "steady",
        "clocks": "good",
        "log": ("compact", "none-kept"),
        "changes": ("none", "transfers"),
    },
    "wipes": {"machines": "wipes", "size": ("three", "five")},
    "compact": {"log": ("compact", "none-kept", "by-size")},
    "members": {"changes": "members", "size": ("spares", "five-spares", "seven-spares")},
    "clocks": {"clocks": ("drift", "stalls", "busy")},
    "large": {"log": "large", "size": "three"},
    "versions": {"machines": ("healthy", "kills", "powers", "blackouts")},
    "five": {"size": "five"},
    "seven": {"size": "seven"},
}
"""What a named profile fixes, or chooses from; the seed draws the rest."""


def draw(name, random):
    """The profile of one run."""
    fixed = PROFILES[name]
    chosen = {part: random.choice(_options(part, fixed)) for part in TABLES}
    if chosen["changes"] == "members" and "size" not in fixed:
        chosen["size"] = random.choice(("spares", "five-spares", "seven-spares"))
    words = "/".join(chosen.values())
    profile = Profile(words, **{part: TABLES[part][choice] for part, choice in chosen.items()})
    if name == "versions":
        # beside the tables, so that the other profiles draw what they always drew
        profile = replace(profile, changes=replace(profile.changes, upgrades=0.8))
    if "seven" in words:
        # more replicas, more messages: about the same time for a run
        profile = replace(profile, hurt_s=12.0)
    return profile


def _options(part, fixed):
    choice = fixed.get(part, tuple(TABLES[part]))
    return (choice,) if isinstance(choice, str) else choice
