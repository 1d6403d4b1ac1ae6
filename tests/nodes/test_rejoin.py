"""How a node whose data went another way, or went missing, comes back; nothing is thrown away before there is more."""

import hashlib
import os
import shutil
import signal
import subprocess
import time

import pytest

from tests.harness.cluster import TTL_S, Cluster
from tests.harness.ledger import Ledger, expect_same_everywhere
from tests.harness.node import APPLICATION
from tests.harness.places import give
from tests.harness.processes import send


def test_a_primary_that_went_on_alone_is_rewound(cluster):
    """Its last commits reached nobody: they are lost, as asynchronous mode allows, and no longer on its disk."""
    old = cluster.primary()
    with Ledger(cluster) as ledger:
        alone_s = go_on_alone(old, ledger)
        ledger.wait_for_writes(2 * TTL_S)
        old.start()
        new = cluster.wait_whole()
        audit = ledger.audit(new)
    audit.expect_loss_only_after(alone_s - 0.5, 2)
    assert audit.lost
    assert old.jobs() == [("rewind", "done")]
    expect_same_everywhere(cluster)


def test_a_standby_without_its_directory_clones_again(cluster):
    primary, standby = cluster.primary(), cluster.standbys()[0]
    standby.lose_host()
    shutil.rmtree(standby.data_dir)
    standby.start()
    assert cluster.wait_whole() is primary
    assert standby.jobs() == [("clone", "done")]
    assert standby.logged("job.ended", job="clone")[0]["seconds"] > 0, "as long as the job took"


def test_r12_where_a_rewind_is_impossible_the_node_clones_and_keeps_the_old_directory(cluster):
    old = cluster.primary()
    with Ledger(cluster) as ledger:
        go_on_alone(old, ledger)
        ledger.wait_for_writes(2 * TTL_S)
        lose_wal(old)
        (old.data_dir / "note.txt").write_text("kept once")
        old.start()
        new = cluster.wait_whole()
        ledger.audit(new).expect_one_at_a_time()
    assert (old.directory / "data.replaced" / "note.txt").read_text() == "kept once"
    assert old.jobs()[0] == ("rewind", "failed")
    assert old.jobs()[-1] == ("clone", "done")
    expect_same_everywhere(cluster)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small file system: needs root")
def test_a_disk_that_fills_during_a_clone_leaves_the_old_data_intact():
    with Cluster(2, config={"bootstrap": WITHOUT_REWIND}) as cluster:
        disk = cluster["n2"].directory / "disk"
        disk.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=160m,mode=700", "tested", disk], check=True)
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


WITHOUT_REWIND = {
    "config": {"ttl": f"{TTL_S:g}s", "postgresql": {"use_pg_rewind": False}},
    "application": {"user": APPLICATION, "database": APPLICATION},
}


def go_on_alone(primary, ledger):
    """It acknowledges commits that no standby gets, then everything of it dies; the moment replication ended."""
    for pid, line in primary.postgres_processes().items():
        if "walsender" in line:
            send(pid, signal.SIGSTOP)
    alone_s = time.monotonic()
    ledger.wait_for_writes(5, more=50)
    primary.lose_host()
    return alone_s


def lose_wal(node):
    for segment in (node.data_dir / "pg_wal").glob("0000*"):
        segment.unlink()


def digest(directory):
    return {
        str(file.relative_to(directory)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in directory.rglob("*")
        if file.is_file()
    }


def database_bytes(node):
    return int(node.sql("SELECT pg_tablespace_size('pg_default')")[0][0])


def fill(file, *, free_bytes):
    usage = shutil.disk_usage(file.parent)
    file.write_bytes(b"\0" * (usage.free - free_bytes))
