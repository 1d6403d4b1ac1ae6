"""`appliance failover` where the rules find nobody, with its price; and `appliance explain`, before and after."""

import json
import signal

import pytest

from tests.harness.cluster import Cluster
from tests.harness.processes import send

APPLICATION = {"user": "app", "database": "app"}
QUORUM = {"bootstrap": {"config": {"ttl": "6s"}, "application": APPLICATION}}
"""Commits wait for a standby: the default."""


def explained(node, *words):
    return json.loads(node.command("explain", *words, "-o", "json").stdout)["explanation"]


def waited_for(cluster, *names):
    """Commits wait for these, and that is finalised: without the primary they would show every one of them (R7)."""
    primary = cluster.primary()
    settled = all(explained(node)["votes"]["ok"] for node in cluster)
    return settled and primary.view()["sync"]["members"] == sorted(names)


@pytest.fixture
def two():
    """Two with PostgreSQL and a witness."""
    with Cluster(3, config=QUORUM, roles={"n3": "witness"}) as cluster:
        cluster.up().wait_whole()
        cluster.wait_until(lambda: waited_for(cluster, cluster.standbys()[0].name), 30, "the standby is waited for")
        yield cluster


def test_what_a_failover_gives_up_is_shown_accepted_by_name_kept_on_disk_and_told(two):
    lost, (left,), witness = two.primary(), two.standbys(), two["n3"]
    name = lost.view()["name"]
    lost.sql("CREATE TABLE told (by text)")
    lost.sql("INSERT INTO told VALUES ('both')")
    lossy = ("failover", "--to", left.name, "--allow-data-loss")
    needless = lost.command(*lossy, "--yes", "--cluster", name)
    assert (needless.returncode, "loss.needless" in needless.stderr) == (4, True)

    left.lose_host()
    lost.sql("INSERT INTO told SELECT 'one alone' FROM generate_series(1, 1000)")
    two.wait_until(lambda: lost.view()["sync"]["k"] == 0, 10, "nobody is waited for")
    lost.sql("INSERT INTO told VALUES ('one alone')")
    two.wait_until(lambda: position(witness, lost) == position(lost, lost), 10, "the witness has heard how far it is")
    lost.lose_host()
    left.start()
    missing = "quorum.votes_missing"
    two.wait_until(lambda: explained(left)["failover"]["code"] == missing, 30, "it is explained why nobody is elected")
    shown = left.command("explain").stdout
    assert f"no vote of {lost.name}, the last primary, and nobody else is known to have every commit" in shown
    plain = left.command("failover", "--to", left.name, "--yes")
    assert (plain.returncode, missing in plain.stderr) == (4, True)

    for words in ((), ("--yes",), ("--yes", "--cluster", "another")):
        refused = left.command(*lossy, *words)
        assert refused.returncode == 4, refused
    assert "loss.confirmed" in refused.stderr
    assert left.post("failovers", {"to": left.name, "allow_data_loss": True}).body["code"] == "loss.confirmed"
    told = json.loads(left.command(*lossy, "--dry-run", "-o", "json").stdout)["prospect"]
    assert told["lost_bytes"] > 1000, "rows that only the lost one has"
    assert told["known_age_s"] > 1
    assert not left.writable()

    done = left.command(*lossy, "--yes", "--cluster", name, "--reason", "the other burnt")
    assert done.returncode == 0, done.stderr
    print(done.stderr)
    print(left.command("history").stdout)
    assert left.sql("SELECT DISTINCT by FROM told") == [("both",)]
    entry = json.loads(left.command("history", "-o", "json").stdout)[0]
    assert entry["lost"]["bytes"] == told["lost_bytes"]
    assert (entry["lost"]["known"], entry["start"]) == (told["accepts"]["known"], told["accepts"]["candidate"])
    assert (entry["lost"]["reason"], entry["lost"]["refusal"]) == ("the other burnt", missing)
    print(left.command("explain").stdout)
    assert f"{told['lost_bytes']} bytes of WAL between" in left.command("explain").stdout

    lost.mark_log()
    lost.start()
    assert two.wait_whole(60) is left
    assert lost.jobs() == [("clone", "done")], "a rewind would have overwritten what was given up"
    assert (lost.directory / "data.replaced" / "PG_VERSION").exists()
    two.wait_until(lambda: waited_for(two, lost.name), 30, "commits wait for a standby again")
    send(left.postmaster, signal.SIGKILL)
    two.wait_until(lambda: two.primary() is lost, 20, "and it takes over, as ever")
    assert lost.sql("SELECT DISTINCT by FROM told") == [("both",)]


def position(node, of):
    """How far a node knows this member to be."""
    return next(member["lsn"] for member in node.view()["members"] if member["name"] == of.name)


