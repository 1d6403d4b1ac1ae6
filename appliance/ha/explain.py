"""Why it is as it is: who is primary and why, who could be and why not, why there was or was no failover.

Pure, from the agreed state, its history and what the members last reported. Every answer has a stable code
(docs/reasons.md) and a sentence with the numbers.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from appliance.cluster import elections
from appliance.cluster.config import Policy
from appliance.cluster.loss import shown
from appliance.cluster.state import (
    Appointment,
    Change,
    ClusterState,
    HistoryEntry,
    LeaseStatus,
    Member,
    NodeRole,
    Position,
)
from appliance.ha import storage
from appliance.ha.candidates import Candidate, Field, field
from appliance.ha.checks import Check
from appliance.ha.seen import ReportSeen

CHANGES_SHOWN = 5
Between = Callable[[str, str], float | None]
"""Seconds from one wall clock's time to another's, of two hosts perhaps: for people only. None: one is not known."""


@dataclass(frozen=True, slots=True)
class Reason:
    code: str
    text: str


@dataclass(frozen=True, slots=True)
class PrimaryExplained:
    """The last appointment, which may be over."""

    member: str
    epoch: int
    timeline: int
    since: str
    """of its appointment, wall clock; empty: the history says no more of it"""
    why: Reason


@dataclass(frozen=True, slots=True)
class MemberExplained:
    member: str
    why: Reason
    """why it is, or is not, primary"""
    position: Position | None
    behind_bytes: int | None
    reported_age_s: float | None
    pledge: int
    """highest election that it has pledged itself to; 0: none, or not known"""
    priority: int
    checks: tuple[Check, ...]
    """of an election that would be held now"""


@dataclass(frozen=True, slots=True)
class ChangeExplained:
    entry: HistoryEntry
    text: str
    election_s: float | None
    """from the opening of the election to the appointment; None: not recorded"""
    opening_s: float | None
    """from the appointment until the new primary was open"""


@dataclass(frozen=True, slots=True)
class Explanation:
    primary: PrimaryExplained | None
    failover: Reason
    """why there is a failover now, or why there is none"""
    next: str
    """who would be appointed if the primary were lost now, or wins the open election; empty: nobody"""
    votes: Check | None
    """R7 on the votes that could be had now; None: it does not decide"""
    members: tuple[MemberExplained, ...]
    changes: tuple[ChangeExplained, ...]
    """the last ones, newest first"""


def explain(
    state: ClusterState,
    reports: Mapping[str, ReportSeen],
    policy: Policy,
    contact_s: float | None,
    between: Between = lambda _begin, _end: None,
) -> Explanation:
    """`contact_s`: since a majority last confirmed what is known here; None: it never did."""
    found = field(state, reports, policy)
    winner = next((c.member for c in found.candidates if c.wins), "")
    return Explanation(
        primary=_primary(state),
        failover=_failover(state, reports, policy, found, contact_s),
        next=winner,
        votes=found.votes if state.initialised else None,
        members=tuple(_member(state, reports, found, state.members[name]) for name in sorted(state.members)),
        changes=tuple(_change(entry, between) for entry in reversed(state.history[-CHANGES_SHOWN:])),
    )


# The primary


def _primary(state: ClusterState) -> PrimaryExplained | None:
    held = state.appointment
    if held is None:
        return None
    entry = _entry(state, held.epoch)
    since = entry.at if entry is not None else ""
    return PrimaryExplained(held.node, held.epoch, held.timeline, since, _why_primary(state, held))


def _entry(state: ClusterState, epoch: int) -> HistoryEntry | None:
    return next((entry for entry in reversed(state.history) if entry.epoch == epoch), None)


def _why_primary(state: ClusterState, held: Appointment) -> Reason:
    if state.lease is not LeaseStatus.HELD:
        over = state.lease_over or "an election was opened while it was held"
        return Reason("primary.ended", f"its lease of epoch {held.epoch} is {state.lease}: {over}")
    entry = _entry(state, held.epoch)
    why = _because(entry) if entry is not None else "the history does not reach back so far"
    if not held.opened:
        return Reason("primary.opening", f"appointed in epoch {held.epoch} and not open yet: {why}")
    return Reason("primary.open", f"primary of epoch {held.epoch} on timeline {held.timeline}: {why}")


def _because(entry: HistoryEntry) -> str:
    if not entry.votes:
        return entry.reason
    votes = ", ".join(f"{name} {shown(position)}" for name, position in sorted(entry.votes.items()))
    return f"{entry.reason} (election {entry.epoch}: {votes})"


# Failover, or none


def _failover(
    state: ClusterState,
    reports: Mapping[str, ReportSeen],
    policy: Policy,
    found: Field,
    contact_s: float | None,
) -> Reason:
    held = state.appointment
    if held is None:
        return Reason("cluster.not_initialised", "there is no data, and no primary to take over from")
    if contact_s is None or contact_s > policy.failure_timeout_s:
        since = "since this node started" if contact_s is None else f"for {contact_s:.1f} s"
        return Reason("quorum.none", f"this node has had no contact with a majority {since}: alone it decides nothing")
    if state.lease is not LeaseStatus.HELD:
        return _vacant(state, found)
    if not held.opened:
        return Reason("primary.opening", f"{held.node} was appointed in epoch {held.epoch} and is to open")
    seen = reports.get(held.node)
    if seen is not None and seen.age_s <= policy.failure_timeout_s:
        return _stalled(state, reports, policy, seen) or _heard(held, seen)
    return _silent(state, held, seen, policy, found)


def _vacant(state: ClusterState, found: Field) -> Reason:
    """Nobody holds the lease: the election decides."""
    why = f"the lease is {state.lease}" + (f": {state.lease_over}" if state.lease_over else "")
    if state.election is None:
        return Reason("election.due", f"{why}; an election is about to open")
    which = f"election {state.election.number} is open ({state.election.reason})"
    winner = next((c.member for c in found.candidates if c.wins), None)
    if winner is not None:
        return Reason("election.open", f"{which}; {winner} is about to win it")
    return _nobody(which, found)


def _nobody(which: str, found: Field) -> Reason:
    if found.votes is not None and not found.votes.ok:
        return Reason("quorum.votes_missing", f"{which}; {found.votes.detail}")
    refused = [c.objection for c in found.candidates if c.objection is not None]
    if not refused:
        return Reason("candidate.none", f"{which}; there is no candidate")
    words = "; ".join(f"{check.candidate}: {check.detail} ({check.code})" for check in refused)
    return Reason(refused[0].code, f"{which}; {words}")


def _stalled(state: ClusterState, reports: Mapping[str, ReportSeen], policy: Policy, seen: ReportSeen) -> Reason | None:
    """A primary that reports and cannot write, or takes nobody in, gives its epoch up only for somebody."""
    name, reason = seen.report.node, storage.why_stalled(seen.report.storage, policy.failure_timeout_s)
    if reason is None:
        return None
    heirs = ", ".join(sorted(storage.successors(state, reports, policy, name)))
    then = f"{heirs} could take over" if heirs else "nobody could take over, so it stays"
    limit_s = storage.hung_after_s(policy)
    return Reason("primary.stalled", f"{name}: {reason}; it ends its epoch after {limit_s:g} s for another one: {then}")


def _heard(held: Appointment, seen: ReportSeen) -> Reason:
    report, heard = seen.report, f"{held.node} reported {seen.age_s:.1f} s ago"
    if report.running and report.in_recovery is False:
        return Reason("primary.open", f"{heard} and is open: nothing to fail over from")
    return Reason("primary.not_writable", f"{heard} that its PostgreSQL is {report.status}: {report.doing}")


def _silent(state: ClusterState, held: Appointment, seen: ReportSeen | None, policy: Policy, found: Field) -> Reason:
    """It still holds its lease, as far as anybody knows. R9: with fencing votes that need not be waited for."""
    since = "has not reported" if seen is None else f"has been silent for {seen.age_s:.1f} s"
    silent = f"{held.node} {since}"
    until = f"its lease ends {policy.depose_after_s:.2f} s after the last renewal that was confirmed"
    if not elections.fences_by_votes(state):
        return Reason("lease.held", f"{silent}; {until}, and no election opens before (failover.fencing: lease)")
    if found.votes is not None and not found.votes.ok:
        return Reason(
            "quorum.votes_missing", f"{silent}, and no election is opened in vain: {found.votes.detail}; {until}"
        )
    limit_s = policy.failure_timeout_s
    return Reason("election.due", f"{silent}; an election opens after failure_timeout, {limit_s:g} s without a renewal")


# Members


def _member(state: ClusterState, reports: Mapping[str, ReportSeen], found: Field, member: Member) -> MemberExplained:
    candidate, seen = found.of(member.name), reports.get(member.name)
    assert candidate is not None
    priority = member.tags.get("failover_priority", 1)
    return MemberExplained(
        member=member.name,
        why=_why_member(state, found, member, candidate),
        position=candidate.position,
        behind_bytes=candidate.behind_bytes,
        reported_age_s=candidate.age_s,
        pledge=seen.report.notes.pledge if seen is not None else 0,
        priority=priority if isinstance(priority, int) else 1,
        checks=candidate.checks,
    )


def _why_member(state: ClusterState, found: Field, member: Member, candidate: Candidate) -> Reason:
    held = state.appointment
    if held is not None and held.node == member.name and state.lease is LeaseStatus.HELD:
        return _why_primary(state, held)
    if member.role is NodeRole.WITNESS:
        return Reason("candidate.data", "a witness has no PostgreSQL: it never becomes primary")
    instead, now = _instead(state)
    failed = {check.code: check for check in candidate.checks if not check.ok}
    behind = failed.pop("candidate.behind", None)
    refused = next(iter(failed.values()), None)
    if refused is not None:
        return Reason(refused.code, f"{instead}; it could not be appointed {now}: {refused.detail}")
    if found.votes is not None and not found.votes.ok:
        return Reason(found.votes.code, f"{instead}; nobody could be appointed {now}: {found.votes.detail}")
    if candidate.wins:
        return Reason("candidate.next", f"{instead}; it would be appointed {now}")
    if behind is not None:
        # Of standbys that stream, the reports are of different moments: that is their order, and no lack for sure.
        words = f"another one would be appointed {now}: this one has {behind.detail}, by their last reports"
        return Reason(behind.code, f"{instead}; {words}")
    if candidate.after:
        return Reason("candidate.after", f"{instead}; it could be appointed {now}, but {candidate.after}")
    return Reason("candidate.no_vote", f"{instead}; it could not vote {now}: no position of it is known")


def _instead(state: ClusterState) -> tuple[str, str]:
    """Who is primary in its place, and when it might be."""
    primary, held = state.primary, state.appointment
    if primary is None or held is None:
        return "there is no primary", "now"
    return f"{primary} is primary of epoch {held.epoch}", f"if {primary} were lost now"


# Changes


def _change(entry: HistoryEntry, between: Between) -> ChangeExplained:
    election_s, opening_s = between(entry.election_at, entry.at), between(entry.at, entry.opened_at)
    took = [f"appointed {election_s:.2f} s after the election opened"] if election_s is not None else []
    took += [f"open {opening_s:.2f} s after that"] if opening_s is not None else []
    if not entry.opened_at and entry.change is not Change.BOOTSTRAP:
        took.append("it did not open, or nobody heard that it did")
    parts = [f"{_from_to(entry)}: {_because(entry)}", *took, *([lost_in_words(entry)] if entry.lost else [])]
    return ChangeExplained(entry, "; ".join(parts), election_s, opening_s)


def _from_to(entry: HistoryEntry) -> str:
    return (
        f"{entry.change} from {entry.previous} to {entry.primary}"
        if entry.previous
        else f"{entry.change} of {entry.primary}"
    )


def lost_in_words(entry: HistoryEntry) -> str:
    """What was given up, by whom and why."""
    lost, start = entry.lost, entry.start
    if lost is None or start is None:
        return "nothing was given up"
    much = "an unknown amount" if lost.bytes is None else f"{lost.bytes} bytes"
    at = f", as of {lost.known_at}" if lost.known_at else ""
    words = f" ({lost.reason})" if lost.reason else ""
    stated = f", who stated that {lost.stopped} was stopped" if lost.stopped else ""
    return (
        f"given up by {lost.requester}{words}{stated}: {much} of WAL"
        f" between {shown(start)} and {shown(lost.known)}{at}, and"
        f" what was acknowledged after that (operation {lost.operation}, {lost.refusal})"
    )
