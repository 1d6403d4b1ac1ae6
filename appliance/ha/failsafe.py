"""R16: a primary that has lost the quorum goes on while its synchronous members promise it not to vote.

Two questions, both pure: whom the primary has to ask, and whether a member may promise. An appointment of another node
needs a vote of somebody who was asked (R7, `synchronous.vouchers`), and no vote is cast while a promise lasts.
"""

from appliance.cluster import synchronous
from appliance.cluster.config import Policy
from appliance.cluster.state import ClusterState, LeaseStatus, NodeRole
from appliance.ha.facts import behind, is_writable, may_resume, strange
from appliance.ha.seen import Observation


def to_ask(state: ClusterState, seen: Observation, policy: Policy) -> frozenset[str] | None:
    """Who all have to promise now, so that this primary may go on; None: there is no need to ask, or it does not help.

    Only what is open already, with a lease that has not run out: nothing begins on a promise. An empty set asks nobody:
    no other member has data.
    """
    held, lease = may_resume(state, seen), seen.lease
    if held is None or lease is None or not held.opened or not policy.failsafe_mode:
        return None
    if not is_writable(seen) or seen.stopping_s is not None or behind(state, seen) or strange(state, seen) is not None:
        return None
    if lease.epoch != held.epoch or not 0 < lease.left_s <= policy.lease_s - policy.ask_after_s:
        return None
    members = synchronous.vouchers(state.sync)
    if members is None:
        return None
    # With k = 0 commits wait for nobody, so what a forced failover would lose is not bounded by a standby: all vouch.
    data = (m.name for m in state.members.values() if m.name != held.node and m.role is not NodeRole.WITNESS)
    return members or frozenset(data)


def objection(state: ClusterState, seen: Observation, policy: Policy, node: str, epoch: int) -> str | None:
    """Why this node does not promise `node`, primary of `epoch`, that it casts no vote for a ttl; None: it may.

    The pledge is what matters: once it has pledged itself to an election above `epoch`, it promises that epoch no more.
    That it refuses where there is a quorum is for the sake of others, who may be elected sooner then.
    """
    held = state.appointment
    if (waiting := behind(state, seen)) is not None:
        return waiting
    if held is None or (held.node, held.epoch) != (node, epoch) or not held.opened:
        return f"knows {held.node if held else 'nobody'} as primary of epoch {held.epoch if held else 0}"
    if state.lease is not LeaseStatus.HELD or state.election is not None:
        return f"the lease of epoch {epoch} is {state.lease}"
    if seen.notes.pledge > epoch:
        return f"is pledged to election {seen.notes.pledge}"
    if not policy.failsafe_mode:
        return "failsafe_mode is off"
    if is_writable(seen) or strange(state, seen) is not None:
        return "is no standby of it"
    if seen.contact_s is not None and seen.contact_s <= 2 * policy.renew_interval_s:
        return f"has a quorum: a raft leader answered {seen.contact_s:.1f} s ago"
    return None


def promise_s(policy: Policy) -> float:
    """How long it lasts on the clock of whoever gives it: longer than the lease that the primary makes of it (R3)."""
    return policy.depose_after_s


def in_words(seen: Observation) -> str:
    """For what a primary says of itself."""
    if seen.vouched_by is None:
        return ""
    return f", without a quorum, on the word of {', '.join(sorted(seen.vouched_by)) or 'nobody: no other has data'}"
