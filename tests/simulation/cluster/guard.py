"""The guard of a simulated host: PostgreSQL's parent, with one deadline on its host's clock (R4)."""

from appliance.node.guard_client import Exited, Fenced, GuardStatus, Postmaster
from appliance.node.guard_connection import GuardError

KILL_ROUNDS_S = 0.03


class Guard:
    """A process; it ends with its host, or by a kill, and then nobody fences what it had started."""

    def __init__(self, world, host):
        self.world, self.host = world, host
        self.alive = True
        self.deadline = None
        self.lowest_epoch = 0
        self.server = None
        self.pid = world.next_number()
        self.last_exit = None

    def hold(self, deadline):
        self.step()
        if deadline is not None:
            if deadline.epoch < self.lowest_epoch:
                raise GuardError("old_epoch", f"epoch {deadline.epoch} is over")
            self.lowest_epoch = deadline.epoch
        self.deadline = deadline
        self.look_later()

    def look_later(self):
        """Clocks change their pace, so it looks again whenever that may be near."""
        if self.deadline is not None:
            left_s = (self.deadline.at_s - self.host.clock()) / self.host.rate
            self.world.schedule.after(max(left_s, 0.001), self.look, self.deadline)

    def look(self, deadline):
        if not self.alive or deadline is not self.deadline:
            return
        if self.world.now_s < self.host.guard_stands_until_s:
            self.world.at_latest(self.host.guard_stands_until_s, self.look, deadline)
        elif self.host.clock() < deadline.at_s:
            self.look_later()
        else:
            self.step()

    def step(self):
        """A late renewal is no renewal."""
        deadline = self.deadline
        if deadline is None or self.host.clock() < deadline.at_s:
            return
        self.deadline = None
        if self.server is not None:
            self.lowest_epoch = deadline.epoch + 1
            self.host.fenced_epoch = deadline.epoch
            self.world.count("fenced by the guard")
            self.world.tell(self.host.name, f"guard fences epoch {deadline.epoch}")
            took_s = self.world.random.uniform(0.0, deadline.half_margin_s + KILL_ROUNDS_S)
            self.world.schedule.after(took_s / self.host.rate, self.server.end)
            self.host.guard_events.append(Fenced(deadline.epoch, "quit", took_s))
            self.world.woken(self.host)

    def lost_child(self, server):
        if server is self.server:
            self.server, self.deadline = None, None
            self.last_exit = Exited(server.pid, 0, None, clean=True)


class GuardPort:
    """What a node process has of its host's guard: `GuardClient` as the control loop and the executor use it."""

    def __init__(self, world, host):
        self.world, self.host = world, host
        self._silent_from_s = None

    def ensure(self, limit_s=3.0):
        if self.host.guard is None:
            self.host.guard = Guard(self.world, self.host)
            self.world.tell(self.host.name, "starts a guard")

    def status(self, limit_s=0.5):
        guard = self._guard()
        guard.step()
        server, deadline = guard.server, guard.deadline
        postmaster = None if server is None else Postmaster(server.pid, server.began_clock_s, None)
        return GuardStatus(
            guard.pid,
            1,
            True,
            postmaster,
            False,
            guard.last_exit,
            None if deadline is None else deadline.at_s,
            None if deadline is None else deadline.epoch,
            self.host.fenced_epoch or None,
        )

    def events(self):
        events, self.host.guard_events = self.host.guard_events, []
        return events

    def set_deadline(self, deadline):
        self._guard().hold(deadline)

    def start(self, server, deadline):
        guard = self._guard()
        guard.step()
        if self.host.server is not None:
            raise GuardError("running", "a postmaster has not ended")
        if deadline is not None and deadline.at_s <= self.host.clock():
            raise GuardError("expired", "the deadline has passed")
        guard.hold(deadline)
        guard.server = self.host.server = server
        server.pid, server.began_clock_s = self.world.next_number(), self.host.clock()
        server.begin()

    def stop_postgres(self, mode):
        server = self._guard().server
        if server is None:
            raise GuardError("not_running", "no postmaster runs")
        if mode == "fast":
            server.stop_fast()
        else:
            server.stop_now(0.2)

    def kill_postgres(self):
        self.stop_postgres("immediate")

    def reload(self):
        server = self._guard().server
        if server is None:
            raise GuardError("not_running", "no postmaster runs")
        server.reload()

    def silent_s(self):
        return 0.0 if self._silent_from_s is None else self.world.now_s - self._silent_from_s

    def kill_silent(self):
        pid = self.host.guard.pid
        self.world.kill_guard(self.host)
        self._silent_from_s = None
        return pid

    def _guard(self):
        guard = self.host.guard
        if guard is None:
            raise GuardError("lost", "the guard has ended")
        if self.world.now_s < self.host.guard_stands_until_s:
            if self._silent_from_s is None:
                self._silent_from_s = self.world.now_s
            raise GuardError("timeout", "the guard does not answer")
        self._silent_from_s = None
        return guard
