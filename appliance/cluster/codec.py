"""Commands and states as versioned JSON, and back. Never raises on input: junk is a `Malformed` value."""

import json
import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from enum import StrEnum
from functools import cache
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

from appliance.cluster.commands import Command, RaiseFormat
from appliance.cluster.state import FORMAT, ClusterState

COMMANDS: Mapping[str, type] = {c.__name__: c for c in get_args(Command)}
SINCE: Mapping[str, int] = {}
"""Name of each command that came after format 1, and the format that it came with."""
LIMIT_BYTES = 1 << 20
_UNIONS = frozenset({Union, types.UnionType})
_NULL = frozenset({type(None)})
_PLAIN = _NULL | {str, int, float, bool}


@dataclass(frozen=True, slots=True)
class Version:
    """What one version of us knows of the log. A value, so that two versions can meet in one test."""

    format: int
    commands: Mapping[str, type]
    since: Mapping[str, int]

    def format_of(self, command: str) -> int:
        return self.since.get(command, 1)


THIS = Version(FORMAT, COMMANDS, SINCE)


@dataclass(frozen=True, slots=True)
class Malformed:
    """Bytes that are no command in any version."""

    reason: str


@dataclass(frozen=True, slots=True)
class Newer:
    """What this version cannot judge, since a newer one wrote it."""

    what: str
    known: int

    def __str__(self) -> str:
        return f"holds {self.what}; this node knows up to format {self.known}: install the newer version on this host"


class _DecodeError(Exception):
    pass


def to_json(value: object) -> Any:
    """Turn frozen values into what `json` takes: dataclasses by field, sets sorted, enums by value."""
    kind = type(value)
    if kind in _PLAIN:
        return value
    if isinstance(value, StrEnum):
        return value.value
    if is_dataclass(kind):
        return {f.name: to_json(getattr(value, f.name)) for f in _fields(kind)}
    if isinstance(value, Mapping):
        return {str(k): to_json(v) for k, v in value.items()}
    if isinstance(value, frozenset | set):
        return sorted(to_json(v) for v in value)
    if isinstance(value, tuple | list):
        return [to_json(v) for v in value]
    return value


class _Field(NamedTuple):
    name: str
    kind: Any
    as_given: frozenset[type]
    """types of JSON values that are values of this kind already"""
    needed: bool


@cache
def _fields(kind: type) -> tuple[_Field, ...]:
    hints = get_type_hints(kind)
    return tuple(
        _Field(f.name, hints[f.name], _as_given(hints[f.name]), f.default is MISSING and f.default_factory is MISSING)
        for f in fields(kind)
    )


def _as_given(kind: Any) -> frozenset[type]:
    options = get_args(kind) if get_origin(kind) in _UNIONS else (kind,)
    return frozenset(options if _PLAIN.issuperset(options) else _NULL.intersection(options))


def from_json(kind: Any, data: Any) -> Any:
    """Build a value of `kind` from JSON. Unknown fields are ignored, missing ones take their default.

    Raises ValueError naming the field that does not fit.
    """
    try:
        return _build(kind, data, getattr(kind, "__name__", str(kind)))
    except _DecodeError as error:
        raise ValueError(str(error)) from None


def _build(kind: Any, data: Any, where: str) -> Any:
    if kind is Any or kind is object:
        return data
    if is_dataclass(kind):
        return _build_dataclass(typing.cast("type", kind), data, where)
    origin = get_origin(kind)
    if origin in _UNIONS:
        return _build_union(kind, data, where)
    if origin is Literal:
        if data not in get_args(kind):
            raise _DecodeError(f"{where}: {data!r} is not one of {', '.join(map(str, get_args(kind)))}")
        return data
    if origin is None:
        return _build_plain(kind, data, where)
    return _build_container(origin, get_args(kind), data, where)


def _build_dataclass(kind: type, data: Any, where: str) -> Any:
    if not isinstance(data, Mapping):
        raise _DecodeError(f"{where}: expected an object, got {type(data).__name__}")
    values = {}
    for f in _fields(kind):
        if f.name in data:
            given = data[f.name]
            values[f.name] = given if type(given) in f.as_given else _build(f.kind, given, f"{where}.{f.name}")
        elif f.needed:
            raise _DecodeError(f"{where}: {f.name} is missing")
    return kind(**values)


def _build_union(kind: Any, data: Any, where: str) -> Any:
    options = get_args(kind)
    if data is None and type(None) in options:
        return None
    problem = _DecodeError(f"{where}: null is not allowed here")
    for option in options:
        if option is type(None):
            continue
        try:
            return _build(option, data, where)
        except _DecodeError as error:
            problem = error
    raise problem


