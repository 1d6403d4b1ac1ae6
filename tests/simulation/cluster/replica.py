"""`raft.Replica` without threads: the real engine on the virtual disk, network and clock of tests/simulation/raft.

It offers what a node asks of a replica: `view`, `propose`, `barrier`, `request`, `status`, and futures that the
schedule completes. Requests between nodes travel on the same connections as the messages of consensus.
"""

from concurrent.futures import Future
from dataclasses import dataclass
from random import Random
from types import SimpleNamespace

from raft.api import Applied, MembersChanged, PeerUnreachable, RequestTimeout, Settings, Unknown
from raft.engine import Engine
from raft.journal import Journal
from raft.members import Members
from tests.simulation.raft.virtual_disk import VirtualDisk

CLUSTER = "simulated"
LOOK_AGAIN_S = 0.5
"""A process that stands looks so often whether it may go on."""


@dataclass(frozen=True)
class Ask:
    number: int
    payload: bytes


@dataclass(frozen=True)
class Answer:
    number: int
    payload: bytes


class Replica:
    """Lives as long as its node process. `on_request(peer, payload, answer)` may answer later, or never."""

    def __init__(self, world, host, machine, wake, on_request):
        self.world, self.host, self.name = world, host, host.name
        self.alive = True
        self.targets = set(host.addresses) - {host.name}
        self._members = Members()
        self._callers = set()
        self._wake_node, self._on_request = wake, on_request
        self._inbox, self._outbox = [], {}
        self._wake_s, self._due_s = None, 0.0
        self._waiting, self._asked = {}, {}
        self._number = 0
        self._session = f"{world.random.getrandbits(32):08x}"
        self._journal = Journal(
            VirtualDisk(host.medium), CLUSTER, self.name, clock=host.clock, draw_id=lambda: self._session
        )
        self._engine = Engine(
            Settings(self.name, host.addresses, heartbeat_s=0.15, compact_entries=200, keep_entries=50),
            machine,
            self._journal,
            clock=host.clock,
            draw=Random(world.random.getrandbits(64)),
            send=self._send,
            on_outcome=self._on_outcome,
            on_event=self._on_event,
        )

    # -- what a node asks of it --------------------------------------------------------------------------

    def view(self):
        return self._engine.view

    def status(self):
        facts, connected = self._engine.facts, self.world.network.connected
        peers = [
            SimpleNamespace(name=name, connected=connected(self.name, name), match_index=facts.match_index.get(name))
            for name in sorted(self.targets)
        ]
        return SimpleNamespace(
            name=self.name,
            members=self._members,
            peers=peers,
            incarnation=0,
            removed_by=(),
            term=facts.term,
            commit_index=facts.commit_index,
            last_index=facts.last_index,
        )

    def propose(self, command, _, limit_s):
        """Under an id of its own, so that a seed is one run."""
        identity = self._next()
        return self._submit(("command", identity), lambda: self._engine.propose(command, identity), limit_s)

    def barrier(self, limit_s):
        name = self._next()
        return self._submit(("barrier", name), lambda: self._engine.barrier(name), limit_s)

    def transfer(self, to, limit_s):
        name = self._next()
        return self._submit(("transfer", name), lambda: self._engine.transfer(name, to), limit_s)

    def request(self, peer, payload, limit_s):
        self._number += 1
        number, future = self._number, Future()
        if peer == self.name:
            self._on_request(peer, payload, lambda answer: _complete(future, answer))
        elif self.world.network.connected(self.name, peer):
            self._asked[number] = future
            self.world.network.send(self, peer, [Ask(number, payload)])
        else:
            future.set_exception(PeerUnreachable(f"no connection to {peer}"))
        self.world.schedule.after(limit_s, _fail, future, RequestTimeout(f"{peer} did not answer"))
        return future

    # -- what the network asks of it ---------------------------------------------------------------------

    def introduction(self):
        return self._engine.introduction()

    def accepts(self, other):
        mine, theirs = self.introduction().cluster_id, other.introduction().cluster_id
        return not (mine and theirs and mine != theirs)

    def post(self, kind, peer, content):
        self._inbox.append((kind, peer, content))
        self._wake(self.world.random.uniform(0.0001, 0.001))

    # -- inside ------------------------------------------------------------------------------------------

    def begin(self):
        self.world.network.add(self)
        self._wake(self.world.random.uniform(0, 0.05))

    def end(self):
        self.alive = False
        self._inbox.clear()
        self.host.medium.kill()

    def _next(self):
        self._number += 1
        return f"{self.name}-{self._session}-{self._number}"

    def _submit(self, key, call, limit_s):
        future = self._waiting[key] = Future()
        self.post("call", None, call)
        late = Unknown("no answer in time")
        self.world.schedule.after(limit_s, _complete, future, late)
        return future

    def _wake(self, delay_s):
        when_s = self.world.now_s + delay_s
        if self._wake_s is None or when_s < self._wake_s:
            self._wake_s = when_s
            self.world.schedule.at(when_s, self._work, when_s)

    def _work(self, when_s):
        if not self.alive or when_s != self._wake_s:
            return
        if self.host.agent_stands_until_s > self.world.now_s:
            self._wake_s = min(self.host.agent_stands_until_s, self.world.now_s + LOOK_AGAIN_S)
            self.world.schedule.at(self._wake_s, self._work, self._wake_s)
            return
        self._wake_s = None
        inbox, self._inbox = self._inbox, []
        stirred = [self._take(*item) for item in inbox]
        if any(stirred) or self.world.now_s >= self._due_s:
            wait_s = self._engine.step()
            self._due_s = self.world.now_s + max(wait_s / self.host.rate, 0.0) + 0.0005
        outbox, self._outbox = self._outbox, {}
        for peer in sorted(outbox):
            self.world.network.send(self, peer, outbox[peer])
        if self.alive:
            self._wake(max(0.0, self._due_s - self.world.now_s))

    def _take(self, kind, peer, content):
        """Whether a step must follow at once."""
        if kind == "message" and isinstance(content, Ask):
            number = content.number
            self._on_request(peer, content.payload, lambda said: self._answer(peer, Answer(number, said)))
            return False
        if kind == "message" and isinstance(content, Answer):
            future = self._asked.pop(content.number, None)
            if future is not None:
                _complete(future, content.payload)
            return False
        if kind == "message":
            return self._engine.deliver(peer, content)
        if kind == "call":
            content()
        elif kind == "introduced":
            self._engine.introduced(peer, content)
            if peer not in self.targets:
                self._callers.add(peer)
                self.targets.add(peer)
                self.world.network.retarget(self)
        elif kind == "connected":
            self._engine.connected(peer)
        else:
            self._engine.disconnected(peer)
        return True

    def _answer(self, peer, answer):
        if self.alive and self.world.network.connected(self.name, peer):
            self.world.network.send(self, peer, [answer])

    def _send(self, peer, message):
        if not self.world.network.connected(self.name, peer):
            return False
        self._outbox.setdefault(peer, []).append(message)
        return True

    def _on_outcome(self, key, outcome):
        future = self._waiting.pop(key, None)
        if future is not None:
            _complete(future, outcome)

    def _on_event(self, event):
        if isinstance(event, MembersChanged):
            self._members = event.members
        self._wake_node()


def _complete(future, value):
    if not future.done():
        future.set_result(value)


def _fail(future, error):
    if not future.done():
        future.set_exception(error)


def is_applied(outcome):
    return isinstance(outcome, Applied)
