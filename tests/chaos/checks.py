"""What must hold between the clients' ledger and what the cluster holds after healing. Pure."""

import itertools
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import quantiles

from tests.chaos.ledger import Kind, Operation, Outcome, acknowledged

OFF = "off"
ACCOUNTS = 10
BALANCE = 1_000
TOTAL = ACCOUNTS * BALANCE
TOLD = 5
"""so many of each violation are written out"""


@dataclass(frozen=True, slots=True)
class Contents:
    """What the primary holds, the same as everybody else."""

    inserts: frozenset[int]
    transfers: Mapping[int, tuple[int, int, int]]
    """from, to, how much, by id"""
    balances: Mapping[int, int]
    lists: Mapping[str, tuple[int, ...]]

    def has(self, operation: Operation) -> bool:
        """Whether what it did is there, exactly as it was asked for."""
        match operation.kind:
            case Kind.INSERT:
                return operation.id in self.inserts
            case Kind.TRANSFER:
                return self.transfers.get(operation.id) == operation.moved
            case Kind.APPEND:
                return operation.id in self.lists.get(operation.key, ())
            case _:
                return True

    def ids(self) -> set[int]:
        return {*self.inserts, *self.transfers, *(item for items in self.lists.values() for item in items)}


@dataclass(frozen=True, slots=True)
class Window:
    """From a round's first fault until everything streamed again."""

    begun_s: float
    ended_s: float


@dataclass(frozen=True, slots=True)
class Verdict:
    violations: tuple[str, ...]
    lost: int
    """acknowledged and not there"""
    read_and_gone: int
    """items of lists that a reader or a later append saw, and that are not there: never acknowledged ones may go"""


def check(operations: Sequence[Operation], contents: Contents, windows: Sequence[Window], mode: str) -> Verdict:
    """All checks; in mode off what was acknowledged while faults were under way may be lost, and is counted."""
    written = [each for each in operations if each.kind is not Kind.READ]
    lost = [each for each in acknowledged(written) if not contents.has(each)]
    violations = [
        *_losses(lost, windows, mode),
        *_ghosts(written, contents),
        *_bank(operations, contents),
        *_lists(written, contents, mode),
        *_epochs(acknowledged(written)),
    ]
    return Verdict(tuple(violations), len(lost), _read_and_gone(operations, contents))


def longest_gap_s(operations: Sequence[Operation], window: Window) -> float:
    """The longest time within the window in which no write was acknowledged to anybody."""
    times = (each.ended_s for each in acknowledged(operations) if each.kind is not Kind.READ)
    inside = sorted(time_s for time_s in times if window.begun_s < time_s < window.ended_s)
    marks = [window.begun_s, *inside, window.ended_s]
    return max(after - before for before, after in itertools.pairwise(marks))


def percentiles(gaps_s: Sequence[float]) -> dict[str, float]:
    """p50, p95 and the greatest, to the millisecond; nothing of nothing."""
    if not gaps_s:
        return {}
    cuts = quantiles(gaps_s, n=100, method="inclusive") if len(gaps_s) > 1 else [gaps_s[0]] * 99
    return {name: round(value, 3) for name, value in (("p50", cuts[49]), ("p95", cuts[94]), ("max", max(gaps_s)))}


def _losses(lost: Sequence[Operation], windows: Sequence[Window], mode: str) -> Iterator[str]:
    if mode != OFF:
        yield from _told("acknowledged and lost", lost)
        return
    calm = [each for each in lost if not any(w.begun_s < each.ended_s < w.ended_s for w in windows)]
    yield from _told("acknowledged while everything streamed, and lost", calm)


def _ghosts(written: Sequence[Operation], contents: Contents) -> Iterator[str]:
    """What failed must not be there, and nothing that nobody asked for."""
    failed = [each for each in written if each.outcome is Outcome.FAILED and contents.has(each)]
    yield from _told("failed, and there all the same", failed)
    yield from _told("written by nobody", sorted(contents.ids() - {each.id for each in written}))


