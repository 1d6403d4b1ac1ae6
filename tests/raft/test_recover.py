"""A majority is lost for good, and the group goes on from one replica that is left."""

import shutil

import pytest

from raft import Applied, DirectoryInUse, Refused, Unknown, begin_anew, read_copy
from tests.raft.appender import Appender

NOW_S = 1.0


@pytest.fixture
def lost(cluster, wait):
    """Two of three are gone, with what they had put aside; the third has an entry that may not be committed."""
    cluster.start()
    for number in range(5):
        assert isinstance(cluster.propose("n1", b"%d" % number), Applied)
    wait(lambda: [len(state) for state in cluster.states()] == [5] * 3)
    if cluster.leader() != "n1":
        outcome = cluster.running[cluster.leader()].transfer("n1", 5).result(6)
        assert isinstance(outcome, Applied)
        wait(lambda: cluster.running["n1"].view().is_leader)
    cluster.stop("n2", "n3")
    assert isinstance(cluster.running["n1"].propose(b"nobody else has it", "late", 0.5).result(2), Unknown)
    cluster.stop("n1")
    for name in ("n2", "n3"):
        (cluster.directory / name).rename(cluster.directory / f"old {name}")
    return cluster


def recover(cluster, name):
    directory = cluster.directory / name
    copy, _ = read_copy(directory, Appender())
    return begin_anew(directory, copy, cluster.members[name], NOW_S)


def test_one_that_is_left_cannot_go_on_by_itself(lost):
    lost.start("n1")
    with pytest.raises(AssertionError, match="did not come to pass"):
        lost.leader()
    with pytest.raises(DirectoryInUse):
        recover(lost, "n1")


def test_after_recovery_it_leads_with_all_that_it_has_and_empty_ones_join_and_vote(lost, wait):
    recover(lost, "n1")
    lost.start("n1")
    assert lost.leader() == "n1"
    state = lost.running["n1"].view().state
    assert state == (b"0", b"1", b"2", b"3", b"4", b"nobody else has it")
    status = lost.running["n1"].status()
    assert (status.incarnation, status.members.voters, status.members.learners) == (1, {"n1"}, {"n2", "n3"})
    assert isinstance(lost.propose("n1", b"alone"), Applied)

    lost.start("n2", "n3")
    wait(lambda: lost.running["n1"].status().members.voters == {"n1", "n2", "n3"})
    wait(lambda: lost.states() == [(*state, b"alone")] * 3)
    assert {replica.status().incarnation for replica in lost.running.values()} == {1}
    lost.stop("n1")
    assert lost.leader() in {"n2", "n3"}
    assert isinstance(lost.propose("n2", b"without it"), Applied)


def test_what_returns_from_the_old_incarnation_is_refused_in_words_and_changes_nothing(lost, wait):
    recover(lost, "n1")
    lost.start("n1", "n2")
    wait(lambda: lost.running["n1"].status().members.voters == {"n1", "n2"})
    (lost.directory / "old n3").rename(lost.directory / "n3")
    lost.start("n3")
    assert isinstance(lost.propose("n2", b"new"), Applied)

    to_the_old = "refused us: 'n3' belongs to incarnation 0, which was replaced by 1 with `raft recover`"
    for name in ("n1", "n2"):
        to_the_new = f"refused us: '{name}' belongs to incarnation 1, which has replaced ours, 0, with `raft recover`"
        wait(lambda name=name: to_the_old in said(lost, "n3", about=name))
        wait(lambda name=name, words=to_the_new: words in said(lost, name, about="n3"))
        assert lost.running[name].status().refusals["cluster"] > 0
    assert lost.running["n3"].status().incarnation == 0
    assert b"new" not in lost.running["n3"].view().state
    assert isinstance(lost.running["n3"].propose(b"old", "old", 1).result(2), Refused)

    lost.stop("n3")
    shutil.rmtree(lost.directory / "n3")
    lost.start("n3")
    wait(lambda: lost.running["n1"].status().members.voters == {"n1", "n2", "n3"})
    wait(lambda: b"new" in lost.running["n3"].view().state)


def test_who_joins_lets_go_of_those_of_the_old_incarnation_that_it_was_connected_with(lost, wait):
    """While it belonged to no group there was nothing to refuse them for."""
    (lost.directory / "old n3").rename(lost.directory / "n3")
    lost.start("n2", "n3")
    wait(lambda: connected(lost, "n2", "n3") and connected(lost, "n3", "n2"))
    recover(lost, "n1")
    lost.start("n1")
    wait(lambda: lost.running["n1"].status().members.voters == {"n1", "n2"})
    wait(lambda: not connected(lost, "n2", "n3") and not connected(lost, "n3", "n2"))
    wait(lambda: "which was replaced by 1 with `raft recover`" in said(lost, "n3", about="n2"))
    assert connected(lost, "n1", "n2")


def connected(cluster, name, peer):
    return next(seen.connected for seen in cluster.running[name].status().peers if seen.name == peer)


def said(cluster, name, about):
    return next(str(peer.refusal) for peer in cluster.running[name].status().peers if peer.name == about)
