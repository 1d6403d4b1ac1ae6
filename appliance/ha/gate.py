"""The gate of a primary (R5a): applications are let in when nothing that they could read can be lost by an election.

While PostgreSQL runs, a commit is seen when it has been waited for. What it finds on its disk at a start, or has when
it is promoted, it shows at once, confirmed or not.
"""

from collections.abc import Collection

from appliance.cluster import synchronous
from appliance.cluster.config import Policy
from appliance.cluster.lsn import format_lsn
from appliance.cluster.state import Appointment, ClusterState
from appliance.ha.actions import ApplySettings, Decision
from appliance.ha.facts import appointed, may_resume
from appliance.ha.seen import InstanceSeen, Observation


def admits(state: ClusterState, seen: Observation) -> bool:
    """Whether PostgreSQL here is to let applications in; where none runs, whether a primary started in place is to."""
    held, instance = appointed(state, seen), seen.instance
    if held is None or not state.synchronous:
        return True
    if seen.postmaster is None:
        return not _could_be_lost(state, {held.node})
    if instance is None:
        return seen.admitted
    if not instance.in_recovery:
        # Once in, in: elections, changes of the set and rebuilds keep what every election shows, as they keep commits.
        return instance.admits or not _could_be_lost(state, {held.node, *_confirming(instance, seen.opened_lsn)})
    if held.opened or may_resume(state, seen) is None:
        return True  # no more than a standby
    return not _could_be_lost(state, {held.node, *_level(state, held)})


def admit(state: ClusterState, seen: Observation, policy: Policy) -> Decision | None:
    """R5a: open the gate of a primary. It is closed before one is promoted or started."""
    instance = seen.instance
    if instance is None or instance.in_recovery or instance.admits or not admits(state, seen):
        return None
    return Decision("no election can lose what is here: applications are let in", (ApplySettings(),))


def await_confirmation(state: ClusterState, seen: Observation, policy: Policy) -> Decision | None:
    """Comes after all others: what could bring the confirmation must not wait for it."""
    waiting = why_closed(state, seen)
    return Decision(waiting) if waiting else None


def why_closed(state: ClusterState, seen: Observation) -> str:
    """What the gate of a primary waits for, in words; empty: it is open, or there is no primary here."""
    instance = seen.instance
    if instance is None or instance.in_recovery or instance.admits or appointed(state, seen) is None:
        return ""
    members, k = synchronous.union(state.sync)
    position = format_lsn(seen.opened_lsn or instance.lsn)
    return f"lets no application in before {k} of {', '.join(sorted(members))} confirm WAL up to {position}"


def _could_be_lost(state: ClusterState, have: Collection[str]) -> bool:
    """Whether an election could come to its end among those who may lack it (R7, R7a)."""
    others = {m.name: m.incarnation for m in state.members.values() if m.incarnation and m.name not in have}
    return synchronous.suffice(state.grounds, others)


def _confirming(instance: InstanceSeen, lsn: int | None) -> frozenset[str]:
    return frozenset(s.member for s in instance.senders if lsn is not None and s.flushed_lsn >= lsn)


def _level(state: ClusterState, held: Appointment) -> frozenset[str]:
    """Who had all that the winning vote showed: who voted the same; and the primary before, where all of it came from.

    That one is a holder too where its own time as primary left nothing, so that others may have more than it (R7a). Who
    gave its data up since is no holder any more (R13).
    """
    if len(state.timelines) < 2:
        return frozenset()
    before = state.timelines[-2]
    return held.holders if held.start.timeline == before.number else held.holders - {before.node}
