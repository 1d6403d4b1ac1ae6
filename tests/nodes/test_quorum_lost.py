"""One of three nodes is left: it stops writes in time and says that it knows nothing new."""

import json
import time

from tests.harness.cluster import TTL_S
from tests.harness.ledger import Ledger, expect_same_everywhere


def test_a_primary_without_a_quorum_stops_writes_before_its_lease_ends(cluster):
    primary = cluster.primary()
    with Ledger(cluster) as ledger:
        for standby in cluster.standbys():
            standby.lose_host()
        lost_s = time.monotonic()
        cluster.wait_until(lambda: primary.writable() is False, 2 * TTL_S, "it serves reads again, and takes no writes")
        assert ledger.last().acked_s - lost_s < TTL_S
        cluster.wait_until(lambda: primary.health("/health") == 200, 3, "it is up, as a standby")
        _knows_nothing_new(primary)
        for node in cluster:
            if node is not primary:
                node.start()
        new = cluster.wait_whole()
        ledger.wait_for_writes(5)
        audit = ledger.audit(new)
    # It was there to vote, so what only it had is not lost, whoever won.
    audit.expect_no_loss()
    expect_same_everywhere(cluster)


def _knows_nothing_new(node):
    view = node.view()
    assert (view["verdict"], view["quorum"]) == ("stale", False)
    assert node.health("/primary") == 503
    shown = node.command("status")
    assert shown.returncode == 3
    assert "last known view" in shown.stdout
    assert json.loads(node.command("status", "-o", "json").stdout)["applied"]["age_s"] > 2
    explained = node.command("explain", "-o", "json")
    assert explained.returncode == 3
    assert json.loads(explained.stdout)["explanation"]["failover"]["code"] == "quorum.none"
    assert json.loads(explained.stdout)["explanation"]["primary"]["member"] == node.name
    refused = node.command("switchover", "--yes")
    assert refused.returncode == 3, refused
    assert node.sql("SELECT count(*) > 0 FROM ledger") == [(True,)]
