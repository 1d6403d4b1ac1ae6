"""Rules of a running standby: whom it takes WAL from."""

from appliance.cluster.config import Policy
from appliance.cluster.lsn import format_lsn
from appliance.cluster.state import ClusterState, LeaseStatus, NodeRole
from appliance.ha.actions import Decision, Follow, NoteNeedsClone
from appliance.ha.facts import me
from appliance.ha.seen import Observation


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
