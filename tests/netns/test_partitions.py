"""Networks that part, in every direction, while clients write on both sides: one primary at a time, always."""

import time

import pytest

from tests.harness.cluster import FAILOVER_LIMIT_S, TTL_S
from tests.harness.ledger import Ledger, expect_same_everywhere


@pytest.mark.parametrize("together", [True, False], ids=["with the raft leader", "without the raft leader"])
def test_r9_a_parted_primary_acknowledges_nothing_and_is_replaced(cluster, network, together):
    """Its client stands beside it and waits for ever."""
    old, others = sides(cluster)
    cluster.lead(old if together else others[0])
    _fail_over(cluster, network, lambda: network.part(old.name, [node.name for node in others]))


@pytest.mark.parametrize("deaf", ["primary", "others"])
def test_a_cut_in_one_direction_is_a_cut(cluster, network, deaf):
    old, others = sides(cluster)

    def cut():
        for other in others:
            host, to = (old, other) if deaf == "primary" else (other, old)
            network.deafen(host.name, to.name)

    _fail_over(cluster, network, cut)


def test_a_parted_standby_is_not_noticed_by_clients(cluster, network):
    primary, others = sides(cluster)
    parted = others[0]
    with Ledger(cluster, enter=network.enter(), sides=[[primary]]) as ledger:
        network.part(parted.name, [primary.name, others[1].name])
        cluster.wait_until(lambda: primary.view()["verdict"] == "degraded", 10, "the loss is shown")
        cluster.wait_until(lambda: parted.view()["verdict"] == "stale", 10, "it knows that it knows nothing new")
        time.sleep(TTL_S)  # long enough for it to stand for raft election again and again
        assert parted.writable() is False
        network.heal()
        assert cluster.wait_whole() is primary
        audit = ledger.audit(primary)
    audit.expect_no_loss()
    assert audit.longest_gap_s() < 1
    assert not parted.jobs()
    expect_same_everywhere(cluster)


def test_r9_a_lost_host_is_replaced_before_its_lease_ends(cluster, network):
    old, others = sides(cluster)
    with Ledger(cluster, enter=network.enter(), sides=[[old], others]) as ledger:
        network.unplug(old.name)
        old.lose_host()
        lost_s = time.monotonic()
        back = ledger.wait_for_writes(2 * TTL_S)
        assert back.acked_s - lost_s < FAILOVER_LIMIT_S
        network.heal()
        old.start()
        new = cluster.wait_whole()
        audit = ledger.audit(new)
    assert new in others
    audit.expect_no_loss()
    expect_same_everywhere(cluster)


def test_a_client_of_a_host_that_vanished_without_a_word_goes_to_the_new_primary(cluster, network):
    """As `appliance dsn` tells it to: by the kernel's own limits it would wait a quarter of an hour for an answer."""
    old, others = sides(cluster)
    with Ledger(cluster, enter=network.enter()) as ledger:
        network.unplug(old.name)
        vanished_s = time.monotonic()
        back = ledger.wait_for_writes(2 * TTL_S, others)
        # 3 s until the connection is given up, and 2 s for one attempt at the host that is away
        assert back.acked_s - vanished_s < 7
        network.heal()
        new = cluster.wait_whole()
        audit = ledger.audit(new)
    assert new in others
    audit.expect_no_loss()
    expect_same_everywhere(cluster)


def test_all_links_down_for_a_while(cluster, network):
    """Nobody has a quorum: nobody writes, and afterwards nothing is missing."""
    old, others = sides(cluster)
    with Ledger(cluster, enter=network.enter()) as ledger:
        cut_s = time.monotonic()
        network.part(old.name, [node.name for node in others])
        network.part(others[0].name, [others[1].name])
        cluster.wait_until(lambda: old.writable() is False, 2 * TTL_S, "it serves reads again, and takes no writes")
        time.sleep(TTL_S)
        assert ledger.last().acked_s - cut_s < TTL_S
        assert not any(node.writable() for node in cluster)
        network.heal()
        new = cluster.wait_whole()
        ledger.wait_for_writes(5)
        audit = ledger.audit(new)
    audit.expect_no_loss()
    expect_same_everywhere(cluster)


def sides(cluster):
    primary = cluster.primary()
    return primary, [node for node in cluster if node is not primary]


def _fail_over(cluster, network, cut):
    """The old primary's own client, and one of the others: between them no moment with two primaries."""
    old, others = sides(cluster)
    with Ledger(cluster, enter=network.enter(), sides=[[old], others]) as ledger:
        cut_s = time.monotonic()
        cut()
        first = ledger.wait_for_writes(2 * TTL_S, others)
        assert first.acked_s - cut_s < FAILOVER_LIMIT_S
        cluster.wait_until(lambda: not old.writable(), TTL_S, "the old primary takes no writes")
        network.heal()
        new = cluster.wait_whole()
        assert new is cluster[first.node]
        audit = ledger.audit(new)
    audit.expect_no_loss()
    assert [node for node, _ in audit.epochs()] == [old.name, new.name]
    expect_same_everywhere(cluster)
