"""What happens to a running cluster while clients write, and how long each thing takes that a user would notice."""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.harness.cluster import Cluster
from tests.harness.ledger import Audit, Ledger
from tests.harness.network import Network
from tests.harness.node import Node
from tests.harness.processes import send

AWAY_S = 0.5
"""How long a node process that is started again was away: less than failure_timeout, with its start."""
BACK_LIMIT_S = 60.0
_STREAMING = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'"


@dataclass(frozen=True, slots=True)
class Seen:
    """One run: times in seconds by row of the table, and what came of every acknowledged commit."""

    audit: Audit
    times: dict[str, float] = field(default_factory=dict)


@contextmanager
def writing(cluster: Cluster, ledger: Ledger | None = None) -> Iterator[Ledger]:
    with ledger or Ledger(cluster, sides=[list(cluster)]) as ledger:
        time.sleep(0.5)
        yield ledger


def audited(cluster: Cluster, ledger: Ledger, *, not_by: str = "") -> Audit:
    """A second of writes after the event (by somebody else), then what was acknowledged and what is there."""
    cluster.wait_until(lambda: ledger.last().node != not_by, BACK_LIMIT_S, f"writes by another node than {not_by}")
    ledger.wait_for_writes(30)
    time.sleep(1.0)
    ledger.stop()
    audit = ledger.audit(cluster.primary())
    audit.expect_one_at_a_time()
    return audit


def all_streaming_s(cluster: Cluster) -> float:
    """From now until every standby streams from the primary, as the primary's PostgreSQL sees it."""
    began_s, primary, others = time.monotonic(), cluster.primary(), len(cluster.data()) - 1
    cluster.wait_until(lambda: primary.order(_STREAMING)[0][0] == others, BACK_LIMIT_S, "all others stream")
    return time.monotonic() - began_s


def switchover(cluster: Cluster) -> Seen:
    with writing(cluster) as ledger:
        primary = cluster.primary()
        target = cluster.standbys()[0]
        answer = primary.post("switchovers", {"to": target.name}, wait="30s")
        assert answer.status == 200, answer.body
        audit = audited(cluster, ledger, not_by=primary.name)
    return Seen(audit, {"switchover": audit.longest_gap_s()})


def postmaster_killed(cluster: Cluster) -> Seen:
    with writing(cluster) as ledger:
        pid = cluster.primary().postmaster
        assert pid is not None
        send(pid, signal.SIGKILL)
        audit = audited(cluster, ledger)
    return Seen(audit, {"postmaster-killed": audit.longest_gap_s()})


def host_lost(cluster: Cluster) -> Seen:
    with writing(cluster) as ledger:
        lost = cluster.primary()
        lost.lose_host()
        audit = audited(cluster, ledger, not_by=lost.name)
    lost.start()
    return Seen(audit, {"host-lost": audit.longest_gap_s(), "host-returned": all_streaming_s(cluster)})


def partition(cluster: Cluster, network: Network) -> Seen:
    """A client stands beside the primary and is cut off with it; one outside reaches the other nodes only."""
    old = cluster.primary()
    others = [node for node in cluster if node is not old]
    with writing(cluster, Ledger(cluster, enter=network.enter(), sides=[[old], others])) as ledger:
        cut_s = time.monotonic()
        network.part(old.name, [node.name for node in others])
        back = ledger.wait_for_writes(BACK_LIMIT_S, others, more=1)
        cluster.wait_until(lambda: not old.writable(), BACK_LIMIT_S, "the old primary takes no writes")
        time.sleep(1.0)
        network.heal()
        healed_s = all_streaming_s(cluster)
        audit = audited(cluster, ledger, not_by=old.name)
    return Seen(audit, {"partition": back.acked_s - cut_s, "partition-healed": healed_s})


def node_restarted(cluster: Cluster) -> Seen:
    with writing(cluster) as ledger:
        node = cluster.primary()
        node.end(signal.SIGKILL)
        time.sleep(AWAY_S)
        node.start()
        time.sleep(3.0)
        audit = audited(cluster, ledger)
    return Seen(audit, {"node-restarted": audit.longest_gap_s()})


def node_stopped(cluster: Cluster) -> Seen:
    with writing(cluster) as ledger:
        node = cluster.primary()
        node.tell(signal.SIGSTOP)
        audit = audited(cluster, ledger, not_by=node.name)
        node.tell(signal.SIGCONT)
    return Seen(audit, {"node-stopped": audit.longest_gap_s()})


def form(cluster: Cluster) -> float:
    """Three node processes from nothing to two streaming standbys."""
    began_s = time.monotonic()
    cluster.start()
    while not _bootstrapped(cluster["n1"]):
        time.sleep(0.02)
    while _streaming(cluster["n1"]) < 2:
        time.sleep(0.02)
    return time.monotonic() - began_s


def _bootstrapped(node: Node) -> bool:
    try:
        return len(node.view()["members"]) == 3 and node.post("bootstrap").status in {200, 202}
    except OSError:
        return False


def _streaming(node: Node) -> int:
    try:
        return sum(m["state"] == "streaming" for m in node.view()["members"])
    except OSError:
        return 0


EVENTS: dict[str, tuple[Callable[[Cluster], Seen], dict[str, str]]] = {
    "switchover": (switchover, {"switchover": "planned switchover: writes stop for"}),
    "postmaster-killed": (postmaster_killed, {"postmaster-killed": "postmaster killed (-9): writes stop for"}),
    "host-lost": (
        host_lost,
        {
            "host-lost": "host of the primary lost: writes stop for",
            "host-returned": "a lost host returns: all nodes stream again after",
        },
    ),
    "node-restarted": (
        node_restarted,
        {"node-restarted": f"node process killed (-9), started again after {AWAY_S:g} s: writes stop for"},
    ),
    "node-stopped": (node_stopped, {"node-stopped": "node process stopped (SIGSTOP) for good: writes stop for"}),
}
PARTITION = {
    "partition": "the primary cut off: clients of the others write again after",
    "partition-healed": "the cut heals: all nodes stream again after",
}
