"""Three replicas in one process: what is promised to whoever calls them."""

import pickle
import shutil
import socket
import threading
import time
from datetime import timedelta

import msgpack
import pysyncobj.pickle
import pytest

import raft.replica
from raft import (
    COMMAND_LIMIT_BYTES,
    Applied,
    Failed,
    JournalDamaged,
    LeaderChanged,
    PeerRefused,
    PeerUnreachable,
    Refused,
    ReplicaError,
    RequestTimeout,
    StateApplied,
    Unknown,
)
from raft.tls import CertificateStatus
from tests.harness.certificates import Certificates


def test_a_command_is_applied_everywhere_and_the_view_shows_it(cluster, wait):
    cluster.start()
    leader = cluster.leader()
    for name in cluster.members:
        outcome = cluster.propose(name, b"from " + name.encode())
        assert isinstance(outcome, Applied)
        view = cluster.running[name].view()
        assert view.index >= outcome.index
        assert b"from " + name.encode() in view.state
    wait(lambda: set(cluster.states()) == {cluster.running[leader].view().state})
    assert len(cluster.running[leader].view().state) == 3


def test_r2_a_barrier_shows_what_was_acknowledged_elsewhere(cluster):
    cluster.start()
    leader = cluster.leader()
    reader = cluster.followers()[0]
    for number in range(20):
        cluster.propose(leader, b"%d" % number)
        assert isinstance(cluster.running[reader].barrier(5).result(6), Applied)
        assert cluster.running[reader].view().state[-1] == b"%d" % number


def test_a_heartbeat_that_a_long_tick_keeps_waiting_counts_as_late(cluster):
    cluster.start()
    leader = cluster.running[cluster.leader()]
    before = leader.status()
    assert isinstance(leader.propose(b"slow", "slow", 5).result(6), Applied)
    time.sleep(0.1)
    after = leader.status()
    assert after.tick_late_longest_s > 0.15
    assert after.ticks_late > before.ticks_late
    assert after.fsync_total_s >= after.fsync_longest_s > 0


def test_a_refusal_is_the_same_everywhere_and_changes_nothing(cluster, wait):
    cluster.start()
    follower = cluster.followers()[0]
    refused = cluster.propose(follower, b"no")
    assert refused == Refused("said no", refused.index)
    poison = cluster.propose(follower, b"raise")
    assert poison.reason == "ValueError: poison"
    assert isinstance(cluster.propose(follower, b"fine"), Applied)
    wait(lambda: cluster.states() == [(b"fine",)] * 3)


def test_a_command_id_is_applied_once_however_often_it_is_proposed(cluster, wait):
    cluster.start()
    futures = [cluster.running[cluster.leader()].propose(b"once", "the id", 5) for _ in range(10)]
    futures += [cluster.running[name].propose(b"once", "the id", 5) for name in cluster.members]
    assert len({future.result(6) for future in futures}) == 1
    assert cluster.propose(cluster.leader(), b"another", "the id") == futures[0].result()
    wait(lambda: cluster.states() == [(b"once",)] * 3)


def test_a_repeat_that_is_not_taken_says_nothing_of_the_first_one(tmp_path, cluster):
    alone = type(cluster)(tmp_path / "alone", names=("only",), certificates=cluster.certificates).start()
    alone.leader()
    replica, release = alone.running["only"], threading.Event()
    replica._mailbox.post(lambda: release.wait(20))
    first = replica.propose(b"once", "the id", 30)
    barriers = [replica.barrier(30) for _ in range(5000)]
    repeat = replica.propose(b"once", "the id", 30)
    assert isinstance(barriers[-1].result(0), Refused)
    assert repeat.result(0) == Refused("the replica is not running, or overloaded", None)
    assert not first.done()
    release.set()
    assert isinstance(first.result(10), Applied)
    alone.stop()


def test_what_is_too_large_or_has_no_id_is_refused_at_once(cluster):
    cluster.start("n1")
    replica = cluster.running["n1"]
    for future in (
        replica.propose(b"x" * (COMMAND_LIMIT_BYTES + 1), "large", 5),
        replica.propose(b"x", "", 5),
        replica.propose(b"x", "i" * 1000, 5),
    ):
        assert isinstance(future.result(0), Refused)
        assert future.result(0).index is None