def _bank(operations: Sequence[Operation], contents: Contents) -> Iterator[str]:
    """No money is made or lost, in no snapshot that anybody read; each transfer that is there moved it once."""
    expected = dict.fromkeys(range(ACCOUNTS), BALANCE)
    for source, target, amount in contents.transfers.values():
        expected[source] -= amount
        expected[target] += amount
    if expected != dict(contents.balances):
        yield f"double spend: the accounts hold {dict(contents.balances)}, by the transfers that are there {expected}"
    reads = [each for each in acknowledged(operations) if each.kind is Kind.READ]
    yield from _told(f"read accounts whose sum is not {TOTAL}", [each for each in reads if each.total != TOTAL])


def _lists(written: Sequence[Operation], contents: Contents, mode: str) -> Iterator[str]:
    for key, items in contents.lists.items():
        if len(set(items)) != len(items):
            yield f"list {key} has an item twice: {items}"
    appends: dict[str, list[Operation]] = defaultdict(list)
    for each in acknowledged(written):
        if each.kind is Kind.APPEND:
            appends[each.key].append(each)
    for key, of_key in appends.items():
        there = contents.lists.get(key, ())
        yield from _told(f"of list {key}, not as it went on", [e for e in of_key if not _prefix(e, there, mode)])
        yield from _told(f"of list {key}, against the order of acknowledgement", _disorder(of_key, there))


def _prefix(append: Operation, there: tuple[int, ...], mode: str) -> bool:
    """The list as the append left it is how the present one begins; in mode off without what was lost."""
    kept = set(there)
    left = tuple(item for item in append.items if item in kept) if mode == OFF else append.items
    return append.items[-1:] == (append.id,) and there[: len(left)] == left


def _disorder(appends: Sequence[Operation], there: tuple[int, ...]) -> list[Operation]:
    """Appends that stand before one that was acknowledged when they had not yet begun."""
    place = {item: number for number, item in enumerate(there)}
    here = sorted((each for each in appends if each.id in place), key=lambda each: each.begun_s)
    ended = sorted(here, key=lambda each: each.ended_s)
    wrong, furthest, next_ended = [], -1, 0
    for each in here:
        while ended[next_ended].ended_s < each.begun_s:
            furthest = max(furthest, place[ended[next_ended].id])
            next_ended += 1
        if place[each.id] < furthest:
            wrong.append(each)
    return wrong


def _epochs(acked: Sequence[Operation]) -> Iterator[str]:
    """No operation begun after a newer epoch had acknowledged one may be acknowledged by an older."""
    owners: dict[int, set[str]] = defaultdict(set)
    first_s: dict[int, float] = {}
    for each in acked:
        owners[each.timeline].add(each.node)
        first_s[each.timeline] = min(each.ended_s, first_s.get(each.timeline, each.ended_s))
    for timeline, nodes in owners.items():
        if len(nodes) > 1 or timeline == 0:
            yield f"timeline {timeline} acknowledged by {', '.join(sorted(nodes))}"
    newer_s, limit_s = {}, float("inf")
    for timeline in sorted(first_s, reverse=True):
        newer_s[timeline], limit_s = limit_s, min(limit_s, first_s[timeline])
    late = [each for each in acked if each.begun_s > newer_s[each.timeline]]
    yield from _told("two primaries at a time: begun after a newer epoch had acknowledged", late)


def _read_and_gone(operations: Sequence[Operation], contents: Contents) -> int:
    seen = {(each.key, item) for each in acknowledged(operations) for item in each.items}
    kept = {(key, item) for key, items in contents.lists.items() for item in items}
    return len(seen - kept)


def _told(what: str, found: Sequence[object]) -> Iterator[str]:
    if found:
        yield f"{what}: {len(found)}, the first {'; '.join(map(str, found[:TOLD]))}"
