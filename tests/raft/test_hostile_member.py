"""A member whose host was taken over: what it says of itself must not get others into trouble that outlives it."""

from raft.api import ReplicaFailed
from raft.members import Introduction
from raft.messages import Append
from tests.harness.transports import Party


def test_a_replica_id_that_no_log_can_hold_stops_nobody(cluster, wait):
    """n3 shows its own certificate, and another id in its hello and welcome than a member can have."""
    cluster.start()
    cluster.leader()
    cluster_id = cluster.running["n1"].status().cluster_id
    cluster.stop("n3")
    n3 = Party("n3", cluster.members, cluster.certificates)
    n3.said = Introduction("x" * 1000, cluster_id, 0)
    n3.start()
    try:
        wait(lambda: any(cluster.running["n1"].status().refusals.values()))
        cluster.propose("n1", b"one")
        assert all(member.replica_id != "x" * 1000 for member in cluster.running["n1"].status().members.all)
    finally:
        n3.close()
    cluster.stop()
    cluster.start()
    cluster.leader()
    cluster.propose("n3", b"two")
    wait(lambda: all(state == (b"one", b"two") for state in cluster.states()))
    assert not [event for told in cluster.events.values() for event in told if isinstance(event, ReplicaFailed)]


def test_an_incarnation_that_no_journal_can_hold_is_not_adopted(cluster, wait):
    """n3 has an empty journal, and n1 leads, as it says."""
    n1 = Party("n1", cluster.members, cluster.certificates).start()
    n3 = cluster.replica("n3")
    n3.start()
    try:
        wait(lambda: n1.connected("n3"))
        for incarnation in ("9" * 300, "99999999999999999999", "\u0661"):
            message = Append(f"cafe/{incarnation}", "id of n1", 1, 1, 1, 0, 1, ())
            assert n1.transport.send("n3", message)
        n1.transport.send("n3", Append("cafe/0", "id of n1", 1, 2, 1, 0, 1, ()))
        wait(lambda: n3.status().cluster_id or n3.status().failure)
        assert (n3.status().failure, n3.status().cluster_id, n3.status().incarnation) == (None, "cafe", 0)
    finally:
        n1.close()
        n3.stop()
