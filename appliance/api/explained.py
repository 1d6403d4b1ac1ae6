"""`GET /api/v1/explain`: the explanation as this node can give it, and how old what it knows is."""

from dataclasses import dataclass, replace
from datetime import datetime

from appliance.api.present import Present
from appliance.api.published import Published
from appliance.api.view import Applied, rounded
from appliance.ha.explain import Explanation, explain


@dataclass(frozen=True, slots=True)
class ExplainView:
    name: str
    """of the cluster"""
    node: str
    """which node answers"""
    applied: Applied
    quorum: bool
    """false: this is what it knew last"""
    leader: str | None
    """of Raft, as far as this node knows"""
    leader_says: str
    """what that one is doing about the primary, in words; empty: it has not said"""
    explanation: Explanation


def explain_view(published: Published, now_s: float, member: str = "") -> ExplainView:
    """Of all members, or of the named one, which there must be."""
    present = Present.at(published, now_s)
    reports = {name: seen for name in present.state.members if (seen := present.report(name)) is not None}
    found = explain(present.state, reports, present.policy, present.contact_s, seconds_between)
    if member:
        found = replace(found, members=tuple(m for m in found.members if m.member == member))
    return ExplainView(
        name=present.state.name or published.cluster,
        node=published.node,
        applied=Applied(published.raft.index, rounded(present.contact_s)),
        quorum=present.in_contact(),
        leader=published.raft.leader,
        leader_says=published.leader_says,
        explanation=found,
    )


def seconds_between(begin: str, end: str) -> float | None:
    """Of two times as RFC 3339 writes them; None: one of them is none."""
    try:
        return (datetime.fromisoformat(end) - datetime.fromisoformat(begin)).total_seconds()
    except (ValueError, TypeError):
        return None
