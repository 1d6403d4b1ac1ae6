"""What does not belong to the cluster, or stands where a node wants to be: said clearly, and nothing is harmed."""

import copy
import os
import re
import shutil
import socket
import subprocess
from dataclasses import replace

import pytest

from appliance.node.privileges import run_user
from appliance.postgres.binaries import find
from tests.harness.certificates import Certificates
from tests.harness.cluster import Cluster
from tests.harness.ledger import Ledger
from tests.harness.node import Node
from tests.harness.places import free_ports, fresh_directory, give


def test_the_data_directory_of_another_cluster_is_left_alone(cluster):
    node = cluster.standbys()[0]
    node.lose_host()
    own = node.data_dir.rename(node.directory / "own")
    initdb = [find().tool("initdb"), "-D", node.data_dir, "--no-sync"]
    subprocess.run(initdb, check=True, capture_output=True, cwd="/", user=run_user().pw_uid, group=run_user().pw_gid)
    before = (node.data_dir / "global" / "pg_control").read_bytes()
    node.start()
    said = cluster.wait_until(
        lambda: [node.view()["doing"]] if "belongs to system" in node.view()["doing"] else [], 15, "it says whose it is"
    )
    assert cluster.primary().view()["system_identifier"] in said[0]
    assert (node.data_dir / "global" / "pg_control").read_bytes() == before
    assert not node.postgres_processes()
    node.lose_host()
    shutil.rmtree(node.data_dir)
    own.rename(node.data_dir)
    node.start()
    cluster.wait_whole()


def test_a_data_directory_of_another_major_version_is_left_alone(cluster):
    node = cluster.standbys()[0]
    node.lose_host()
    version = node.data_dir / "PG_VERSION"
    own = version.read_text()
    version.write_text("9\n")
    node.start()
    cluster.wait_until(lambda: "is of PostgreSQL 9" in node.view()["doing"], 15, "it says so")
    assert not node.jobs()
    node.lose_host()
    version.write_text(own)
    node.start()
    cluster.wait_whole()


def test_a_node_of_another_cluster_is_refused(cluster):
    node = cluster.standbys()[0]
    node.lose_host()
    place = cluster.directory / "another"
    tls = Certificates(place, "another").deliver(node.name, node.place.host, place / node.name)
    stranger = _like(cluster, node, "stranger", cluster="another", tls=tls)
    stranger.start()
    why = "none of the trusted authorities has signed it"
    for other in cluster:
        if other is not node:
            cluster.wait_until(lambda other=other: why in _refusals(other), 15, f"{other.name} says why")
    assert not stranger.view()["quorum"]
    stranger.lose_host()
    node.start()
    cluster.wait_whole()


def test_a_node_in_the_clear_is_refused_where_the_others_speak_tls(cluster):
    node = cluster.standbys()[0]
    node.lose_host()
    stranger = _like(cluster, node, "in-the-clear", tls=None)
    stranger.start()
    for other in cluster:
        if other is not node:
            cluster.wait_until(lambda other=other: "is TLS off there?" in _away(other, node), 15, "the others say why")
    cluster.wait_until(lambda: stranger.logged("raft.unencrypted"), 15, "it says that it is in the clear")
    assert not stranger.view()["quorum"]
    stranger.lose_host()
    node.start()
    cluster.wait_whole()


def test_a_certificate_of_another_node_is_a_start_that_fails(cluster):
    node = cluster.standbys()[0]
    twin = _like(cluster, node, "mistaken", tls=cluster["n1"].config["tls"], name="n9")
    twin.config["members"] = {**twin.config["members"], "n9": "127.0.0.1:1"}
    twin.start()
    assert twin.wait(15) == 1
    assert "node.crt is for 'n1' of cluster 'tested', this is 'n9' of 'tested'" in twin.log_file.read_text()


