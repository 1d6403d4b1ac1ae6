"""Rules of a running standby: whom it takes WAL from."""

from appliance.cluster.config import Policy
from appliance.cluster.state import ClusterState, NodeRole
from appliance.ha.actions import Decision, Follow
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
    if held.node == node or not held.opened:
        return ""
    return held.node


def follow(state: ClusterState, seen: Observation, policy: Policy) -> Decision | None:
    """Point the standby at the present primary by reload, or at nobody (R6)."""
    instance = seen.instance
    if instance is None or not instance.in_recovery or me(state, seen).role is NodeRole.WITNESS:
        return None
    wanted = upstream(state, seen.me.name, seen.notes.pledge)
    address = state.members[wanted].postgres if wanted in state.members else ""
    if instance.upstream == address and (address or not instance.receiver_running):
        return None
    if not address:
        return Decision("takes WAL from nobody until a primary has opened", (Follow(""),))
    return Decision(f"follow {wanted} at {address}", (Follow(wanted),))
