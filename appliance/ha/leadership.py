"""Who leads Raft: not the primary, so that the loss of its host is detected once, and not by two waits in turn.

Pure. A raft leader that is the primary hands over to another voter; nobody but a person ever hands over to a primary,
so that the leadership cannot go to and fro. What it costs to be wrong is a leadership that stays where it is.
"""

import math
from collections.abc import Collection
from dataclasses import dataclass

from appliance.cluster.state import ClusterState, Member, NodeRole
from appliance.ha.membership import Replicas

SUITED_S = 1.0
"""For so long one and the same voter has to be the better raft leader, without a break."""
KEEP_S = 60.0
"""Leadership that came to the primary later than its role stays so long: a person may have wanted it, or the others
could not keep it. So long also until a hand-over that came to nothing is tried again."""
KEEP_LONGEST_S = 3600.0


@dataclass(frozen=True, slots=True)
class Tries:
    """Hand-overs by this node while it was the primary of one epoch, whatever came of them."""

    epoch: int = 0
    count: int = 0
    last_s: float = -math.inf
    """on the clock of the one who tells the time here"""

    def of(self, epoch: int) -> "Tries":
        """With the next epoch it begins anew."""
        return self if epoch == self.epoch else Tries(epoch)

    def again(self, now_s: float) -> "Tries":
        return Tries(self.epoch, self.count + 1, now_s)


@dataclass(frozen=True, slots=True)
class LeadershipSeen:
    """What the raft leader knows of its leadership: ages on its own clock."""

    leading_s: float
    opened_s: float
    """since it knows that the present primary is open"""
    suited_s: float
    """since the heir of now has been that, without a break"""
    tried_s: float = math.inf
    """since it last handed over in this epoch; infinite: it did not"""
    tries: int = 0


def heir(state: ClusterState, replicas: Replicas, caught_up: Collection[str]) -> str | None:
    """Who should lead instead of a raft leader that is the primary; None: nobody, or not now.

    `caught_up`: who has all of the raft leader's log on disk; it is waited for with the log closed otherwise.
    """
    held, others = state.appointment, replicas.voters & replicas.up - {replicas.leader}
    if held is None or not held.opened or state.primary != replicas.leader:
        return None
    if state.election is not None or state.running_operation() is not None or _joins(replicas):
        return None
    if 2 * len(others) <= len(replicas.voters):
        return None  # nobody could lead without this host anyway: nothing would be won
    known = (state.members.get(name) for name in others.intersection(caught_up))
    able = [member for member in known if member is not None and member.role is not NodeRole.LEARNER]
    return max(able, key=_aptitude).name if able else None


def _joins(replicas: Replicas) -> bool:
    """One that is there to become a voter: what it was sent so far would be sent anew."""
    return any(role == "joining" and name in replicas.up for name, role in replicas.roles.items())


def _aptitude(member: Member) -> tuple[bool, str]:
    """Who will not be the next primary: a witness; else the last by name, as of equals the first is appointed."""
    return member.role is NodeRole.WITNESS, member.name


def may_hand_over(seen: LeadershipSeen) -> bool:
    """Not before things have calmed down, and not soon after the leadership came back or could not be handed over."""
    came_later = seen.opened_s >= seen.leading_s
    undisturbed_s = min(seen.tried_s, seen.leading_s if came_later else math.inf)
    return seen.suited_s >= SUITED_S and undisturbed_s >= keep_s(seen.tries)


def keep_s(tries: int) -> float:
    """Twice as long after each further try that the leadership came back from, or that came to nothing."""
    return min(KEEP_LONGEST_S, KEEP_S * 2.0 ** min(max(0, tries - 1), 10))