def test_the_largest_command_arrives_everywhere(cluster, wait):
    cluster.start()
    outcome = cluster.propose(cluster.followers()[0], b"x" * COMMAND_LIMIT_BYTES, "large", 10)
    assert isinstance(outcome, Applied)
    wait(lambda: [len(state) for state in cluster.states()] == [1, 1, 1])


def test_the_leader_is_replaced_and_everybody_is_told(cluster, wait):
    cluster.start()
    old = cluster.leader()
    before = cluster.running[old].view()
    assert before.is_leader
    assert before.leading_since_s is not None
    cluster.propose(old, b"before")
    cluster.stop(old)
    began_s = time.monotonic()
    new = cluster.leader()
    assert new != old
    assert time.monotonic() - began_s < 6
    cluster.propose(new, b"after")
    assert cluster.running[new].view().leading_since_s > before.leading_since_s
    assert LeaderChanged(new, cluster.running[new].view().term) in cluster.events[new]
    cluster.start(old)
    wait(lambda: cluster.states() == [(b"before", b"after")] * 3)
    assert StateApplied(cluster.running[new].view().index) in cluster.events[new]


def test_a_restart_of_all_replays_the_identical_state(cluster, wait):
    cluster.start()
    for number in range(50):
        cluster.propose("n1", b"%d" % number)
    expected = cluster.running["n1"].view().state
    for _ in range(2):
        cluster.stop()
        cluster.start()
        cluster.leader()
        assert isinstance(cluster.running["n2"].barrier(5).result(6), Applied)
        wait(lambda: cluster.states() == [expected] * 3)
    assert cluster.propose("n3", b"again", "7") == cluster.propose("n1", b"more", "7")
    assert cluster.running["n3"].view().state == expected


def test_a_replica_alone_shows_its_last_known_state_and_commits_nothing(cluster, wait):
    cluster.start()
    cluster.propose("n1", b"known")
    wait(lambda: cluster.states() == [(b"known",)] * 3)
    cluster.stop()
    cluster.start("n2")
    wait(lambda: cluster.running["n2"].view().state == (b"known",))
    began_s = time.monotonic()
    outcome = cluster.running["n2"].propose(b"alone", "alone", 1).result(2)
    assert isinstance(outcome, Refused)
    assert outcome.index is None
    assert isinstance(cluster.running["n2"].barrier(1).result(2), Refused)
    assert time.monotonic() - began_s < 2.5
    assert not cluster.running["n2"].view().is_leader


def test_without_quorum_the_outcome_is_unknown_in_time_and_the_leader_steps_down(cluster, wait):
    cluster.start()
    leader = cluster.leader()
    cluster.stop(*cluster.followers())
    began_s = time.monotonic()
    outcome = cluster.running[leader].propose(b"lost", "lost", 0.5).result(2)
    assert isinstance(outcome, Unknown)
    assert time.monotonic() - began_s < 1
    wait(lambda: not cluster.running[leader].view().is_leader, limit_s=5)
    assert cluster.running[leader].view().leading_since_s is None
    contact_s = cluster.running[leader].view().contact_s
    time.sleep(0.3)
    assert cluster.running[leader].view().contact_s == contact_s


def test_contact_is_fresh_on_leader_and_followers(cluster):
    cluster.start()
    cluster.leader()
    time.sleep(0.3)
    for replica in cluster.running.values():
        age_s = time.clock_gettime(time.CLOCK_BOOTTIME) - replica.view().contact_s
        assert 0 <= age_s < 1


@pytest.mark.parametrize(("host", "listen"), [("[::1]", "[::1]"), ("localhost", "*")])
def test_replicas_meet_over_ipv6_and_by_name(tmp_path, cluster, host, listen):
    other = type(cluster)(tmp_path / "other", names=("n1", "n2"), certificates=cluster.certificates)
    other.members = {name: host + ":" + place.rpartition(":")[2] for name, place in other.members.items()}
    for name, place in other.members.items():
        other.running[name] = other.replica(name, listen=listen + ":" + place.rpartition(":")[2])
        other.running[name].start()
    assert isinstance(other.propose(other.leader(), b"x"), Applied)
    other.stop()


