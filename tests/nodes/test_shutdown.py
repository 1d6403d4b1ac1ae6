"""A node that is shut down in order (SIGINT, as `systemctl stop` and the end of a host send it) hands over first."""

import signal
import time

import pytest

from tests.harness.cluster import Cluster
from tests.harness.ledger import Ledger, expect_same_everywhere
from tests.harness.processes import send
from tests.nodes.test_synchronous import last_change, waited_for

GAP_S = 3.0
"""A switchover takes some tenths of a second; on a machine that is busy with other things more."""


@pytest.fixture
def cluster():
    with Cluster(3) as cluster:
        cluster.up().wait_whole()
        wait_settled(cluster)
        yield cluster


def wait_settled(cluster):
    standbys = {node.name for node in cluster.standbys()}
    cluster.wait_until(lambda: waited_for(cluster) == (1, standbys), 15, "any of both is waited for")


def shut_down(node, limit_s=30):
    """How long it took; nothing of it is left."""
    began_s = time.monotonic()
    node.tell(signal.SIGINT)
    assert node.wait(limit_s) == 0
    took_s = time.monotonic() - began_s
    until_s = time.monotonic() + 5
    while left := node.everything():
        assert time.monotonic() < until_s, left
        time.sleep(0.05)
    return took_s


def test_one_node_after_the_other_is_shut_down_and_no_acknowledged_commit_is_lost(cluster):
    """The primary hands over, whoever leads Raft; a standby leaves the set first, so that no commit waits for it."""
    with Ledger(cluster) as ledger:
        for on_leader in (False, True):
            primary, standbys = cluster.primary(), cluster.standbys()
            cluster.lead(primary if on_leader else standbys[1])
            took_s = shut_down(primary)
            (ended,) = primary.logged("handover.ended")
            after = cluster.primary()
            print(f"primary shut down in {took_s:.2f} s, handed over in {ended['seconds']:.2f} s")
            assert (ended["phase"], ended["primary"]) == ("done", after.name)
            assert f"({primary.name} is shut down)" in last_change(after)
            assert cluster.wait_until(cluster.raft_leader, 5, "Raft is led") is not primary
            primary.start()
            cluster.wait_whole()
            wait_settled(cluster)
        audit = ledger.audit(cluster.primary())
    print(f"longest gap {audit.longest_gap_s():.3f} s")
    audit.expect_no_loss()
    assert audit.longest_gap_s() < GAP_S
    expect_same_everywhere(cluster)


def test_a_standby_that_is_shut_down_holds_no_commit_up(cluster):
    """With two in the set and both shut down one after the other, also the one that leads Raft."""
    cluster.lead(cluster.standbys()[0])
    first, second = cluster.standbys()
    with Ledger(cluster) as ledger:
        for standby in (first, second):
            print(f"standby shut down in {shut_down(standby):.2f} s")
            if standby is first:
                cluster.wait_until(lambda: waited_for(cluster) == (1, {second.name}), 5, "it is waited for no more")
            ledger.wait_for_writes(5)
            if standby is first:
                first.start()
                cluster.wait_whole()
                wait_settled(cluster)
        audit = ledger.audit(cluster.primary())
    print(f"longest gap {audit.longest_gap_s():.3f} s")
    audit.expect_no_loss()
    assert audit.longest_gap_s() < 1


def test_the_last_one_with_data_simply_stops_and_has_everything_when_it_comes_back(cluster):
    primary, standbys = cluster.primary(), cluster.standbys()
    with Ledger(cluster) as ledger:
        for standby in standbys:
            standby.lose_host()
        took_s = shut_down(primary)
        print(f"shut down in {took_s:.2f} s without anybody")
        assert took_s < 15
        ledger.stop()
        for node in cluster:
            node.start()
        audit = ledger.audit(cluster.wait_whole())
    audit.expect_no_loss()
    expect_same_everywhere(cluster)


def test_all_nodes_are_shut_down_at_the_same_moment(cluster):
    with Ledger(cluster) as ledger:
        for node in cluster:
            node.tell(signal.SIGINT)
        began_s = time.monotonic()
        for node in cluster:
            assert node.wait(60) == 0
        print(f"all shut down in {time.monotonic() - began_s:.2f} s")
        ledger.stop()
        cluster.start()
        audit = ledger.audit(cluster.wait_whole())
    audit.expect_no_loss()
    expect_same_everywhere(cluster)


def test_a_standby_whose_wal_receiver_hangs_does_not_hold_the_hand_over_up(cluster):
    primary, (target, hung) = cluster.primary(), cluster.standbys()
    receiver = hung.walreceiver()
    with Ledger(cluster) as ledger:
        send(receiver, signal.SIGSTOP)
        try:
            took_s = shut_down(primary)
        finally:
            send(receiver, signal.SIGCONT)
        ledger.wait_for_writes(5, [target])
        primary.start()
        audit = ledger.audit(cluster.wait_whole())
    print(f"shut down in {took_s:.2f} s, longest gap {audit.longest_gap_s():.3f} s")
    audit.expect_no_loss()
    assert audit.longest_gap_s() < GAP_S + 1
    expect_same_everywhere(cluster)


def test_a_second_signal_hurries(cluster):
    """A postmaster that is stopped ends only when somebody kills it."""
    for standby in cluster.standbys():
        standby.lose_host()
    primary = cluster.primary()
    send(primary.postmaster, signal.SIGSTOP)
    primary.tell(signal.SIGINT)
    time.sleep(1)
    assert primary.running
    assert shut_down(primary, 10) < 8
