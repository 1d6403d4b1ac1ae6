"""Everything of a node dies at once: failover within failure_timeout and a little, and the way back in."""

import signal
import subprocess
import time

from appliance.node.privileges import run_user
from tests.harness.cluster import FAILOVER_LIMIT_S, TTL_S
from tests.harness.ledger import Ledger, expect_same_everywhere


def test_r9_a_lost_primary_is_replaced_before_its_lease_ends_and_comes_back(cluster):
    old = cluster.primary()
    with Ledger(cluster) as ledger:
        old.lose_host()
        lost_s = time.monotonic()
        back = ledger.wait_for_writes(2 * TTL_S)
        assert back.acked_s - lost_s < FAILOVER_LIMIT_S
        old.start()
        new = cluster.wait_whole()
        audit = ledger.audit(new)
    assert new is not old
    audit.expect_no_loss()
    expect_same_everywhere(cluster)


def test_a_second_primary_is_lost_right_after_the_first(cluster):
    """Both standbys know the newest timeline from their WAL alone: no restartpoint was made on it (T2)."""
    first = cluster.primary()
    with Ledger(cluster) as ledger:
        first.end(signal.SIGINT)
        ledger.wait_for_writes(5)
        first.start()
        second = cluster.wait_whole()
        ledger.wait_for_writes(5)
        second.lose_host()
        lost_s = time.monotonic()
        assert ledger.wait_for_writes(2 * TTL_S).acked_s - lost_s < FAILOVER_LIMIT_S
        second.start()
        third = cluster.wait_whole()
        audit = ledger.audit(third)
    audit.expect_no_loss()
    assert not any(node.jobs() for node in cluster if node is not second)
    expect_same_everywhere(cluster)


def test_the_first_primary_returns_while_the_second_is_away(cluster):
    """The node that followed both has the most: the one that returns has to take from it, whatever it was before."""
    first = cluster.primary()
    with Ledger(cluster) as ledger:
        first.lose_host()
        second = cluster[ledger.wait_for_writes(2 * TTL_S).node]
        ledger.wait_for_writes(5, more=100)
        second.lose_host()
        first.start()
        third = cluster[ledger.wait_for_writes(3 * TTL_S).node]
        second.start()
        assert cluster.wait_whole() is third
        audit = ledger.audit(third)
    assert third not in {first, second}
    audit.expect_no_loss()
    assert first.jobs()[-1:] != [("clone", "done")], "a rewind, or following, was enough"
    expect_same_everywhere(cluster)


def test_a_lost_standby_is_not_noticed_by_clients(cluster):
    primary, standby = cluster.primary(), cluster.standbys()[0]
    with Ledger(cluster) as ledger:
        standby.lose_host()
        ledger.wait_for_writes(2)
        cluster.wait_until(lambda: primary.view()["verdict"] == "degraded", 5, "the loss is shown")
        standby.start()
        assert cluster.wait_whole() is primary
        audit = ledger.audit(primary)
    audit.expect_no_loss()
    assert audit.longest_gap_s() < 1
    expect_same_everywhere(cluster)


def test_a_host_where_other_processes_have_the_ids_of_the_lost_ones_comes_back(cluster):
    """PostgreSQL would take each of its locks for that of a server that runs."""
    primary, standby = cluster.primary(), cluster.standbys()[0]
    standby.lose_host()
    user = run_user()
    other = subprocess.Popen(["sleep", "120"], cwd="/", user=user.pw_uid, group=user.pw_gid)
    try:
        socket_lock = standby.directory / "run" / f".s.PGSQL.{standby.place.postgres_port}.lock"
        for lock in (standby.data_dir / "postmaster.pid", socket_lock):
            lock.write_text(f"{other.pid}\n" + lock.read_text().split("\n", 1)[1])
        standby.start()
        assert cluster.wait_whole() is primary
    finally:
        other.kill()
        other.wait()


def test_all_nodes_lost_at_once_come_back_with_everything_twice(cluster):
    for _ in range(2):
        with Ledger(cluster) as ledger:
            ledger.wait_for_writes(5, more=100)
            for node in cluster:
                node.lose_host()
            ledger.stop()
            cluster.start()
            primary = cluster.wait_whole()
            audit = ledger.audit(primary)
        audit.expect_no_loss()
        expect_same_everywhere(cluster)
