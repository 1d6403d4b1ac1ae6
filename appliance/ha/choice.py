"""Who wins an election, with which votes (R7, R10), and why not the others. `apply` checks it again.

A suggestion among those that `elections.may_appoint` lets through; what orders them is in `rank`.
"""

from appliance.cluster import elections, synchronous
from appliance.cluster.state import ClusterState, Vote
from appliance.ha import clocks
from appliance.ha.checks import voters
from appliance.ha.situation import Situation
from appliance.ha.storage import NO_ROOM, lack, level, steps

TARGET_WAIT_S = 5.0
"""How long a switchover's election waits for its target before anybody may win it."""


def counted_votes(now: Situation) -> tuple[Vote, ...]:
    """Votes that count. A node that may not become primary does not set the mark for the others (R10)."""
    given = (r.report.vote for r in now.reports.values() if r.report.vote is not None)
    counted = (v for v in given if elections.eligible(now.state, v) is None)
    kept = [v for v in counted if _may_win(now, v.node)]
    return tuple(sorted(kept, key=lambda v: v.node))


def best(now: Situation) -> tuple[tuple[Vote, ...], Vote | None]:
    """The votes that an appointment carries, and who would win with them.

    A node that could not take writes does not set the mark while another could win: R7 and R10 are asked of the votes
    that are left, as if that node had not voted. Whom an operator has asked for is not passed over.
    """
    votes, asked = counted_votes(now), now.state.election is not None and now.state.election.target
    able = tuple(v for v in votes if _room(now, v.node) > NO_ROOM)
    if len(able) < len(votes) and not asked:
        choice = choose(now, able)
        if choice is not None:
            return able, choice
    return votes, choose(now, votes)


def _room(now: Situation, node: str) -> int:
    seen = now.reports.get(node)
    return level(seen.report.storage if seen is not None else None, now.policy)


def _steps(now: Situation, node: str) -> int:
    seen = now.reports.get(node)
    return steps(seen.report.storage if seen is not None else None, now.policy)


def for_want_of_room(now: Situation, winner: Vote) -> str:
    """In words: who is not behind and lost because of its disk, or that the winner's is no better."""
    if _room(now, winner.node) == NO_ROOM:
        return f", and nobody else could win: {_lack(now, winner.node)}"
    passed_over = (
        vote.node
        for vote in counted_votes(now)
        if _steps(now, vote.node) < _steps(now, winner.node)
        and elections.order(vote.position) >= elections.order(winner.position)
    )
    return "".join(f"; not {node}: {_lack(now, node)}" for node in passed_over)


def for_its_clock(now: Situation, winner: Vote) -> str:
    """In words: who is not behind, has as much room and lost because leases cannot rely on its clock (R3)."""
    if _clock_runs_wild(now, winner.node):
        return ""
    passed_over = (
        (vote.node, seen.clock)
        for vote in counted_votes(now)
        if (seen := now.reports.get(vote.node)) is not None
        and _steps(now, vote.node) >= _steps(now, winner.node)
        and elections.order(vote.position) >= elections.order(winner.position)
    )
    return "".join(
        f"; not {node}: {clocks.in_words(clock)}"
        for node, clock in passed_over
        if clock is not None and clocks.wild(clock, now.policy)
    )


def _clock_runs_wild(now: Situation, node: str) -> bool:
    seen = now.reports.get(node)
    return clocks.wild(seen.clock if seen is not None else None, now.policy)


def _lack(now: Situation, node: str) -> str:
    seen = now.reports.get(node)
    return lack(seen.report.storage if seen is not None else None, now.policy)


def _may_win(now: Situation, node: str) -> bool:
    """A tag keeps a node from winning by itself, not from being asked for. A synchronous standby's vote is needed."""
    election, operation = now.state.election, now.state.running_operation()
    asked = election is not None and node in {election.target, operation.target if operation is not None else ""}
    needed = now.state.synchronous and node in synchronous.named(now.state.grounds)
    return asked or needed or (elections.excluded(now.state, node) is None and not _without_watchdog(now, node))


def _without_watchdog(now: Situation, node: str) -> str:
    """R4: why a node that must have a watchdog could not be primary, as it reported; empty: nothing is known."""
    reported = now.reports.get(node)
    watchdog = reported.report.watchdog if reported is not None else None
    return watchdog.problem if watchdog is not None and watchdog.keeps_from_promotion else ""


def awaited(now: Situation) -> set[str]:
    """Members that are known to be alive and to have data, so that their vote is worth a short wait."""
    return {name for name in voters(now.state, now.reports) if _may_win(now, name)}


def choose(now: Situation, votes: tuple[Vote, ...]) -> Vote | None:
    election = now.state.election
    target = next((v for v in votes if election is not None and v.node == election.target), None)
    ranked = [target] if target is not None else sorted(votes, key=lambda v: rank(now, v), reverse=True)
    possible = (v for v in ranked if elections.may_appoint(now.state, v.node, votes) is None)
    return next((v for v in possible if not _leaves(now, v.node) and not _without_watchdog(now, v.node)), None)


def _leaves(now: Situation, node: str) -> bool:
    """Who hands over, or is about to end, is not elected unless nobody else could be for TARGET_WAIT_S."""
    if now.leader.election_s > TARGET_WAIT_S:
        return False
    operation = now.state.running_operation()
    return ends(now, node) or (operation is not None and operation.source == node)


def ends(now: Situation, node: str) -> bool:
    seen = now.reports.get(node)
    return seen is not None and seen.report.ending


def rank(now: Situation, vote: Vote) -> tuple[int, int, int, int, bool, bool, int]:
    """Of equals the sort keeps the first by name, as `counted_votes` sorts them.

    Without a count of what came to nothing, a node whose disk is full wins again and again while equals stand by. One
    that says so itself does not even win once.
    """
    member = now.state.members[vote.node]
    priority = member.tags.get("failover_priority", 1)
    failed = _never_opened(now.state, vote.node)
    least = priority if isinstance(priority, int) else 1
    return (
        *elections.order(vote.position),
        -failed,
        _steps(now, vote.node),
        not _clock_runs_wild(now, vote.node),
        not member.leaving,
        least,
    )


def _never_opened(state: ClusterState, node: str) -> int:
    """How often, since a primary last opened, this node was appointed and did not."""
    opened = max((t.number for t in state.timelines if t.switch_lsn is not None), default=0)
    return sum(t.node == node for t in state.timelines if t.number > opened)


def why_nobody(now: Situation, votes: tuple[Vote, ...]) -> str:
    refused = {v.node: elections.may_appoint(now.state, v.node, votes) for v in votes}
    voters = sorted(name for name, seen in now.reports.items() if seen.report.vote is not None)
    refused |= {node: f"candidate.watchdog: {why}" for node in voters if (why := _without_watchdog(now, node))}
    if not refused:
        return "no vote has arrived"
    return "; ".join(f"{node}: {reason}" for node, reason in refused.items())


def would_appoint(now: Situation) -> Vote | None:
    """Who wins the open election with the votes that have arrived, targets and waits aside."""
    return best(now)[1]
