"""Which replicas belong to consensus, with a vote or without: brought in line with the agreed members, step by step.

Pure. The state says who is a member, with which role, and who was removed; `raft/` takes one change at a time and sees
that majorities of before and after meet. What is added here: no step leaves voters without a majority that is up, as
that step could not even be committed.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal

from appliance.cluster.state import ClusterState, NodeRole
from appliance.ha.checks import FRESH_S
from appliance.ha.seen import ReportSeen

ReplicaRole = Literal["voter", "learner", "joining"]
"""A joining replica becomes a voter when it has caught up."""

LEAVE_WAIT_S = 10.0
"""How long a removed member that lives has to stop its PostgreSQL, before nobody tells its replica anything more."""


@dataclass(frozen=True, slots=True)
class DropReplica:
    name: str


@dataclass(frozen=True, slots=True)
class ChangeRole:
    name: str
    role: ReplicaRole


@dataclass(frozen=True, slots=True)
class HandOver:
    """Leadership of Raft goes to another voter first: a raft leader stays a voter."""

    to: str


@dataclass(frozen=True, slots=True)
class Change:
    because: str
    step: DropReplica | ChangeRole | HandOver | None
    """None: it has to wait"""


@dataclass(frozen=True, slots=True)
class Replicas:
    """What the raft leader knows of the replicas."""

    leader: str
    roles: Mapping[str, ReplicaRole]
    up: frozenset[str]
    """who is connected and reports, the raft leader itself included"""

    @property
    def voters(self) -> frozenset[str]:
        return frozenset(name for name, role in self.roles.items() if role == "voter")


def seen_by(
    leader: str, roles: Mapping[str, ReplicaRole], connected: Collection[str], reports: Mapping[str, ReportSeen]
) -> Replicas:
    """A connection alone may lead to a host that hangs, and a report alone may be the last one of its node."""
    fresh = {name for name, seen in reports.items() if seen.age_s <= FRESH_S}
    return Replicas(leader, roles, frozenset({leader, *fresh.intersection(connected)}))


def without_a_majority(replicas: Replicas, name: str) -> str | None:
    """Why consensus would not go on without this one's vote, or None."""
    left = replicas.voters - {name}
    up = left & replicas.up
    if not left:
        return f"{name} is the last voter"
    if 2 * len(up) <= len(left):
        return f"without {name} only {len(up)} of {len(left)} voters would be up"
    return None


def next_change(
    state: ClusterState, replicas: Replicas, reports: Mapping[str, ReportSeen], leaving_s: float
) -> Change | None:
    """The next step that can be made, else what a step waits for, else None: all is as agreed.

    `leaving_s`: since the raft leader first saw the present set of removed members.
    """
    wanted = (_wanted(state, replicas, name, reports, leaving_s) for name in sorted(replicas.roles))
    changes = [change for change in wanted if change is not None]
    return next((change for change in changes if change.step is not None), changes[0] if changes else None)


def _wanted(
    state: ClusterState, replicas: Replicas, name: str, reports: Mapping[str, ReportSeen], leaving_s: float
) -> Change | None:
    role, member = replicas.roles[name], state.members.get(name)
    if name in state.removed:
        seen = reports.get(name)
        if name in replicas.up and seen is not None and seen.report.running and leaving_s <= LEAVE_WAIT_S:
            return Change(f"{name} was removed: waits for the end of its PostgreSQL", None)
        return _guarded(state, replicas, name, Change(f"{name} was removed", DropReplica(name)))
    if member is None:  # it has not announced itself yet
        return None
    if member.role is NodeRole.LEARNER and role != "learner":
        return _guarded(state, replicas, name, Change(f"{name} is a learner", ChangeRole(name, "learner")))
    if member.role is not NodeRole.LEARNER and role == "learner":
        return Change(f"{name} has role {member.role}", ChangeRole(name, "joining"))
    return None


def _guarded(state: ClusterState, replicas: Replicas, name: str, change: Change) -> Change:
    """What takes a vote away only goes ahead where the others can decide without it."""
    if name not in replicas.voters:
        return change
    problem = without_a_majority(replicas, name)
    if problem is not None:
        return Change(f"{change.because}: {problem}", None)
    if name != replicas.leader:
        return change
    heir = _heir(state, (replicas.voters - {name}) & replicas.up)
    return Change(f"{change.because}: leadership goes to {heir}", HandOver(heir))


def _heir(state: ClusterState, names: Collection[str]) -> str:
    """Who keeps its vote is preferred: otherwise the leadership would move twice."""
    learners = {m.name for m in state.members.values() if m.role is NodeRole.LEARNER}
    return min(names, key=lambda name: (name in state.removed or name in learners, name))
