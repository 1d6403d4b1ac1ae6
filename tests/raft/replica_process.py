"""A replica in a process of its own, driven by lines on stdin, each with one line of answer.

`propose ID [BYTES]` (that large), `barrier`, `state`, `leader`, `transfer NAME`, `status`, `time`.
"""

import json
import sys
import time
from dataclasses import asdict
from pathlib import Path

import msgpack

from raft import Replica, ReplicaConfig, Verdict
from raft.tls import Tls


class Appender:
    def initial(self):
        return ()

    def objection(self, state, command):
        return None

    def apply(self, state, command):
        return (*state, command.decode().rstrip()), Verdict()

    def dump(self, state):
        return msgpack.packb(state)

    def load(self, dumped):
        return tuple(msgpack.unpackb(dumped))


class Latest(Appender):
    """Keeps the last command only, so that what a replica needs does not grow by what it is given."""

    def apply(self, state, command):
        return (command.decode().rstrip(),), Verdict()


MACHINES = {"all": Appender, "latest": Latest}


def answer(replica, line):
    match line.split():
        case ["propose", identity, *size]:
            command = identity.encode().ljust(int(size[0]) if size else 0)
            return type(replica.propose(command, identity, 2).result(3)).__name__
        case ["barrier"]:
            return type(replica.barrier(3).result(4)).__name__
        case ["state"]:
            outcome = replica.barrier(3).result(4)
            return json.dumps([type(outcome).__name__, replica.view().state])
        case ["leader"]:
            return replica.view().leader if replica.view().is_leader else "-"
        case ["transfer", to]:
            return type(replica.transfer(to, 3).result(4)).__name__
        case ["status"]:
            status = asdict(replica.status())
            return json.dumps({name: status[name] for name in ("term", "leader", "first_index", "last_index")})
        case ["time"]:
            return str(time.time())


def main(name, directory, members, settings, machine, *certificate):
    members = json.loads(members)
    replica = Replica(
        ReplicaConfig(
            "c",
            name,
            Path(directory),
            members[name],
            members,
            tls=Tls(*map(Path, certificate)) if certificate else None,
            **json.loads(settings),
        ),
        MACHINES[machine](),
        on_event=lambda _: None,
        on_request=lambda _, payload: payload,
    )
    replica.start()
    for line in sys.stdin:
        print(answer(replica, line), flush=True)
    replica.stop()


if __name__ == "__main__":
    main(*sys.argv[1:])
