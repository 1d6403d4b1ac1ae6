"""`failsafe_mode`: two of three voters are gone, and the primary goes on as long as its synchronous standby promises.

n1 and n2 have PostgreSQL, n2 without a vote in Raft; n3 and n4 are witnesses.
"""

import os
import signal
import time
from urllib.request import urlopen

from tests.harness.cluster import TTL_S, Cluster
from tests.harness.ledger import Ledger, expect_same_everywhere

ROLES = {"n2": "learner", "n3": "witness", "n4": "witness"}
VOUCHING = {"mode": "quorum", "k": 1, "members": ["n2"], "settled": True, "failsafe": True}
CONFIG = {
    "bootstrap": {
        "config": {"ttl": f"{TTL_S:g}s", "failsafe_mode": True},
        "application": {"user": "app", "database": "app"},
    }
}


def test_r16_a_primary_without_a_quorum_goes_on_until_its_standby_does_not_promise():
    with Cluster(4, config=CONFIG, roles=ROLES).up() as cluster:
        primary, standby, witnesses = cluster["n1"], cluster["n2"], [cluster["n3"], cluster["n4"]]
        cluster.wait_until(lambda: primary.view()["sync"] == VOUCHING, 20, "n2 is waited for")
        cluster.wait_until(lambda: doing(primary) == "primary of epoch 1", 10, "the synchronous set is final")
        with Ledger(cluster) as ledger:
            ledger.wait_for_writes(5)
            for node in witnesses:
                node.lose_host()
            lost_s = time.monotonic()
            while time.monotonic() - lost_s < 2.5 * TTL_S:
                ledger.wait_for_writes(2)
                time.sleep(0.2)
            _goes_on(primary)
            os.kill(standby.pid, signal.SIGSTOP)
            stopped_s = time.monotonic()
            cluster.wait_until(lambda: primary.writable() is False, 2 * TTL_S, "nobody vouches for it any more")
            assert ledger.last().acked_s - stopped_s < TTL_S
            os.kill(standby.pid, signal.SIGCONT)
            for node in witnesses:
                node.start()
            new = cluster.wait_whole(60)
            ledger.wait_for_writes(5)
            audit = ledger.audit(new)
        audit.expect_no_loss()
        expect_same_everywhere(cluster)


def test_r16_a_promise_outlives_the_process_that_gave_it():
    """Its standby is started anew, hears of a quorum and could be elected; the lease that it vouched for runs."""
    with Cluster(4, config=CONFIG, roles=ROLES).up() as cluster:
        primary, standby, witnesses = cluster["n1"], cluster["n2"], [cluster["n3"], cluster["n4"]]
        cluster.wait_until(lambda: primary.view()["sync"] == VOUCHING, 20, "n2 is waited for")
        cluster.wait_until(lambda: doing(primary) == "primary of epoch 1", 10, "the synchronous set is final")
        for node in witnesses:
            node.lose_host()
        cluster.wait_until(lambda: doing(primary).endswith("on the word of n2"), 2 * TTL_S, "n2 vouches for it")
        primary.tell(signal.SIGSTOP)
        try:
            for node in witnesses:
                node.start()
            leads = lambda: standby.view()["raft"]["leader"] in {"n3", "n4"}  # noqa: E731
            cluster.wait_until(leads, TTL_S, "there is a quorum")
            standby.end(signal.SIGKILL)
            begun_s = time.monotonic()
            standby.start()
            cluster.wait_until(standby.writable, 30, "n2 takes over")
            taken_s = time.monotonic() - begun_s
            assert not primary.writable()
        finally:
            primary.tell(signal.SIGCONT)
        print(f"taken over {taken_s:.1f} s after the start of its process")
        assert taken_s > 1.01 * TTL_S, "a ttl on the slowest clock, from the start of the process on"
        assert cluster.wait_whole(60) is standby


def _goes_on(primary):
    assert primary.view()["quorum"] is False
    assert doing(primary).endswith("without a quorum, on the word of n2")
    assert primary.health("/primary") == 200
    assert primary.logged("lease.vouched")[-1]["by"] == ["n2"]
    with urlopen(f"http://{primary.place.host}:{primary.place.http_port}/metrics") as answer:
        metrics = answer.read().decode()
    values = {line.partition("{")[0]: line.rpartition(" ")[2] for line in metrics.splitlines() if line[:1] != "#"}
    assert float(values["patroni_failsafe_mode_is_active"]) == 1


def doing(node):
    return next(member["doing"] for member in node.view()["members"] if member["name"] == node.name)
