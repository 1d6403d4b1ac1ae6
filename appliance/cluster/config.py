"""The configuration document: units, defaults, and what must hold between its numbers.

One versioned document in the replicated state, in Patroni's shape for what both have. The core reads it as a
`Policy`; everything it does not know is an error that names the nearest known key.
"""

import difflib
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from appliance.cluster.state import ClusterState

_DURATION_UNITS_S = {"ms": 0.001, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_SIZE_UNITS_BYTES = {"B": 1, "kB": 1 << 10, "MB": 1 << 20, "GB": 1 << 30, "TB": 1 << 40}
_LARGEST = 1e15
"""Above any sensible number of seconds or bytes; NaN and infinity are not below it."""
_QUANTITY = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z%]*)\s*")


_TOLD = 5


class ConfigError(ValueError):
    """Each problem names the key, the value, and what would do."""

    def __init__(self, *problems: str) -> None:
        # the text is kept in the replicated state as a refusal's reason, so it stays short
        more = f" (and {len(problems) - _TOLD} more)" if len(problems) > _TOLD else ""
        super().__init__("; ".join(problems[:_TOLD]) + more)
        self.problems = problems


@dataclass(frozen=True, slots=True)
class Policy:
    """The document's numbers as the rules use them. Seconds, bytes, and shares of one."""

    ttl_s: float = 6.0
    failure_timeout_s: float = 2.0
    loop_wait_s: float = 1.0
    renew_interval_s: float = 0.5
    guard_margin_s: float = 0.5
    clock_drift: float = 0.01
    primary_start_timeout_s: float = 60.0
    primary_stop_timeout_s: float = 60.0
    maximum_lag_on_failover_bytes: int = 1 << 20
    synchronous_mode: str = "off"
    fencing: str = "lease"
    use_pg_rewind: bool = True
    parameters: Mapping[str, str] = field(default_factory=dict)
    pg_hba: tuple[str, ...] = ()
    pg_ident: tuple[str, ...] = ()

    @property
    def lease_s(self) -> float:
        """How long the holder counts a renewal, from before it asked (R3)."""
        return self.ttl_s * (1 - self.clock_drift)

    @property
    def depose_after_s(self) -> float:
        """How long the raft leader waits without confirming a renewal (R3)."""
        return self.ttl_s * (1 + self.clock_drift)

    @property
    def fence_below_s(self) -> float:
        """Lease left at which the agent stops a primary: it begins at 60 % of ttl (R4)."""
        return self.lease_s - 0.6 * self.ttl_s


def duration_s(key: str, value: object) -> float:
    """`250ms`, `2s`, `30min`; a bare number is seconds, as Patroni writes it."""
    return _quantity(key, value, _DURATION_UNITS_S, "s", "2s or 500ms")


def size_bytes(key: str, value: object) -> int:
    """`1MB`, `64kB` as PostgreSQL writes sizes; a bare number is bytes."""
    return int(_quantity(key, value, _SIZE_UNITS_BYTES, "B", "1MB or 64kB"))


def _quantity(key: str, value: object, units: Mapping[str, float], default: str, example: str) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _LARGEST:
        number, unit = float(value), default
    else:
        match = _QUANTITY.fullmatch(value) if isinstance(value, str) else None
        if match is None:
            raise ConfigError(f"{key}: {value!r} is not a number with a unit; write for example {example}")
        number, unit = float(match[1]), match[2] or default
    if unit not in units:
        raise ConfigError(f"{key}: unit {unit!r} in {value!r} is not one of {', '.join(filter(None, units))}")
    if not 0 <= number < _LARGEST:
        raise ConfigError(f"{key}: {value!r} is negative or too large; write for example {example}")
    return number * units[unit]


def _share(key: str, value: object) -> float:
    number = _quantity(key, value, {"": 1.0, "%": 0.01}, "", "1% or 0.01")
    if number >= 0.5:
        raise ConfigError(f"{key}: {value!r} is more than clocks may differ; write less than 50%")
    return number


