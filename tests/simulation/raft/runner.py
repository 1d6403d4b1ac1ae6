"""Many worlds, one after the other, in several processes; and what is to be said of them."""

import multiprocessing
import time
from collections import Counter
from dataclasses import dataclass, field

from tests.simulation.raft.profiles import PROFILES
from tests.simulation.raft.world import World

EACH = "each"
"""Stands for all named profiles, in turn."""

_CHECK_EVERY_S = 1.0


def profile_of(seed, name, names=tuple(PROFILES)):
    return names[seed % len(names)] if name == EACH else name


@dataclass
class Failure:
    seed: int
    profile: str
    violation: str

    def __str__(self):
        return f"{self.profile} {self.seed}: {self.violation}"


@dataclass
class Tally:
    seeds: int = 0
    virtual_s: float = 0.0
    failures: list = field(default_factory=list)
    counts: Counter = field(default_factory=Counter)
    last_seed: int = -1

    def add(self, other):
        self.seeds += other.seeds
        self.virtual_s += other.virtual_s
        self.failures += other.failures
        self.counts.update(other.counts)
        self.last_seed = max(self.last_seed, other.last_seed)


def run_one(seed, profile):
    """One seed, as a tally."""
    result = World(seed, profile_of(seed, profile)).run()
    failures = [Failure(seed, result.profile, result.violation)] if result.violation is not None else []
    return Tally(1, result.virtual_s, failures, result.counts, seed)


def run_many(first, last, profile, jobs, *, limit_s=None, on_failure=print, run=run_one):
    """All seeds from `first` to before `last` (None: without end), or as many as the time allows."""
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    deadline_s = None if limit_s is None else time.monotonic() + limit_s
    workers = [
        context.Process(target=_work, args=(queue, first + number, last, jobs, run, profile, deadline_s), daemon=True)
        for number in range(jobs)
    ]
    for worker in workers:
        worker.start()
    total, working = Tally(), jobs
    try:
        while working:
            tally = queue.get()
            if tally is None:
                working -= 1
                continue
            total.add(tally)
            for failure in tally.failures:
                on_failure(failure)
    except KeyboardInterrupt:
        for worker in workers:
            worker.terminate()
    return total


def _work(queue, seed, last, step, run, profile, deadline_s):
    """Every `step`-th seed; reports about once a second, and None at the end."""
    tally, told_s = Tally(), time.monotonic()
    while (last is None or seed < last) and (deadline_s is None or time.monotonic() < deadline_s):
        tally.add(run(seed, profile))
        seed += step
        if tally.failures or time.monotonic() - told_s > _CHECK_EVERY_S:
            queue.put(tally)
            tally, told_s = Tally(), time.monotonic()
    queue.put(tally)
    queue.put(None)
