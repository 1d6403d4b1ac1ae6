"""Readers of the values in `node.yml`: addresses, paths, names, units. Each message says what would do."""

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from appliance.cluster.config import ZONE, ConfigError, duration_s, size_bytes
from appliance.cluster.state import Scalar

WILDCARDS = frozenset({"0.0.0.0", "::", "*"})  # noqa: S104  # recognised here, bound by nobody
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_SQL_NAME = re.compile(r"[a-z_][a-z0-9_]{0,62}")


def split_address(address: str) -> tuple[str, int]:
    """`host:port` or `[::1]:port`; the brackets of IPv6 are dropped. Raises ValueError."""
    host, colon, port = address.rpartition(":")
    if not host or not colon or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ValueError(f"{address!r} is not host:port; write for example 10.0.0.11:7400")
    if host.startswith("[") and host.endswith("]"):
        return host[1:-1], int(port)
    if ":" in host:
        raise ValueError(f"{address!r} has an IPv6 host without brackets; write [{host}]:{port}")
    return host, int(port)


def join_address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _listen(address: str) -> str:
    host, port = split_address(address)
    if host == "*":
        raise ValueError(f"{address!r} is PostgreSQL's word for every address; write 0.0.0.0:{port} or [::]:{port}")
    return address


def _listen_list(address: str) -> str:
    hosts, _, port = address.rpartition(":")
    for host in hosts.split(","):
        split_address(f"{host.strip()}:{port}")
    return address


def _reachable(address: str) -> str:
    host, port = split_address(address)
    if host in WILDCARDS:
        raise ValueError(f"{address!r} is no address that others can reach; write for example 10.0.0.11:{port}")
    return address


def _absolute(path: Path) -> Path:
    if not path.is_absolute():
        raise ValueError(f"{str(path)!r} is not an absolute path; write for example /var/lib/appliance")
    return path


def node_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no node name; write letters, digits, '.', '_' and '-', at most 63, like pg1")
    return name


def _sql_name(name: str) -> str:
    if not _SQL_NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no plain SQL name; write lower-case letters, digits and '_', like app")
    if name in {"postgres", "template0", "template1"} or name.startswith(("pg_", "appliance_")):
        raise ValueError(f"{name!r} is reserved; write another name, like app")
    return name


def _seconds(value: object) -> float:
    try:
        return duration_s("", value)
    except ConfigError as error:
        raise ValueError(str(error).removeprefix(": ")) from None


def _election_timeout(bounds: tuple[float, float]) -> tuple[float, float]:
    shortest, longest = bounds
    if not 0.1 <= shortest < longest:
        raise ValueError(f"{shortest:g}s to {longest:g}s is no range from 100ms up; write for example [500ms, 1s]")
    return bounds


def _segment_mb(value: object) -> int:
    """Whole MB, a power of two; a bare number is MB, as initdb reads it."""
    try:
        size = size_bytes("", f"{value}MB" if isinstance(value, int) else value)
    except ConfigError:
        size = 0
    megabytes = size >> 20
    if size % (1 << 20) or megabytes not in {1 << power for power in range(11)}:
        raise ValueError(f"{value!r} is not a power of two from 1MB to 1024MB; write for example 16MB")
    return megabytes


def _tag(value: object) -> object:
    if not isinstance(value, str | int | float | bool):
        raise ValueError(f"{value!r} is not a single value; write text, a number, true or false")
    return value


def _zone(name: str) -> str:
    if not ZONE.fullmatch(name):
        raise ValueError(f"{name!r} is no name of a zone; write letters, digits, '.', '_' and '-', like east")
    return name


def _watchdog_mode(value: object) -> object:
    # YAML 1.1 reads a bare off as a boolean.
    if value is False:
        return "off"
    if value not in ("off", "automatic", "required"):
        raise ValueError(f"{value!r} is no watchdog mode; write off, automatic or required")
    return value


Listen = Annotated[str, AfterValidator(_listen)]
ListenList = Annotated[str, AfterValidator(_listen_list)]
Reachable = Annotated[str, AfterValidator(_reachable)]
AbsolutePath = Annotated[Path, AfterValidator(_absolute)]
NodeName = Annotated[str, AfterValidator(node_name)]
SqlName = Annotated[str, AfterValidator(_sql_name)]
Seconds = Annotated[float, BeforeValidator(_seconds)]
ElectionTimeout = Annotated[tuple[Seconds, Seconds], AfterValidator(_election_timeout)]
SegmentMb = Annotated[int, BeforeValidator(_segment_mb)]
Priority = Annotated[int, Field(strict=True, ge=1, le=1000)]
Zone = Annotated[str, AfterValidator(_zone)]
TagValue = Annotated[Scalar, BeforeValidator(_tag)]
WatchdogMode = Annotated[Literal["off", "automatic", "required"], BeforeValidator(_watchdog_mode)]
