"""Raft is led from another host than the primary's, so that losing that host is detected once."""

import signal
import threading
import time

import pytest

from tests.harness.cluster import FAILOVER_LIMIT_S, TTL_S, Cluster
from tests.harness.ledger import Ledger

SOON_S = 5.0
"""a second without a break, a look, a hand-over, and room on a machine that is busy"""
KEPT_S = 15.0
"""of the minute that a leadership stays which somebody gave to the primary"""


class Lease:
    """A context: the least that was left of the lease of this primary, once it has one; looks 20 times a second."""

    def __init__(self, primary):
        self._primary, self._seen_s, self._end = primary, [], threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._end.set()
        self._thread.join()

    def least_s(self):
        assert len(self._seen_s) > 20
        return min(self._seen_s)

    def _look(self):
        while not self._end.wait(0.05):
            left_s = self._primary.view()["lease"]["left_s"]
            if left_s is not None or self._seen_s:
                self._seen_s.append(left_s or 0.0)


def leader(cluster):
    """What the nodes that run say: one raft leader and its term, unless they do not agree."""
    said = [node.view()["raft"] for node in cluster if node.running]
    return {(raft["leader"], raft["term"]) for raft in said}


def wait_apart(cluster, limit_s=SOON_S):
    """Until another than the primary leads Raft; who that is."""
    primary = cluster.wait_whole()
    away = f"Raft is led by another than {primary.name}"
    return cluster.wait_until(lambda: {cluster.raft_leader()} - {None, primary}, limit_s, away).pop()


def expect_calm(cluster, seconds):
    """Nobody takes the leadership over, so it goes to and fro neither."""
    before = leader(cluster)
    until_s = time.monotonic() + seconds
    while time.monotonic() < until_s:
        assert leader(cluster) == before
        time.sleep(0.2)


def switch_to(cluster, node):
    def post(**query):
        return node.post("switchovers", {"to": node.name}, **query)

    cluster.wait_until(lambda: post(dry_run="true").status == 200, 15, f"{node.name} may become the primary")
    answer = post(wait="30s")
    assert (answer.status, answer.body["phase"]) == (200, "done"), answer.body


def hand_overs(cluster):
    return [line for node in cluster for line in node.logged("coordinator.proposed", rule="leadership")]


def test_after_the_bootstrap_another_than_the_primary_leads_and_that_stays_so():
    with Cluster(3) as cluster:
        cluster.start()
        first = cluster.wait_until(cluster.raft_leader, 15, "somebody leads")
        cluster.bootstrap(first.name)
        assert cluster.wait_whole() is first
        wait_apart(cluster)
        expect_calm(cluster, 5)
        (said,) = hand_overs(cluster)
        assert said["because"].startswith(f"{first.name} is the primary: the raft leadership goes to ")


def test_a_switchover_to_the_raft_leader_moves_the_leadership_away_and_no_renewal_is_late(cluster):
    for _ in range(2):
        cluster.lead(target := cluster.standbys()[0])
        with Ledger(cluster) as ledger, Lease(target) as lease:
            switch_to(cluster, target)
            wait_apart(cluster)
            expect_calm(cluster, 2)
            ledger.wait_for_writes(5, more=50)
            audit = ledger.audit(target)
        assert lease.least_s() > TTL_S / 2
        audit.expect_no_loss()
    assert len(hand_overs(cluster)) == 2


def test_a_hand_over_by_hand_to_the_primary_is_respected_for_a_while(cluster):
    primary = cluster.primary()
    cluster.lead(cluster.standbys()[0])
    with Lease(primary) as lease:
        done = primary.command("raft", "transfer-leader", "--to", primary.name, "--yes")
        assert done.returncode == 0, done.stderr
        cluster.wait_until(lambda: cluster.raft_leader() is primary, SOON_S, "all have heard of it")
        expect_calm(cluster, KEPT_S)
    assert lease.least_s() > TTL_S / 2
    assert cluster.primary() is primary
    # Another epoch ends what was asked for in this one.
    target = cluster.standbys()[0]
    switch_to(cluster, target)
    assert cluster.wait_whole() is target
    assert cluster.raft_leader() is primary


def test_a_lost_host_of_the_primary_is_detected_once(cluster):
    """The raft leader that deposes it is there already, and nobody counts from an election of its own."""
    lost, leads = cluster.primary(), cluster.standbys()[0]
    cluster.lead(leads)
    before = leader(cluster)
    with Ledger(cluster) as ledger:
        lost.lose_host()
        lost_s = time.monotonic()
        assert ledger.wait_for_writes(2 * TTL_S).acked_s - lost_s < FAILOVER_LIMIT_S
        assert leader(cluster) == before
        # Two are left. Whoever is the primary now, without its host there is no raft leader: nothing is moved.
        expect_calm(cluster, 5)
        lost.start()
        assert cluster.wait_whole() is not lost
    wait_apart(cluster)


def test_after_a_failover_to_the_raft_leader_another_one_leads(cluster):
    old, first = cluster.primary(), cluster.standbys()[0]
    cluster.lead(first)
    assert old.end(signal.SIGINT) == 0
    cluster.wait_until(lambda: cluster.primary() is not old, 2 * TTL_S, "another primary")
    old.start()
    assert cluster.wait_whole() is first, "of equals the first by name is appointed"
    wait_apart(cluster)
    expect_calm(cluster, 5)
    assert [line["node"] for line in hand_overs(cluster)] == [first.name]


@pytest.fixture(scope="module")
def with_a_witness():
    with Cluster(3, roles={"n3": "witness"}) as cluster:
        cluster["n3"].config["postgresql"]["bin_dir"] = "/nowhere/bin"
        yield cluster.up()


def test_with_a_witness_that_one_leads_whoever_is_the_primary(with_a_witness):
    cluster = with_a_witness
    for _ in range(2):
        cluster.lead(target := cluster.standbys()[0])
        switch_to(cluster, target)
        assert cluster.wait_whole() is target
        assert wait_apart(cluster) is cluster["n3"]
    expect_calm(cluster, 5)


def test_a_primary_with_one_other_voter_goes_on_leading(with_a_witness):
    """Neither of the two can lead without the other's host, so it does not matter who does."""
    cluster = with_a_witness
    cluster.lead(cluster["n3"])
    cluster.mark_logs()
    cluster["n3"].lose_host()
    leads = cluster.wait_until(
        lambda: {cluster.raft_leader()} - {None, cluster["n3"]}, 10, "one of the two leads"
    ).pop()
    if cluster.primary() is leads:
        switch_to(cluster, cluster.standbys()[0])
    switch_to(cluster, leads)
    expect_calm(cluster, SOON_S)
    assert cluster.raft_leader() is cluster.primary() is leads
    assert not hand_overs(cluster)
    cluster["n3"].start()
    cluster.wait_whole()
    assert wait_apart(cluster) is cluster["n3"]
