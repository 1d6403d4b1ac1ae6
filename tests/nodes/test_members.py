"""Roles of replicas, and members that leave: what is agreed becomes so, whoever leads Raft, and stays so."""

import shutil
import signal

from tests.harness.cluster import Cluster
from tests.harness.ledger import Ledger
from tests.harness.node import Place
from tests.harness.places import free_ports


def roles(node):
    return {name: replica["role"] for name, replica in node.view()["raft"]["members"].items()}


def slots(node):
    return {name for (name,) in node.sql("SELECT slot_name::text FROM pg_replication_slots")}


def test_a_learner_has_the_data_and_no_vote():
    with Cluster(3, roles={"n3": "learner"}) as cluster:
        learner, voters = cluster["n3"], {"n1": "voter", "n2": "voter", "n3": "learner"}
        cluster.start()
        # a learner that led Raft has handed over before
        cluster.wait_until(lambda: all(roles(node) == voters for node in cluster), 15, "n3 is a learner everywhere")
        cluster.bootstrap()
        cluster.wait_whole()
        table = cluster["n1"].command("members", "list", "-o", "tsv").stdout.splitlines()
        assert [line.split("\t")[1:6:4] for line in table[1:]] == [["data", "voter"]] * 2 + [["learner", "learner"]]
        cluster["n1"].sql("CREATE TABLE t AS SELECT 1 AS a")
        cluster.wait_until(lambda: learner.sql("SELECT a FROM t") == [(1,)], 10, "it has the data")

        learner.lose_host()
        cluster.wait_until(lambda: cluster["n1"].view()["verdict"] == "degraded", 5, "the loss is shown")
        assert "quorum.no_margin" not in {p["code"] for p in cluster["n1"].view()["problems"]}
        learner.start()
        cluster.wait_whole()

        assert cluster["n1"].command("switchover", "--to", "n3", "--yes").returncode == 0
        assert cluster.wait_whole() is learner
        assert roles(learner) == voters, "whoever is primary needs no vote in Raft"

        learner.end(signal.SIGTERM)
        learner.config["role"] = "data"
        learner.start()
        all_vote = dict.fromkeys(("n1", "n2", "n3"), "voter")
        cluster.wait_until(lambda: all(roles(node) == all_vote for node in cluster), 15, "n3 votes again")
        cluster.wait_whole()


def test_a_member_that_is_removed_stops_and_is_refused_from_then_on():
    """The one that leads Raft, which has to hand that over first."""
    with Cluster(3) as cluster:
        primary = cluster.up().wait_whole()
        leaving, staying = cluster.standbys()
        cluster.lead(leaving)
        for words, code in (
            (("members", "remove", primary.name, "--yes"), "member.last_primary"),
            (("members", "remove", "n9", "--yes"), "member.unknown"),
            (("members", "remove", leaving.name, "--yes"), "member.running"),
        ):
            refused = primary.command(*words)
            assert (refused.returncode, code in refused.stderr) == (4, True), refused
        with Ledger(cluster) as ledger:
            removed = primary.command("members", "remove", leaving.name, "--force", "--yes")
            assert removed.returncode == 0, removed
            ledger.wait_for_writes(5)
            audit = ledger.audit(primary)
        audit.expect_no_loss()
        assert set(roles(primary)) == {primary.name, staying.name}
        assert [m["name"] for m in primary.view()["members"]] == sorted({primary.name, staying.name})
        leaving.wait_postgres_gone(15)
        left = {f"appliance_{staying.name}"}
        cluster.wait_until(lambda: slots(primary) == left, 15, "its slot is gone")

        leaving.end(signal.SIGTERM)
        leaving.start()
        cluster.wait_until(lambda: leaving.view()["verdict"] == "stale", 15, "it has no quorum")
        assert "was removed" in leaving.view()["doing"]
        assert not leaving.view()["quorum"]
        assert slots(primary) == left
        assert set(roles(primary)) == {primary.name, staying.name}
        assert not leaving.postgres_processes()
        assert (leaving.data_dir / "PG_VERSION").exists(), "its data stay"

        cluster.entrust(primary)
        token = primary.command("members", "add", leaving.name).stdout.split()[3]
        leaving.lose_host()
        for path in leaving.directory.iterdir():
            if path not in {leaving.config_file, leaving.log_file}:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        joined = leaving.command("join", "--token", token)
        assert joined.returncode == 0, joined
        leaving.start()
        assert cluster.wait_whole() is primary
        cluster.wait_until(lambda: roles(primary) == dict.fromkeys(cluster.nodes, "voter"), 20, "it votes again")


def test_a_lost_member_is_removed_and_one_that_is_needed_is_not():
    with Cluster(3, roles={"n3": "witness"}) as cluster:
        primary = cluster.up().wait_whole()
        standby, witness = cluster.standbys()[0], cluster["n3"]
        witness.lose_host()
        cluster.wait_until(lambda: primary.view()["problems"], 10, "its silence is noticed")
        refused = primary.command("members", "remove", standby.name, "--force", "--yes")
        assert (refused.returncode, "quorum.kept" in refused.stderr) == (4, True), refused
        assert primary.command("members", "remove", "n3", "--yes").returncode == 0
        assert roles(primary) == {primary.name: "voter", standby.name: "voter"}
        primary.sql("CREATE TABLE t AS SELECT 1 AS a")

        witness.start()  # it was away, so only the others can tell it
        cluster.wait_until(
            lambda: "node.removed" in {problem["code"] for problem in witness.view()["problems"]}, 15, "it is told"
        )
        assert witness.logged("raft.removed", by=sorted([primary.name, standby.name]))
        assert "by the word of" in witness.command("raft", "status").stdout
        witness.lose_host()
        del cluster.nodes["n3"]
        cluster.wait_until(lambda: standby.sql("SELECT a FROM t") == [(1,)], 10, "the two go on")


def test_a_host_with_other_addresses_is_found_again_and_may_become_primary():
    """R1: a member is its replica, wherever that is. The others' files name the old place, and are not touched."""
    with Cluster(3) as cluster:
        primary = cluster.up().wait_whole()
        moving = cluster.standbys()[0]
        moving.lose_host()
        moving.place = Place("127.0.0.1", *free_ports(3))
        raft, http, postgres = (f"{moving.place.host}:{port}" for port in moving.place.ports)
        moving.config |= {
            "raft": {"listen": raft, "advertise": raft},
            "http": {"listen": http},
            "postgresql": {"listen": postgres},
        }
        moving.start()
        cluster.wait_whole()

        def places(node):
            view = node.view()
            (member,) = (m for m in view["members"] if m["name"] == moving.name)
            return view["raft"]["members"][moving.name]["address"], f"{member['host']}:{member['port']}"

        cluster.wait_until(lambda: all(places(node) == (raft, postgres) for node in cluster), 10, "all know the place")
        assert primary.command("switchover", "--to", moving.name, "--yes").returncode == 0
        assert cluster.wait_whole() is moving
