"""Networks that part where no commit waits for a standby: the lease alone keeps a second primary away (R3, R4)."""

import time

import pytest

from tests.harness.cluster import ASYNCHRONOUS, LEASE_LIMIT_S, TTL_S, Cluster
from tests.harness.ledger import Ledger, expect_same_everywhere
from tests.harness.network import Network
from tests.harness.shared import Shared

from .test_partitions import sides


@pytest.fixture(scope="module")
def network():
    """Beside the one that all other tests share."""
    return Network(name="async")


@pytest.fixture(scope="module")
def shared(network):
    shared = Shared(lambda: Cluster(network=network, settings=ASYNCHRONOUS))
    yield shared
    shared.end()


@pytest.mark.parametrize("together", [True, False], ids=["with the raft leader", "without the raft leader"])
def test_a_parted_primary_stops_before_another_opens(cluster, network, together):
    """Its client stands beside it and could go on writing for ever."""
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


def _fail_over(cluster, network, cut):
    """The old primary's own client, and one of the others: between them no moment with two primaries."""
    old, others = sides(cluster)
    with Ledger(cluster, enter=network.enter(), sides=[[old], others]) as ledger:
        cut_s = time.monotonic()
        cut()
        first = ledger.wait_for_writes(2 * TTL_S, others)
        assert first.acked_s - cut_s < LEASE_LIMIT_S
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
