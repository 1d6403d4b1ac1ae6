"""A run: rounds of faults under clients that never stop, healing after each, and all checks after some of them."""

import itertools
import json
import shutil
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random

from tests.chaos.checks import Verdict, Window, check, longest_gap_s
from tests.chaos.clients import Clients, Lists, Role, appends, inserts, reads, transfers
from tests.chaos.faults import FAULTS, OPERATIONS
from tests.chaos.field import Field
from tests.chaos.ledger import Kind, Operation, acknowledged, read
from tests.chaos.schedule import Round, Strike, rounds
from tests.chaos.tables import Tables
from tests.harness.cluster import Cluster
from tests.harness.node import Node

SEGMENT_ROUNDS = 4
"""After so many all is checked, and the clients begin with new tables."""
HEAL_LIMIT_S = 60.0
"""until one primary is open and everybody else streams from it"""
WRITES_LIMIT_S = 20.0
SAME_LIMIT_S = 20.0
LOOK_S = 0.02
KINDS = {kind.name: function for kind, function in (*FAULTS.items(), *OPERATIONS.items())}


class BrokenPromiseError(AssertionError):
    """A promise is broken."""


@dataclass(slots=True)
class Tally:
    """What a run has seen so far."""

    rounds: int = 0
    struck: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    """of writes"""
    reads: int = 0
    lost: int = 0
    read_and_gone: int = 0
    cancelled: int = 0
    """commits of which PostgreSQL said that their wait for a standby was cancelled; they are among the unknown"""
    appointed: dict[int, str] = field(default_factory=dict)
    """by epoch: switchover, failover or a primary elected again, as the cluster's history names it"""
    node_restarts: int = 0
    gaps_s: list[float] = field(default_factory=list)
    """of each round the longest time without an acknowledged write"""
    healed_s: list[float] = field(default_factory=list)
    """of each round, from the end of its last fault until everything streamed"""

    def add(self, operations: list[Operation], windows: list[Window], verdict: Verdict) -> None:
        writes = [each for each in operations if each.kind is not Kind.READ]
        self.outcomes.update(each.outcome.value for each in writes)
        self.reads += len(acknowledged(operations)) - len(acknowledged(writes))
        self.lost += verdict.lost
        self.read_and_gone += verdict.read_and_gone
        self.cancelled += sum(each.why.startswith("canceling") for each in writes)
        self.gaps_s += [round(longest_gap_s(operations, window), 3) for window in windows]


@dataclass(frozen=True, slots=True)
class Plan:
    seed: int
    nodes: int
    mode: str
    limit_s: float
    """no round begins later"""
    first_round: int = 0
    """of the schedule; those before are left out"""


