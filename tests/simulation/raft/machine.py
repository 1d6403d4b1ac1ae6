"""The state machine of the simulation: it remembers how many commands it took, in which order, and some registers."""

import json
from dataclasses import dataclass, field
from hashlib import blake2b

from raft.api import Verdict

KEYS = 5


@dataclass(frozen=True, slots=True)
class State:
    count: int = 0
    digest: bytes = b""
    """Of all commands so far, in their order."""
    values: dict = field(default_factory=dict)


class Recorder:
    """`put N KEY VALUE`, `swap N KEY OLD NEW` (refused unless it is OLD) and `raise N`; N makes each command unique."""

    def __init__(self, on_applied):
        self._on_applied = on_applied
        """Told of each command and the state that it led to."""

    def initial(self):
        return State()

    def objection(self, state, command):
        return None

    def apply(self, state, command):
        kind, _, *rest = command[:80].split(b" ")
        if kind == b"raise":
            self._on_applied(None, command)
            raise RuntimeError("poison")
        values, refused = dict(state.values), None
        if kind == b"swap" and values.get(rest[0].decode(), "") != rest[1].decode():
            refused = "it has another value"
        else:
            values[rest[0].decode()] = rest[2 if kind == b"swap" else 1].decode()
        digest = blake2b(state.digest + command, digest_size=8).digest()
        state = State(state.count + 1, digest, values)
        self._on_applied(state, command)
        return state, Verdict(refused)

    def dump(self, state):
        return json.dumps([state.count, state.digest.hex(), state.values]).encode()

    def load(self, data):
        count, digest, values = json.loads(data)
        return State(count, bytes.fromhex(digest), values)


def put(number, key, value, padding=0):
    return f"put {number} {key} {value}".encode() + b" " + b"x" * padding


def swap(number, key, old, new):
    return f"swap {number} {key} {old} {new} ".encode()


def poison(number):
    return f"raise {number} ".encode()
