"""Networks that part, in every direction, while clients write on both sides: one primary at a time, always."""

import time

import pytest

from tests.harness.cluster import FAILOVER_LIMIT_S, TTL_S
from tests.harness.ledger import Ledger, expect_same_everywhere


@pytest.mark.parametrize("together", [True, False], ids=["with the raft leader", "without the raft leader"])
def test_a_parted_primary_stops_before_another_opens(cluster, network, together):
    """Its client stands beside it and could go on writing for ever."""
    _move_primary(cluster, together)
    old, others = sides(cluster)
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


def test_a_lost_host_is_replaced_within_ttl_and_a_little(cluster, network):
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
    audit.expect_loss_only_after(lost_s - 0.5, 0.5)
    expect_same_everywhere(cluster)


def test_a_client_of_a_host_that_vanished_without_a_word_goes_to_the_new_primary(cluster, network):
    """As `appliance dsn` tells it to: by the kernel's own limits it would wait a quarter of an hour for an answer."""
    old, others = sides(cluster)
    with Ledger(cluster, enter=network.enter()) as ledger:
        network.unplug(old.name)
        vanished_s = time.monotonic()
        back = ledger.wait_for_writes(2 * TTL_S, others)
        assert back.acked_s - vanished_s < FAILOVER_LIMIT_S + 3, "3 s for one attempt at the host that is away"
        network.heal()
        new = cluster.wait_whole()
        audit = ledger.audit(new)
    assert new in others
    audit.expect_loss_only_after(vanished_s - 0.5, TTL_S)
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
    audit.expect_loss_only_after(cut_s - 0.5, TTL_S)
    expect_same_everywhere(cluster)


def _move_primary(cluster, to_raft_leader):
    """To the raft leader's host, or away from it."""
    primary, others = sides(cluster)
    leader = primary.view()["raft"]["leader"]
    if (primary.name == leader) is not to_raft_leader:
        target = leader if to_raft_leader else others[0].name
        done = primary.post("switchovers", {"to": target}, wait="30s")
        assert done.status == 200, done.body
        cluster.wait_whole()


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
        time.sleep(2)
        assert not old.writable()
        network.heal()
        new = cluster.wait_whole()
        assert new is cluster[first.node]
        audit = ledger.audit(new)
    audit.expect_loss_only_after(cut_s - 0.5, TTL_S)
    assert audit.lost, "the old primary's client was to write on after the cut"
    assert [node for node, _ in audit.epochs()] == [old.name, new.name]
    expect_same_everywhere(cluster)
