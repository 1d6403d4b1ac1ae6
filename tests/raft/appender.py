"""The smallest machine that shows what was applied, in which order, and what was not."""

import time

import msgpack

from raft import Verdict


class Appender:
    """The state is the tuple of all commands; `no` is refused, `raise` raises, `slow` takes a quarter of a second."""

    def initial(self):
        return ()

    def objection(self, state, command):
        return None

    def apply(self, state, command):
        if command == b"raise":
            raise ValueError("poison")
        if command == b"no":
            return state, Verdict("said no")
        if command == b"slow":
            time.sleep(0.25)
        return (*state, command), Verdict()

    def dump(self, state):
        return msgpack.packb(state)

    def load(self, dumped):
        return tuple(msgpack.unpackb(dumped))
