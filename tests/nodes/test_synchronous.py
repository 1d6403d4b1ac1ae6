"""Commits that wait for a standby: nothing acknowledged is lost, and nobody waits for who is not there (R7 to R9)."""

import json
import os
import shutil
import signal
import time

import pytest

from tests.harness.cluster import FAILURE_TIMEOUT_S, Cluster
from tests.harness.disk import Disk
from tests.harness.ledger import Ledger
from tests.harness.processes import send

MOUNTS = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("fsfreeze") is None, reason="mounts file systems: needs root"
)


def waited_for(cluster):
    """How many of whom the primary's PostgreSQL waits for, when it is agreed and in force."""
    primary = cluster.primary()
    agreed = primary.view()["sync"]
    ((shown,),) = primary.sql("SHOW synchronous_standby_names")
    members = ", ".join(f'"{name}"' for name in agreed["members"])
    if not agreed["settled"] or shown != (f"ANY {agreed['k']} ({members})" if agreed["k"] else ""):
        return None
    return agreed["k"], set(agreed["members"])


@pytest.fixture
def own():
    """A cluster whose configuration a test may leave as it likes."""
    with Cluster(3) as cluster:
        yield cluster.up()


def test_mode_and_count_are_changed_while_commits_go_on_and_a_change_joins_the_one_before(own):
    """R8: each set is joint with what was listed before, whether that was final or not."""
    cluster = own
    cluster.wait_whole()
    primary, both = cluster.primary(), sorted(node.name for node in cluster.standbys())
    quoted = [f'"{name}"' for name in both]

    def change(*settings):
        return primary.command("config", "set", *settings, "--yes")

    def shown():
        return primary.sql("SHOW synchronous_standby_names")[0][0]

    with Ledger(cluster) as ledger:
        ledger.wait_for_writes(10)
        for settings, expected in (
            (["synchronous_node_count=2"], f"ANY 2 ({', '.join(quoted)})"),
            (["synchronous_mode=on", "synchronous_node_count=1"], f"FIRST 1 ({quoted[0]})"),
            (["synchronous_mode=off"], ""),
        ):
            said = change(*settings)
            assert said.returncode == 0, said.stderr
            cluster.wait_until(lambda expected=expected: shown() == expected, 10, expected or "nobody is waited for")
        for settings in ("synchronous_mode=on", "synchronous_mode=quorum", "synchronous_node_count=2"):
            assert change(settings).returncode == 0
        cluster.wait_until(lambda: shown() == f"ANY 2 ({', '.join(quoted)})", 20, "the last one is in force")
        ledger.wait_for_writes(10)
        assert cluster.wait_whole() is primary
        audit = ledger.audit(primary)
    audit.expect_no_loss()
    before = primary.get("config")
    for settings, words in (
        ("synchronous_node_count=3", "3 is more than the standbys that there are, 2; write 2 at most"),
        ("synchronous_mode=quorun", "is not one of off, on, quorum"),
        ("synchronous_nod_count=1", "did you mean synchronous_node_count?"),
    ):
        said = change(settings)
        assert said.returncode == 4, said
        assert words in said.stderr
    assert primary.get("config") == before


def last_change(node):
    return json.loads(node.command("history", "-o", "json").stdout)[0]["reason"]


def test_a_killed_postmaster_is_failed_over_at_once_and_no_acknowledged_commit_is_lost(cluster):
    primary = cluster.primary()
    with Ledger(cluster) as ledger:
        ledger.wait_for_writes(10)
        send(primary.postmaster, signal.SIGKILL)
        cluster.wait_until(lambda: cluster.primary() is not primary, 10, "another is primary")
        ledger.wait_for_writes(10)
        after = cluster.wait_whole()
        audit = ledger.audit(after)
    audit.expect_no_loss()
    assert after is not primary
    assert "released" in last_change(after)


def test_a_lost_host_is_not_waited_for_until_its_lease_has_run_out(cluster):
    """R9: votes fence it. R8: and nobody waits for it as a standby."""
    primary = cluster.primary()
    with Ledger(cluster) as ledger:
        ledger.wait_for_writes(10)
        primary.lose_host()
        cluster.wait_until(lambda: cluster.primary() is not primary, 10, "another is primary")
        ledger.wait_for_writes(10)
        after = cluster.primary()
        others = set(cluster.nodes) - {after.name, primary.name}
        cluster.wait_until(lambda: waited_for(cluster) == (1, others), 10, "commits wait for who is left")
        primary.start()
        cluster.wait_whole()
        audit = ledger.audit(after)
    audit.expect_no_loss()
    assert "did not renew" in last_change(after)


