"""Switchovers on request: to a named member, to the best one, and refused with every check that failed."""

import signal
import time

from tests.harness.ledger import Ledger, expect_same_everywhere
from tests.harness.processes import send


def test_switchover_to_a_named_member_loses_nothing(cluster):
    old, target = cluster.primary(), cluster.standbys()[1]
    with Ledger(cluster) as ledger:
        done = cluster["n1"].command("switchover", "--to", target.name, "--yes")
        assert done.returncode == 0, done
        ledger.wait_for_writes(5, [target])
        assert cluster.wait_whole() is target
        audit = ledger.audit(target)
    audit.expect_no_loss()
    assert [node for node, _ in audit.epochs()] == [old.name, target.name]
    assert audit.longest_gap_s() < 3
    assert not any(node.jobs() for node in cluster)
    expect_same_everywhere(cluster)
    # R15: what the old primary kept for the others would otherwise fill its disk, up to max_slot_wal_keep_size.
    kept = "SELECT slot_name FROM pg_replication_slots"
    cluster.wait_until(lambda: not old.sql(kept), 5, "the old primary has dropped its slots")
    assert len(target.sql(kept)) == 2
    assert target.name in cluster["n2"].command("history", "--limit", "1").stdout


def test_switchover_without_a_name_takes_the_best_standby(cluster):
    old = cluster.primary()
    answer = cluster.standbys()[0].post("switchovers", wait="30s")
    assert (answer.status, answer.body["phase"]) == (200, "done"), answer.body
    assert cluster.wait_whole() is not old


def test_switchovers_one_after_the_other(cluster):
    """Each new timeline reaches nodes that were on the last one for a moment only."""
    with Ledger(cluster) as ledger:
        for _ in range(3):
            target = cluster.standbys()[0]
            answer = target.post("switchovers", {"to": target.name}, wait="30s")
            assert (answer.status, answer.body["phase"]) == (200, "done"), answer.body
            assert cluster.wait_whole() is target
        audit = ledger.audit(target)
    audit.expect_no_loss()
    assert not any(node.jobs() for node in cluster)
    expect_same_everywhere(cluster)


def test_a_dry_run_changes_nothing(cluster):
    before = cluster["n1"].view()
    target = cluster.standbys()[0]
    assert target.post("switchovers", {"to": target.name}, dry_run="true").status == 200
    assert cluster["n1"].view()["epoch"] == before["epoch"]


def test_a_switchover_to_an_unknown_member_is_refused(cluster):
    expect_refusal(cluster, "n9", "member.unknown")


def test_a_switchover_to_the_primary_is_refused(cluster):
    expect_refusal(cluster, cluster.primary().name, "candidate.not_primary")


def test_a_switchover_to_a_dead_member_is_refused(cluster):
    dead = cluster.standbys()[0]
    dead.lose_host()
    time.sleep(2.5)  # a report is believed for 2 s
    expect_refusal(cluster, dead.name, "candidate.reachable")
    dead.start()
    cluster.wait_whole()


def test_a_switchover_to_a_lagging_member_is_refused(cluster):
    primary, standby = cluster.primary(), cluster.standbys()[0]
    receiver = standby.walreceiver()
    send(receiver, signal.SIGSTOP)
    try:
        primary.sql("CREATE TABLE IF NOT EXISTS bulk (filling text)")
        primary.sql("INSERT INTO bulk SELECT repeat('x', 1000) FROM generate_series(1, 4000)")
        # The raft leader, who checks a switchover, may have heard of the rows after the primary.
        lagging = [node for node in cluster if node is not standby]
        cluster.wait_until(lambda: all(map(_sees_a_lag, lagging)), 5, "the lag is shown")
        refused = expect_refusal(cluster, standby.name, "candidate.lagging")
        check = next(check for check in refused["checks"] if check["code"] == "candidate.lagging")
        assert "1048576" in check["detail"]
    finally:
        send(receiver, signal.SIGCONT)
        primary.sql("TRUNCATE bulk")
    cluster.wait_whole()


def _sees_a_lag(node):
    return "member.lagging" in {problem["code"] for problem in node.view()["problems"]}


def expect_refusal(cluster, target, code):
    """Over HTTP and on the command line, with the table of checks, and nothing changed."""
    primary, before = cluster.primary(), cluster["n1"].view() if cluster["n1"].running else cluster["n2"].view()
    answer = primary.post("switchovers", {"to": target})
    assert (answer.status, answer.body["code"]) == (409, code), answer.body
    said = primary.command("switchover", "--to", target, "--yes")
    assert said.returncode == 4, said
    assert code in said.stderr
    assert (primary.view()["primary"], primary.view()["epoch"]) == (primary.name, before["epoch"])
    return answer.body
