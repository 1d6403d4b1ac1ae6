"""Rules of a running standby: whom it takes WAL from."""

from appliance.cluster.config import Policy
from appliance.cluster.lsn import format_lsn
from appliance.cluster.state import ClusterState, LeaseStatus, NodeRole
from appliance.cluster.timelines import descent
from appliance.ha.actions import Decision, Follow, NoteNeedsClone, StopMode, StopPostgres
from appliance.ha.facts import me
from appliance.ha.seen import Observation

SILENT_LIMIT_S = 3.0
"""A standby streams within milliseconds from a source that is there."""
_RESTART_PAUSE_S = 10.0
"""A standby that was just started is not stopped again for the same reason: its source may be what is away."""


def upstream(state: ClusterState, node: str, pledge: int) -> str:
    """The member that `node`, pledged to election `pledge`, takes WAL from, or empty.

    R6: with a pledge, from nobody, until it follows a primary of that epoch or a later one; and from a new
    primary only after it has opened, because only then its timeline is known.
    """
    held = state.appointment
    if held is None or state.election is not None or pledge > held.epoch:
        return ""
    if held.node == node or not state.has_source:
        return ""
    return held.node


def follow(state: ClusterState, seen: Observation, policy: Policy) -> Decision | None:
    """Point the standby at the present primary by reload, or at nobody (R6).

    One that answers nobody is told too: it may need the WAL of a primary that is gone before it is consistent.
    """
    if not _in_recovery(seen) or me(state, seen).role is NodeRole.WITNESS:
        return None
    instance, wanted = seen.instance, upstream(state, seen.me.name, seen.notes.pledge)
    address = state.members[wanted].postgres if wanted in state.members else ""
    told = instance.upstream if instance is not None else seen.told_upstream
    receives = instance is not None and instance.receiver_running
    if told == address and (address or not receives):
        return None
    if not address:
        return Decision("takes WAL from nobody until a primary has opened", (Follow(""),))
    return Decision(f"follow {wanted} at {address}", (Follow(wanted),))


def _in_recovery(seen: Observation) -> bool:
    """As PostgreSQL says, and without an answer by the signal file."""
    if seen.instance is not None:
        return seen.instance.in_recovery
    return seen.postmaster is not None and seen.directory.standby_signal


def left_behind(state: ClusterState, seen: Observation, policy: Policy) -> Decision | None:
    """R15: the primary has the WAL no more that comes next here, so it can only be cloned.

    Only from an open primary: without one its data may be the best there are. WAL that is on this disk and not yet
    replayed does not come from there, so all of it must have been.
    """
    instance, source = seen.instance, upstream(state, seen.me.name, seen.notes.pledge)
    if instance is None or not instance.in_recovery or not source or state.lease is not LeaseStatus.HELD:
        return None
    if instance.streaming or not instance.replay_waits or instance.lsn >= seen.source_oldest_lsn:
        return None
    here, there = format_lsn(instance.lsn), format_lsn(seen.source_oldest_lsn)
    return Decision(f"its WAL ends at {here} and that of {source} begins at {there}", (NoteNeedsClone(),))


def leave_dead_timeline(state: ClusterState, seen: Observation, policy: Policy) -> Decision | None:
    """R14: start a PostgreSQL anew that waits for a timeline which never became history.

    Its receiver was told of the timeline by a primary that was lost before it had sent any of it. A running PostgreSQL
    never takes back what it recovers to ("new timeline is not a child of database system timeline"), one that starts
    takes the newest history there is: the present primary's, which the receiver has fetched.
    """
    instance, source, held = seen.instance, upstream(state, seen.me.name, seen.notes.pledge), state.appointment
    if instance is None or not instance.in_recovery or not source or state.lease is not LeaseStatus.HELD:
        return None
    if held is None or instance.streaming or not instance.replay_waits or instance.silent_s < SILENT_LIMIT_S:
        return None
    if seen.postmaster is None or seen.postmaster.age_s < _RESTART_PAUSE_S:
        return None
    *others, newest = sorted(instance.histories) or [0]
    if newest != held.timeline:  # a start would take another one again
        return None
    dead = [number for number in others if not descent(state.timelines, held.timeline, number)]
    if not dead:
        return None
    reason = f"it waits for timeline {dead[-1]}, which never became history, and {source} is on {held.timeline}"
    return Decision(f"{reason}: start anew", (StopPostgres(StopMode.FAST),))
