"""Patroni's health routes as one pure function of the published value: 200 or 503, from memory only.

Stricter than Patroni on purpose where a client would write: `/primary` and `/leader` ask for a promoted, running
and leased primary (R5). As in Patroni, a running standby without a source still is a `/replica`: reads go on.
"""

import re
from collections.abc import Mapping

from appliance.api.present import Present
from appliance.api.published import Published
from appliance.cluster.config import ConfigError, size_bytes

OK, UNAVAILABLE = 200, 503

_TAG_PREFIX = "tag_"
_EXACT = {
    "sync": "sync",
    "synchronous": "sync",
    "quorum": "quorum",
    "async": "async",
    "asynchronous": "async",
    "read-only-sync": "read-only-sync",
    "read-only-synchronous": "read-only-sync",
    "read-only-quorum": "read-only-quorum",
}


def tidy(path: str) -> str:
    """`//leader`, `/leader/` and `/leader` are one path; a vip-manager really asks for the first."""
    return "/" + re.sub("/+", "/", path).strip("/")


def health(published: Published, path: str, query: Mapping[str, str], now_s: float) -> int:
    """The status of a health route; a path that nobody knows is 503, as in Patroni."""
    present = Present.at(published, now_s)
    name = _route(tidy(path))
    if not _answer(present, name, query):
        return UNAVAILABLE
    ignores_tags = name in {"primary", "liveness", "readiness"}
    return OK if ignores_tags or _tags_match(present, query) else UNAVAILABLE


def _route(path: str) -> str:
    """Which check a path means, by substring and in Patroni's order."""
    first, name = path.split("/")[1], path.removeprefix("/")
    if first in {"liveness", "readiness"}:
        return first
    if "standby_leader" in path or "standby-leader" in path:
        return "standby-leader"
    if path == "/" or any(word in path for word in ("leader", "master", "primary", "read-write")):
        return "primary"
    if "replica" in path:
        return "replica"
    if "read-only" in path and "sync" not in path and "quorum" not in path:
        return "read-only"
    return "health" if "health" in path else _EXACT.get(name, "")


def _answer(present: Present, name: str, query: Mapping[str, str]) -> bool:
    match name:
        case "primary":
            return present.writable
        case "replica":
            return _replica(present, query)
        case "read-only":
            return present.writable or _replica(present, query)
        case "sync" | "quorum" | "async":
            return _replica(present, query) and _plays(present, name)
        case "read-only-sync" | "read-only-quorum":
            plays = _plays(present, name.removeprefix("read-only-"))
            return present.writable or (_replica(present, query) and plays)
        case "health":
            return present.running
        case "liveness":
            return _alive(present)
        case "readiness":
            return present.writable or _ready(present, query)
        case _:
            # There are no standby clusters, so nobody leads one.
            return False


def _replica(present: Present, query: Mapping[str, str]) -> bool:
    if not present.standby or present.member.tags.get("noloadbalance") is True:
        return False
    wanted = query.get("replication_state")
    if wanted is not None and wanted != replication_state(present):
        return False
    limit = _lag_limit(query)
    return limit is None or _lag_bytes(present, "apply") <= limit


def replication_state(present: Present) -> str | None:
    """`streaming` for a standby whose WAL receiver works; None where Patroni leaves the word out."""
    instance = present.instance
    return "streaming" if present.standby and instance is not None and instance.streaming else None


def _plays(present: Present, part: str) -> bool:
    """Whether this standby has that part in the synchronous set. Without contact nobody knows: no."""
    if not present.in_contact(present.policy.ttl_s):
        return False
    role = present.synchronous_role(present.me)
    return role == {"sync": "sync_standby", "quorum": "quorum_standby", "async": None}[part]


def _alive(present: Present) -> bool:
    """The control loop went round lately: within a ttl on a primary, within two elsewhere."""
    instance = present.instance
    primary = instance is not None and not instance.in_recovery
    return present.age_s < present.policy.ttl_s * (1 if primary else 2)


def _ready(present: Present, query: Mapping[str, str]) -> bool:
    if replication_state(present) != "streaming" or not present.in_contact(present.policy.ttl_s):
        return False
    limit = _lag_limit(query)
    if limit is None:
        limit = present.policy.maximum_lag_on_failover_bytes
    return _lag_bytes(present, query.get("mode", "apply")) <= limit


def _lag_limit(query: Mapping[str, str]) -> int | None:
    """Bytes or PostgreSQL's units; what cannot be read sets no limit, as in Patroni."""
    try:
        return size_bytes("lag", query["lag"]) if "lag" in query else None
    except ConfigError:
        return None


def _lag_bytes(present: Present, mode: str) -> int:
    instance = present.instance
    if instance is None:
        return 0
    ahead = max(present.primary_lsn, instance.received_lsn)
    return ahead - (instance.received_lsn if mode == "write" else instance.replayed_lsn)


def _tags_match(present: Present, query: Mapping[str, str]) -> bool:
    wanted = {k.removeprefix(_TAG_PREFIX): v for k, v in query.items() if k.startswith(_TAG_PREFIX)}
    return all(_tag_text(present, name) == value for name, value in wanted.items())


def _tag_text(present: Present, name: str) -> str | None:
    value = present.member.tags.get(name)
    return value if value is None or isinstance(value, str) else str(value).lower()
