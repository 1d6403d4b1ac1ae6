"""Two of three hosts are lost for good, disks and all: the third goes on alone, and new ones join it."""

import json
import shutil
import signal

import pytest

from tests.harness.cluster import Cluster
from tests.harness.ledger import Ledger, expect_same_everywhere
from tests.harness.shared import Shared


@pytest.fixture(scope="module")
def shared():
    """Instead of the cluster that all other tests share: this one is broken on purpose."""
    shared = Shared(Cluster)
    yield shared
    shared.end()


def test_the_cluster_goes_on_from_the_one_that_is_left_and_new_hosts_join_it(cluster, tmp_path):
    left, *others = cluster.standbys()
    gone = [cluster.primary(), *others]
    with Ledger(cluster) as ledger:
        ledger.wait_for_writes(20)
    rows = left.sql("SELECT count(*) FROM ledger")
    refused = left.command("raft", "recover", "--allow-data-loss", *dead(gone), "--yes")
    assert refused.returncode == 4
    assert "is in use by another process: stop it" in refused.stderr

    for node in cluster:
        node.lose_host()
    old = tmp_path / "old"
    shutil.copytree(gone[0].directory / "raft", old)
    refused = left.command("raft", "recover", "--allow-data-loss", "--dead", gone[0].name, "--yes")
    assert (refused.returncode, "member.accounted" in refused.stderr) == (4, True)
    for node in gone:
        lose_disk(node)
    refused = left.command("raft", "recover", *dead(gone), "--yes")
    lacks = "data.may_lack" in refused.stderr and "had written" in refused.stderr
    assert (refused.returncode, lacks) == (4, True), "the other standby may have confirmed what this one lacks"
    recovered = left.command("raft", "recover", "--allow-data-loss", *dead(gone), "--yes", "-o", "json")
    assert recovered.returncode == 0, recovered.stderr
    incarnation = json.loads(recovered.stdout)["incarnation"]

    left.start()
    is_accepted(cluster, left)
    assert left.sql("SELECT count(*) FROM ledger") >= rows
    for node in gone:
        node.start()
    primary = cluster.wait_whole(60)
    assert primary is left
    cluster.wait_until(lambda: voters(left) == set(cluster.nodes), 10, "all vote again")
    assert [job for node in gone for job in node.jobs()] == [("clone", "done")] * 2
    with Ledger(cluster) as ledger:
        ledger.wait_for_writes(5)
        ledger.audit(left).expect_no_loss()
    expect_same_everywhere(cluster)
    _the_old_journal_is_refused(cluster, left, gone[0], old, incarnation)


def _the_old_journal_is_refused(cluster, left, returning, old, incarnation):
    returning.lose_host()
    raft = returning.directory / "raft"
    owner = raft.stat()
    shutil.rmtree(raft)
    shutil.copytree(old, raft)
    for path in (raft, *raft.iterdir()):
        shutil.chown(path, owner.st_uid, owner.st_gid)
    returning.mark_log()
    returning.start()
    words = f"belongs to incarnation 0, which was replaced by {incarnation} with `raft recover`"
    cluster.wait_until(
        lambda: any(words in entry["reason"] for entry in returning.logged("peer.refused")),
        20,
        "it is refused in words",
    )
    assert returning.writable() is not True
    assert voters(left) == set(cluster.nodes)
    assert next(m for m in raft_of(left)["members"] if m["name"] == returning.name)["connected"] is False

    returning.lose_host()
    lose_disk(returning)
    returning.start()
    cluster.wait_whole(60)


