"""A node that comes back after the WAL that it lacks has been removed everywhere: a copy is all that helps (R15)."""

import pytest

from tests.harness.cluster import TTL_S, Cluster
from tests.harness.ledger import Ledger, expect_same_everywhere
from tests.harness.node import APPLICATION
from tests.harness.shared import Shared

from .test_asynchronous import go_on_alone

SLOT_KEEPS_MB = 4
LITTLE_WAL = {
    "initdb": {"wal-segsize": "1MB"},
    "bootstrap": {
        "config": {
            "ttl": f"{TTL_S:g}s",
            "synchronous_mode": "off",
            "postgresql": {
                "parameters": {
                    "max_slot_wal_keep_size": f"{SLOT_KEEPS_MB}MB",
                    "wal_keep_size": "1MB",
                    "max_wal_size": "2MB",
                    "min_wal_size": "2MB",
                }
            },
        },
        "application": {"user": APPLICATION, "database": APPLICATION},
    },
}


@pytest.fixture(scope="module")
def shared():
    """Instead of the cluster that all other tests share."""
    shared = Shared(lambda: Cluster(config=LITTLE_WAL))
    yield shared
    shared.end()


def test_r15_a_standby_that_was_away_for_too_long_is_cloned(cluster):
    primary, away = cluster.primary(), cluster.standbys()[0]
    with Ledger(cluster) as ledger:
        away.lose_host()
        away.mark_log()
        write_and_remove_wal(primary)
        cluster.wait_until(lambda: "lost" not in slots(primary).values(), 10, "the slot is made anew")
        away.start()
        assert cluster.wait_whole() is primary
        ledger.audit(primary).expect_no_loss()
    assert away.jobs() == [("clone", "done")]
    expect_same_everywhere(cluster)


def test_r15_an_old_primary_whose_successor_has_not_kept_enough_wal_is_cloned(cluster):
    """pg_rewind goes well and leaves a directory that waits for that WAL."""
    old = cluster.primary()
    with Ledger(cluster) as ledger:
        go_on_alone(old, ledger)
        ledger.wait_for_writes(2 * TTL_S)
        write_and_remove_wal(cluster.primary())
        old.mark_log()
        old.start()
        new = cluster.wait_whole()
        ledger.audit(new).expect_one_at_a_time()
    assert old.jobs() == [("rewind", "failed"), ("clone", "done")]
    expect_same_everywhere(cluster)


def write_and_remove_wal(primary):
    for _ in range(3 * SLOT_KEEPS_MB):
        primary.order("SELECT pg_logical_emit_message(false, 'tests', 'so that there is something to switch')")
        primary.order("SELECT pg_switch_wal()")
    primary.order("CHECKPOINT")


def slots(primary):
    return dict(primary.order("SELECT slot_name, wal_status FROM pg_replication_slots"))
