"""The state machine of the simulation: it remembers how many commands it took, in which order, and some registers."""

import json
from dataclasses import dataclass, field
from hashlib import blake2b

from raft.api import NewerVersionNeeded, Verdict

KEYS = 5
NEWEST = 2


@dataclass(frozen=True, slots=True)
class State:
    count: int = 0
    digest: bytes = b""
    """Of all commands so far, in their order."""
    values: dict = field(default_factory=dict)
    format: int = 1
    """That all may use: `step` raises it, and opens the gate for `later`."""


class Recorder:
    """`put N KEY VALUE`, `swap N KEY OLD NEW` (refused unless it is OLD) and `raise N`; N makes each command unique.

    The second version also knows `step N`, and then `later N KEY VALUE`.
    """

    def __init__(self, on_applied, version=NEWEST):
        self._on_applied = on_applied
        """Told of each command and the state that it led to."""
        self._version = version

    def initial(self):
        return State()

    def objection(self, state, command):
        return self._ahead(state, self._kind(command))

    def _kind(self, command):
        kind = command.partition(b" ")[0]
        if kind in {b"step", b"later"} and self._version < NEWEST:
            raise NewerVersionNeeded(f"holds {kind.decode()} of version {NEWEST}")
        return kind

    def _ahead(self, state, kind):
        return "it is of the second format" if kind == b"later" and state.format < NEWEST else None

    def apply(self, state, command):
        kind, (_, _, *rest) = self._kind(command), command[:80].split(b" ")
        if kind == b"raise":
            self._on_applied(None, command)
            raise RuntimeError("poison")
        values, refused, form = dict(state.values), self._ahead(state, kind), state.format
        if kind == b"step":
            form = NEWEST
        elif refused is not None:
            pass
        elif kind == b"swap" and values.get(rest[0].decode(), "") != rest[1].decode():
            refused = "it has another value"
        else:
            values[rest[0].decode()] = rest[2 if kind == b"swap" else 1].decode()
        digest = blake2b(state.digest + command, digest_size=8).digest()
        state = State(state.count + 1, digest, values, form)
        self._on_applied(state, command)
        return state, Verdict(refused)

    def dump(self, state):
        newer = [state.format] if state.format > 1 else []
        return json.dumps([state.count, state.digest.hex(), state.values, *newer]).encode()

    def load(self, data):
        count, digest, values, *newer = json.loads(data)
        form = newer[0] if newer else 1
        if form > self._version:
            raise NewerVersionNeeded(f"holds a state of version {form}")
        return State(count, bytes.fromhex(digest), values, form)


def put(number, key, value, padding=0):
    return f"put {number} {key} {value}".encode() + b" " + b"x" * padding


def swap(number, key, old, new):
    return f"swap {number} {key} {old} {new} ".encode()


def poison(number):
    return f"raise {number} ".encode()


def step(number):
    return f"step {number} ".encode()


def later(number, key, value):
    return f"later {number} {key} {value} ".encode()