def test_one_member_is_a_cluster_too(tmp_path, cluster):
    alone = type(cluster)(tmp_path / "alone", names=("only",), certificates=cluster.certificates)
    alone.start()
    assert alone.leader() == "only"
    assert isinstance(alone.propose("only", b"x"), Applied)
    assert isinstance(alone.running["only"].barrier(5).result(6), Applied)
    alone.stop()
    alone.start()
    alone.leader()
    assert alone.running["only"].barrier(5).result(6)
    assert alone.running["only"].view().state == (b"x",)
    alone.stop()


def test_requests_reach_every_peer_and_oneself(cluster, wait):
    cluster.start()
    wait(lambda: all(peer.connected for replica in cluster.running.values() for peer in replica.status().peers))
    for asker in cluster.members:
        for peer in cluster.members:
            answer = ask(cluster, asker, peer, b"hello")
            assert answer == b"%s to %s: hello" % (peer.encode(), asker.encode())


def ask(cluster, asker, peer, payload):
    """Request connections come up by themselves, a moment after the start."""
    for _ in range(100):
        try:
            return cluster.running[asker].request(peer, payload, 2).result(3)
        except PeerUnreachable:
            time.sleep(0.05)
    raise AssertionError(f"{asker} never reached {peer}")


def test_a_request_to_nobody_fails_at_once(cluster):
    cluster.start("n1")
    with pytest.raises(PeerUnreachable, match="no member"):
        cluster.running["n1"].request("n9", b"", 5).result(0)
    with pytest.raises(PeerUnreachable, match="n2"):
        cluster.running["n1"].request("n2", b"", 5).result(0)


def test_a_slow_or_failing_handler_is_a_timeout_or_an_error(cluster):
    release = threading.Event()

    def handler(peer, payload):
        if payload == b"slow":
            release.wait(10)
        raise ValueError("not today")

    cluster.start("n1")
    slow = cluster.replica("n2")
    slow._handlers._handler = handler
    cluster.running["n2"] = slow
    slow.start()
    with pytest.raises(ReplicaError, match="not today"):
        ask(cluster, "n1", "n2", b"fast")
    futures = [cluster.running["n1"].request("n2", b"slow", 0.3) for _ in range(3)]
    for future in futures:
        with pytest.raises(RequestTimeout, match=r"n2: no answer within 0\.3 s"):
            future.result(2)
    pending = cluster.running["n1"].request("n2", b"slow", 5)
    cluster.stop("n2")
    with pytest.raises(PeerUnreachable):
        pending.result(2)
    release.set()


@pytest.mark.parametrize("certificates", ["clear"], indirect=True)
def test_a_peer_of_another_cluster_is_refused_and_named(cluster, wait):
    cluster.start("n1")
    stranger = cluster.replica("n2", cluster="x")
    stranger.start()
    expected = f"peer n2 at {cluster.members['n2']} belongs to cluster 'x', ours is 'c'"
    try:
        wait(lambda: PeerRefused("n2", expected) in cluster.events["n1"])
        wait(lambda: expected in [peer.refusal for peer in cluster.running["n1"].status().peers])
        ours = f"peer n1 at {cluster.members['n1']} belongs to cluster 'c', ours is 'x'"
        wait(lambda: ours in [peer.refusal for peer in stranger.status().peers])
        assert not any(peer.connected for peer in stranger.status().peers)
        assert sum(isinstance(event, PeerRefused) for event in cluster.events["n1"]) == 1
    finally:
        stranger.stop()


@pytest.mark.parametrize("certificates", ["tls"], indirect=True)
def test_the_certificate_says_which_cluster_a_peer_is_of(cluster, wait, tmp_path):
    """It has one of an authority we trust, with another cluster's name."""
    cluster.start("n1")
    theirs = Certificates(tmp_path / "theirs", "x")
    cluster.certificates.trust(cluster.certificates.authority, theirs.authority)
    theirs.trust(cluster.certificates.authority, theirs.authority)
    stranger = cluster.replica("n2", cluster="x", tls=theirs.member("n2"))
    stranger.start()
    expected = f"peer n2 at {cluster.members['n2']} shows a certificate of cluster 'x', ours is 'c'"
    try:
        wait(lambda: PeerRefused("n2", expected) in cluster.events["n1"])
        wait(lambda: expected in [peer.refusal for peer in cluster.running["n1"].status().peers])
        wait(
            lambda: all(
                "certificate of cluster 'c'" in str(p.refusal) for p in stranger.status().peers if p.name == "n1"
            )
        )
        assert cluster.running["n1"].status().refusals["certificate"] > 0
    finally:
        stranger.stop()