def _flag(key: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise ConfigError(f"{key}: {value!r} is neither true nor false")
    return value


def _choice(*allowed: str) -> Callable[[str, object], str]:
    def read(key: str, value: object) -> str:
        # YAML 1.1 reads a bare on or off as a boolean.
        text = {True: "on", False: "off"}.get(value, value) if isinstance(value, bool) else value
        if text not in allowed:
            raise ConfigError(f"{key}: {value!r} is not one of {', '.join(allowed)}")
        return str(text)

    return read


def _synchronous_mode(key: str, value: object) -> str:
    mode = _choice("off", "on", "quorum")(key, value)
    if mode != "off":
        raise ConfigError(f"{key}: {mode!r} is not available yet; this version replicates asynchronously: write off")
    return mode


def _lines(key: str, value: object) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or not all(isinstance(line, str) for line in value):
        raise ConfigError(f"{key}: expected a list of lines, each a string")
    return tuple(value)


def _parameters(key: str, value: object) -> Mapping[str, str]:
    if not isinstance(value, Mapping):
        raise ConfigError(f"{key}: expected parameter names with values")
    return {str(name): _parameter(f"{key}.{name}", v) for name, v in value.items()}


def _parameter(key: str, value: object) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, str | int | float):
        return str(value)
    raise ConfigError(f"{key}: {value!r} is not a single value; write it as PostgreSQL would, in quotes")


_Reader = Callable[[str, object], object]
_TOP: Mapping[str, tuple[str, _Reader]] = {
    "ttl": ("ttl_s", duration_s),
    "failure_timeout": ("failure_timeout_s", duration_s),
    "loop_wait": ("loop_wait_s", duration_s),
    "renew_interval": ("renew_interval_s", duration_s),
    "guard_margin": ("guard_margin_s", duration_s),
    "clock_drift": ("clock_drift", _share),
    "primary_start_timeout": ("primary_start_timeout_s", duration_s),
    "primary_stop_timeout": ("primary_stop_timeout_s", duration_s),
    "maximum_lag_on_failover": ("maximum_lag_on_failover_bytes", size_bytes),
    "synchronous_mode": ("synchronous_mode", _synchronous_mode),
}
_FAILOVER: Mapping[str, tuple[str, _Reader]] = {"fencing": ("fencing", _choice("lease"))}
_POSTGRESQL: Mapping[str, tuple[str, _Reader]] = {
    "parameters": ("parameters", _parameters),
    "pg_hba": ("pg_hba", _lines),
    "pg_ident": ("pg_ident", _lines),
    "use_pg_rewind": ("use_pg_rewind", _flag),
}
_SECTIONS = {"": _TOP, "failover": _FAILOVER, "postgresql": _POSTGRESQL}
KNOWN_KEYS = (
    *_TOP,
    *(f"failover.{k}" for k in _FAILOVER),
    *(f"postgresql.{k}" for k in _POSTGRESQL),
)


def _settings(document: Mapping[str, object]) -> Iterator[tuple[str, object]]:
    """Every leaf the document sets, by dotted key; `parameters` is one leaf."""
    for key, value in document.items():
        if key in _SECTIONS and isinstance(value, Mapping):
            yield from ((f"{key}.{k}", v) for k, v in value.items())
        else:
            yield str(key), value


def _read(key: str, value: object) -> tuple[str, object]:
    """The policy's field that a setting is, and what it says."""
    if key in _SECTIONS:
        raise ConfigError(f"{key}: expected settings below it, got {value!r}")
    section, _, name = key.rpartition(".")
    table = _SECTIONS.get(section, {})
    if name not in table:
        near = difflib.get_close_matches(key, KNOWN_KEYS, n=1)
        hint = f"; did you mean {near[0]}?" if near else f"; known: {', '.join(KNOWN_KEYS)}"
        raise ConfigError(f"{key}: unknown setting{hint}")
    field_name, reader = table[name]
    return field_name, reader(key, value)


