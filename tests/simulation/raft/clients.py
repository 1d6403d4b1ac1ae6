"""Clients: they propose, ask again when they do not know, and read; and keep the history of what they were told."""

from functools import partial

from raft.api import Applied, Refused, Unknown
from tests.simulation.raft.machine import KEYS, later, poison, put, step, swap

PATIENCE_S = 2.0
"""How long a client waits for an answer before it asks anew, once all is well."""
DEADLINES_S = (0.2, 3.0)
"""After such a time an answer is unknown, and one that comes later is the answer to whoever asks then."""
IMPATIENT = 0.1
"""Share of the commands that are proposed a second time at the same replica before the first was answered."""


class Clients:
    def __init__(self, world, random):
        self.world = world
        self._random = random
        self._by_name = {}
        """Command id or barrier name to its operation."""
        self._doubtful = []
        """Operations whose outcome is unknown."""
        self._ended = False
        self._last = {}
        """Member to the operation that must succeed there after everything has healed."""

    def begin(self):
        self._next()

    def end(self):
        """From here on only what `problem` asks."""
        self._ended = True

    def problem(self, names):
        """Every member takes a command and a barrier, or what it said instead."""
        for name in names:
            process = self.world.hosts[name].process
            command, barrier, asked_s = self._last.get(name, (None, None, 0.0))
            late = self.world.now_s > asked_s + PATIENCE_S
            if command is None or (late and not (_is_done(command) and _is_done(barrier))):
                command = self.world.checks.history.begin(self._put())
                self._ask(process, command)
                self._last[name] = (command, self._barrier(process), self.world.now_s)
        for name in names:
            for operation in self._last[name][:2]:
                if not _is_done(operation):
                    return f"{name} answers {operation} with {operation.answers or 'nothing'}"
        return None

    def step(self, process):
        """The administrator has seen that all members know the second format."""
        self._propose(process, step(self._number()))

    def outcome(self, process, name, outcome):
        history = self.world.checks.history
        operation = self._by_name[name]
        operation.answers.append(outcome)
        match outcome:
            case Applied(index):
                content = self._content(index) if operation.command is not None else None
                history.applied(operation, index, process.engine.view.index, content)
            case Refused(_, None) if operation.command is not None:
                if not self.world.profile.net.duplicates:
                    # a copy of a refused submission may be taken; TLS over TCP makes none, this network does
                    history.never(operation)
                self._doubtful.append(operation)
            case Refused(_, None):
                pass
            case Refused(_, index):
                history.denied(operation, index, self._content(index))
            case _:
                history.unknown += 1
                self._doubtful.append(operation)

    def _content(self, index):
        checks = self.world.checks
        return checks.entries.content(index, checks.commits.terms[index])

    def _next(self):
        if self._ended:
            return
        world, random = self.world, self._random
        world.schedule.after(random.expovariate(world.profile.operations), self._next)
        processes = [host.process for host in world.hosts.values() if host.up]
        if not processes:
            return
        leading = [process for process in processes if process.leads]
        process = random.choice(leading if leading and random.random() < 0.5 else processes)
        draw = random.random()
        if draw < 0.25:
            self._barrier(process)
        elif draw < 0.4 and self._doubtful:
            self._again(process)
        elif draw < 0.45:
            # many at once: at a leader that is cut off they make a long tail that must go again
            for _ in range(random.randint(3, 20)):
                self._propose(process, self._command())
        else:
            self._propose(process, self._command())

    def _command(self):
        random, number = self._random, self._number()
        key, draw = f"k{random.randrange(KEYS)}", random.random()
        if draw < 0.2:
            return swap(number, key, f"v{random.randrange(3)}", f"v{random.randrange(3)}")
        if draw < 0.22:
            return poison(number)
        if self.world.profile.changes.upgrades and draw > 0.8:
            return later(number, key, f"v{random.randrange(3)}")
        log = self.world.profile.log
        large = log.large and random.random() < log.large
        return put(number, key, f"v{random.randrange(3)}", random.randrange(log.large_bytes) if large else 0)

    def _put(self):
        return put(self._number(), "k0", "v0")

    def _number(self):
        return len(self.world.checks.history.operations)

    def _propose(self, process, command):
        operation = self.world.checks.history.begin(command)
        self._submit(process, operation)
        if self._random.random() < IMPATIENT:
            self.world.schedule.after(self._random.uniform(0, 1), self._repeat, process, operation)

    def _repeat(self, process, operation):
        if process.alive and not self._ended:
            self.world.checks.history.retry(operation)
            self._submit(process, operation)

    def _again(self, process):
        """The same command id, maybe to another replica: it must not be applied twice."""
        operation = self._doubtful.pop(self._random.randrange(len(self._doubtful)))
        self.world.checks.history.retry(operation)
        self._submit(process, operation)

    def _submit(self, process, operation):
        """Until its deadline: if the process dies, that is all that the client sees of it."""
        waiting = self._ask(process, operation)
        deadline_s = self._random.uniform(*DEADLINES_S)
        self.world.schedule.after(deadline_s, self._give_up, process, operation, waiting)

    def _ask(self, process, operation):
        name = _name(operation)
        self._by_name[name] = operation
        return process.ask(("command", name), partial(_propose, operation.command, name))

    def _give_up(self, process, operation, waiting):
        if process.give_up(("command", _name(operation)), waiting):
            self.outcome(process, _name(operation), Unknown("no answer in time"))

    def _barrier(self, process):
        operation = self.world.checks.history.begin(None)
        name = f"b{operation.number}"
        self._by_name[name] = operation
        process.ask(("barrier", name), partial(_ask_barrier, name))
        return operation


def _name(operation):
    """The command's id: the same in each of its submissions."""
    return f"c{operation.number}"


def _is_done(operation):
    return any(isinstance(answer, Applied) for answer in operation.answers)


def _propose(command, name, engine):
    engine.propose(command, name)


def _ask_barrier(name, engine):
    engine.barrier(name)
