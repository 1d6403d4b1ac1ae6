"""Writers that note what was acknowledged, when and by whom; and the audit of what is there afterwards.

The timeline of a row says in which epoch it was acknowledged: no number is ever given out twice (R14).
"""

import itertools
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

import psycopg

from tests.harness.cluster import Cluster
from tests.harness.node import Node

PAUSE_S = 0.005
WRITERS = 2
_TABLE = "CREATE TABLE IF NOT EXISTS ledger (id bigint PRIMARY KEY, node text NOT NULL, timeline integer NOT NULL)"
_TIMELINE = "('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::integer"
_INSERT = f"INSERT INTO ledger VALUES (%s, current_setting('cluster_name'), {_TIMELINE}) RETURNING node, timeline"
_ids = itertools.count(time.time_ns() // 1_000_000)


class Row(NamedTuple):
    """One acknowledged commit; times are CLOCK_MONOTONIC of the client, the commit lies between them."""

    id: int
    node: str
    timeline: int
    sent_s: float
    acked_s: float


@dataclass(frozen=True, slots=True)
class Audit:
    acknowledged: tuple[Row, ...]
    """in the order of acknowledgement"""
    lost: tuple[Row, ...]

    def conflicts(self) -> list[str]:
        """Rows of an older epoch that were sent after a newer one had acknowledged its first."""
        first: dict[int, float] = {}
        for row in self.acknowledged:
            first.setdefault(row.timeline, row.acked_s)
        return [
            f"{row} was sent {row.sent_s - opened_s:.3f} s after timeline {newer} had acknowledged"
            for row in self.acknowledged
            for newer, opened_s in first.items()
            if newer > row.timeline and row.sent_s > opened_s
        ]

    def longest_gap_s(self) -> float:
        """The longest time without an acknowledgement to anybody."""
        times = [row.acked_s for row in self.acknowledged]
        return max((after - before for before, after in itertools.pairwise(times)), default=0.0)

    def epochs(self) -> list[tuple[str, int]]:
        """Who acknowledged, and on which timeline, in order."""
        return [key for key, _ in itertools.groupby((row.node, row.timeline) for row in self.acknowledged)]

    def expect_one_at_a_time(self) -> None:
        assert self.acknowledged, "nothing was ever acknowledged"
        assert not self.conflicts(), f"two primaries at a time: {self.conflicts()[:5]} of {len(self.conflicts())}"

    def expect_no_loss(self) -> None:
        self.expect_one_at_a_time()
        assert not self.lost, f"{len(self.lost)} acknowledged rows are lost, the first {self.lost[0]}"

    def expect_loss_only_after(self, moment_s: float, limit_s: float) -> None:
        """What asynchronous mode allows (R10): rows acknowledged from the end of replication until the fence."""
        self.expect_one_at_a_time()
        early = [row for row in self.lost if row.acked_s < moment_s]
        late = [row for row in self.lost if row.acked_s > moment_s + limit_s]
        assert not early, (
            f"{len(early)} rows are lost that could be replicated, {moment_s - early[0].acked_s:.3f} s before"
        )
        assert not late, f"acknowledged {late[-1].acked_s - moment_s:.3f} s after the fault and lost; limit {limit_s} s"


class Ledger:
    """A context in which clients write all the time, one row a commit, over the DSN that applications use.

    `enter` moves a writer to its host. With `sides`, each side has a writer of its own that knows only those nodes.
    """

    def __init__(
        self, cluster: Cluster, *, enter: Callable[[], None] = lambda: None, sides: Sequence[Sequence[Node]] = ()
    ) -> None:
        self._cluster = cluster
        self._enter = enter
        self._rows: list[Row] = []
        self._over = threading.Event()
        dsns = [cluster.dsn(side) for side in sides] or [cluster.dsn(cluster.data())] * WRITERS
        self._threads = [threading.Thread(target=self._write, args=(dsn,), daemon=True) for dsn in dsns]
        self.errors: list[str] = []

    def __enter__(self) -> Self:
        self._cluster.primary().sql(_TABLE)
        for thread in self._threads:
            thread.start()
        self.wait_for_writes(20)
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(15)
            assert not thread.is_alive(), f"{thread.name} hangs"

    def wait_for_writes(self, limit_s: float, on: Sequence[Node] = (), *, more: int = 20) -> Row:
        """Until that many more rows are acknowledged, by one of these nodes; the first of them."""
        start, names = len(self._rows), {node.name for node in on or self._cluster}

        def fresh() -> list[Row]:
            rows = [row for row in self._rows[start:] if row.node in names]
            return rows if len(rows) >= more else []

        return self._cluster.wait_until(fresh, limit_s, f"clients write to {' or '.join(sorted(names))}")[0]

    def last(self) -> Row:
        return self._rows[-1]

    def audit(self, primary: Node) -> Audit:
        """Stop the writers and compare with what is there."""
        self.stop()
        there = {id_: (node, timeline) for id_, node, timeline in primary.sql("SELECT id, node, timeline FROM ledger")}
        rows = sorted(self._rows, key=lambda row: row.acked_s)
        lost = [row for row in rows if there.get(row.id) != (row.node, row.timeline)]
        return Audit(tuple(rows), tuple(lost))

    def _write(self, dsn: str) -> None:
        self._enter()
        while not self._over.is_set():
            try:
                with psycopg.connect(dsn, autocommit=True) as connection:
                    for row in self._commits(connection):
                        self._rows.append(row)
            except psycopg.Error as error:
                self.errors.append(str(error))
                self._over.wait(0.02)

    def _commits(self, connection: psycopg.Connection) -> Iterator[Row]:
        while not self._over.is_set():
            id_, sent_s = next(_ids), time.monotonic()
            node, timeline = connection.execute(_INSERT, (id_,)).fetchone()
            yield Row(id_, node, timeline, sent_s, time.monotonic())
            self._over.wait(PAUSE_S)


def expect_same_everywhere(cluster: Cluster) -> None:
    """Every node has exactly the same rows, once standbys have replayed."""
    contents = "SELECT count(*), coalesce(sum(hashint8(id)::bigint), 0) FROM ledger"

    def same() -> bool:
        return len({node.sql(contents)[0] for node in cluster.data()}) == 1

    cluster.wait_until(same, 10, "all nodes have the same rows")
