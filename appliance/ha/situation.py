"""What `plan` sees and what it answers, and the questions that more than one of its rules asks."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from appliance.cluster.commands import Command
from appliance.cluster.config import Policy
from appliance.cluster.state import ClusterState, Position
from appliance.ha.checks import FRESH_S
from appliance.ha.seen import LeaderSeen, ReportSeen


@dataclass(frozen=True, slots=True)
class Situation:
    state: ClusterState
    reports: Mapping[str, ReportSeen]
    leader: LeaderSeen
    policy: Policy
    wall_time: str = ""
    """RFC 3339, for people; no rule reads it"""
    primary_heard_at: str = ""
    """the same, of the last report of the appointed primary"""


@dataclass(frozen=True, slots=True)
class Plan:
    because: str
    commands: tuple[Command, ...] = field(default=())
    rule: str = ""


Rule = Callable[[Situation], Plan | None]


def fresh(now: Situation, node: str) -> ReportSeen | None:
    seen = now.reports.get(node)
    return seen if seen is not None and seen.age_s <= FRESH_S else None


def silence_s(leader: LeaderSeen) -> float:
    """Since the lease was last renewed, as far as this raft leader knows (R3).

    Without one in this term it counts from this leader's own election, or from the appointment if that came later.
    """
    if leader.confirmed_s is not None:
        return leader.confirmed_s
    return min(leader.leading_s, leader.epoch_s)


def reported_position(now: Situation) -> Position | None:
    """The last position that the appointed primary reported as primary; reports of other roles say nothing here."""
    held = now.state.appointment
    seen = now.reports.get(held.node) if held is not None else None
    if held is None or seen is None or seen.report.in_recovery is not False or seen.report.timeline != held.timeline:
        return None
    return Position(seen.report.timeline, seen.report.lsn)