def test_r13a_old_hosts_that_return_without_their_journals_are_refused_until_their_data_is_gone(cluster):
    """What the lost majority had decided has the numbers of the new history: epoch, timeline, and further WAL."""
    first = cluster.primary()
    left, other = cluster.standbys()
    first.sql("CREATE TABLE told (by text)")
    first.sql("INSERT INTO told VALUES ('both')")
    cluster.wait_until(lambda: left.sql("SELECT count(*) FROM told") == [(1,)], 10, "the survivor has it")
    before = raft_of(left)["incarnation"]
    left.lose_host()
    assert first.command("switchover", "--to", other.name, "--yes").returncode == 0
    cluster.wait_until(lambda: other.writable() and first.writable() is False, 20, "the other two have gone on")
    for _ in range(100):
        other.sql("INSERT INTO told SELECT 'the lost' FROM generate_series(1, 1000)")
    lost = numbers(other)
    first.end(signal.SIGTERM)
    assert first.postgres_processes(), "under its guard the old standby runs on"
    other.lose_host()
    for node in (first, other):
        shutil.rmtree(node.directory / "raft")
    recovered = left.command("raft", "recover", "--allow-data-loss", *dead([first, other]), "--yes", "-o", "json")
    assert recovered.returncode == 0, recovered.stderr
    number = json.loads(recovered.stdout)["incarnation"]
    assert list(json.loads(recovered.stdout)["data"]) == [left.name]
    left.start()
    is_accepted(cluster, left)
    assert numbers(left) == lost, "the trap of this test: the numbers of the lost are given out again"
    left.sql("INSERT INTO told VALUES ('the new')")

    servers_before = {node: servers(node) for node in (first, other)}
    for node in (first, other):
        node.mark_log()
        node.start()
    for node in (first, other):
        cluster.wait_until(lambda node=node: refusal(node), 30, "it is refused in words")
        assert f"of another history (recovery {before}) than the one that the cluster went on with" in refusal(node)
        assert f"(recovery {number}): move it away or remove it, then this node clones the cluster" in refusal(node)
        assert (node.directory / f"notes.before-recovery-{number}.json").exists()
    cluster.wait_until(lambda: voters(left) == set(cluster.nodes), 20, "their replicas are taken in all the same")
    # an election among replicas that all vote: whose data is refused has no say in it
    left.end(signal.SIGINT)
    left.start()
    cluster.wait_until(left.writable, 40, "the survivor is elected, and nobody else")
    assert {node: servers(node) for node in (first, other)} == servers_before, "none was started"
    for node in (first, other):
        assert not node.logged("action.done", action="StartStandby")
        assert not node.postgres_processes()
        assert not node.jobs()
        assert node.view()["primary"] == left.name
    assert left.sql("SELECT by, count(*) FROM told GROUP BY by ORDER BY by") == [("both", 1), ("the new", 1)]

    for node in (first, other):
        shutil.rmtree(node.data_dir)
    primary = cluster.wait_whole(60)
    assert primary is left
    assert [node.jobs() for node in (first, other)] == [[("clone", "done")]] * 2
    moved = left.command("switchover", "--to", other.name, "--yes")
    assert moved.returncode == 0, moved.stderr
    cluster.wait_whole(60)
    assert other.sql("SELECT by, count(*) FROM told GROUP BY by ORDER BY by") == [("both", 1), ("the new", 1)]


def test_the_raft_leadership_moves_and_the_primary_stays(cluster):
    primary = cluster.primary()
    cluster.lead(cluster.standbys()[0])
    before = raft_of(primary)["leader"]
    answer = primary.command("raft", "transfer-leader", "--yes")
    assert answer.returncode == 0, answer.stderr
    cluster.wait_until(lambda: raft_of(primary)["leader"] not in {None, before}, 5, "another one leads")
    target = before
    answer = primary.command("raft", "transfer-leader", "--to", target, "--yes")
    assert answer.returncode == 0, answer.stderr
    cluster.wait_until(lambda: raft_of(primary)["leader"] == target, 5, "the named one leads")
    shown = primary.command("raft", "status")
    assert shown.returncode == 0
    assert "voter, leads" in shown.stdout
    again = primary.command("raft", "transfer-leader", "--to", target, "--yes")
    assert (again.returncode, "leads already" in again.stderr) == (4, True)
    assert cluster.primary() is primary


def is_accepted(cluster, left):
    """R7: it cannot show every commit, so it becomes primary when a person accepts that, and not before."""
    reason = "quorum.votes_missing"
    cluster.wait_until(lambda: reason in left.command("explain", "-o", "json").stdout, 30, "it is explained")
    assert not left.writable()
    words = ("failover", "--to", left.name, "--allow-data-loss", "--yes", "--cluster", left.config["cluster"])
    cluster.wait_until(lambda: left.command(*words).returncode == 0, 30, "its PostgreSQL answers, and it is accepted")
    cluster.wait_until(left.writable, 10, "the survivor is primary")


def numbers(node):
    return tuple(node.view()[what] for what in ("epoch", "timeline"))


def refusal(node):
    """What the node says that it does, in its status and in its log, when it refuses its data."""
    said = [entry["because"] for entry in node.logged("decision.changed", rule="refuse_strange")]
    shown = next(member["doing"] for member in node.view()["members"] if member["name"] == node.name)
    return shown if shown in said else ""


def dead(nodes):
    return [word for node in nodes for word in ("--dead", node.name)]


def raft_of(node):
    return json.loads(node.command("raft", "status", "-o", "json").stdout)


def voters(node):
    return {member["name"] for member in raft_of(node)["members"] if member["role"] == "voter"}


def lose_disk(node):
    """Of its directory only the file that the installation puts there, and its log, come back."""
    for path in node.directory.iterdir():
        if path not in {node.config_file, node.log_file}:
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def servers(node):
    """How many PostgreSQL servers it has started."""
    return sum(line["event"] == "postgres.started" for line in node.guard_log())
