"""Every member as a candidate, by the rules that an election would use: what stands in its way, with the numbers.

The election is held here in thought, with the votes that those who report could cast now, and judged by the very
functions that judge a real one.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from appliance.cluster import elections, loss
from appliance.cluster.config import Policy
from appliance.cluster.state import (
    UNENDED,
    AcceptedLoss,
    ClusterState,
    Election,
    LeaseStatus,
    Member,
    NodeRole,
    Position,
    Vote,
)
from appliance.ha.checks import FRESH_S, Check, can_vote, has_data, reachable, tags, votes_check, watchdog
from appliance.ha.choice import rank, would_appoint
from appliance.ha.seen import LeaderSeen, ReportSeen
from appliance.ha.situation import Situation
from appliance.ha.storage import NO_ROOM, level

_ORDER = (
    "has WAL of a later timeline",
    "has more WAL",
    "has failed to open less often",
    "has more room on its disks",
    "has a clock that leases can rely on",
    "is not about to leave the cluster",
    "has the higher failover_priority",
)
"""what `choice.rank` compares, in its order"""


@dataclass(frozen=True, slots=True)
class Candidate:
    member: str
    position: Position | None
    """None: it has told none"""
    behind_bytes: int | None
    """behind the furthest that anybody is known to be; None: not known"""
    streaming: bool
    age_s: float | None
    """of its last report; None: there is none"""
    checks: tuple[Check, ...]
    """those that fail keep it from being appointed by itself"""
    wins: bool = False
    """it would be appointed now"""
    after: str = ""
    """why another one would be, though it passes all checks"""

    @property
    def objection(self) -> Check | None:
        return next((check for check in self.checks if not check.ok), None)


@dataclass(frozen=True, slots=True)
class Field:
    """All candidates, if an election were held now."""

    candidates: tuple[Candidate, ...]
    votes: Check | None
    """R7; None: without synchronous standbys R10 decides, by each candidate's lag"""
    furthest: Position | None
    """that anybody is known to be"""

    def of(self, member: str) -> Candidate | None:
        return next((candidate for candidate in self.candidates if candidate.member == member), None)


@dataclass(frozen=True, slots=True)
class Prospect:
    """What a failover to `target` would give up, as far as is known: shown before anybody accepts it."""

    target: str
    primary: str
    """the last one"""
    known: Position | None
    """its last known position: what it had acknowledged by then ends there or before"""
    known_age_s: float | None
    """since it reported that; what it acknowledged later is in no number. None: nobody knows"""
    candidates: tuple[Candidate, ...]
    accepts: AcceptedLoss | None
    """to be sent with the request: no more than this will be given up. None: the target has told no position"""
    lost_bytes: int | None
    objection: str
    """what R7 or R10 says of it; empty: nothing, then nothing is lost"""
    may_write: str = ""
    """R16, in words: why the last primary may be writable yet, so that the person has to state that it is stopped;
    empty: who can vote shows that it is not"""


def field(state: ClusterState, reports: Mapping[str, ReportSeen], policy: Policy) -> Field:
    now = _foreseen(state, reports, policy)
    votes = {name: seen.report.vote for name, seen in now.reports.items() if seen.report.vote is not None}
    winner = would_appoint(now)
    furthest = max((p for p in (state.last_known, *map(_position, reports.values())) if p is not None), default=None)
    judged = votes_check(now.state, {v.node: v.incarnation for v in votes.values()}) if state.synchronous else None
    names = sorted(state.members)
    found = [_candidate(now, state.members[name], votes.get(name), furthest, winner) for name in names]
    return Field(tuple(found), judged, furthest)


