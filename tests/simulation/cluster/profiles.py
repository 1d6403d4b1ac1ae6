"""What a run of a whole cluster is made of: its settings, and which faults come how often."""

from dataclasses import dataclass, field

from tests.simulation.raft.profiles import Net

FAULTS = {
    "agent": 0.08,
    "agent within": 0.08,
    "postgres": 0.08,
    "guard": 0.04,
    "host": 0.06,
    "blackout": 0.01,
    "freeze agent": 0.05,
    "freeze postgres": 0.03,
    "freeze host": 0.04,
    "isolate": 0.07,
    "cut": 0.05,
    "one-way": 0.05,
    "reset": 0.05,
    "slow": 0.05,
    "disk": 0.05,
    "slow disk": 0.03,
    "clock": 0.03,
    "switchover": 0.06,
    "mode": 0.05,
    "newcomer": 0.05,
    "wipe": 0.02,
}
"""Events per virtual second in the whole cluster."""


@dataclass(frozen=True)
class Profile:
    name: str
    hosts: int = 3
    document: dict = field(default_factory=dict)
    clocks_lie: bool = False
    faults: dict = field(default_factory=dict)
    net: Net = field(default_factory=Net)
    hurt_s: float = 40.0
    modes: tuple = ()
    """documents that the operator changes to, at times"""

    @property
    def lease_fences(self):
        """Nobody is elected before the last lease is over: then there is one writable primary at any time."""
        return self.document["synchronous_mode"] == "off" or "failover" in self.document


PROFILES = (
    "healthy",
    "asynchronous",
    "quorum",
    "strict",
    "priority",
    "clocks",
    "modes",
    "five-hosts",
    "lease",
    "readers",
    "failsafe",
)


def draw(name, random):
    """The profile of one run; `name` fixes what it is about, the seed draws the rest."""
    faults = {} if name == "healthy" else _some(random)
    mode = {"asynchronous": "off", "priority": "on"}.get(name, "quorum")
    document = {"synchronous_mode": mode, "maximum_lag_on_failover": "2kB"}
    if name == "healthy":
        document["synchronous_mode"] = random.choice(("off", "on", "quorum"))
    if mode != "off" and name != "healthy":
        document["synchronous_mode_strict"] = name == "strict"
        document["synchronous_node_count"] = random.choice((1, 1, 2))
    if name == "lease":
        document["failover"] = {"fencing": "lease"}
    hosts = 5 if name == "five-hosts" else 3
    if name == "readers":
        hosts, document["synchronous_node_count"], faults = random.choice((3, 4, 5)), 2, dict(_READERS)
    if name == "failsafe":
        document |= {"synchronous_mode": random.choice(("on", "on", "quorum")), "failsafe_mode": True}
        if random.random() < 0.5:
            document["failover"] = {"fencing": "lease"}
        faults["majority"], hosts = 0.15, random.choice((4, 5))
    lies = name == "clocks"
    if lies:
        faults["clock"] = 0.3
    modes = ()
    if name == "modes":
        faults["mode"] = 0.15
        modes = tuple({**document, **change} for change in _MODES)
    elif name == "failsafe":
        faults["mode"] = random.choice((0.0, 0.1))
        modes = tuple({**document, **change} for change in _FAILSAFE)
    losses = random.choice((0.0, 0.0, 0.01)) if faults else 0.0
    spikes = random.choice((0.0, 0.02)) if faults else 0.0
    return Profile(
        name,
        hosts,
        document,
        lies,
        faults,
        Net(losses=losses, spikes=spikes),
        modes=modes,
    )


_MODES = (
    {"synchronous_mode": "off"},
    {"synchronous_mode": "quorum", "synchronous_node_count": 1},
    {"synchronous_mode": "quorum", "synchronous_node_count": 2},
    {"synchronous_mode": "on", "synchronous_node_count": 1},
    {"synchronous_mode": "on", "synchronous_node_count": 2},
)


_READERS = {"freeze postgres": 0.3, "cut": 0.15, "postgres": 0.1, "host": 0.1, "newcomer": 0.2, "switchover": 0.05}
"""What a primary has and nobody confirmed is read there, and then lost with it: best soon after it opened (R5a)."""
_FAILSAFE = (
    {"failsafe_mode": True},
    {"failsafe_mode": False},
    {"failsafe_mode": False, "synchronous_mode": "off", "failover": {"fencing": "lease"}},
    {"failsafe_mode": True, "synchronous_mode": "quorum"},
)


def _some(random):
    """Few kinds in one run, each more often, find what all of them together hide."""
    kinds = random.sample(sorted(FAULTS), random.choice((3, 6, len(FAULTS))))
    more = random.choice((1.0, 2.0)) * len(FAULTS) / (len(kinds) + 6)
    return {kind: FAULTS[kind] * min(more, 3.0) for kind in kinds if kind != "mode"}
