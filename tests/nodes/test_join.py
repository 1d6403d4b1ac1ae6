"""A fourth node comes with one line: from `members add` to a voter whose PostgreSQL streams.

In the clear, and each refusal: tests/raft/test_registrar.py.
"""

from dataclasses import replace

import yaml

from tests.harness.cluster import Cluster
from tests.harness.node import Node
from tests.harness.places import free_ports, give


def newcomer(cluster, name):
    """A node with nothing but a file that says where things go."""
    like, (raft, http, postgres) = cluster["n1"], free_ports(3)
    place = replace(like.place, raft_port=raft, http_port=http, postgres_port=postgres)
    directory = cluster.directory / name
    text = yaml.safe_dump(like.config)
    for old, new in (
        (str(like.directory), str(directory)),
        (f":{like.place.raft_port}", f":{raft}"),
        (f":{like.place.http_port}", f":{http}"),
        (f":{like.place.postgres_port}", f":{postgres}"),
    ):
        text = text.replace(old, new)
    members = {**like.config["members"], name: f"{place.host}:{raft}"}
    tls = {what: str(directory / "tls" / f"{what}.pem") for what in ("ca", "cert", "key")}
    node = Node(directory, place, yaml.safe_load(text) | {"name": name, "members": members, "tls": tls})
    node.config_file.write_text(yaml.safe_dump(node.config))
    give(node.config_file)
    return node


def test_a_node_joins_a_running_cluster_and_carries_on_for_it():
    with Cluster() as cluster:
        cluster.up()
        cluster.entrust(cluster["n2"])
        made = cluster["n3"].command("members", "add", "n4")
        assert made.returncode == 0, made.stderr
        line = made.stdout.split()
        assert line[:3] == ["appliance", "join", "--token"]
        n4 = newcomer(cluster, "n4")
        joined = n4.command("join", "--token", line[3])
        assert joined.returncode == 0, joined.stderr
        again = n4.command("join", "--token", line[3])
        assert again.returncode == 0, again.stderr
        cluster.nodes["n4"] = n4
        n4.start()
        cluster.wait_whole(60)
        cluster.wait_until(lambda: voters(cluster["n2"]) == {"n1", "n2", "n3", "n4"}, 20, "n4 votes")

        cluster.primary().lose_host()
        lost = next(node for node in cluster if not node.running)
        del cluster.nodes[lost.name]
        primary = cluster.wait_until(cluster._open_primary, 20, "another primary is open")
        primary.sql("CREATE TABLE public.after AS SELECT 1 AS id")
        other = next(node for node in cluster if node is not primary)
        cluster.wait_until(lambda: other.sql("SELECT id FROM public.after") == [(1,)], 20, "the others follow")
        cluster.nodes[lost.name] = lost
        lost.start()
        cluster.wait_whole(60)


def voters(node):
    return set(node.logged("raft.members_changed")[-1]["voters"])
