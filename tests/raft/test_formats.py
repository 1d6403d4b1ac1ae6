"""A real replica of the appliance's machine, in a rolling upgrade and back."""

import pytest

from appliance.cluster.commands import Depose, RaiseFormat
from appliance.cluster.state import FORMAT, ClusterState
from appliance.node.machine import ClusterMachine
from raft import Applied, Failed, Refused, Replica, ReplicaConfig, ReplicaError
from tests.raft.conftest import eventually, free_ports
from tests.unit.cluster.versions import NEXT, NEXT_FORMAT, Rename, encoded, judge

INSTALL = f"this node knows up to format {FORMAT}: install the newer version on this host"


@pytest.fixture
def start(tmp_path):
    """Start the one replica there is, of this version or the next; what it tells comes to `events`."""
    place, running = f"127.0.0.1:{free_ports(1)[0]}", []

    def start(machine, events=None, **settings):
        replica = Replica(
            ReplicaConfig("c", "n1", tmp_path, place, {"n1": place}, **settings),
            machine,
            on_event=(lambda _: None) if events is None else events.append,
            on_request=lambda _, payload: payload,
        )
        running.append(replica)
        replica.start()
        return replica

    yield start
    for replica in running:
        replica.stop()


def proposed(replica, command):
    eventually(lambda: replica.view().is_leader)
    return replica.propose(encoded(command), f"{command}", 5).result(6)


def ends(start, why):
    """The older version is started, and tells why it does not go on."""
    events = []
    old = start(ClusterMachine(), events)
    eventually(lambda: Failed(why) in events)
    assert (old.status().role, old.status().failure) == ("failed", why)
    assert old.view().state == ClusterState()
    old.stop()


def test_an_older_version_ends_like_a_failing_disk_ends_it_and_the_newer_one_goes_on(start):
    new = start(ClusterMachine(NEXT, judge))
    assert isinstance(proposed(new, Depose(1, "before the step")), Refused)
    early = proposed(new, Rename("shop"))
    assert early == Refused(f"format.ahead: Rename needs format {NEXT_FORMAT}, 1 is agreed on", None)
    step = proposed(new, RaiseFormat(NEXT_FORMAT))
    assert isinstance(step, Applied)
    assert isinstance(new.propose(encoded(Rename("shop")), "again", 5).result(6), Applied)
    new.stop()
    why = f"entry {step.index} holds the step to format {NEXT_FORMAT}; {INSTALL}"
    ends(start, why)
    ends(start, why)
    new = start(ClusterMachine(NEXT, judge))
    eventually(lambda: new.view().state == ClusterState(name="shop", format=NEXT_FORMAT))


def test_an_older_version_does_not_begin_at_a_snapshot_of_a_newer_one_and_says_so(start):
    new = start(ClusterMachine(NEXT, judge), compact_entries=2, keep_entries=0)
    assert isinstance(proposed(new, RaiseFormat(NEXT_FORMAT)), Applied)
    for number in range(3):
        assert isinstance(proposed(new, Rename(f"shop {number}")), Applied)
    eventually(lambda: new.status().first_index > 4)
    new.stop()
    with pytest.raises(
        ReplicaError, match=f"the snapshot in journal .* holds a state of format {NEXT_FORMAT}; {INSTALL}"
    ):
        start(ClusterMachine())
    assert start(ClusterMachine(NEXT, judge)).view().state.name.startswith("shop")