@pytest.mark.parametrize("certificates", ["tls"], indirect=True)
def test_the_end_of_the_certificate_and_its_problems_are_in_the_status(cluster, wait, monkeypatch):
    monkeypatch.setattr("raft.tls.LOOK_S", 0.05)
    cluster.start()
    cluster.leader()
    replica, tls = cluster.running["n1"], cluster.certificates.tls("n1")
    certificate = replica.status().certificate
    assert certificate == CertificateStatus(tls.expires_at(), None)
    assert replica.status().certificate is certificate  # nothing has changed: nothing was read
    cluster.certificates.member("n1", valid_for=timedelta(days=3))
    wait(lambda: replica.status().certificate == CertificateStatus(tls.expires_at(), None))
    assert replica.status().certificate.expires_at < certificate.expires_at
    tls.cert.unlink()
    wait(
        lambda: (
            replica.status().certificate
            == CertificateStatus(None, f"cannot read {tls.cert}: No such file or directory; put it there")
        )
    )
    assert all(peer.connected for peer in replica.status().peers)


@pytest.mark.parametrize("certificates", ["tls"], indirect=True)
def test_a_certificate_of_another_member_is_a_clear_error_at_the_start(cluster):
    with pytest.raises(ReplicaError, match="is for 'n2' of cluster 'c', this is 'n1' of 'c'"):
        cluster.replica("n1", tls=cluster.certificates.member("n2")).start()
    cluster.start("n1")


def test_a_second_process_under_a_name_in_use_is_refused(cluster, wait, tmp_path):
    cluster.start()
    cluster.leader()
    double = cluster.replica("n2", directory=tmp_path / "double", listen=cluster.unused_place())
    double.start()
    try:
        wait(lambda: any("another process already speaks as 'n2'" in str(p.refusal) for p in double.status().peers))
        assert isinstance(cluster.propose("n2", b"still fine"), Applied)
        wait(lambda: any(isinstance(event, PeerRefused) for event in cluster.events["n1"]))
    finally:
        double.stop()


def test_who_is_at_the_address_has_the_name_even_if_another_spoke_first(cluster, wait, tmp_path):
    double = cluster.replica("n2", directory=tmp_path / "double", listen=cluster.unused_place())
    double.start()
    cluster.start("n1", "n3")
    try:
        wait(lambda: all(peer.connected for peer in double.status().peers))
        cluster.start("n2")
        wait(lambda: not any(peer.connected for peer in double.status().peers))
        assert isinstance(cluster.propose("n2", b"from the member"), Applied)
    finally:
        double.stop()


def test_a_follower_that_cannot_reach_the_leader_says_so_at_once(cluster, wait):
    cluster.start()
    leader, follower = cluster.leader(), cluster.followers()[0]
    replica = cluster.running[follower]
    replica._transport._peers[leader].raft.close()
    began_s = time.monotonic()

    def refused():
        outcome = replica.propose(b"x", "x", 5).result(6)
        return outcome if isinstance(outcome, Refused) else None

    outcome = wait(refused)
    assert "no connection" in outcome.reason
    assert time.monotonic() - began_s < 2


def test_a_peer_that_is_not_there_is_no_refusal(cluster, wait):
    """Otherwise people would be told to correct a file when a host is down."""
    cluster.start("n1")
    wait(lambda: "Connection refused" in str(peer_of(cluster, "n2").problem))
    assert peer_of(cluster, "n2").refusal is None
    cluster.start("n2")
    wait(lambda: peer_of(cluster, "n2").connected)
    assert peer_of(cluster, "n2").problem is None
    cluster.stop("n2")
    wait(lambda: peer_of(cluster, "n2").problem is not None)
    assert peer_of(cluster, "n2").refusal is None


