"""R5a: what a primary has on its disk and nobody has confirmed is not read from it, or it is not lost any more."""

import signal
import threading
import time
from contextlib import contextmanager, suppress

import psycopg
import pytest

from tests.harness.cluster import Cluster
from tests.harness.processes import send

STRICT = {
    "bootstrap": {
        "config": {"ttl": "6s", "synchronous_mode_strict": True},
        "application": {"user": "app", "database": "app"},
    }
}
"""Nobody goes on alone: the commit of a primary that has lost its standbys waits for ever."""


@pytest.fixture
def cluster():
    with Cluster(3, config=STRICT) as cluster:
        cluster.up().wait_whole()
        standbys = {node.name for node in cluster.standbys()}
        sync = lambda: cluster.primary().view()["sync"]  # noqa: E731
        cluster.wait_until(lambda: set(sync()["members"]) == standbys and sync()["settled"], 15, "both are waited for")
        yield cluster


def in_background(work):
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def insert(node, value):
    """Whoever kills the server or ends the wait is no answer."""
    with suppress(psycopg.Error):
        node.sql("INSERT INTO t VALUES (%s)", value)


class Reader:
    """Asks a node's PostgreSQL all the time, each time on a new connection; counts what it says as a primary."""

    def __init__(self, node):
        self._node, self._ended = node, threading.Event()
        self.first_s = None
        """when it first saw the row on a primary"""
        self.refusals = []

    @contextmanager
    def reading(self):
        thread = in_background(self._run)
        try:
            yield self
        finally:
            self._ended.set()
            thread.join(10)

    def _run(self):
        while not self._ended.is_set():
            try:
                ((in_recovery, rows),) = self._node.sql("SELECT pg_is_in_recovery(), count(*) FROM t")
            except psycopg.Error as error:
                self.refusals.append(str(error))
            else:
                if rows and not in_recovery and self.first_s is None:
                    self.first_s = time.monotonic()
            time.sleep(0.01)


def kill_postmaster(primary):
    send(primary.postmaster, signal.SIGKILL)


def kill_backend(primary):
    """As the kernel does it when there is no memory left."""
    ((backend,),) = primary.sql(
        "SELECT pid FROM pg_stat_activity WHERE query LIKE 'INSERT%' AND pid <> pg_backend_pid()"
    )
    send(backend, signal.SIGKILL)


def problem(node, code):
    return next((p for p in node.view()["problems"] if p["code"] == code), None)


@pytest.mark.timeout(180)
@pytest.mark.parametrize("kill", [kill_backend, kill_postmaster])
def test_a_commit_that_nobody_confirmed_is_not_read_from_the_primary_that_comes_back_with_it(cluster, kill):
    primary = cluster.primary()
    primary.sql("CREATE TABLE t (a int)")
    before = primary.postmaster
    receivers = [node.walreceiver() for node in cluster.standbys()]
    for pid in receivers:
        send(pid, signal.SIGSTOP)
    hanging = in_background(lambda: insert(primary, 1))
    committed = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
    cluster.wait_until(lambda: primary.sql(committed) == [(1,)], 5, "the commit waits for a standby")
    assert primary.sql("SELECT a FROM t") == [], "nobody sees it yet"

    with Reader(primary).reading() as reader:
        kill(primary)
        cluster.wait_until(lambda: problem(primary, "primary.gated"), 40, "the old primary is one again, and gated")
        assert primary.postmaster != before
        hanging.join(10)
        assert not hanging.is_alive()

        found = problem(primary, "primary.gated")
        assert "lets no application in before 1 of n2, n3 confirm WAL up to 0/" in found["message"]
        assert found["severity"] == "critical"
        assert primary.health("/primary") == 503
        others = [node for node in cluster if node is not primary]
        cluster.wait_until(lambda: all(problem(n, "primary.gated") for n in others), 5, "all say so")
        time.sleep(2)
        assert reader.first_s is None, "read, and confirmed by nobody"
        assert any("rejects connection" in refusal for refusal in reader.refusals)

        free_s = time.monotonic()
        send(receivers[0], signal.SIGCONT)
        cluster.wait_until(lambda: reader.first_s, 20, "one standby has it, so it is shown")
        print(f"{kill.__name__}: read {reader.first_s - free_s:.2f} s after the first standby went on")
    cluster.wait_until(lambda: primary.health("/primary") == 200, 5, "clients are sent there")
    send(receivers[1], signal.SIGCONT)
    assert cluster.wait_whole() is primary
    primary.sql("INSERT INTO t VALUES (2)")
    assert sorted(primary.sql("SELECT a FROM t")) == [(1,), (2,)]