def read_policy(document: Mapping[str, object], *, election_max_s: float = 1.0) -> Policy:
    """Read and check a document. Raises ConfigError with everything that is wrong with it.

    Where numbers contradict each other it has their sums; they are compared when each of them can be read.
    """
    values: dict[str, object] = {}
    problems: list[str] = []
    for key, value in _settings(document):
        try:
            name, meant = _read(key, value)
            values[name] = meant
        except ConfigError as error:
            problems += error.problems
    if problems:
        raise ConfigError(*problems)
    policy = replace(Policy(), **values)  # type: ignore[arg-type]  # each reader returns its field's type
    if "renew_interval_s" not in values:
        derived = min(policy.loop_wait_s, policy.ttl_s / 12, policy.failure_timeout_s / 4)
        policy = replace(policy, renew_interval_s=derived)
    if problems := list(_contradictions(policy, election_max_s, derived="renew_interval_s" not in values)):
        raise ConfigError(*problems)
    return policy


def policy_in_force(state: ClusterState) -> Policy:
    """The configuration's policy, with the timing of the present lease.

    A lease is counted by the ttl it was granted with: with a shorter one the raft leader would depose before the
    holder's own deadline. A new ttl holds from the next appointment on (R3). Raises ConfigError as `read_policy` does.
    """
    policy, held = read_policy(state.config.document), state.appointment
    if held is None:
        return policy
    renew_s = min(policy.renew_interval_s, held.ttl_s / 12)
    return replace(policy, ttl_s=held.ttl_s, clock_drift=held.clock_drift, renew_interval_s=renew_s)


def _least_ttl_s(policy: Policy, elections_s: float, *, derived: bool) -> float:
    """The ttl that would do, rounded up to 10 ms; a renew_interval that is not set grows with it."""
    if not derived:
        return math.ceil((policy.renew_interval_s + elections_s) / 0.6 * 100) / 100
    longest_s = min(policy.loop_wait_s, policy.failure_timeout_s / 4)
    growing_s = elections_s / (0.6 - 1 / 12)
    least_s = growing_s if growing_s / 12 <= longest_s else (longest_s + elections_s) / 0.6
    return math.ceil(least_s * 100) / 100


def _contradictions(policy: Policy, election_max_s: float, *, derived: bool) -> Iterator[str]:
    if policy.failure_timeout_s < 0.5:
        yield f"failure_timeout: {policy.failure_timeout_s:g}s is below the minimum of 500ms"
    for key, value_s in (("loop_wait", policy.loop_wait_s), ("renew_interval", policy.renew_interval_s)):
        if value_s <= 0:
            yield f"{key}: {value_s:g}s must be above 0s; leave it out, or write for example 500ms"
    if policy.failure_timeout_s < 4 * policy.renew_interval_s - 1e-9:
        yield (
            f"failure_timeout: {policy.failure_timeout_s:g}s is less than 4 x renew_interval ="
            f" {4 * policy.renew_interval_s:g}s; raise it or lower renew_interval"
        )
    elections_s = 2 * election_max_s + 0.5
    need = policy.renew_interval_s + elections_s
    if 0.6 * policy.ttl_s < need - 1e-9:
        least = _least_ttl_s(policy, elections_s, derived=derived)
        yield (
            f"ttl: 60 % of {policy.ttl_s:g}s is {0.6 * policy.ttl_s:g}s, less than renew_interval + 2 x the longest"
            f" raft election + 0.5s = {need:g}s; raise ttl to at least {least:g}s"
        )
    elif not 0.1 <= policy.guard_margin_s < policy.fence_below_s:
        yield (
            f"guard_margin: {policy.guard_margin_s:g}s must lie between 100ms and what is left of the lease when the"
            f" node begins to fence, {policy.fence_below_s:g}s"
        )
