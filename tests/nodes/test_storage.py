"""What a primary lives on hangs, breaks or fills up: the disk under its data, that under its WAL, its postmaster."""

import os
import signal
import time

import psycopg
import pytest

from tests.harness.cluster import TTL_S, Cluster
from tests.harness.disk import Disk
from tests.harness.ledger import Ledger, expect_same_everywhere
from tests.harness.processes import send

HUNG_S = 2 * TTL_S
TAKE_OVER_S = HUNG_S + TTL_S + 6
"""Suspicion and election come after that; a node that leads Raft on the same host is replaced first."""
DISK_MIB = 700
FLOOR_MIB = 64

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounts file systems: needs root")


def on_disks(what="data"):
    """A cluster whose n1 has its data, its WAL alone, or all on a disk of its own; the disk. n1 is the primary."""
    cluster = Cluster()
    node = cluster["n1"]
    disk = Disk(node.directory if what == "all" else node.directory / "disk", DISK_MIB)
    if what == "wal":
        node.config["postgresql"]["wal_dir"] = str(disk.place / "wal")
    elif what == "data":
        node.data_dir = disk.place / "data"
        node.config["postgresql"]["data_dir"] = str(node.data_dir)
    return cluster, disk


def problems(node):
    return {p["code"] for p in node.view()["problems"]}


def said_of_storage(node):
    return "".join(p["message"] for p in node.view()["problems"] if p["code"] == "storage.stalled")


def another_primary(cluster, old):
    return next((node for node in cluster if node is not old and node.writable()), None)


@pytest.mark.timeout(240)
@pytest.mark.parametrize("what", ["data", "wal", "all"])
def test_a_primary_whose_disk_hangs_is_replaced_and_comes_back_when_it_answers_again(what):
    """With the journal and the notes on the same disk the node process hangs as well, and its lease runs out."""
    cluster, disk = on_disks(what)
    with cluster:
        old = cluster.up().primary()
        assert old.name == "n1"
        with Ledger(cluster) as ledger:
            ledger.wait_for_writes(5)
            try:
                with disk.frozen():
                    hung_s = time.monotonic()
                    new = cluster.wait_until(lambda: another_primary(cluster, old), TAKE_OVER_S, "another is open")
                    took_s = time.monotonic() - hung_s
                    ledger.wait_for_writes(10)
                    if what != "all":
                        cluster.wait_until(lambda: "storage.stalled" in problems(new), 5, "the status says so")
                        assert took_s > HUNG_S - 1.5, "a disk that stalls for a moment costs no failover"
            finally:
                disk.thaw()
            assert cluster.wait_whole() is new
            audit = ledger.audit(new)
        audit.expect_no_loss()
        expect_same_everywhere(cluster)


@pytest.mark.timeout(180)
def test_a_primary_whose_disk_hangs_stays_while_nobody_could_take_over():
    """The members that could are down; a quorum of replicas is not."""
    cluster, disk = on_disks()
    cluster["n3"].config["role"] = "witness"
    with cluster:
        old = cluster.up().primary()
        postmaster, epoch = old.postmaster, old.view()["epoch"]
        assert cluster["n2"].end(signal.SIGINT) == 0
        alone = {"mode": "quorum", "k": 0, "members": [], "settled": True, "failsafe": False}
        cluster.wait_until(lambda: old.view()["sync"] == alone, 10, "nobody is waited for, and nothing is to be loaded")
        with disk.frozen():
            cluster.wait_until(lambda: "storage.stalled" in problems(old), 10, "the status says so")
            time.sleep(HUNG_S + 3)
            (found,) = (p for p in old.view()["problems"] if p["code"] == "storage.stalled")
            assert found["severity"] == "critical"
            assert "nobody else could take over" in found["hint"]
        cluster.wait_until(lambda: "storage.stalled" not in problems(old), 5, "it answers again")
        old.sql("SELECT txid_current()")
        assert (old.postmaster, old.view()["epoch"]) == (postmaster, epoch)


@pytest.mark.timeout(180)
def test_a_primary_whose_disk_breaks_is_replaced():
    """Everything on it fails with an I/O error: PostgreSQL ends by itself."""
    cluster, disk = on_disks()
    with cluster:
        old = cluster.up().primary()
        with Ledger(cluster) as ledger:
            ledger.wait_for_writes(5)
            disk.break_down()
            new = cluster.wait_until(lambda: another_primary(cluster, old), 30, "another is open")
            ledger.wait_for_writes(10)
            ledger.audit(new).expect_no_loss()
        cluster.wait_until(lambda: "Input/output error" in said_of_storage(new), 10, "the status says why")
        time.sleep(1)
        assert not old.postgres_processes(), "nothing is started on it"


@pytest.mark.timeout(180)
def test_writes_are_refused_before_a_disk_is_full_and_let_in_again_when_there_is_room():
    cluster, disk = on_disks()
    with cluster:
        primary = cluster.up().primary()
        postmaster = primary.postmaster
        assert primary.sql("SHOW max_slot_wal_keep_size") == [(f"{_size_mib(disk) // 4}MB",)]
        primary.sql("CREATE TABLE ballast (t text)")
        primary.sql("ALTER TABLE ballast ALTER t SET STORAGE EXTERNAL")
        disk.fill(leave_mib=FLOOR_MIB + 150)
        cluster.wait_until(lambda: "storage.filling" in problems(primary), 5, "the status warns")
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            _fill_slowly(primary)
        assert 0 < disk.free_mib < FLOOR_MIB
        assert {"storage.full"} <= problems(primary)
        assert primary.health("/primary") == 200, "it is the primary, and who makes room needs to write there"
        # whoever makes room can
        primary.sql("BEGIN READ WRITE; DROP TABLE ballast; COMMIT")
        assert primary.sql("SELECT pg_is_in_recovery()") == [(False,)]
        disk.empty()
        cluster.wait_until(lambda: primary.sql("CREATE TABLE after_it (n int)") == [], 10, "writes are let in again")
        assert cluster.wait_whole() is primary
        assert primary.postmaster == postmaster


@pytest.mark.timeout(120)
def test_a_primary_whose_postmaster_is_stopped_is_replaced():
    """Its sessions go on, the node's own among them: all looks well, but nobody new gets in."""
    with Cluster() as cluster:
        old = cluster.up().primary()
        with Ledger(cluster) as ledger:
            ledger.wait_for_writes(5)
            assert old.postmaster is not None
            send(old.postmaster, signal.SIGSTOP)
            new = cluster.wait_until(lambda: another_primary(cluster, old), TAKE_OVER_S, "another is open")
            assert cluster.wait_whole() is new
            # its sessions go on until it is given up
            ledger.audit(new).expect_no_loss()
        (fence,) = (line for line in old.logged("action.done", action="StopPostgres", rule="give_up_stalled"))
        assert "has taken no new connection" in fence["because"]
        expect_same_everywhere(cluster)


def _fill_slowly(node):
    """Half a MiB at a time, and its WAL."""
    for _ in range(300):
        node.sql("INSERT INTO ballast VALUES (repeat(md5(random()::text), 16384))")
        time.sleep(0.05)


def _size_mib(disk):
    seen = os.statvfs(disk.place)
    return seen.f_blocks * seen.f_frsize // (1 << 20)