def test_a_second_node_of_the_same_name_is_refused_and_the_first_goes_on(cluster):
    node = cluster.standbys()[0]
    twin = _like(cluster, node, "twin")
    raft, http, postgres = free_ports(3)
    twin.place = replace(node.place, raft_port=raft, http_port=http, postgres_port=postgres)
    twin.config["raft"] = {"listen": f"127.0.0.1:{raft}", "advertise": node.config["raft"]["listen"]}
    twin.config["http"] = {"listen": f"127.0.0.1:{http}"}
    twin.config["postgresql"] = {"listen": f"127.0.0.1:{postgres}"}
    with Ledger(cluster) as ledger:
        twin.start()
        cluster.wait_until(lambda: "twice" in twin.log_file.read_text() or _refusals(twin), 15, "the twin is told")
        ledger.wait_for_writes(5, more=200)
        assert not twin.postgres_processes()
        twin.lose_host()
        assert cluster.wait_whole()
        audit = ledger.audit(cluster.primary())
    audit.expect_no_loss()
    assert audit.longest_gap_s() < 1
    assert not node.jobs()


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user: needs root")
def test_another_user_of_the_host_is_told_that_it_may_not_and_how_else(cluster):
    node, place = cluster["n1"], fresh_directory()
    place.chmod(0o755)
    readable = shutil.copy(node.config_file, place)
    for words in (["status"], ["switchover", "--yes"]):
        found = node.command(*words, "--config", readable, user="nobody")
        assert found.returncode == 6, found
        assert "api.sock: permission denied; be root or the user whom the node runs as" in found.stderr
        unreadable = node.command(*words, user="nobody")
        assert unreadable.returncode == 6, unreadable
        assert f"{node.config_file}: permission denied" in unreadable.stderr
        assert unreadable.stderr.count("\n") == 1
    assert node.command("status", "--api", f"127.0.0.1:{node.place.http_port}", user="nobody").returncode == 0
    shutil.rmtree(place)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("notes.json", "{", "notes.json: Expecting property name"),
        ("credentials.json", "{}", "credentials.json cannot be read: no credentials"),
        ("api.token", b"\xfe", "api.token: it is no text; remove it"),
        ("api.token", "", "api.token: is empty; write a token into it"),
        ("api.token", None, "api.token: Is a directory; remove it"),
        ("pgpass", None, "pgpass: Is a directory"),
        ("guard", "", "guard: File exists"),
        ("raft", "", "raft: a file stands there or on the way: move it"),
    ],
    ids=str,
)
def test_what_is_broken_in_the_state_directory_is_one_line(name, content, said):
    with Cluster(1) as cluster:
        node, secrets = cluster["n1"], '{"replication": "a", "rewind": "b", "application": null}'
        broken = {"credentials.json": secrets, name: content} if name == "pgpass" else {name: content}
        for file, text in broken.items():
            path = node.directory / file
            if text is None:
                path.mkdir()
            else:
                path.write_bytes(text if isinstance(text, bytes) else text.encode())
            give(path)
        node.start()
        assert node.wait(30) == 1
        (line,) = node.log_file.read_text().splitlines()
        assert line.startswith("appliance: ")
        assert said in line


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small file system: needs root")
def test_a_state_directory_without_room_is_one_line():
    with Cluster(1) as cluster:
        node = cluster["n1"]
        state = node.directory / "state"
        state.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k,mode=700", "tested", state], check=True)
        give(state)
        (state / "ballast").write_bytes(bytes(64 << 10))
        node.config["state_dir"] = str(state)
        node.start()
        assert node.wait(30) == 1
        (line,) = node.log_file.read_text().splitlines()
        assert line == f"appliance: cannot start: state_dir {state}: No space left on device"


def test_without_postgresql_a_node_does_not_start_and_says_where_it_looked():
    with Cluster(1) as cluster:
        node = cluster["n1"]
        node.config["postgresql"]["bin_dir"] = "/nowhere/bin"
        node.start()
        assert node.wait(15) == 1
        assert "/nowhere/bin" in node.log_file.read_text()
        assert "Traceback" not in node.log_file.read_text()


@pytest.mark.parametrize("what", ["raft", "http"])
def test_a_taken_port_ends_the_start_with_its_number(what):
    with Cluster(1) as cluster:
        node = cluster["n1"]
        port = getattr(node.place, f"{what}_port")
        with _listening(port):
            node.start()
            assert node.wait(15) == 1
        said = node.log_file.read_text()
        assert f"{what}.listen: " in said
        assert f"127.0.0.1:{port}: Address already in use; end the process that has the port" in said
        assert "Traceback" not in said


def test_a_taken_postgresql_port_is_shown_and_waited_for():
    with Cluster(1) as cluster:
        node = cluster["n1"]
        with _listening(node.place.postgres_port):
            cluster.start()
            cluster.bootstrap()
            cluster.wait_until(lambda: _mentions(node, str(node.place.postgres_port)), 20, "the port is named")
        cluster.wait_whole()


def test_a_line_that_postgresql_refuses_is_shown_told_once_and_waited_for(cluster):
    node = cluster.standbys()[0]
    node.lose_host()
    file = node.data_dir / "postgresql.conf"
    own = file.read_text()
    file.write_text(f"{own}nonsense = 1\n")
    node.start()
    cluster.wait_until(lambda: _mentions(cluster.primary(), '"nonsense"'), 20, "everybody is told the reason")
    cluster.wait_until(lambda: re.search("[3-9] times in a row", node.view()["doing"]), 20, "it goes on trying")
    assert len(node.logged("action.failed")) == 1
    file.write_text(own)
    cluster.wait_whole()


def _mentions(node, text):
    view = node.view()
    return text in view["doing"] or any(text in problem["message"] + problem["hint"] for problem in view["problems"])


def _like(tested, node, directory, **other):
    """Another node with the same name and addresses, and a directory of its own."""
    place = tested.directory / directory
    config = {**copy.deepcopy(node.config), "state_dir": str(place), **other}
    return Node(place, node.place, config)


def _refusals(node):
    return " ".join(node.view()["raft"]["refusals"].values())


def _away(node, peer):
    return node.view()["raft"]["away"].get(peer.name, "")


def _listening(port):
    taken = socket.socket()
    taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    taken.bind(("127.0.0.1", port))
    taken.listen()
    return taken