def peer_of(cluster, name):
    return next(peer for peer in cluster.running["n1"].status().peers if peer.name == name)


def test_swapped_addresses_are_named(cluster, wait):
    swapped = dict(cluster.members)
    swapped["n2"], swapped["n3"] = swapped["n3"], swapped["n2"]
    cluster.start("n2", "n3")
    replica = cluster.replica("n1", members=swapped)
    replica.start()
    try:
        wait(lambda: any("check the addresses" in str(peer.refusal) for peer in replica.status().peers))
    finally:
        replica.stop()


def test_a_taken_port_is_a_clear_error_and_leaves_nothing_behind(cluster):
    host, _, port = cluster.members["n1"].rpartition(":")
    taken = pytest.raises(ReplicaError, match=f"cannot listen on {host}:{port}")
    with socket.create_server((host, int(port))), taken:
        cluster.replica("n1").start()
    cluster.start("n1")


def test_contradictions_in_the_configuration_are_named(cluster):
    with pytest.raises(ReplicaError, match="'n9' is not among the members"):
        cluster.replica("n9", listen="127.0.0.1:7400")
    with pytest.raises(ReplicaError, match="election_min_s"):
        cluster.replica("n1", heartbeat_s=0.4)
    with pytest.raises(ReplicaError, match="is no address"):
        cluster.replica("n1", listen="nowhere")
    with pytest.raises(ReplicaError, match="compact_entries 0 > 0"):
        cluster.replica("n1", compact_entries=0)


def test_a_damaged_journal_refuses_to_start(cluster):
    cluster.start()
    cluster.propose("n1", b"x")
    cluster.propose("n1", b"y")
    cluster.stop()
    path = cluster.directory / "n1" / "journal"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(JournalDamaged):
        cluster.start("n1")


def test_r1_a_wiped_voter_has_no_vote_until_it_has_caught_up(cluster, wait):
    """Committed by n1 and n2 while n3 was away; n2 loses its disk; n2 and n3 alone must not go on."""
    cluster.start()
    cluster.propose("n1", b"old")
    wait(lambda: cluster.states() == [(b"old",)] * 3)
    cluster.stop("n3")
    cluster.leader()
    cluster.propose("n1", b"precious")
    wait(lambda: cluster.states() == [(b"old", b"precious")] * 2)
    cluster.stop()
    shutil.rmtree(cluster.directory / "n2")
    cluster.start("n2", "n3")
    time.sleep(2)
    assert not any(replica.view().is_leader for replica in cluster.running.values())
    assert not cluster.running["n2"].status().votes
    cluster.start("n1")
    cluster.leader()
    wait(lambda: cluster.states() == [(b"old", b"precious")] * 3)
    wait(lambda: cluster.running["n2"].status().votes)


def test_a_voter_wiped_under_a_running_leader_catches_up(cluster, wait):
    cluster.start()
    for number in range(20):
        cluster.propose("n1", b"%d" % number)
    wiped = cluster.followers()[0]
    expected = cluster.running[wiped].view().state
    cluster.stop(wiped)
    shutil.rmtree(cluster.directory / wiped)
    cluster.start(wiped)
    wait(lambda: cluster.running[wiped].view().state[: len(expected)] == expected)
    wait(lambda: cluster.running[wiped].status().votes)


def test_junk_on_the_port_disturbs_nobody(cluster):
    cluster.start()
    leader = cluster.leader()
    host, _, port = cluster.members[leader].rpartition(":")
    bomb = pickle.dumps(eval)
    hello = msgpack.packb({"type": "hello", "from": "n1"})
    for junk in (b"", b"\0", b"\0\0\0\4junk", b"\xff" * 100, bomb, len(hello).to_bytes(4, "big") + hello):
        with socket.create_connection((host, int(port)), timeout=2) as stranger:
            stranger.sendall(junk)
    assert isinstance(cluster.propose(leader, b"x"), Applied)
    assert cluster.leader() == leader


