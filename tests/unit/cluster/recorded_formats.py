"""What each format of the log is: the shapes of its commands, and a log with what it came to.

`python -m tests.unit.cluster.recorded_formats` writes the one that this version ends with. A format that was ever
released is never written again: whatever changes then is of the next format (docs/decisions/0013).
"""

import json
import types
from dataclasses import MISSING, fields, is_dataclass
from enum import StrEnum
from pathlib import Path
from random import Random
from typing import get_args, get_origin, get_type_hints

from appliance.cluster.codec import THIS, encode_command, encode_state
from appliance.cluster.commands import RaiseFormat
from appliance.cluster.config import KNOWN_KEYS
from appliance.cluster.state import (
    FORMAT,
    Appointment,
    Bootstrap,
    ClusterState,
    JoinToken,
    NodeRole,
    Position,
    Timeline,
)
from appliance.node.machine import ClusterMachine
from tests.unit.cluster.building import LSN, NAMES, Tape, contested, next_command, state, sync, synchronous, vacant

DIRECTORY = Path(__file__).parent / "fixtures"
STARTS = (
    state(),
    synchronous(sync(1, "pg2"), sync(1, "pg2", "pg3", version=2)),
    contested(),
    vacant(),
    ClusterState(members=state().members),
    ClusterState(members=state().members, bootstrap=Bootstrap("pg1")),
    state(
        epoch=5,
        appointment=Appointment(5, "pg2", "inc-pg2", 3, Position(2, LSN)),
        timelines=(*state().timelines, Timeline(3, 5, "pg2", 2)),
        tokens=tuple(JoinToken(f"t-{name}", "d", name, NodeRole.DATA, 1e9 + 3600) for name in NAMES),
    ),
)
WALK_BYTES, SEEDS = 100, 1000


def shapes(number):
    """Of all commands up to this format, with every type in them, and of the configuration document."""
    found = {}
    for name, kind in THIS.commands.items():
        if THIS.format_of(name) <= number:
            _describe(kind, found)
    return {"types": dict(sorted(found.items())), "configuration": sorted(KNOWN_KEYS)}


def _describe(kind, found):
    """The name of a type; what it consists of goes into `found`."""
    if isinstance(kind, types.UnionType):
        return " | ".join(_describe(each, found) for each in get_args(kind))
    if get_origin(kind) is not None:
        inner = ", ".join("..." if each is ... else _describe(each, found) for each in get_args(kind))
        return f"{get_origin(kind).__name__}[{inner}]"
    if is_dataclass(kind) and kind.__name__ not in found:
        found[kind.__name__] = entry = {}
        hints = get_type_hints(kind)
        for field in fields(kind):
            optional = field.default is not MISSING or field.default_factory is not MISSING
            entry[field.name] = _describe(hints[field.name], found) + (", or left out" if optional else "")
    elif issubclass(kind, StrEnum):
        found[kind.__name__] = [str(each) for each in kind]
    return kind.__name__


def walks():
    """Logs that mostly fit the state they meet, each as where it begins, its entries, and where it ends.

    Only those that try something that none before them tried.
    """
    tried = set()
    for seed in range(SEEDS):
        walk, news = _walk(STARTS[seed % len(STARTS)], Tape(Random(seed).randbytes(WALK_BYTES)))
        if not news <= tried:
            tried |= news
            yield walk


def _walk(start, tape):
    machine, present, steps, tried = ClusterMachine(), start, [], set()
    while tape.left > 0:
        command = next_command(present, tape)
        if isinstance(command, RaiseFormat) and command.format > FORMAT:
            continue
        entry = encode_command(command)
        present, verdict = machine.apply(present, entry)
        steps.append([entry.decode(), verdict.refused is None])
        tried.add((type(command), verdict.refused is None))
    return {"begin": encode_state(start).decode(), "steps": steps, "end": encode_state(present).decode()}, tried


def write(number=FORMAT):
    DIRECTORY.mkdir(exist_ok=True)
    (DIRECTORY / f"format_{number}_shapes.json").write_text(json.dumps(shapes(number), indent=1) + "\n")
    (DIRECTORY / f"format_{number}_log.json").write_text(json.dumps(list(walks()), indent=0) + "\n")


def read(number, what):
    return json.loads((DIRECTORY / f"format_{number}_{what}.json").read_text())


if __name__ == "__main__":
    write()
