"""One process of the primary's node dies or hangs; the others decide what that means."""

import signal
import time
from contextlib import ExitStack

import psycopg
import pytest

from tests.harness.cluster import FAILOVER_LIMIT_S, FAILURE_TIMEOUT_S, LEASE_LIMIT_S, TTL_S, Cluster
from tests.harness.ledger import Ledger, expect_same_everywhere
from tests.harness.processes import send


def test_a_primary_whose_connections_are_all_taken_is_busy_and_not_dead():
    """Those for superusers too, and by sessions that stay. A node process that is started meanwhile adopts it."""
    with Cluster(3, settings={"ttl": "20s", "synchronous_mode": "off"}) as cluster:
        primary = cluster.up().primary()
        before, postmaster = primary.view(), primary.postmaster
        with ExitStack() as taken:
            with pytest.raises(psycopg.OperationalError, match="too many clients"):
                _take_all(primary, taken)
            assert primary.end(signal.SIGTERM) == 0
            primary.start()
            cluster.wait_until(lambda: _answers_as_primary(primary), 11, "the new node process is let in")
            until_s = time.monotonic() + 5
            while time.monotonic() < until_s:
                assert primary.health("/primary") == 200
                assert "postmaster.stalled" not in {p["code"] for p in primary.view()["problems"]}
                time.sleep(0.2)
            with pytest.raises(psycopg.OperationalError, match="too many clients"):
                _as_superuser(primary)
        assert cluster.wait_whole() is primary
        assert (primary.postmaster, primary.view()["epoch"]) == (postmaster, before["epoch"])


def _take_all(node, taken):
    while True:
        taken.enter_context(_as_superuser(node))


def _as_superuser(node):
    return psycopg.connect(
        host=str(node.directory / "run"), port=node.place.postgres_port, user="postgres", dbname="postgres"
    )


def _answers_as_primary(node):
    try:
        return node.health("/primary") == 200
    except OSError:
        return False


def test_a_node_process_that_is_restarted_has_the_whole_lease_to_come_back(cluster):
    """It says that it is restarted: the others wait longer than for one that is silent (R9)."""
    primary = cluster.primary()
    postmaster, epoch = primary.postmaster, primary.view()["epoch"]
    with Ledger(cluster) as ledger:
        assert primary.end(signal.SIGTERM) == 0
        time.sleep(FAILURE_TIMEOUT_S + 0.3)
        primary.start()
        assert cluster.wait_whole() is primary
        audit = ledger.audit(primary)
    assert (primary.postmaster, primary.view()["epoch"]) == (postmaster, epoch)
    audit.expect_no_loss()
    assert audit.longest_gap_s() < 1


def test_a_killed_node_process_of_a_standby_is_not_noticed(cluster):
    primary, standby = cluster.primary(), cluster.standbys()[0]
    postmaster = standby.postmaster
    with Ledger(cluster) as ledger:
        standby.end(signal.SIGKILL)
        ledger.wait_for_writes(5)
        standby.start()
        assert cluster.wait_whole() is primary
        audit = ledger.audit(primary)
    assert standby.postmaster == postmaster
    audit.expect_no_loss()
    assert audit.longest_gap_s() < 1


def test_sigint_stops_everything_of_the_node_and_hands_the_role_over(cluster):
    primary = cluster.primary()
    with Ledger(cluster) as ledger:
        assert primary.end(signal.SIGINT) == 0
        cluster.wait_until(lambda: not primary.everything(), 5, "nothing of the node is left")
        # The lease was given back: nobody waits for it to run out.
        ledger.wait_for_writes(5)
        primary.start()
        audit = ledger.audit(cluster.wait_whole())
    audit.expect_no_loss()
    expect_same_everywhere(cluster)


def test_a_node_process_killed_for_good_takes_its_postgresql_along(cluster):
    _lose_node_process(cluster, signal.SIGKILL)


def test_a_stopped_node_process_takes_its_postgresql_along(cluster):
    _lose_node_process(cluster, signal.SIGSTOP)


def test_a_killed_guard_takes_postgresql_along_and_both_come_back(cluster):
    primary = cluster.primary()
    epoch = primary.view()["epoch"]
    with Ledger(cluster) as ledger:
        send(primary.guard(), signal.SIGKILL)
        ledger.wait_for_writes(2 * TTL_S, more=200)
        new = cluster.wait_whole()
        audit = ledger.audit(new)
    audit.expect_no_loss()
    assert (new is primary) is (new.view()["epoch"] == epoch)
    expect_same_everywhere(cluster)


def test_r4_a_stopped_guard_is_replaced_and_takes_postgresql_along(cluster):
    """It would keep no deadline, should the node process stop too."""
    primary = cluster.primary()
    guard = primary.guard()
    with Ledger(cluster) as ledger:
        send(guard, signal.SIGSTOP)
        cluster.wait_until(lambda: primary.logged("guard.killed", pid=guard), 15, "the stopped guard is killed")
        new = cluster.wait_whole()
        ledger.wait_for_writes(2 * TTL_S)
        ledger.audit(new).expect_no_loss()
    assert primary.guard() != guard
    expect_same_everywhere(cluster)


def test_a_node_all_of_which_is_stopped_is_there_again_when_its_process_is_started(cluster):
    """As after `systemctl kill -s STOP`: the service manager replaces the node process alone, in time."""
    old = cluster.primary()
    with Ledger(cluster) as ledger:
        for pid in old.everything():
            send(pid, signal.SIGSTOP)
        new = cluster.wait_until(lambda: another_primary(cluster, old), 2 * TTL_S, "another primary is open")
        old.end(signal.SIGKILL)
        old.start()
        assert cluster.wait_whole() is new
        ledger.wait_for_writes(5)
        ledger.audit(new).expect_no_loss()
    expect_same_everywhere(cluster)


def test_postgresql_without_node_and_guard_does_not_outlive_its_lease(cluster):
    """Both are killed at once: only the kernel is left to end it."""
    old = cluster.primary()
    with Ledger(cluster) as ledger:
        guard = old.guard()
        old.tell(signal.SIGSTOP)
        send(guard, signal.SIGKILL)
        old.tell(signal.SIGKILL)
        new = cluster.wait_until(lambda: another_primary(cluster, old), 2 * TTL_S, "another primary is open")
        assert not old.postgres_processes()
        old.lose_host()
        old.start()
        assert cluster.wait_whole() is new
        audit = ledger.audit(new)
    audit.expect_no_loss()
    expect_same_everywhere(cluster)


def _lose_node_process(cluster, number):
    """Another opens while PostgreSQL runs on here, and can acknowledge nothing (R9); the guard ends it (R4)."""
    old = cluster.primary()
    with Ledger(cluster) as ledger:
        old.tell(number)
        new = cluster.wait_until(lambda: another_primary(cluster, old), FAILOVER_LIMIT_S, "another primary is open")
        old.wait_postgres_gone(TTL_S)
        ledger.wait_for_writes(5)
        old.lose_host()
        old.start()
        assert cluster.wait_whole() is new
        audit = ledger.audit(new)
    audit.expect_no_loss()
    assert [node for node, _ in audit.epochs()] == [old.name, new.name]
    assert audit.longest_gap_s() < LEASE_LIMIT_S
    expect_same_everywhere(cluster)


def another_primary(cluster, old):
    return next((node for node in cluster if node is not old and node.writable()), None)
