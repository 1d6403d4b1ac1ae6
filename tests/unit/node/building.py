"""A node's surroundings as small second implementations: the consensus, a clock, the guard. The test plays fate."""

import math
from concurrent.futures import Future
from types import SimpleNamespace

from appliance.cluster.apply import apply
from appliance.cluster.codec import decode_command
from appliance.node.guard_client import GuardStatus, Postmaster
from appliance.node.guard_connection import GuardError
from appliance.node.messages import decode, encode
from raft import Applied, Members, PeerStatus, Refused, Unknown, View


class Clock:
    """CLOCK_BOOTTIME of one host; it goes on when the test says so."""

    def __init__(self, now_s=1000.0):
        self.now_s = now_s

    def __call__(self):
        return self.now_s

    @classmethod
    def of(cls, monkeypatch, *modules):
        """The one that these modules read."""
        clock = cls()
        for module in modules:
            monkeypatch.setattr(module, "boottime_s", clock)
        return clock


class Consensus:
    """A replica of which the test decides what becomes of proposals, barriers and questions, and when."""

    def __init__(self, state, *, leads=False):
        self.state, self.index, self.term = state, 7, 3
        self.leader, self.leads, self.leading_since_s = "pg1", leads, 0.0 if leads else None
        self.contact_s = math.inf
        self.before_change = lambda: None
        self.incarnation = 0
        self.barriers, self.proposed, self.asked, self.changes = [], [], [], []
        self.members = Members()
        self.removed_by = ()
        self.commit_index, self.have_all = 1, set()
        self.during_barrier = lambda: None
        self.barrier_answer = None

    def view(self):
        leading = self.leading_since_s if self.leads else None
        return View(self.state, self.index, self.term, self.leader, self.leads, leading, self.contact_s)

    def status(self):
        figures = dict.fromkeys(("log_bytes", "fsync_count", "ticks_late"), 0)
        figures |= dict.fromkeys(("fsync_total_s", "fsync_longest_s", "tick_late_longest_s"), 0.0)
        return SimpleNamespace(
            name="pg1",
            incarnation=self.incarnation,
            role="follower",
            first_index=2,
            commit_index=self.commit_index,
            last_index=1,
            votes=True,
            refusals={},
            certificate=None,
            removed_by=self.removed_by,
            peers=[
                PeerStatus(n, n, True, 1 if n in self.have_all else None, None, None)
                for n in self.members.names - {"pg1"}
            ],
            members=self.members,
            **figures,
        )

    def barrier(self, limit_s):
        """What the cluster has agreed on meanwhile is known when it returns."""
        self.during_barrier()
        self.barriers.append(limit_s)
        return done(self.barrier_answer or Applied(self.index))

    def propose(self, command, command_id, limit_s):
        self.proposed.append((decode_command(command), Future()))
        return self.proposed[-1][1]

    def revise_members(self, revise, limit_s):
        """Worked out by the members in force then, as in a replica's own thread."""
        self.before_change()
        self.changes.append((revise(self.members), Future()))
        return self.changes[-1][1]

    def remove_member(self, name, limit_s):
        return self.revise_members(lambda members: members.removing(name), limit_s)

    def transfer(self, to, limit_s):
        self.changes.append((to, Future()))
        return self.changes[-1][1]

    def request(self, peer, payload, limit_s):
        self.asked.append((peer, decode(payload), Future()))
        return self.asked[-1][2]

    @property
    def commands(self):
        return [command for command, _ in self.proposed]

    def answer(self, message):
        self.asked[-1][2].set_result(encode(message))

    def commit(self):
        """The last proposal enters the log and is applied, as a replica does: first the view, then the answer."""
        command, future = self.proposed[-1]
        applied = apply(self.state, command)
        self.state, self.index = applied.state, self.index + 1
        future.set_result(Refused(applied.refused, self.index) if applied.refused else Applied(self.index))

    def refuse(self):
        """The last proposal never enters the log."""
        self.proposed[-1][1].set_result(Refused("no leader", None))

    def lose(self):
        self.proposed[-1][1].set_result(Unknown("no answer in time"))


def done(outcome):
    future = Future()
    future.set_result(outcome)
    return future


STATUS = GuardStatus(1, 1, True, None, False, None, None, None, None)
POSTMASTER = Postmaster(4711, 1.0, None)


class Guard:
    """The guard's client: notes what it was asked for. `silent`: it does not answer."""

    def __init__(self, status=STATUS):
        self.now, self.silent, self.silent_for_s = status, False, 0.0
        self.deadlines, self.calls = [], []

    def ensure(self, limit_s=0.0):
        self._speak()

    def events(self):
        return []

    def fileno(self):
        return None

    def status(self):
        self._speak()
        return self.now

    def silent_s(self):
        return self.silent_for_s

    def kill_silent(self):
        self.calls.append("kill guard")
        self.silent, self.silent_for_s = False, 0.0
        return 4711

    def set_deadline(self, deadline):
        self._speak()
        self.deadlines.append(deadline)

    def stop_postgres(self, mode):
        self._speak()
        self.calls.append(mode)

    def kill_postgres(self):
        self._speak()
        self.calls.append("kill")

    def quit(self):
        self._speak()
        self.calls.append("quit")

    def set_fence_aside(self, recovery):
        self._speak()
        self.calls.append(f"fence aside {recovery}")

    def _speak(self):
        if self.silent:
            raise GuardError("timeout", "no answer in time")


class Said:
    """Events as they are emitted."""

    def __init__(self):
        self.events = []

    def emit(self, event, level="info", **fields):
        self.events.append((event, fields))

    def named(self, event):
        return [fields for name, fields in self.events if name == event]