def test_pickle_is_never_reached(cluster, monkeypatch, wait):
    def unpickled(*_):
        raise AssertionError("something was unpickled")

    for name in ("loads", "load"):
        monkeypatch.setattr(pysyncobj.pickle, name, unpickled)
    cluster.start()
    for name in cluster.members:
        cluster.propose(name, b"from " + name.encode())
    cluster.stop(cluster.leader())
    cluster.propose(cluster.leader(), b"after")
    cluster.stop()
    cluster.start()
    cluster.leader()
    wait(lambda: [len(state) for state in cluster.states()] == [4] * 3)
    assert all(replica.status().failure is None for replica in cluster.running.values())


def test_an_error_in_the_raft_thread_stops_the_replica_and_is_told(cluster, wait):
    cluster.start()
    leader = cluster.leader()
    replica = cluster.running[leader]
    replica._mailbox.post(lambda: 1 // 0)
    wait(lambda: replica.status().role == "failed")
    assert "ZeroDivisionError" in replica.status().failure
    wait(lambda: any("ZeroDivisionError" in getattr(event, "reason", "") for event in cluster.events[leader]))
    assert not replica.view().is_leader
    assert isinstance(replica.propose(b"x", "x", 5).result(0.5), Refused)
    cluster.stop(leader)
    assert isinstance(cluster.propose(cluster.leader(), b"others go on"), Applied)


def test_stopping_completes_every_future_and_ends_every_thread(cluster, wait):
    before = set(threading.enumerate())
    cluster.start()
    leader = cluster.leader()
    cluster.stop(*cluster.followers())
    replica = cluster.running[leader]
    future = replica.propose(b"x", "x", 60)
    time.sleep(0.1)
    cluster.stop(leader)
    assert isinstance(future.result(0.5), Unknown)
    assert isinstance(replica.propose(b"x", "y", 60).result(0.5), Refused)
    wait(lambda: not [t for t in set(threading.enumerate()) - before if t.name.startswith("raft")], limit_s=5)


def test_a_commit_takes_milliseconds(cluster):
    cluster.start()
    leader, follower = cluster.leader(), cluster.followers()[0]
    for name, limit_s in ((leader, 0.05), (follower, 0.08)):
        took_s = []
        for number in range(15):
            began_s = time.monotonic()
            cluster.propose(name, b"%d" % number, f"{name} {number}")
            took_s.append(time.monotonic() - began_s)
        assert sorted(took_s)[7] < limit_s


# -- members and places that change ---------------------------------------------------------------------


def move(cluster, name):
    """Stop a member, and start it at another address, which nobody but itself has in its configuration."""
    if name in cluster.running:
        cluster.stop(name)
    place = cluster.unused_place()
    replica = cluster.replica(name, listen=place, members={**cluster.members, name: place})
    replica.start()
    cluster.running[name] = replica
    return place


def place_of(replica, name):
    member = replica.status().members.get(name)
    return member and member.address


def test_a_member_that_comes_back_elsewhere_is_found_by_all_and_by_one_that_was_away(cluster, wait):
    cluster.start()
    cluster.propose(cluster.leader(), b"before")
    moving, away = cluster.followers()
    cluster.stop(away)
    place = move(cluster, moving)
    leader = cluster.leader()
    assert isinstance(cluster.propose(leader, b"meanwhile"), Applied)
    wait(lambda: place_of(cluster.running[leader], moving) == place)
    cluster.start(away)
    cluster.leader()
    wait(lambda: cluster.states() == [(b"before", b"meanwhile")] * 3)
    wait(lambda: place_of(cluster.running[away], moving) == place)


def test_an_empty_journal_finds_a_leader_that_is_not_where_its_configuration_says(cluster, wait):
    cluster.start()
    cluster.propose(cluster.leader(), b"before")
    moved, lost = cluster.followers()
    place = move(cluster, moved)
    wait(lambda: all(place_of(replica, moved) == place for replica in cluster.running.values()))
    ask_leader(cluster, lambda leader: leader.transfer(moved, 3), lambda: cluster.leader() == moved)
    cluster.stop(lost)
    shutil.rmtree(cluster.directory / lost)
    cluster.start(lost)
    wait(lambda: cluster.states() == [(b"before",)] * 3)
    wait(lambda: cluster.running[lost].status().votes)


def test_a_group_is_founded_with_one_that_is_not_where_the_others_were_told(cluster, wait):
    """It comes to them, and its own word is what stands in the log."""
    moved, *others = sorted(cluster.members)
    place = move(cluster, moved)
    cluster.start(*others)
    assert isinstance(cluster.propose(cluster.leader(), b"one"), Applied)
    wait(lambda: all(place_of(replica, moved) == place for replica in cluster.running.values()))
    wait(lambda: cluster.states() == [(b"one",)] * 3)


def test_a_whole_group_that_was_moved_while_it_was_down_finds_itself_by_its_configuration(cluster, wait):
    cluster.start()
    cluster.propose(cluster.leader(), b"before")
    wait(lambda: cluster.states() == [(b"before",)] * 3)
    cluster.stop()
    cluster.members = {name: cluster.unused_place() for name in cluster.members}
    cluster.start()
    assert isinstance(cluster.propose(cluster.leader(), b"after"), Applied)
    wait(
        lambda: all(
            place_of(replica, name) == place
            for replica in cluster.running.values()
            for name, place in cluster.members.items()
        )
    )


def ask_leader(cluster, ask, done):
    """Ask whoever leads until it is done: the leader may just be changing, or not have settled yet."""
    while not done():
        ask(cluster.running[cluster.leader()]).result(6)
        time.sleep(0.05)


def add(cluster, name):
    """Take a new replica in, which knows the others by their present addresses, and start it."""
    place = cluster.unused_place()
    some = next(iter(cluster.running.values()))
    ask_leader(
        cluster,
        lambda leader: leader.add_member(name, place, "joining", 5),
        lambda: name in some.status().members.names,
    )
    known = {member.name: member.address for member in some.status().members.all}
    replica = cluster.replica(name, listen=place, members=known)
    replica.start()
    cluster.running[name] = replica


def voters_at(replica):
    return replica.status().members.voters


def hand_over(cluster, to):
    ask_leader(cluster, lambda leader: leader.transfer(to, 5), lambda: cluster.leader() == to)


def test_a_group_changes_altogether_while_one_is_away_and_that_one_comes_back(cluster, wait):
    """n1, n2 and n3 become n2 and n4 and n5; n2 has moved; n3 knows none of their addresses, nor who leads."""
    cluster.start()
    cluster.propose("n1", b"before")
    wait(lambda: cluster.states() == [(b"before",)] * 3)
    cluster.stop("n3")
    hand_over(cluster, "n1")
    for name in ("n4", "n5"):
        add(cluster, name)
        wait(lambda name=name: name in voters_at(cluster.running["n1"]))
    cluster.propose("n1", b"with five")
    moved = move(cluster, "n2")
    wait(lambda: place_of(cluster.running["n4"], "n2") == moved)
    hand_over(cluster, "n4")
    removed = cluster.running["n1"]
    ask_leader(
        cluster,
        lambda leader: leader.remove_member("n1", 5),
        lambda: "n1" not in cluster.running["n2"].status().members.names,
    )
    del cluster.running["n1"]
    term = removed.status().term
    try:
        refused = "refused us: 'n1' is no other member of cluster 'c': removed, or not added yet"
        wait(lambda: all(refused in str(peer.refusal) for peer in removed.status().peers if peer.name in {"n2", "n4"}))
        wait(lambda: any(refused in event.reason for event in cluster.events["n1"] if isinstance(event, PeerRefused)))
        time.sleep(1)
        assert removed.status().term == term
    finally:
        removed.stop()
    hand_over(cluster, "n4")
    cluster.propose("n4", b"without the first")

    cluster.start("n3")
    wait(lambda: cluster.running["n3"].view().state == (b"before", b"with five", b"without the first"))
    wait(lambda: voters_at(cluster.running["n3"]) == {"n2", "n3", "n4", "n5"})
    assert cluster.leader() != "n1"
    assert isinstance(cluster.propose("n3", b"all four"), Applied)
    wait(lambda: set(cluster.states()) == {(b"before", b"with five", b"without the first", b"all four")})


def test_a_member_that_was_removed_comes_in_again_only_when_it_is_added(cluster, wait):
    cluster.start()
    leader, gone, other = cluster.leader(), *cluster.followers()
    ask_leader(
        cluster,
        lambda replica: replica.remove_member(gone, 5),
        lambda: gone not in cluster.running[other].status().members.names,
    )
    removed = cluster.running.pop(gone)
    wait(lambda: not any(peer.connected for peer in removed.status().peers))
    assert isinstance(removed.propose(b"x", "x", 2).result(3), Refused | Unknown)
    place = cluster.members[gone]
    ask_leader(
        cluster,
        lambda replica: replica.add_member(gone, place, "joining", 5),
        lambda: gone in cluster.running[other].status().members.names,
    )
    cluster.running[gone] = removed
    wait(lambda: gone in voters_at(cluster.running[leader]))
    assert isinstance(cluster.propose(gone, b"again"), Applied)


def test_a_member_that_was_down_when_it_was_removed_learns_it_from_the_others(cluster, wait):
    cluster.start()
    cluster.propose("n1", b"before")
    wait(lambda: cluster.states() == [(b"before",)] * 3)
    cluster.stop("n3")
    ask_leader(
        cluster,
        lambda leader: leader.remove_member("n3", 5),
        lambda: all("n3" not in cluster.running[name].status().members.names for name in ("n1", "n2")),
    )
    cluster.start("n3")
    removed = cluster.running["n3"]
    wait(lambda: removed.status().removed_by == ("n1", "n2"))
    status = removed.status()
    assert status.members.names == {"n1", "n2", "n3"}, "by its own log it still is one"
    for peer in status.peers:
        assert peer.refused_us.words == "'n3' is no other member of cluster 'c': removed, or not added yet"
        assert peer.refused_us.no_member
        assert 0 <= peer.refused_us.age_s < 3
    assert removed.view().state == (b"before",), "it keeps what it has"
    assert (status.role, status.failure) == ("follower", None), "and draws no consequence"

    # n2 leads nobody and hears nobody, so it lets n3 in as a guest: that takes nothing back
    cluster.stop("n1")
    wait(lambda: next(peer.connected for peer in removed.status().peers if peer.name == "n2"))
    assert removed.status().removed_by == ("n1", "n2")
    aged = next(peer.refused_us for peer in removed.status().peers if peer.name == "n1")
    time.sleep(1)
    assert next(peer.refused_us.age_s for peer in removed.status().peers if peer.name == "n1") >= aged.age_s + 1

    place = cluster.members["n3"]
    cluster.start("n1")
    cluster.running.pop("n3")
    ask_leader(
        cluster,
        lambda leader: leader.add_member("n3", place, "joining", 5),
        lambda: "n3" in cluster.running["n1"].status().members.names,
    )
    cluster.running["n3"] = removed
    wait(lambda: removed.status().removed_by == ())
    wait(lambda: "n3" in voters_at(cluster.running["n1"]))
    wait(lambda: all(peer.refused_us is None for peer in removed.status().peers))


def test_what_is_no_address_is_refused(cluster):
    cluster.start("n1")
    outcome = cluster.running["n1"].add_member("n4", "nowhere", "joining", 5).result(0)
    assert isinstance(outcome, Refused)
    assert "is no address" in outcome.reason


def test_r3_a_clock_that_goes_back_ends_the_replica_with_the_remedy(cluster, wait, monkeypatch):
    """It would not notice for as long as the clock went back that anything is due: a leader without a heartbeat."""
    cluster.start("n1")
    real = raft.replica.boottime_s
    monkeypatch.setattr(raft.replica, "boottime_s", lambda: real() - 3600)
    wait(lambda: cluster.running["n1"].status().role == "failed")
    failure = cluster.running["n1"].status().failure
    assert "(CLOCK_BOOTTIME) went back by 3600" in failure or "(CLOCK_BOOTTIME) went back by 3599" in failure
    assert "see to the host or its hypervisor, then start this replica again" in failure
    assert Failed(failure) in cluster.events["n1"]
    refused = cluster.running["n1"].propose(b"x", "x", 5).result(1)
    assert (type(refused), refused.index) == (Refused, None)
    assert failure in refused.reason
