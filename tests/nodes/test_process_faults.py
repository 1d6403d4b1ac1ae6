"""One process of the primary's node dies or hangs; the others decide what that means."""

import fcntl
import os
import signal
import time

from tests.harness.cluster import FAILOVER_LIMIT_S, TTL_S
from tests.harness.ledger import Ledger, expect_same_everywhere
from tests.harness.processes import send


def test_a_killed_postmaster_restarts_in_place_and_loses_nothing(cluster):
    primary = cluster.primary()
    before, old = primary.view(), primary.postmaster
    with Ledger(cluster) as ledger:
        send(old, signal.SIGKILL)
        ledger.wait_for_writes(10)
        assert cluster.wait_whole() is primary
        audit = ledger.audit(primary)
    after = primary.view()
    assert (after["epoch"], after["timeline"]) == (before["epoch"], before["timeline"])
    assert primary.postmaster != old
    audit.expect_no_loss()
    assert audit.longest_gap_s() < 5
    expect_same_everywhere(cluster)


def test_a_killed_node_process_that_is_restarted_is_not_noticed(cluster):
    primary = cluster.primary()
    before, postmaster = primary.view(), primary.postmaster
    with Ledger(cluster) as ledger:
        primary.end(signal.SIGKILL)
        time.sleep(1.5)
        primary.start()
        time.sleep(TTL_S + 1)
        assert cluster.wait_whole() is primary
        audit = ledger.audit(primary)
    assert primary.postmaster == postmaster
    assert primary.view()["epoch"] == before["epoch"]
    audit.expect_no_loss()
    assert audit.longest_gap_s() < 1


def test_a_log_that_nobody_reads_costs_no_lease(cluster):
    """A journal that is stuck: the pipe is full before the first line."""
    primary = cluster.primary()
    epoch, postmaster = primary.view()["epoch"], primary.postmaster
    unread, log = os.pipe()
    os.write(log, b"x" * (fcntl.fcntl(log, fcntl.F_GETPIPE_SZ) - 1) + b"\n")
    assert primary.end(signal.SIGTERM) == 0
    primary.start(stdout=log)
    os.close(log)
    time.sleep(TTL_S + 1)
    assert cluster.wait_whole() is primary
    assert (primary.postmaster, primary.view()["epoch"]) == (postmaster, epoch)
    # the end waits for it no longer than it must
    assert primary.end(signal.SIGTERM) == 0
    with os.fdopen(unread, "rb") as file:
        assert file.read().count(b"\n") == 1
    primary.start()
    assert cluster.wait_whole() is primary
    assert (primary.postmaster, primary.view()["epoch"]) == (postmaster, epoch)


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


def test_sigterm_leaves_postgresql_running_for_the_next_node_process(cluster):
    primary = cluster.primary()
    postmaster, epoch = primary.postmaster, primary.view()["epoch"]
    assert primary.end(signal.SIGTERM) == 0
    assert primary.postmaster == postmaster
    assert primary.writable()
    primary.start()
    assert cluster.wait_whole() is primary
    assert (primary.postmaster, primary.view()["epoch"]) == (postmaster, epoch)


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
        ledger.audit(new).expect_one_at_a_time()
    expect_same_everywhere(cluster)


def test_postgresql_without_node_and_guard_does_not_outlive_its_lease(cluster):
    """Both are killed at once: only the kernel is left to end it."""
    old = cluster.primary()
    with Ledger(cluster) as ledger:
        guard = old.guard()
        old.tell(signal.SIGSTOP)
        send(guard, signal.SIGKILL)
        old.tell(signal.SIGKILL)
        lost_s = time.monotonic()
        new = cluster.wait_until(lambda: another_primary(cluster, old), 2 * TTL_S, "another primary is open")
        assert not old.postgres_processes()
        old.lose_host()
        old.start()
        assert cluster.wait_whole() is new
        audit = ledger.audit(new)
    audit.expect_loss_only_after(lost_s - 0.5, TTL_S)
    expect_same_everywhere(cluster)


def _lose_node_process(cluster, number):
    """The guard alone ends the old primary, before the new one opens (R4)."""
    old = cluster.primary()
    with Ledger(cluster) as ledger:
        old.tell(number)
        lost_s = time.monotonic()
        new = cluster.wait_until(lambda: another_primary(cluster, old), 2 * TTL_S, "another primary is open")
        assert not old.postgres_processes()
        ledger.wait_for_writes(5)
        old.lose_host()
        old.start()
        assert cluster.wait_whole() is new
        audit = ledger.audit(new)
    audit.expect_loss_only_after(lost_s, TTL_S)
    assert [node for node, _ in audit.epochs()] == [old.name, new.name]
    assert audit.longest_gap_s() < FAILOVER_LIMIT_S
    expect_same_everywhere(cluster)


def another_primary(cluster, old):
    return next((node for node in cluster if node is not old and node.writable()), None)