def test_after_a_failover_every_node_explains_it_with_the_numbers():
    with Cluster(3, config=QUORUM) as cluster:
        before = cluster.up().wait_whole()
        names = [standby.name for standby in cluster.standbys()]
        cluster.wait_until(lambda: waited_for(cluster, *names), 30, "any of both is waited for")
        for node in cluster:
            explanation = explained(node)
            assert explanation["failover"]["code"] == "primary.open"
            assert explanation["next"] in names
            assert explanation["votes"]["detail"].endswith("where 2 suffice (k = 1)")
        send(before.postmaster, signal.SIGKILL)
        cluster.wait_until(lambda: cluster.primary() is not before, 10, "another is primary")
        after = cluster.wait_whole()

        for node in cluster:
            explanation = explained(node)
            primary, change = explanation["primary"], explanation["changes"][0]
            assert (primary["member"], primary["why"]["code"]) == (after.name, "primary.open")
            assert f"PostgreSQL ended on {before.name}" in change["text"], "what was suspected"
            assert change["entry"]["votes"][after.name] == change["entry"]["start"]
            assert f"{after.name} has the highest of " in change["text"]
            assert 0 <= change["election_s"] < 10
            assert 0 <= change["opening_s"] < 10
            codes = {member["member"]: member["why"]["code"] for member in explanation["members"]}
            assert codes.pop(after.name) == "primary.open"
            assert explanation["next"] in codes
            assert codes.pop(explanation["next"]) == "candidate.next"
            assert set(codes.values()) < {"candidate.after", "candidate.behind"}, "their reports are of two moments"
        print(after.command("explain").stdout)
        one = after.command("explain", before.name)
        assert f"if {after.name} were lost now" in one.stdout
        assert "✓ candidate.behind" in one.stdout


def test_where_two_of_three_are_gone_for_good_recovery_and_an_accepted_loss_go_on_with_the_third():
    """R13a with commits that wait: the one that is left cannot show what the two others may have confirmed."""
    with Cluster(3, config=QUORUM) as cluster:
        first = cluster.up().wait_whole()
        left, other = cluster.standbys()
        cluster.wait_until(lambda: waited_for(cluster, left.name, other.name), 30, "any of both is waited for")
        first.sql("CREATE TABLE told (by text)")
        cluster.wait_until(lambda: left.sql("SELECT count(*) FROM told") == [(0,)], 10, "the one that is left has it")
        name = first.view()["name"]
        for node in cluster:
            node.lose_host()
        recovered = left.command(
            "raft", "recover", "--allow-data-loss", "--dead", first.name, "--dead", other.name, "--yes"
        )
        assert recovered.returncode == 0, recovered.stderr
        left.start()
        missing = lambda: explained(left)["failover"]["text"]  # noqa: E731
        words = f"no vote of {first.name}, the last primary, and 1 of 2 needed votes of"
        cluster.wait_until(lambda: words in missing(), 30, "it is explained why nobody is elected")
        assert not left.writable()

        done = left.command("failover", "--to", left.name, "--allow-data-loss", "--yes", "--cluster", name)
        assert done.returncode == 0, done.stderr
        left.sql("INSERT INTO told VALUES ('left')")
        assert json.loads(left.command("history", "-o", "json").stdout)[0]["lost"]["refusal"] == "quorum.votes_missing"


def test_where_the_primary_and_all_who_vouch_for_it_are_gone_a_person_states_that_it_is_stopped():
    """R16: nobody who is left can see that it does not go on. n2 alone was waited for; n3 and n4 are the majority."""
    config = {"config": {"ttl": "6s", "failsafe_mode": True, "synchronous_mode": "on"}, "application": APPLICATION}
    with Cluster(4, config={"bootstrap": config}, roles={"n2": "learner", "n4": "witness"}) as cluster:
        cluster["n2"].config["tags"] = {"sync_priority": 2}
        lost, left = cluster["n1"], cluster["n3"]
        assert cluster.up().wait_whole() is lost
        cluster.wait_until(lambda: sync(lost) == (["n2"], True, True), 20, "n2 alone is waited for, and vouches")
        name = lost.view()["name"]
        lost.sql("CREATE TABLE told (by text)")
        for node in (cluster["n2"], lost):
            node.lose_host()
        blocked = lambda: explained(left)["failover"]["code"] == "quorum.votes_missing"  # noqa: E731
        cluster.wait_until(blocked, 30, "it is explained why nobody is elected")

        lossy = ("failover", "--to", left.name, "--allow-data-loss")
        shown = left.command(*lossy, "--dry-run").stdout
        assert f"{lost.name} may be writable on the word of n2" in shown
        assert f"With --stopped {lost.name} you state that it is stopped" in shown
        for words, why in (
            ((), f"only you can know that {lost.name} is stopped"),
            (("--stopped", "n2"), "n2 is not the last primary, n1 is"),
            (("--stopped", "n9"), "n9 is no member; the last primary is n1"),
        ):
            refused = left.command(*lossy, "--yes", "--cluster", name, *words)
            assert (refused.returncode, why in refused.stderr) == (4, True), refused
        told = json.loads(left.command(*lossy, "--dry-run", "-o", "json").stdout)["prospect"]
        body = {"to": left.name, "allow_data_loss": True, "cluster": name, "accepts": told["accepts"]}
        assert left.post("failovers", body).body["code"] == "loss.stopped"
        assert not left.writable()

        done = left.command(*lossy, "--yes", "--cluster", name, "--stopped", lost.name)
        assert done.returncode == 0, done.stderr
        left.sql("INSERT INTO told VALUES ('left')")
        entry = json.loads(left.command("history", "-o", "json").stdout)[0]
        assert entry["lost"]["stopped"] == lost.name


def sync(node):
    """Who is waited for, whether they vouch, and whether that is final."""
    said = node.view()["sync"]
    return said["members"], said["failsafe"], said["settled"]
