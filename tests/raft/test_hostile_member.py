"""A member whose host was taken over: what it says of itself must not get others into trouble that outlives it."""

import pytest

from raft.api import PeerUnreachable, ReplicaError, ReplicaFailed
from raft.members import Introduction
from raft.messages import Append
from raft.requests import PAYLOAD_LIMIT_BYTES
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
        wait(lambda: cluster.running["n1"].status().refusals.get("protocol"))
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


def test_requests_and_answers_over_their_limit_reach_nobody(cluster, wait):
    """Eight megabytes of JSON would hold up the raft thread for more than a second."""
    cluster.start("n1")
    n1 = cluster.running["n1"]
    n3 = Party("n3", cluster.members, cluster.certificates).start()
    try:
        wait(lambda: n3.ask("n1", bytes(PAYLOAD_LIMIT_BYTES - 100)) is None)
        wait(lambda: n3.answers)
        # what it answers is longer than what it is asked; a refusal waits for no handler, so one after the other
        for size, answers in ((PAYLOAD_LIMIT_BYTES, 2), (PAYLOAD_LIMIT_BYTES + 1, 3)):
            n3.ask("n1", bytes(size))
            wait(lambda answers=answers: len(n3.answers) == answers)
        assert [(message["ok"], message["payload"][:40]) for _, message in n3.answers] == [
            (True, b"n1 to n3: ".ljust(40, b"\0")),
            (False, b"answer of 1048586 bytes is over 1048576"),
            (False, b"request of 1048577 bytes is over 1048576"),
        ]
        wait(lambda: can_ask(n1))
        for answer, words in (
            ({"ok": True, "payload": bytes(PAYLOAD_LIMIT_BYTES + 1)}, "answer of 1048577 bytes is over 1048576$"),
            ({"ok": False, "payload": b"\x1b[2J\xff" + b"x" * 2_000_000}, "\ufffd\\[2J\ufffdx{300,500}…$"),
        ):
            n3.says = answer
            with pytest.raises(ReplicaError, match=f"n3 failed to answer: {words}"):
                n1.request("n3", b"well?", 5).result(6)
    finally:
        n3.close()


def can_ask(replica):
    try:
        return replica.request("n3", b"?", 1).result(2)
    except PeerUnreachable:
        return None
