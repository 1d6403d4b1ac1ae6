"""Where a data directory stands in the history that another one's PostgreSQL has written."""

from itertools import pairwise

from appliance.cluster.state import Appointment, ClusterState, Member, NodeRole, Position, Timeline
from appliance.ha.facts import wal_standing
from appliance.ha.seen import Notes, Observation
from appliance.node.observe import directory_seen
from appliance.postgres.directory import inspect
from appliance.postgres.history import read_history
from appliance.postgres.incarnation import Incarnation


def stands(one, source, timeline):
    """Of `one`, whose PostgreSQL does not answer, in the history in which `source` opened `timeline`."""
    left = read_history(source.data_dir / "pg_wal", timeline)
    numbers = [*(switch.timeline for switch in left), timeline]
    steps = zip(pairwise(numbers), left, strict=True)
    timelines = (
        Timeline(numbers[0], 1, "", 0, 0),
        *(Timeline(new, new, "", old, switch.switch_lsn) for (old, new), switch in steps),
    )
    start = Position(left[-1].timeline, left[-1].switch_lsn)
    appointment = Appointment(timeline, source.name, "", timeline, start, opened=True)
    seen = directory_seen(inspect(one.data_dir, one.binaries), Incarnation("", 0), 0)
    me = Member(one.name, NodeRole.DATA, "", "", "")
    there = Observation(me, seen, Notes(), lease=None, postmaster=None, instance=None)
    return wal_standing(ClusterState(appointment=appointment, timelines=timelines), there)
