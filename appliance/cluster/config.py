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


ZONE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_TOLD = 5
_MOST_STANDBYS = 8


class ConfigError(ValueError):
    """Each problem names the key, the value, and what would do."""

    def __init__(self, *problems: str) -> None:
        # the text is kept in the replicated state as a refusal's reason, so it stays short
        more = f" (and {len(problems) - _TOLD} more)" if len(problems) > _TOLD else ""
        super().__init__("; ".join(problems[:_TOLD]) + more)
        self.problems = problems


_PATIENT_STOP_S = 60.0
_WAITS_FOR_THE_DISK = frozenset({"on", "true", "yes", "1", "remote_apply"})
"""https://www.postgresql.org/docs/current/runtime-config-wal.html#GUC-SYNCHRONOUS-COMMIT: `remote_write` is memory of
the standby's host, and votes show what is on disk (R7)."""


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
    primary_stop_timeout_s: float = 5.0
    maximum_lag_on_failover_bytes: int = 1 << 20
    synchronous_mode: str = "quorum"
    synchronous_mode_strict: bool = False
    synchronous_node_count: int = 1
    maximum_lag_on_syncnode_bytes: int | None = None
    """None: a standby of any lag may be waited for, as long as it streams"""
    fencing: str = "quorum"
    zones: tuple[str, ...] = ()
    """empty: whatever the members say"""
    failsafe_mode: bool = False
    use_pg_rewind: bool = True
    parameters: Mapping[str, str] = field(default_factory=dict)
    pg_hba: tuple[str, ...] = ()
    pg_ident: tuple[str, ...] = ()

    @property
    def archives(self) -> bool:
        """Whether PostgreSQL that stops may still be busy with its archive."""
        return self.parameters.get("archive_mode", "off") not in {"off", "false", "no", "0"}

    @property
    def lease_s(self) -> float:
        """How long the holder counts a renewal, from before it asked (R3)."""
        return self.ttl_s * (1 - self.clock_drift)

    @property
    def depose_after_s(self) -> float:
        """How long the raft leader waits without confirming a renewal (R3)."""
        return self.ttl_s * (1 + self.clock_drift)

    @property
    def all_heard_after_s(self) -> float:
        """How long after its election a raft leader has heard everybody who lives: each reports at once to a new one.

        Less than `failure_timeout`: a standby's host that led Raft holds commits up for both, one after the other.
        """
        return max(2 * self.renew_interval_s, self.failure_timeout_s / 2)

    @property
    def ask_after_s(self) -> float:
        """Since its lease was last renewed, when a primary asks its synchronous members itself (R16).

        Half of what it has before the agent begins to fence: an election of Raft is mostly over by then.
        """
        return 0.3 * self.ttl_s

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


def _count(key: str, value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= _MOST_STANDBYS:
        return value
    raise ConfigError(f"{key}: {value!r} is no number of standbys; write 1 to {_MOST_STANDBYS}")


def _lag(key: str, value: object) -> int | None:
    """Patroni's -1 is no limit."""
    return None if value == -1 else size_bytes(key, value)


def _zones(key: str, value: object) -> tuple[str, ...]:
    if not isinstance(value, list | tuple):
        raise ConfigError(f"{key}: {value!r} is no list of names; write for example [east, west]")
    strange = [name for name in value if not isinstance(name, str) or not ZONE.fullmatch(name)]
    if strange:
        raise ConfigError(f"{key}: {strange[0]!r} is no name of a zone; write letters, digits, '.', '_' and '-'")
    return tuple(dict.fromkeys(value))


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
    "synchronous_mode": ("synchronous_mode", _choice("off", "on", "quorum")),
    "synchronous_mode_strict": ("synchronous_mode_strict", _flag),
    "synchronous_node_count": ("synchronous_node_count", _count),
    "maximum_lag_on_syncnode": ("maximum_lag_on_syncnode_bytes", _lag),
    "zones": ("zones", _zones),
    "failsafe_mode": ("failsafe_mode", _flag),
}
_FAILOVER: Mapping[str, tuple[str, _Reader]] = {"fencing": ("fencing", _choice("quorum", "lease"))}
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
    if "fencing" not in values and policy.synchronous_mode == "off":
        policy = replace(policy, fencing="lease")
    if "primary_stop_timeout_s" not in values and policy.synchronous_mode == "off":
        # what has not been sent when it is stopped immediately is lost
        policy = replace(policy, primary_stop_timeout_s=_PATIENT_STOP_S)
    if "renew_interval_s" not in values:
        derived = min(policy.loop_wait_s, policy.ttl_s / 12, policy.failure_timeout_s / 4)
        policy = replace(policy, renew_interval_s=derived)
    times = _contradictory_times(policy, election_max_s, derived="renew_interval_s" not in values)
    if problems := [*_contradictory_modes(policy), *times]:
        raise ConfigError(*problems)
    return policy


def merged(document: Mapping[str, object], patch: Mapping[str, object]) -> dict[str, object]:
    """RFC 7386: what `patch` says, and None takes a setting back to its default."""
    changed = dict(document)
    for key, value in patch.items():
        before = changed.pop(key, None)
        if isinstance(value, Mapping):
            below = merged(before if isinstance(before, Mapping) else {}, value)
            if below or not value:
                changed[key] = below
        elif value is not None:
            changed[key] = value
    return changed


def flat(document: Mapping[str, object]) -> dict[str, object]:
    """Its settings by dotted key."""
    return dict(_settings(document))


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


def _contradictory_modes(policy: Policy) -> Iterator[str]:
    if policy.synchronous_mode_strict and policy.synchronous_mode == "off":
        yield (
            "synchronous_mode_strict: commits that wait for nobody (synchronous_mode off) cannot be made to wait;"
            " write quorum or on, or leave it out"
        )
    if policy.fencing == "quorum" and policy.synchronous_mode == "off":
        yield (
            "failover.fencing: votes fence nobody whose commits wait for no standby (synchronous_mode off);"
            " write lease, or leave it out"
        )
    if policy.failsafe_mode and policy.synchronous_mode == "off":
        yield (
            "failsafe_mode: without synchronous standbys nobody can vouch that no other primary is elected"
            " (synchronous_mode off); write synchronous_mode quorum or on, or leave it out"
        )
    waits = next((v for n, v in policy.parameters.items() if n.lower() == "synchronous_commit"), "on")
    if policy.synchronous_mode != "off" and waits.lower() not in _WAITS_FOR_THE_DISK:
        yield (
            f"postgresql.parameters.synchronous_commit: with {waits!r} no commit waits until a standby has it on disk;"
            " write on or remote_apply here, and SET it in the sessions or for the roles that may lose commits"
        )


def _contradictory_times(policy: Policy, election_max_s: float, *, derived: bool) -> Iterator[str]:
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
