"""The virtual network: connections from one host to another, each in order, all of them late at times.

What is sent on a connection arrives in order or not at all. A cut holds data back, as TCP does, until it heals or the
connection is given up. `linger`: what was on its way in a connection that died arrives later, after its successor's.
"""

from collections import deque

BACKLOG_LIMIT = 5000
"""Frames held in one connection; with more it is reset, as the transport does with a full backlog."""


class Connection:
    """From one process to another. `flight` holds (arrival, frames) in order."""

    __slots__ = ("arrival_s", "begin", "end", "flight", "held", "up")

    def __init__(self, begin, end):
        self.begin, self.end = begin, end
        """The two processes."""
        self.up = True
        self.arrival_s = 0.0
        """When the last of what was sent arrives."""
        self.flight = deque()
        self.held = []
        """Frames that arrived at a cut, and wait behind it."""


class Network:
    """Who can reach whom.

    A process has `name`, `alive`, `targets` (names that it connects to), `introduction()`, `accepts(process)`
    and `post(kind, peer, content)`.
    """

    def __init__(self, schedule, random, settings, tell):
        self._schedule = schedule
        self._random = random
        self._tell = tell
        self.settings = settings
        self.processes = {}
        """Name to the process that runs there."""
        self._connections = {}
        self._cuts = {}
        """(from, to): how many faults cut this direction."""
        self._slow_until_s = {}
        self._mended = False
        self.resets = 0
        self.lingered = 0
        self.lost = 0

    # -- what hosts do ---------------------------------------------------------------------------------

    def add(self, process):
        """A process has started: it connects to its targets, and they to it."""
        self.processes[process.name] = process
        for (_, end), connection in list(self._connections.items()):
            if end == process.name:
                self._reset(connection, lost=True)
        self.retarget(process)
        for other in list(self.processes.values()):
            if process.name in other.targets and (other.name, process.name) not in self._connections:
                self._dial_later(other, process.name)

    def remove(self, process, *, silently=False):
        """A process has ended; what it sent may still arrive, what was sent to it does not.

        Silently: the machine went with it, so that nobody tells its peers.
        """
        del self.processes[process.name]
        for (begin, end), connection in list(self._connections.items()):
            if begin == process.name:
                self._reset(connection, told=False)
            elif end == process.name and silently:
                self._schedule.after(self._random.uniform(*self.settings.patience_s), self._give_up, connection)
            elif end == process.name:
                self._reset(connection, lost=True)

    def retarget(self, process):
        """The targets of a process have changed."""
        for begin, end in [pair for pair in self._connections if pair[0] == process.name]:
            if end not in process.targets:
                self._reset(self._connections[begin, end])
        for target in sorted(process.targets):
            if (process.name, target) not in self._connections:
                self._dial_later(process, target)

    def connected(self, begin, end):
        connection = self._connections.get((begin, end))
        return connection is not None and connection.up

    def send(self, process, target, frames):
        """Frames of one step, in order."""
        connection = self._connections.get((process.name, target))
        if connection is None or not connection.up or connection.begin is not process:
            return
        arrival_s = max(self._schedule.now_s + self._delay_s(process.name, target), connection.arrival_s)
        connection.arrival_s = arrival_s
        connection.flight.append(frames)
        self._schedule.at(arrival_s, self._arrive, connection)

    # -- what breaks -----------------------------------------------------------------------------------

    def cut(self, begin, end):
        self._cuts[begin, end] = self._cuts.get((begin, end), 0) + 1
        for pair in ((begin, end), (end, begin)):
            connection = self._connections.get(pair)
            if connection is not None:
                self._schedule.after(self._random.uniform(*self.settings.patience_s), self._give_up, connection)

    def mend(self, begin, end):
        self._cuts[begin, end] -= 1
        if self._cuts[begin, end] == 0:
            del self._cuts[begin, end]
            connection = self._connections.get((begin, end))
            if connection is not None and connection.held:
                frames, connection.held = connection.held, []
                self._hand_over(connection, frames)

    def is_cut(self, begin, end):
        return (begin, end) in self._cuts

    def mend_all(self):
        """From here on nothing is cut, slow or lost."""
        self._mended = True
        for pair, count in list(self._cuts.items()):
            for _ in range(count):
                self.mend(*pair)
        self._slow_until_s.clear()

    def slow(self, begin, end, duration_s):
        self._slow_until_s[begin, end] = self._schedule.now_s + duration_s

    def reset(self, begin, end, *, lost=False):
        """`lost`: nothing of what was on its way arrives."""
        connection = self._connections.get((begin, end))
        if connection is not None and connection.up:
            self._reset(connection, lost=lost)

    # -- inside ----------------------------------------------------------------------------------------

    def _delay_s(self, begin, end):
        settings, random = self.settings, self._random
        low_s, high_s = settings.latency_s
        if self._slow_until_s.get((begin, end), 0.0) > self._schedule.now_s:
            return random.uniform(low_s, settings.slow_s)
        if settings.spikes and random.random() < settings.spikes:
            return random.uniform(low_s, settings.spike_s)
        return random.uniform(low_s, high_s)

    def _arrive(self, connection):
        if not connection.flight:
            return  # the connection was reset, and what was in flight is gone or lingers
        frames = connection.flight.popleft()
        if connection.held or self.is_cut(connection.begin.name, connection.end.name):
            connection.held.extend(frames)
            if len(connection.held) > BACKLOG_LIMIT:
                self._reset(connection, lost=True)
        else:
            self._hand_over(connection, frames)

    def _hand_over(self, connection, frames):
        """Deliver, provided that the process that the connection led to still lives."""
        process = connection.end
        if not process.alive:
            return
        losses = 0.0 if self._mended else self.settings.losses
        for frame in frames:
            if losses and self._random.random() < losses:
                self.lost += 1
                continue
            process.post("message", connection.begin.name, frame)
            if self.settings.duplicates and self._random.random() < self.settings.duplicates:
                late_s = self._random.choice((0.02, 0.2, 3.0)) * self._random.random()
                self._schedule.after(late_s, self._repeat, process, connection.begin.name, frame)

    def _repeat(self, process, sender, frame):
        if process.alive:
            process.post("message", sender, frame)

    def _give_up(self, connection):
        """Keepalive has failed for too long. A cut that healed meanwhile did no harm."""
        if connection.up and (not connection.end.alive or self._stalls(connection)):
            self._reset(connection, lost=not connection.end.alive)

    def _stalls(self, connection):
        """TCP needs the way back as well; with `one_way_lasts` it does not."""
        begin, end = connection.begin.name, connection.end.name
        return self.is_cut(begin, end) or (self.is_cut(end, begin) and not self.settings.one_way_lasts)

    def _reset(self, connection, *, told=True, lost=False):
        """The connection is gone. A first part of what was on its way still arrives, now or much later."""
        self.resets += 1
        was_up, connection.up = connection.up, False
        pair = (connection.begin.name, connection.end.name)
        if self._connections.get(pair) is connection:
            del self._connections[pair]
        frames = connection.held + [frame for batch in connection.flight for frame in batch]
        connection.flight.clear()
        connection.held = []
        if frames and not lost:
            frames = frames[: self._random.randint(0, len(frames))]
            late_s = self._random.uniform(0, 0.01)
            if self.settings.linger and self._random.random() < self.settings.linger:
                late_s = self._random.choice((0.1, 1.0, self.settings.linger_s)) * self._random.random()
                self.lingered += len(frames)
            self._schedule.after(late_s, self._hand_over, connection, frames)
        self._tell("network", f"{pair[0]} -> {pair[1]} reset")
        if told and connection.begin.alive:
            if was_up:
                connection.begin.post("disconnected", pair[1], None)
            self._dial_later(connection.begin, pair[1])

    def _dial_later(self, process, target):
        self._schedule.after(self._random.uniform(0.2, 0.5), self._dial, process, target)

    def _dial(self, process, target):
        """Shake hands: each learns who the other is, then the connection is there."""
        if not process.alive or target not in process.targets or (process.name, target) in self._connections:
            return
        other = self.processes.get(target)
        if other is None:
            return  # it connects us when it starts: see `add`
        cut = self.is_cut(process.name, target) or self.is_cut(target, process.name)
        if cut or not other.accepts(process):
            self._dial_later(process, target)
            return
        connection = Connection(process, other)
        connection.up = False
        self._connections[process.name, target] = connection
        hello_s = self._delay_s(process.name, target)
        self._schedule.after(hello_s, self._greet, connection, process.introduction())

    def _greet(self, connection, introduction):
        """The hello has arrived; the welcome goes back."""
        begin, end = connection.begin, connection.end
        if not begin.alive or not end.alive or self.is_cut(begin.name, end.name):
            self._abandon(connection)
            return
        end.post("introduced", begin.name, introduction)
        self._schedule.after(self._delay_s(end.name, begin.name), self._welcome, connection, end.introduction())

    def _welcome(self, connection, introduction):
        begin, end = connection.begin, connection.end
        if not begin.alive or not end.alive or self.is_cut(end.name, begin.name) or end.name not in begin.targets:
            self._abandon(connection)
            return
        connection.up = True
        begin.post("introduced", end.name, introduction)
        begin.post("connected", end.name, None)

    def _abandon(self, connection):
        pair = (connection.begin.name, connection.end.name)
        if self._connections.get(pair) is connection:
            del self._connections[pair]
        if connection.begin.alive:
            self._dial_later(connection.begin, connection.end.name)