def prospect(
    state: ClusterState, reports: Mapping[str, ReportSeen], policy: Policy, target: str, noted_s: float | None
) -> Prospect:
    """`noted_s`: since the primary reported `state.last_known`; None: nobody knows."""
    found, held = field(state, reports, policy), state.appointment
    chosen = found.of(target)
    position = chosen.position if chosen is not None else None
    known, age_s = last_known(state, reports, noted_s)
    in_the_way = found.votes if found.votes is not None and not found.votes.ok else None
    in_the_way = in_the_way or (chosen.objection if chosen is not None else None)
    furthest = found.furthest
    return Prospect(
        target=target,
        primary=held.node if held is not None else "",
        known=known,
        known_age_s=age_s,
        candidates=tuple(c for c in found.candidates if state.members[c.member].role is not NodeRole.WITNESS),
        accepts=AcceptedLoss(position, furthest) if position is not None and furthest is not None else None,
        lost_bytes=loss.lacking(state.timelines, furthest, position) if furthest and position else None,
        objection=f"{in_the_way.code}: {in_the_way.detail}" if in_the_way is not None else "",
        may_write=_may_write(state, reports, policy),
    )


def _may_write(state: ClusterState, reports: Mapping[str, ReportSeen], policy: Policy) -> str:
    now = _foreseen(state, reports, policy)
    votes = (seen.report.vote for seen in now.reports.values())
    refused = elections.vouched_for(now.state, [vote for vote in votes if vote is not None])
    return refused.partition(": ")[2] if refused is not None else ""


def stopped_check(
    state: ClusterState, reports: Mapping[str, ReportSeen], shown: Prospect, stated: str
) -> tuple[Check, ...]:
    """R16: what a person states of the last primary's host, as far as it can be seen to be needed, or to be false."""
    seen, name = reports.get(shown.primary), shown.primary
    if not stated:
        words = shown.may_write or "need not be stated to be stopped"
        return (Check("loss.stopped", "", not shown.may_write, words),)
    if stated not in state.members:
        return (Check("loss.stopped", "", False, f"{stated} is no member; the last primary is {name}"),)
    if stated != name:
        return (Check("loss.stopped", "", False, f"{stated} is not the last primary, {name} is"),)
    if seen is not None and seen.age_s <= FRESH_S:
        words = f"{name} reported {seen.age_s:.1f} s ago, so it is not: wait for its vote, or switch its host off"
        return (Check("loss.stopped", "", False, words),)
    return (Check("loss.stopped", "", True, f"stated by whoever asks: {name} is stopped, and its host is off"),)


def acceptance_checks(shown: Prospect, accepts: AcceptedLoss | None) -> tuple[Check, ...]:
    """Whether what is known now is no worse than what was accepted; None: that is accepted which is known now."""
    now, name = shown.accepts, shown.target
    if now is None:
        return (Check("candidate.no_vote", name, False, "has told no position: wait until its PostgreSQL answers"),)
    accepts = accepts or now
    kept, most = now.candidate >= accepts.candidate, now.known <= max(accepts.known, now.candidate)
    return (
        Check(
            "loss.candidate",
            name,
            kept,
            f"has {loss.shown(now.candidate)}, accepted was {loss.shown(accepts.candidate)}",
        ),
        Check("loss.larger", name, most, f"known is {loss.shown(now.known)}, accepted was {loss.shown(accepts.known)}"),
    )


def last_known(
    state: ClusterState, reports: Mapping[str, ReportSeen], noted_s: float | None
) -> tuple[Position | None, float | None]:
    """Of the last primary, from its last report or from the log, and how long ago it said so, if anybody knows."""
    held = state.appointment
    seen = reports.get(held.node) if held is not None else None
    reported = _position(seen) if seen is not None and seen.report.in_recovery is False else None
    if seen is not None and reported is not None and (state.last_known is None or reported >= state.last_known):
        return reported, seen.age_s
    return state.last_known, noted_s if state.last_known is not None else None


def _foreseen(state: ClusterState, reports: Mapping[str, ReportSeen], policy: Policy) -> Situation:
    """As if the primary were lost, an election were open, and everybody had voted who can.

    A primary that holds its lease does not vote: asked is what would become of the cluster without it.
    """
    number = state.election.number if state.election is not None else state.epoch + 1
    over = LeaseStatus.EXPIRED if state.lease in UNENDED else state.lease
    held = replace(state, epoch=number, election=Election(number, ""), lease=over, operations=())
    voted = {
        name: replace(seen, report=replace(seen.report, vote=_vote(state, name, seen, number)))
        for name, seen in reports.items()
    }
    return Situation(held, voted, LeaderSeen(leading_s=0.0, confirmed_s=None), policy)


