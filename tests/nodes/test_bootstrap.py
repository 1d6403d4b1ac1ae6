"""The first minutes of a cluster: waiting, bootstrap once and only once, and what stands in its way."""

import signal
import time

from tests.harness.cluster import START_LIMIT_S, TTL_S, Cluster
from tests.harness.node import APPLICATION


def test_nodes_wait_for_a_bootstrap_and_form_a_cluster_after_one_command():
    with Cluster() as cluster:
        cluster.start()
        cluster.wait_until(
            lambda: all("appliance bootstrap" in node.view()["waiting_for"] for node in cluster),
            15,
            "all nodes wait for a bootstrap, and say so",
        )
        time.sleep(2 * TTL_S + 1)  # people take their time, and a node that never ran is no primary that is lost
        done = cluster["n2"].command("bootstrap", "--yes")
        assert done.returncode == 0, done
        assert cluster.wait_whole(START_LIMIT_S).name == "n2"
        assert (cluster["n2"].view()["epoch"], cluster["n2"].view()["timeline"]) == (1, 1)
        assert cluster["n1"].view()["system_identifier"] in done.stdout
        initialised = cluster["n2"].logged("job.ended", job="initialise", failed=False)
        assert [job["seconds"] > 0.1 for job in initialised] == [True], "the log says how long it took"


def test_a_node_alone_of_three_says_for_whom_it_waits():
    with Cluster() as cluster:
        node = cluster["n2"]
        node.start()
        cluster.wait_until(lambda: "n1, n3" in node.view()["waiting_for"], 15, "it waits for the others")
        alone = node.command("bootstrap", "--yes")
        assert alone.returncode == 3
        assert "no quorum, nothing was changed" in alone.stderr
        for other in ("n1", "n3"):
            assert f"{other} at {node.config['members'][other]}: Connection refused" in alone.stderr
        shown = node.command("status")
        assert shown.returncode == 3
        assert f"n3 at {node.config['members']['n3']}: Connection refused" in shown.stdout
        assert "raft.refused" not in shown.stdout, "nobody minds this node: they are not there"


def test_a_second_bootstrap_is_refused(cluster):
    before = cluster["n1"].view()
    again = cluster["n3"].command("bootstrap", "--yes")
    assert again.returncode == 4
    assert "bootstrap.done" in again.stderr + again.stdout
    assert "move it away" not in again.stderr + again.stdout, "nobody is told to take a running cluster's data away"
    assert cluster["n1"].post("bootstrap").body["code"] == "bootstrap.done"
    assert cluster["n1"].view()["epoch"] == before["epoch"]


def test_bootstrap_leaves_a_directory_with_other_files_alone():
    with Cluster(1) as cluster:
        node = cluster["n1"]
        node.data_dir.mkdir()
        letter = node.data_dir / "letter.txt"
        letter.write_text("not a database")
        cluster.start()
        cluster.wait_until(lambda: node.view()["quorum"], 15, "the node is up")
        refused = node.command("bootstrap", "--yes")
        assert refused.returncode == 4
        assert "bootstrap.directory_not_empty" in refused.stderr + refused.stdout
        assert [file.name for file in node.data_dir.iterdir()] == ["letter.txt"]
        assert not node.view()["system_identifier"]


def test_values_that_postgresql_refuses_are_refused_before_anything_is_made():
    """The first configuration cannot be changed later: a cluster that cannot start would have to be thrown away."""
    wrong = {"shared_buffers": "abc", "max_conections": 5, "work_mem": "1MB"}
    with Cluster(1, config=_bootstrap_with(wrong)) as cluster:
        node = cluster["n1"]
        cluster.start()
        cluster.wait_until(lambda: node.view()["quorum"], 15, "the node is up")
        for words in (["bootstrap", "--yes"], ["bootstrap", "--dry-run"]):
            refused = node.command(*words)
            assert refused.returncode == 4, refused
            assert "(bootstrap.parameters)" in refused.stderr
            assert "parameters.shared_buffers: 'abc' is refused by PostgreSQL" in refused.stderr
            assert "did you mean max_connections?" in refused.stderr
            assert "work_mem" not in refused.stderr
        assert not node.data_dir.exists()
        assert node.view()["failed_bootstrap"] is None


def test_a_bootstrap_whose_postgresql_does_not_start_is_given_up_and_can_be_repeated():
    wrong = _bootstrap_with({"superuser_reserved_connections": 200})
    del wrong["bootstrap"]["application"]  # forgotten too: it is given a password at the second try
    with Cluster(1, config=wrong) as cluster:
        node = cluster["n1"]
        cluster.start()
        cluster.wait_until(lambda: node.view()["quorum"], 15, "the node is up")
        failed = node.command("bootstrap", "--yes")
        assert failed.returncode == 1, failed
        reason = "superuser_reserved_connections (200) must be less than max_connections (100)"
        assert reason in failed.stderr
        shown = node.command("status").stdout
        assert "bootstrap.failed" in shown
        assert reason in shown
        assert not node.data_dir.exists()
        node.config.update(_bootstrap_with({"superuser_reserved_connections": 5}))
        node.end(signal.SIGTERM)
        node.start()
        cluster.wait_until(lambda: node.view()["quorum"], 15, "the node is up")
        assert node.command("bootstrap", "--yes").returncode == 0
        assert cluster.wait_whole(START_LIMIT_S).view()["failed_bootstrap"] is None


def test_a_local_value_that_postgresql_refuses_ends_the_start_with_its_key():
    with Cluster(1) as cluster:
        node = cluster["n1"]
        node.config["postgresql"]["parameters"] = {"work_mem": "a lot"}
        node.start()
        assert node.wait(15) == 1
        said = node.log_file.read_text()
        assert said.startswith("appliance: postgresql.parameters.work_mem: 'a lot' is refused by PostgreSQL")
        assert said.count("\n") == 1


def _bootstrap_with(parameters):
    return {
        "bootstrap": {
            "config": {"ttl": f"{TTL_S:g}s", "postgresql": {"parameters": parameters}},
            "application": {"user": APPLICATION, "database": APPLICATION},
        }
    }


def test_one_node_alone_is_a_cluster():
    with Cluster(1) as cluster:
        cluster.start()
        cluster.bootstrap()
        assert cluster.wait_whole(START_LIMIT_S).name == "n1"
        assert cluster["n1"].health("/primary") == 200