def _build_container(origin: Any, args: tuple[Any, ...], data: Any, where: str) -> Any:
    if isinstance(origin, type) and issubclass(origin, Mapping):
        if not isinstance(data, Mapping):
            raise _DecodeError(f"{where}: expected an object, got {type(data).__name__}")
        return {str(k): _build(args[1], v, f"{where}.{k}") for k, v in data.items()}
    if not isinstance(data, list | tuple):
        raise _DecodeError(f"{where}: expected a list, got {type(data).__name__}")
    items = (_build(args[0], v, f"{where}[{i}]") for i, v in enumerate(data))
    return frozenset(items) if origin is frozenset else tuple(items)


def _build_plain(kind: Any, data: Any, where: str) -> Any:
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        try:
            return kind(data)
        except ValueError:
            raise _DecodeError(f"{where}: {data!r} is not one of {', '.join(kind)}") from None
    if kind is float and type(data) is int:
        return float(data)
    if type(data) is not kind:
        raise _DecodeError(f"{where}: expected {kind.__name__}, got {type(data).__name__}")
    return data


def encode_command(command: Command, version: Version = THIS) -> bytes:
    """As every version reads it that knows the command at all: what is new is the name, never what a name means."""
    name = type(command).__name__
    document = {"format": version.format_of(name), "type": name, "body": to_json(command)}
    return json.dumps(document, separators=(",", ":"), sort_keys=True).encode()


def decode_command(raw: bytes, version: Version = THIS) -> Command | Malformed | Newer:
    """What the entry says. Only what no version takes is Malformed: the envelope is the same in all of them, and the
    fields of a command stay as they were when its name was new (docs/decisions/0013).
    """
    if len(raw) > LIMIT_BYTES:
        return Malformed(f"command of {len(raw)} bytes, the limit is {LIMIT_BYTES}")
    try:
        document = json.loads(raw)
    except (ValueError, RecursionError):
        return Malformed("not a JSON document")
    if not isinstance(document, dict):
        return Malformed("not a JSON object")
    number, name, body = (document.get(key) for key in ("format", "type", "body"))
    if type(number) is not int or number < 1:
        return Malformed(f"{number!r:.60} is no format")
    if not isinstance(name, str) or not isinstance(body, dict):
        return Malformed("not the name of a command with its fields")
    return _decode_body(number, name, body, version)


def _decode_body(number: int, name: str, body: dict[str, Any], version: Version) -> Command | Malformed | Newer:
    kind = version.commands.get(name)
    if number > version.format or kind is None:
        return Newer(f"command {name!r:.60} of format {number}", version.format)
    if number != version.format_of(name):
        return Malformed(f"{name} is of format {version.format_of(name)}, not {number}")
    try:
        command: Command = _build(kind, body, kind.__name__)
        unknown = _unknown(body, to_json(command))
    except (_DecodeError, RecursionError) as error:
        return Malformed(str(error) or "nested too deeply")
    if unknown:
        return Newer(f"command {name} with a field {unknown!r:.60}", version.format)
    if isinstance(command, RaiseFormat) and command.format > version.format:
        return Newer(f"the step to format {command.format}", version.format)
    return command


def _unknown(given: Any, known: Any) -> str:
    """The first field in `given` that is not in what was made of it; empty when there is none."""
    if isinstance(given, dict) and isinstance(known, dict):
        pairs = ((key, _unknown(value, known[key]) if key in known else key) for key, value in given.items())
        return next((found for _, found in pairs if found), "")
    if isinstance(given, list) and isinstance(known, list):
        return next((found for pair in zip(given, known, strict=False) if (found := _unknown(*pair))), "")
    return ""


def encode_state(state: ClusterState) -> bytes:
    """In the format that is agreed on, so that every member can take it over from every other."""
    document = {"format": state.format, "state": to_json(state)}
    return json.dumps(document, separators=(",", ":"), sort_keys=True).encode()


def decode_state(raw: bytes, version: Version = THIS) -> ClusterState | Newer:
    """ValueError when it is no state. Fields that this version does not know say nothing before their format."""
    document = json.loads(raw)
    if not isinstance(document, dict) or type(document.get("format")) is not int:
        raise ValueError("not a state of a cluster")
    if document["format"] > version.format:
        return Newer(f"a state of format {document['format']}", version.format)
    state: ClusterState = from_json(ClusterState, document.get("state"))
    return state
