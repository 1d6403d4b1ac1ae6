"""How a node whose data went missing comes back; nothing is thrown away before there is more."""

import hashlib
import os
import shutil
import subprocess

import pytest

from appliance.node.probe import FILE_NAME as PROBE_FILE
from tests.harness.cluster import Cluster
from tests.harness.places import give


def test_a_standby_without_its_directory_clones_again(cluster):
    primary, standby = cluster.primary(), cluster.standbys()[0]
    standby.lose_host()
    shutil.rmtree(standby.data_dir)
    standby.start()
    assert cluster.wait_whole() is primary
    assert standby.jobs() == [("clone", "done")]
    assert standby.logged("job.ended", job="clone")[0]["seconds"] > 0, "as long as the job took"


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small file system: needs root")
def test_a_disk_that_fills_during_a_clone_leaves_the_old_data_intact():
    with Cluster(2, settings={"postgresql": {"use_pg_rewind": False}}) as cluster:
        disk = cluster["n2"].directory / "disk"
        disk.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400m,mode=700", "tested", disk], check=True)
        give(disk)
        node = cluster["n2"]
        node.data_dir = disk / "data"
        node.config["postgresql"]["data_dir"] = str(node.data_dir)
        cluster.up()
        node.lose_host()
        (node.data_dir / "appliance.incarnation").unlink()
        before = digest(node.data_dir)
        ballast = disk / "ballast"
        # The check beforehand asks for what the data need; the WAL beside them then finds no room.
        fill(ballast, free_bytes=database_bytes(cluster["n1"]) + 4 * 2**20)
        node.mark_log()  # its very first clone may have failed too: the primary was still starting
        node.start()
        failed = cluster.wait_until(lambda: node.logged("job.ended", job="clone", failed=True), 30, "a clone fails")
        assert "No space left" in failed[0]["error"]
        assert digest(node.data_dir) == before
        ballast.unlink()
        cluster.wait_whole()


def digest(directory):
    return {
        str(file.relative_to(directory)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in directory.rglob("*")
        if file.is_file() and file.name != PROBE_FILE
    }


def database_bytes(node):
    return int(node.sql("SELECT pg_tablespace_size('pg_default')")[0][0])


def fill(file, *, free_bytes):
    usage = shutil.disk_usage(file.parent)
    file.write_bytes(b"\0" * (usage.free - free_bytes))
