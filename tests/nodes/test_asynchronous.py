"""Where no commit waits for a standby (R10, R11): the lease has to run out first, and what can be lost is bounded."""

import fcntl
import os
import signal
import time

import pytest

from tests.harness.cluster import ASYNCHRONOUS, LEASE_LIMIT_S, TTL_S, Cluster
from tests.harness.ledger import Ledger, expect_same_everywhere
from tests.harness.processes import send
from tests.harness.shared import Shared


@pytest.fixture(scope="module")
def shared():
    """Instead of the cluster that all other tests share."""
    shared = Shared(lambda: Cluster(settings=ASYNCHRONOUS))
    yield shared
    shared.end()


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


def test_a_node_process_that_is_away_for_less_than_the_lease_is_not_noticed(cluster):
    """With synchronous standbys it has failure_timeout for that, which a loaded machine needs to start it."""
    primary = cluster.primary()
    before, postmaster = primary.view(), primary.postmaster
    with Ledger(cluster) as ledger:
        primary.end(signal.SIGKILL)
        time.sleep(1.5)
        primary.start()
        time.sleep(TTL_S + 1)
        assert cluster.wait_whole() is primary
        audit = ledger.audit(primary)
    assert (primary.postmaster, primary.view()["epoch"]) == (postmaster, before["epoch"])
    audit.expect_no_loss()
    assert audit.longest_gap_s() < 1


def test_a_log_that_nobody_reads_costs_no_lease(cluster):
    """A journal that is stuck: the pipe is full before the first line. To end takes longer with it."""
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


def test_sigterm_leaves_postgresql_running_for_the_next_node_process(cluster):
    primary = cluster.primary()
    postmaster, epoch = primary.postmaster, primary.view()["epoch"]
    assert primary.end(signal.SIGTERM) == 0
    assert primary.postmaster == postmaster
    assert primary.writable()
    primary.start()
    assert cluster.wait_whole() is primary
    assert (primary.postmaster, primary.view()["epoch"]) == (postmaster, epoch)


def test_a_lost_primary_is_replaced_within_ttl_and_comes_back(cluster):
    old = cluster.primary()
    with Ledger(cluster) as ledger:
        old.lose_host()
        lost_s = time.monotonic()
        back = ledger.wait_for_writes(2 * TTL_S)
        assert back.acked_s - lost_s < LEASE_LIMIT_S
        old.start()
        new = cluster.wait_whole()
        audit = ledger.audit(new)
    assert new is not old
    audit.expect_loss_only_after(lost_s - 0.5, 0.5)
    expect_same_everywhere(cluster)


def test_a_node_process_killed_for_good_takes_its_postgresql_along(cluster):
    _lose_node_process(cluster, signal.SIGKILL)


def test_a_stopped_node_process_takes_its_postgresql_along(cluster):
    _lose_node_process(cluster, signal.SIGSTOP)


def test_a_primary_that_went_on_alone_is_rewound(cluster):
    """Its last commits reached nobody: they are lost, as asynchronous mode allows, and no longer on its disk."""
    old = cluster.primary()
    with Ledger(cluster) as ledger:
        alone_s = go_on_alone(old, ledger)
        ledger.wait_for_writes(2 * TTL_S)
        old.start()
        new = cluster.wait_whole()
        audit = ledger.audit(new)
    audit.expect_loss_only_after(alone_s - 0.5, 2)
    assert audit.lost
    assert old.jobs() == [("rewind", "done")]
    expect_same_everywhere(cluster)


def test_r12_where_a_rewind_is_impossible_the_node_clones_and_keeps_the_old_directory(cluster):
    old = cluster.primary()
    with Ledger(cluster) as ledger:
        go_on_alone(old, ledger)
        ledger.wait_for_writes(2 * TTL_S)
        lose_wal(old)
        (old.data_dir / "note.txt").write_text("kept once")
        old.start()
        new = cluster.wait_whole()
        ledger.audit(new).expect_one_at_a_time()
    assert (old.directory / "data.replaced" / "note.txt").read_text() == "kept once"
    assert old.jobs()[0] == ("rewind", "failed")
    assert old.jobs()[-1] == ("clone", "done")
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
    assert audit.longest_gap_s() < LEASE_LIMIT_S
    expect_same_everywhere(cluster)


def go_on_alone(primary, ledger):
    """It acknowledges commits that no standby gets, then everything of it dies; the moment replication ended."""
    for pid, line in primary.postgres_processes().items():
        if "walsender" in line:
            send(pid, signal.SIGSTOP)
    alone_s = time.monotonic()
    ledger.wait_for_writes(5, more=50)
    primary.lose_host()
    return alone_s


def lose_wal(node):
    for segment in (node.data_dir / "pg_wal").glob("0000*"):
        segment.unlink()


def another_primary(cluster, old):
    return next((node for node in cluster if node is not old and node.writable()), None)