def test_r8_a_standby_that_dies_holds_commits_up_for_a_moment_only():
    """It is the only one. Its end is reported at once where its node lives; a lost host is silent first."""
    with Cluster(3, roles={"n3": "witness"}) as cluster:
        primary = cluster.up().wait_whole()
        (standby,) = cluster.standbys()
        with Ledger(cluster) as ledger:
            ledger.wait_for_writes(10)
            send(standby.postmaster, signal.SIGKILL)
            ledger.wait_for_writes(10, more=100)
            assert ledger.audit(primary).longest_gap_s() < 1
        cluster.wait_whole()
        with Ledger(cluster) as ledger:
            standby.lose_host()
            ledger.wait_for_writes(10, more=100)
            assert ledger.audit(primary).longest_gap_s() < FAILURE_TIMEOUT_S + 1
        standby.start()
        assert cluster.wait_whole() is primary


def test_r8_a_standby_that_led_raft_holds_commits_up_for_less_than_both_waits_together():
    """Each commit waits for it (k = 2). Whoever leads next need not wait for its report as long as for a silent one."""
    timeout_s = 2 * FAILURE_TIMEOUT_S
    settings = {"ttl": "12s", "failure_timeout": f"{timeout_s:g}s", "synchronous_node_count": 2}
    with Cluster(3, settings=settings) as cluster:
        primary = cluster.up().wait_whole()
        lost = cluster.standbys()[0]
        cluster.wait_until(lambda: waited_for(cluster) == (2, {n.name for n in cluster.standbys()}), 15, "both")
        cluster.lead(lost)
        with Ledger(cluster) as ledger:
            ledger.wait_for_writes(10)
            lost.lose_host()
            ledger.wait_for_writes(15, more=100)
            longest_s = ledger.audit(primary).longest_gap_s()
        print(f"the longest commit took {longest_s:.1f} s")
        assert 1 < longest_s < timeout_s + 0.3
        lost.start()
        assert cluster.wait_whole() is primary


def longest_wait_s(cluster, until_s):
    """Of commits one after the other, for so long."""
    primary, longest_s, begun_s = cluster.primary(), 0.0, time.monotonic()
    while time.monotonic() < begun_s + until_s:
        before_s = time.monotonic()
        primary.sql("INSERT INTO written VALUES (1)")
        longest_s = max(longest_s, time.monotonic() - before_s)
    return longest_s


@pytest.mark.timeout(240)
@pytest.mark.parametrize("fault", ["its WAL receiver is stopped", pytest.param("its disk hangs", marks=MOUNTS)])
def test_a_standby_that_confirms_nothing_is_not_waited_for_although_it_is_connected(fault):
    """All that could confirm is one standby. Its node reports all the while; then it catches up and is waited for."""
    with Cluster(3, roles={"n3": "witness"}) as cluster:
        node = cluster["n2"]
        if fault == "its disk hangs":
            disk = Disk(node.directory / "disk", 700)
            node.data_dir = disk.place / "data"
            node.config["postgresql"]["data_dir"] = str(node.data_dir)
        cluster.up()
        assert cluster.primary() is cluster["n1"]
        cluster.wait_until(lambda: waited_for(cluster) == (1, {"n2"}), 15, "the standby is waited for")
        cluster.primary().sql("CREATE TABLE written (n int)")
        if fault == "its disk hangs":
            try:
                with disk.frozen():
                    longest_s = longest_wait_s(cluster, 8)
                    cluster.wait_until(lambda: waited_for(cluster) == (0, set()), 5, "it is waited for no more")
            finally:
                disk.thaw()
        else:
            receiver = node.walreceiver()
            send(receiver, signal.SIGSTOP)
            longest_s = longest_wait_s(cluster, 4)
            cluster.wait_until(lambda: waited_for(cluster) == (0, set()), 5, "it is waited for no more")
            send(receiver, signal.SIGCONT)
        print(f"{fault}: the longest commit took {longest_s:.1f} s")
        assert 1.5 < longest_s < 2 + 2, "failure_timeout, a second, and what a loaded machine adds"
        cluster.wait_until(lambda: waited_for(cluster) == (1, {"n2"}), 30, "it is waited for again")
        cluster.wait_whole()


def test_without_a_standby_the_primary_goes_on_alone_and_nobody_else_becomes_primary_by_itself():
    """R7: who comes back lacks what was committed meanwhile."""
    with Cluster(3, roles={"n3": "witness"}) as cluster:
        primary = cluster.up().wait_whole()
        (standby,) = cluster.standbys()
        cluster.wait_until(lambda: waited_for(cluster) == (1, {standby.name}), 15, "the standby is waited for")
        primary.sql("CREATE TABLE t (a int)")
        standby.lose_host()
        primary.sql("INSERT INTO t VALUES (1)")  # it may take until the loss is noticed
        cluster.wait_until(lambda: waited_for(cluster) == (0, set()), 10, "nobody is waited for")

        primary.lose_host()
        standby.start()
        refusals = ("quorum.votes_missing", "nobody else is known to have every commit")
        told = lambda: cluster["n3"].view()["coordinating"] + standby.view()["coordinating"]  # noqa: E731
        cluster.wait_until(lambda: all(part in told() for part in refusals), 20, "it is said why")
        assert not standby.writable()

        primary.start()
        after = cluster.wait_whole()
        assert after.sql("SELECT a FROM t") == [(1,)]
