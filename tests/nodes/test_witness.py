"""Two nodes with PostgreSQL and a witness: any one of the three may be lost."""

import shutil
import signal
import time

import pytest

from tests.harness.cluster import FAILOVER_LIMIT_S, TTL_S, Cluster
from tests.harness.ledger import Ledger, expect_same_everywhere
from tests.harness.shared import Shared


@pytest.fixture(scope="module")
def two_and_a_witness():
    def make():
        cluster = Cluster(3, roles={"n3": "witness"})
        # its host has no PostgreSQL
        cluster["n3"].config["postgresql"]["bin_dir"] = "/nowhere/bin"
        return cluster

    shared = Shared(make)
    yield shared
    shared.end()


@pytest.fixture
def cluster(two_and_a_witness):
    return two_and_a_witness.whole()


def test_a_witness_has_a_vote_and_an_api_and_nothing_of_postgresql(cluster):
    witness, primary = cluster["n3"], cluster.primary()

    assert not list(witness.directory.glob("data*"))
    assert not (witness.directory / "guard").exists()
    assert len(witness.everything()) == 1, "the node process alone"
    assert [witness.health(path) for path in ("/primary", "/replica", "/health", "/readiness")] == [503] * 4
    assert witness.health("/liveness") == 200
    slots = {name for (name,) in primary.sql("SELECT slot_name::text FROM pg_replication_slots")}
    assert slots == {f"appliance_{node.name}" for node in cluster.standbys()}
    refused = primary.command("switchover", "--to", "n3", "--yes")
    assert refused.returncode == 4
    assert "is a witness and has no PostgreSQL" in refused.stderr
    assert "witness" in witness.command("status").stdout
    assert f":{witness.place.postgres_port}" not in witness.command("dsn").stdout


def test_the_host_of_the_primary_is_lost_and_the_standby_takes_over(cluster):
    old = cluster.primary()
    with Ledger(cluster) as ledger:
        old.lose_host()
        lost_s = time.monotonic()
        assert ledger.wait_for_writes(2 * TTL_S).acked_s - lost_s < FAILOVER_LIMIT_S
        old.start()
        new = cluster.wait_whole()
        audit = ledger.audit(new)
    assert new is not old
    audit.expect_no_loss()
    expect_same_everywhere(cluster)


def test_the_loss_of_the_witness_is_not_noticed_by_clients(cluster):
    primary, witness = cluster.primary(), cluster["n3"]
    with Ledger(cluster) as ledger:
        witness.lose_host()
        cluster.wait_until(lambda: primary.view()["verdict"] == "degraded", 5, "the loss is shown")
        ledger.wait_for_writes(2)
        witness.start()
        assert cluster.wait_whole() is primary
        audit = ledger.audit(primary)
    audit.expect_no_loss()
    # it may have led Raft: until there is another raft leader nothing but the lease goes on
    assert audit.longest_gap_s() < 1
    assert witness.end(signal.SIGINT) == 0
    witness.start()
    cluster.wait_whole()


def test_r13a_the_witness_is_left_and_goes_on_with_data_whose_journal_is_lost(cluster):
    lost, left, witness = cluster.primary(), cluster.standbys()[0], cluster["n3"]
    lost.sql("CREATE TABLE told AS SELECT 1 AS row")
    cluster.wait_until(lambda: left.sql("SELECT * FROM told"), 10, "the other host has it")
    for node in cluster:
        node.lose_host()
    shutil.rmtree(left.directory / "raft")
    command = ["raft", "recover", "--allow-data-loss", "--dead", lost.name, "--dead", left.name, "--yes"]
    refused = witness.command(*command)
    assert (refused.returncode, "data.kept" in refused.stderr) == (4, True)
    recovered = witness.command(*command, "--keep-data", left.name)
    assert recovered.returncode == 0, recovered.stderr

    witness.start()
    left.start()
    cluster.wait_until(left.writable, 40, "its data goes on")
    assert left.sql("SELECT * FROM told") == [(1,)]
    shutil.rmtree(lost.directory / "raft")
    lost.start()
    cluster.wait_until(lambda: "of another history" in doing(lost), 30, "the other data is refused")
    shutil.rmtree(lost.data_dir)
    assert cluster.wait_whole(60) is left


def doing(node):
    return next(member["doing"] for member in node.view()["members"] if member["name"] == node.name)


def test_a_cluster_is_not_bootstrapped_on_a_witness():
    with Cluster(3, roles={"n3": "witness"}) as cluster:
        cluster.start()
        witness = cluster["n3"]
        cluster.wait_until(lambda: len(witness.view()["members"]) == 3, 20, "all have announced themselves")
        refused = witness.command("bootstrap")
        assert refused.returncode == 4
        assert "bootstrap.witness" in refused.stderr
        cluster.bootstrap("n2")
        assert cluster.wait_whole() is cluster["n2"]


def test_a_host_with_a_data_directory_does_not_become_a_witness(cluster):
    node = cluster.standbys()[0]
    assert node.end(signal.SIGINT) == 0
    node.config["role"] = "witness"
    node.start()
    assert node.wait(15) == 1
    assert "holds a data directory" in node.log_file.read_text()
    del node.config["role"]
    node.start()
    cluster.wait_whole()
