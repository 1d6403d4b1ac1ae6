"""A replica in a process of its own, driven by lines on stdin: `propose ID`, `state`, `leader`."""

import json
import sys
from pathlib import Path

import msgpack

from raft import Replica, ReplicaConfig, Verdict
from raft.tls import Tls


class Appender:
    def initial(self):
        return ()

    def apply(self, state, command):
        return (*state, command.decode()), Verdict()

    def dump(self, state):
        return msgpack.packb(state)

    def load(self, dumped):
        return tuple(msgpack.unpackb(dumped))


def main(name, directory, members, *certificate):
    members = json.loads(members)
    tls = Tls(*map(Path, certificate)) if certificate else None
    replica = Replica(
        ReplicaConfig("c", name, Path(directory), members[name], members, tls=tls),
        Appender(),
        on_event=lambda _: None,
        on_request=lambda _, payload: payload,
    )
    replica.start()
    for line in sys.stdin:
        match line.split():
            case ["propose", identity]:
                outcome = replica.propose(identity.encode(), identity, 2).result(3)
                print(type(outcome).__name__, flush=True)
            case ["state"]:
                outcome = replica.barrier(3).result(4)
                print(json.dumps([type(outcome).__name__, replica.view().state]), flush=True)
            case ["leader"]:
                print(replica.view().leader if replica.view().is_leader else "-", flush=True)
    replica.stop()


if __name__ == "__main__":
    main(*sys.argv[1:])