class Campaign:
    """Keeps ledger and schedule in a directory of its own, with everything's logs when a promise was broken."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.tally = Tally()
        self.directory = Path(tempfile.mkdtemp(prefix=f"chaos-{plan.seed}-", dir="/var/tmp"))
        self._windows: list[Window] = []

    def run(self) -> str:
        """What was broken, in words; empty when nothing was."""
        try:
            with Field(self.plan.nodes, self.plan.mode) as field:
                try:
                    self._segments(field)
                except Exception as error:
                    self._keep(field, _told(error))
                    raise
                finally:
                    self.tally.node_restarts = field.restarts
        except KeyboardInterrupt:
            shutil.rmtree(self.directory)
            raise
        except Exception as error:  # whatever it is, the run is no proof
            self._keep_last_words(_told(error))
            return _told(error)
        shutil.rmtree(self.directory)
        return ""

    def _segments(self, field: Field) -> None:
        until_s = time.monotonic() + self.plan.limit_s
        every = rounds(self.plan.seed, list(FAULTS), list(OPERATIONS), self.plan.mode)
        schedule = itertools.islice(every, self.plan.first_round, None)
        number = 0
        while time.monotonic() < until_s or not number:  # no round at all would prove nothing
            self._segment(field, Tables(f"s{number}"), schedule, until_s)
            number += 1

    def _segment(self, field: Field, tables: Tables, schedule: Iterator[Round], until_s: float) -> None:
        self._windows.clear()
        ledger = self.directory / tables.schema
        field.wait_whole(HEAL_LIMIT_S).sql(tables.make())
        with Clients(self._roles(field, tables), ledger, field.network.enter()) as clients:
            self._wait_for_writes(field, clients)
            for _ in range(SEGMENT_ROUNDS):
                self._round(field, next(schedule), clients)
                if time.monotonic() > until_s:
                    break
        self._check(field, tables, read(ledger))
        field.wait_whole(HEAL_LIMIT_S).sql(tables.drop())
        shutil.rmtree(ledger)

    def _round(self, field: Field, round_: Round, clients: Clients) -> None:
        begun_s, writes = time.monotonic(), clients.writes()
        self._note(f"round {round_.number}", **asdict(round_))
        self._strike(field, round_)
        ended_s = time.monotonic()
        field.heal()
        primary = field.wait_whole(HEAL_LIMIT_S)
        whole_s = time.monotonic()
        self.tally.appointed |= {entry["epoch"]: entry["change"] for entry in primary.get("history")["history"]}
        self._wait_for_writes(field, clients)
        self._windows.append(Window(begun_s, time.monotonic()))
        self.tally.rounds += 1
        self.tally.struck.update(strike.kind for strike in round_.strikes)
        self.tally.healed_s.append(round(whole_s - ended_s, 3))
        what = ", ".join(f"{strike.kind} ({strike.target})" for strike in round_.strikes)
        self._say(
            f"round {round_.number}: {what}: whole {whole_s - ended_s:.1f} s after {ended_s - begun_s:.1f} s of it,"
            f" primary {primary.name}, {clients.writes() - writes} writes"
        )

    def _strike(self, field: Field, round_: Round) -> None:
        """Begin and end each in its time; all are ended, whatever happens."""
        begun_s = time.monotonic()
        pending, lasting = list(round_.strikes), list[tuple[float, Iterator[None]]]()
        try:
            while pending or lasting:
                now_s = time.monotonic() - begun_s
                for strike in [each for each in pending if each.at_s <= now_s]:
                    pending.remove(strike)
                    lasting.append((strike.at_s + strike.hold_s, self._begin(field, strike)))
                for entry in [each for each in lasting if each[0] <= now_s]:
                    lasting.remove(entry)
                    next(entry[1], None)
                field.tend()
                time.sleep(LOOK_S)
        finally:
            for _, rest in lasting:
                rest.close()

    def _begin(self, field: Field, strike: Strike) -> Iterator[None]:
        node = field.find(strike.target, strike.pick)
        self._note(f"{strike.kind} on {node.name}")
        running = KINDS[strike.kind](field, node, strike.pick)
        next(running)
        return running

    def _check(self, field: Field, tables: Tables, operations: list[Operation]) -> None:
        nodes = list(field.cluster)
        field.cluster.wait_until(lambda: tables.same(nodes), SAME_LIMIT_S, "all nodes hold the same rows")
        verdict = check(operations, tables.contents(field.wait_whole(HEAL_LIMIT_S)), self._windows, self.plan.mode)
        self.tally.add(operations, self._windows, verdict)
        if verdict.violations:
            raise BrokenPromiseError("\n".join(verdict.violations))

    def _wait_for_writes(self, field: Field, clients: Clients) -> None:
        start = clients.writes()
        field.cluster.wait_until(lambda: clients.writes() >= start + 20, WRITES_LIMIT_S, "clients write")

    def _roles(self, field: Field, tables: Tables) -> list[Role]:
        """Clients on a host of their own that find the primary, and on each node's host one that knows only that."""
        everywhere, lists, outside = field.cluster.dsn(list(field.cluster)), Lists(), field.network.enter()
        rng = Random(self.plan.seed)
        roles = [
            Role("insert", everywhere, inserts(tables), 0.01, outside),
            Role("impatient", everywhere, inserts(tables), 0.03, outside, impatient=True),
            *(Role(f"bank-{i}", everywhere, transfers(tables, Random(rng.random())), 0.02, outside) for i in (1, 2)),
            *(Role(f"append-{i}", everywhere, appends(tables, lists), 0.02, outside) for i in (1, 2)),
        ]
        for node in field.cluster:
            inside, dsn = field.network.enter(node.name), field.cluster.dsn([node])
            roles.append(Role(f"inside-{node.name}", dsn, _mixed(tables, lists), 0.1, inside))
            roles.append(Role(f"reader-{node.name}", _any(dsn), reads(tables, lists), 0.2, inside))
        return roles

    # What is kept

    def _note(self, what: str, **more: object) -> None:
        with (self.directory / "schedule.jsonl").open("a") as file:
            file.write(json.dumps({"at_s": round(time.monotonic(), 3), "what": what, **more}) + "\n")

    def _say(self, text: str) -> None:
        print(text, flush=True)

    def _keep_last_words(self, broken: str) -> None:
        """Of a cluster that did not come up or did not end, unless its logs were kept already."""
        if not (file := self.directory / "broken.txt").exists():
            texts = [f"{title}\n{text}" for title, text in Cluster.last_words]
            file.write_text("\n\n".join([broken, *texts]))

    def _keep(self, field: Field, broken: str) -> None:
        (self.directory / "broken.txt").write_text(f"{broken}\n\n{field.cluster.status()}\n")
        for node in field.cluster:
            _keep_logs(node, self.directory / node.name)
            pids = ",".join(map(str, node.everything())) or "0"
            processes = subprocess.run(
                ["ps", "-o", "pid,ppid,stat,wchan:20,etime,args", "-p", pids], capture_output=True, check=False
            )
            (self.directory / node.name / "processes.txt").write_bytes(processes.stdout)


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _mixed(tables: Tables, lists: Lists) -> Iterator:
    kinds = (inserts(tables), appends(tables, lists))
    while True:
        yield from (next(kind) for kind in kinds)


def _any(dsn: str) -> str:
    return dsn.replace("target_session_attrs=read-write", "target_session_attrs=any")


def _keep_logs(node: Node, directory: Path) -> None:
    directory.mkdir()
    for name in ("node.log", "guard/guard.log", "postgres.log", "node.yml", "notes.json"):
        file = node.directory / name
        if file.exists():
            shutil.copy(file, directory / file.name)