def _vote(state: ClusterState, name: str, seen: ReportSeen, number: int) -> Vote | None:
    cast, member, position = seen.report.vote, state.members.get(name), _position(seen)
    if name == state.primary:
        return None
    if cast is not None and cast.election == number:
        return cast
    if member is None or position is None or not seen.report.running or not can_vote(member, seen):
        return None
    return Vote(number, name, seen.report.incarnation, position)


def _position(seen: ReportSeen) -> Position | None:
    report = seen.report
    if report.vote is not None:
        return report.vote.position
    return Position(report.timeline, report.lsn) if report.timeline and report.lsn else None


def _candidate(
    now: Situation, member: Member, vote: Vote | None, furthest: Position | None, winner: Vote | None
) -> Candidate:
    seen = now.reports.get(member.name)
    position = vote.position if vote is not None else _position(seen) if seen is not None else None
    behind = loss.lacking(now.state.timelines, furthest, position) if furthest and position else None
    found = Candidate(
        member=member.name,
        position=position,
        behind_bytes=behind,
        streaming=seen is not None and seen.report.streaming,
        age_s=seen.age_s if seen is not None else None,
        checks=_checks(now, member, vote, behind),
    )
    if winner is None or vote is None:
        return found
    if winner.node == member.name:
        return replace(found, wins=True)
    return replace(found, after=_why_after(now, winner, vote))


def _checks(now: Situation, member: Member, vote: Vote | None, behind: int | None) -> tuple[Check, ...]:
    seen, data = now.reports.get(member.name), has_data(member)
    if member.role is NodeRole.WITNESS:
        return (data,)
    found = [data, reachable(seen, member.name), tags(member), watchdog(seen, member.name), _room(now, member.name)]
    if vote is None:
        return tuple(found)
    refused = elections.eligible(now.state, vote)
    if refused is not None:
        code, _, words = refused.partition(": ")
        return (*found, Check(code, member.name, False, words))
    votes = tuple(s.report.vote for s in now.reports.values() if s.report.vote is not None)
    found.append(_behind(now, vote, elections.best(v for v in votes if elections.eligible(now.state, v) is None)))
    if not now.state.synchronous:
        found.append(_lag(now, vote, behind))
    return tuple(found)


def _room(now: Situation, name: str) -> Check:
    seen = now.reports.get(name)
    storage = seen.report.storage if seen is not None else None
    ok = level(storage, now.policy) > NO_ROOM
    free = (
        min((p.free_bytes for p in (storage.data, storage.wal) if p and p.free_bytes is not None), default=None)
        if storage is not None
        else None
    )
    words = "not known" if free is None else f"{free} bytes free"
    return Check("candidate.room", name, ok, words if ok else f"{words}: it could not take writes")


def _behind(now: Situation, vote: Vote, top: Vote | None) -> Check:
    at = loss.shown(vote.position)
    if top is None or vote.position >= top.position:
        return Check("candidate.behind", vote.node, True, f"{at}: nobody who can vote has more")
    lacks = loss.lacking(now.state.timelines, top.position, vote.position)
    by = "an unknown amount" if lacks is None else f"{lacks} bytes"
    return Check("candidate.behind", vote.node, False, f"{at}: {by} behind {top.node}")


def _lag(now: Situation, vote: Vote, behind: int | None) -> Check:
    refused = elections.within_lag(now.state, vote.position)
    limit = now.policy.maximum_lag_on_failover_bytes
    known = "the last known position" if behind is None else f"{behind} bytes behind the last known position"
    if refused is None:
        return Check("candidate.lagging", vote.node, True, f"{known}, maximum_lag_on_failover is {limit}")
    code, _, words = refused.partition(": ")
    return Check(code, vote.node, False, words)


def _why_after(now: Situation, winner: Vote, vote: Vote) -> str:
    """What puts the one before the other."""
    pairs = zip(rank(now, winner), rank(now, vote), _ORDER, strict=True)
    return next(
        (f"{winner.node} {words}" for one, other, words in pairs if one > other), f"{winner.node} is first by name"
    )
