"""Each clause of the rules, how it is left out, and a small world in which that does harm."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from appliance.cluster import apply, elections, synchronous
from appliance.cluster.state import SyncSet
from appliance.ha import decide, facts, fences, gate, standby, start, sync
from appliance.node import report
from tests.model import model, world
from tests.model.play import LEAVES, OPENS, VOTES, of
from tests.model.world import Budget, sync_set

Patch = Callable[[object], None]
BOTH, ONE, NONE = sync_set(1, "n1", "n2"), sync_set(1, "n1"), sync_set(0)


@dataclass(frozen=True, slots=True)
class Clause:
    without: Patch
    left: Budget
    noticed: str
    """how the words of the check begin that notices"""
    listed: tuple[SyncSet, ...] = (BOTH,)
    nodes: int = 3
    wanted_k: int = 1
    after: tuple[str, ...] = ()
    """steps that lead to where it matters"""
    late_reports: bool = False
    twin: Patch | None = None
    """what guards the same and is left out with it; without that alone nothing happens, since this clause holds"""


def rule_without(name: str, lie: Callable) -> Patch:
    """A rule of `decide` that is told what it wants to hear."""

    def patch(monkeypatch):
        rules = tuple(lie(rule) if rule.__name__ == name else rule for rule in decide.RULES)
        monkeypatch.setattr(decide, "RULES", rules)

    return patch


def everywhere(name: str, make: Callable, *modules) -> Patch:
    def patch(monkeypatch):
        for module in modules:
            monkeypatch.setattr(module, name, make(getattr(module, name)))

    return patch


def together(*patches: Patch) -> Patch:
    def patch(monkeypatch):
        for each in patches:
            each(monkeypatch)

    return patch


def _loaded_anyway(promote):
    def rule(state, seen, policy):
        instance = seen.instance and replace(seen.instance, sync_version=state.sync_now.version)
        return promote(state, replace(seen, instance=instance), policy)

    rule.__name__ = "promote"
    return rule


def _vote_with(**changes):
    def make(cast_vote):
        def vote(state, seen):
            instance, notes = seen.instance, seen.notes
            if instance is not None:
                wanted = {k: v for k, v in changes.items() if k != "pledge"}
                instance = replace(instance, **wanted)
            if "pledge" in changes and state.election is not None:
                notes = replace(notes, pledge=state.election.number)
            return cast_vote(state, replace(seen, instance=instance, notes=notes))

        return vote

    return make


def _unpledged(upstream):
    return lambda state, node, pledge: upstream(state, node, 0)


def _unpledged_resumes(may_resume):
    """Neither what it pledged nor what it was fenced in is looked at."""

    def resume(state, seen):
        return may_resume(state, replace(seen, notes=replace(seen.notes, pledge=0, fenced_epoch=0)))

    return resume


def _any_election(eligible):
    return lambda state, vote: eligible(state, replace(vote, election=state.election.number if state.election else 0))


def _one_less(meets):
    def loose(versions, voters):
        members, k = synchronous.union(versions)
        return k > 0 and len(members.intersection(voters)) >= len(members) - k

    return loose


def _newest(union):
    return lambda versions: union(tuple(versions)[-1:])


def _largest_k(union):
    def largest(versions):
        versions = tuple(versions)
        return union(versions)[0], max((listed.wanted.k for listed in versions), default=0)

    return largest


def _primary_of_any_data(suffice):
    def loose(grounds, voters):
        return bool(grounds) and (grounds[0].node in voters or suffice(grounds, voters))

    return loose


def _nobody_is_enough(meets):
    return lambda versions, voters: (synchronous.union(versions)[1] == 0 and bool(voters)) or meets(versions, voters)


def _next_is_enough(suffice):
    return lambda grounds, voters: suffice(tuple(replace(g) for g in grounds[:1]), voters)


def _any_version(finalise):
    return lambda state, command: finalise(
        state, replace(command, version=state.sync_now.version, epoch=state.appointment.epoch)
    )


def _wal_first(settle):
    """y is noted before every walsender has shown x."""

    def rule(state, seen, policy):
        progress = seen.sync
        if progress.first_lsn is not None and progress.second_lsn is None and not state.settled:
            found = sync._follow_wal(state.sync_now, seen.instance, progress, "") if seen.instance else None
            if found is not None and found.actions:
                return found
        return settle(state, seen, policy)

    rule.__name__ = "settle_sync"
    return rule


def constant(value) -> Callable:
    return lambda _: lambda *args, **kwargs: value


def absent(rule):
    def nothing(state, seen, policy):
        return None

    nothing.__name__ = rule.__name__
    return nothing


def _pledge_kept_nowhere(notes_lost):
    return lambda node: node._replace(notes=notes_lost(node).notes)


def _rebuild_at_once(rebuild):
    def accept(state, command):
        answer = rebuild(replace(state, appointment=None), command)
        return answer if isinstance(answer, str) else replace(answer, appointment=state.appointment)

    return accept


def _keeps_holders(rebuild):
    def accept(state, command):
        answer = rebuild(state, command)
        if isinstance(answer, str):
            return answer
        return replace(answer, appointment=replace(answer.appointment, holders=state.appointment.holders))

    return accept


def _next_in_line(change):
    """As if what it names were the next version."""

    def accept(state, command):
        before = replace(state.sync_now, version=command.version - 1)
        return change(replace(state, sync=(*state.sync[:-1], before)), command)

    return accept


def _more_than_it_has(cast_vote):
    def vote(state, seen):
        said = cast_vote(state, seen)
        return said and replace(said, position=replace(said.position, lsn=said.position.lsn + 1))

    return vote


def _with_the_wal(promote):
    def rule(state, seen, policy):
        held, instance = state.appointment, seen.instance
        if held is not None and instance is not None and instance.in_recovery:
            start = held.start
            instance = replace(instance, timeline=max(instance.timeline, start.timeline), lsn=start.lsn)
        return promote(state, replace(seen, instance=instance), policy)

    rule.__name__ = "promote"
    return rule


def _of_any_data(eligible):
    def counts(state, vote):
        member = state.members.get(vote.node)
        return eligible(state, vote if member is None else replace(vote, incarnation=member.incarnation))

    return counts


OPEN = "raft leader: OpenElection"
APPOINT_N1 = "raft leader: Appoint…node='n1'…node='n1'…node='n2'…wanted=SyncSet(k=1, members=frozenset({'n2'})"
FAILOVER = (OPEN, *of("n1", VOTES), *of("n2", VOTES), APPOINT_N1)
TO_N1 = "raft leader: ChangeSync(epoch=1, version=2, wanted=SyncSet(k=1, members=frozenset({'n1'})"
LOADS = ("n0 reads the log", "n0 settings", "n0: postmaster reads settings", "n0 settle_sync…is it loaded?")
SETTLES = (
    *LOADS, "n0 settle_sync…mark the WAL", "n0 settle_sync…end them", "n0: walsender of n1 reads settings",
    "n1 receives", "n0 settle_sync…mark the WAL again", "n1 receives",
)  # fmt: skip

AGAIN = (
    "n0 writes", "n0: PostgreSQL dies", "n0 crashed", OPEN, "n0 reads the log", "n0 pledge", "n0 start_standby",
    *of("n1", VOTES[:3]), *of("n2", VOTES[:3]), "raft leader: Appoint…node='n0'…n1…n2…wanted=SyncSet(k=1",
)  # fmt: skip
"""n0 is appointed again with a commit that nobody else has."""
TWO = sync_set(2, "n1", "n2")
AHEAD = (
    "n0 writes", "n1 receives", OPEN, *of("n1", VOTES), *of("n2", VOTES),
    "raft leader: Appoint…node='n1'…n1…n2…wanted=SyncSet(k=1",
)  # fmt: skip
"""n1 is appointed with a commit that only n0 has too: n2 alone would have sufficed to be elected without it."""


def _of_any_position(confirming):
    return lambda instance, lsn: frozenset(sender.member for sender in instance.senders)


REBUILDS_NEVER = everywhere("needs_rebuild", constant(None), facts, decide, start)
"""A node takes whatever data it finds for its own; the others see by the incarnation that it is not."""

CLAUSES: Mapping[str, Clause] = {
    "R5a: who is appointed again with more than others have opens gated": Clause(
        everywhere("admits", constant(True), gate, model),
        Budget(elections=1, writes=1, crashes=1),
        "next",
        after=(*AGAIN, *of("n0", OPENS)),
    ),
    "R5a: who is ahead of others that suffice to elect one of them opens gated": Clause(
        everywhere("admits", constant(True), gate, model),
        Budget(elections=1, writes=1),
        "next",
        listed=(TWO,),
        wanted_k=2,
        after=(*AHEAD, *of("n1", OPENS)),
    ),
    "R5a: the gate opens when as many as an election allows for have what was there": Clause(
        everywhere("_confirming", _of_any_position, gate),
        Budget(elections=1, writes=1, crashes=1),
        "next",
        after=(*AGAIN, *of("n0", OPENS)),
    ),
    "R5: opens with the set of its appointment loaded (T9)": Clause(
        rule_without("promote", _loaded_anyway),
        Budget(elections=1),
        "listed",
        after=(
            OPEN,
            *of("n0", LEAVES),
            *of("n1", VOTES[:3]),
            "raft leader: Appoint…node='n0'…wanted=SyncSet(k=1, members=frozenset({'n1'})",
        ),
    ),
    "R5: never opens or restarts below its pledge (T1; `crashed` guards it too)": Clause(
        together(
            everywhere("may_resume", _unpledged_resumes, facts, decide, fences, start), rule_without("crashed", absent)
        ),
        Budget(elections=1, crashes=1),
        "R5",
        after=(
            OPEN,
            "n0 reads the log",
            "n0 fence_newer_epoch",
            "n0 pledge",
            "n0: agent restarts at 0",
            "n0 restart_in_place",
        ),
    ),
    "R6: the pledge is on disk before the vote (T3)": Clause(
        together(everywhere("cast_vote", _vote_with(pledge=True), report), rule_without("pledge", absent)),
        Budget(elections=1, crashes=1, writes=1),
        "next",
        after=(
            OPEN,
            "n1 reads the log",
            "n1 follow",
            "n1 ends",
            "n2 reads the log",
            "n2 follow",
            "n2 ends",
            APPOINT_N1,
        ),
    ),
    "R6: lost notes are a lost pledge, and so lost data (T3)": Clause(
        everywhere("notes_lost", _pledge_kept_nowhere, model),
        Budget(elections=1, crashes=1, losses=1, writes=1),
        "appointed",
        after=(*FAILOVER, "n2: host crashes", "n2: notes are lost"),
    ),
    "R5: never opens without the WAL of the winning vote": Clause(
        rule_without("promote", _with_the_wal),
        Budget(elections=1),
        "R5",
        after=FAILOVER,
        twin=everywhere("cast_vote", _more_than_it_has, report),
    ),
    "R6: the receiver is gone before the vote": Clause(
        everywhere("cast_vote", _vote_with(receiver_running=False, upstream=""), report),
        Budget(elections=1),
        "fenced",
    ),
    "R6: a running primary stops before it votes (T1; `fence_newer_epoch` guards it too)": Clause(
        together(
            everywhere("cast_vote", _vote_with(in_recovery=True), report), rule_without("fence_newer_epoch", absent)
        ),
        Budget(elections=1),
        "fenced",
        after=(OPEN,),
    ),
    "R6: with a pledge it takes WAL from no older primary (T1)": Clause(
        everywhere("upstream", _unpledged, standby, start, model),
        Budget(elections=1, writes=1, crashes=1),
        "appointed",
        after=(*FAILOVER, "n2: agent restarts at 0"),
    ),
    "R6: a vote counts in its own election only (T3)": Clause(
        everywhere("eligible", _any_election, elections),
        Budget(elections=2, writes=1),
        "next",
        late_reports=True,
        after=(
            "raft leader: Depose",
            OPEN,
            *of("n0", LEAVES),
            *of("n1", VOTES[:3]),
            *of("n2", VOTES[:3]),
            "n0 reports",
            "n1 reports",
            "n2 reports",
            "raft leader: Appoint…node='n0'…n0…n1…n2",
            *of("n0", OPENS),
            "n2 reads the log",
            "n2 follow",
            "n2 streams from n0",
            "n2 receives",
            "n0 writes",
            "n2 receives",
        ),
    ),
    "R7: so many votes that each quorum has one": Clause(
        everywhere("meets", _one_less, synchronous),
        Budget(writes=1),
        "next",
    ),
    "R7: with an empty set the previous primary alone": Clause(
        everywhere("meets", _nobody_is_enough, synchronous),
        Budget(writes=1),
        "next",
        listed=(NONE,),
        nodes=2,
    ),
    "R7: the candidate is the highest": Clause(
        everywhere("order", constant((0, 0)), elections),
        Budget(writes=1),
        "next",
    ),
    "R7: `apply` refuses what the votes do not show (T4)": Clause(
        everywhere("may_appoint", constant(None), elections),
        Budget(elections=1, writes=1),
        "next",
    ),
    "R7: the previous primary counts with the data that it was appointed with": Clause(
        everywhere("suffice", _primary_of_any_data, synchronous),
        Budget(elections=1, crashes=1, writes=1, copies=1),
        "appointed",
        listed=(NONE,),
        nodes=2,
        after=("n0 writes", "n0: host crashes", "n0: an older copy"),
        twin=together(REBUILDS_NEVER, everywhere("eligible", _of_any_data, elections)),
    ),
    "R7a: until it is final what sufficed before is asked for too": Clause(
        everywhere("suffice", _next_is_enough, synchronous),
        Budget(elections=1, writes=1),
        "next",
        after=("n0 writes", "n1 receives", OPEN, *of("n1", VOTES), *of("n2", VOTES)),
    ),
    "R7a: the appointment keeps what sufficed before": Clause(
        everywhere("_before", constant(()), elections),
        Budget(elections=1, writes=1),
        "next",
        after=("n0 writes", "n1 receives", OPEN, *of("n1", VOTES), *of("n2", VOTES)),
    ),
    "R8: the union of all S (T5)": Clause(
        everywhere("union", _newest, synchronous),
        Budget(changes=1, writes=1),
        "next",
    ),
    "R8: the smallest k (T5)": Clause(
        everywhere("union", _largest_k, synchronous),
        Budget(changes=1, writes=1),
        "next",
        listed=(sync_set(2, "n1", "n2"),),
    ),
    "R8 (a): a checkpoint, if the change starts from an empty set (T7)": Clause(
        everywhere("_began_empty", constant(False), sync),
        Budget(changes=1, writes=1),
        "listed",
        listed=(NONE,),
        nodes=2,
    ),
    "R8 (a): no standby loads an empty set (T7)": Clause(
        everywhere(
            "waits_for", lambda real: lambda state, node, in_recovery: real(state, node, in_recovery=False), world
        ),
        Budget(elections=2),
        "next",
        listed=(NONE,),
        nodes=2,
    ),
    "R8 (b): each walsender of a listed member has shown x": Clause(
        everywhere("_follow_walsenders", constant(None), sync),
        Budget(changes=1, writes=1),
        "listed",
    ),
    "R8 (c): y is noted only then (T6)": Clause(
        rule_without("settle_sync", _wal_first),
        Budget(changes=1, writes=1),
        "next",
        listed=(sync_set(1, "n1", "n2", "n3"),),
        nodes=4,
        wanted_k=2,
        after=(
            "raft leader: ChangeSync…k=2…n1…n2…n3",
            *LOADS,
            "n0 settle_sync…mark the WAL",
            "n0 settle_sync…mark the WAL again",
            "n0: walsender of n1 reads settings",
            "n0 writes",
            "n1 receives",
            "n1 receives",
            "n1 receives",
            "n0: walsender of n2 reads settings",
            "n0: walsender of n3 reads settings",
        ),
    ),
    "R8 (d): k of the new S have y": Clause(
        everywhere("_follow_wal", constant(None), sync),
        Budget(changes=1, writes=1, cuts=1),
        "next",
        listed=(NONE,),
        nodes=2,
    ),
    "R8: a finalisation names the newest version (T8)": Clause(
        everywhere("finalise", _any_version, synchronous),
        Budget(changes=2, late=1),
        "next",
        after=(
            TO_N1,
            *SETTLES,
            "n0 settle_sync…in force…late",
            "n2 streams from n0",
            "raft leader: ChangeSync(epoch=1, version=3, wanted=SyncSet(k=1, members=frozenset({'n2'})",
        ),
    ),
    "R8: a change names the version after the newest (T8)": Clause(
        everywhere("change", _next_in_line, synchronous),
        Budget(changes=2, late=1, writes=1),
        "next",
        after=(
            f"raft leader, late{TO_N1.removeprefix('raft leader')}",
            TO_N1.replace("n1", "n2"),
            *(step.replace("n1", "n2") for step in SETTLES),
            "n0 settle_sync…in force",
        ),
    ),
    "R8: an agent never loads a lower version (T8)": Clause(
        everywhere("behind", constant(None), decide),
        Budget(changes=1, crashes=1),
        "listed",
        after=(TO_N1, *SETTLES, "n0 settle_sync…in force", "n0: agent restarts at 0"),
    ),
    "R13: a vote counts with the data that the cluster knows": Clause(
        everywhere("eligible", _of_any_data, elections),
        Budget(elections=1, crashes=1, writes=1, copies=1),
        "appointed",
        listed=(ONE,),
        nodes=2,
        after=("n0 writes", "n1 receives", "n1: host crashes", "n1: an older copy"),
        twin=REBUILDS_NEVER,
    ),
    "R13: no rebuild while in a set, nor of the appointed": Clause(
        everywhere("_rebuild", _rebuild_at_once, apply),
        Budget(losses=1, crashes=1),
        "kept",
    ),
    "R13: who rebuilds is no holder any more (T11)": Clause(
        everywhere("_rebuild", _keeps_holders, apply),
        Budget(elections=1, losses=1, crashes=1),
        "kept",
        after=(
            *FAILOVER,
            *of("n1", OPENS),
            "n0: host crashes",
            "n0: data directory is lost",
            "n0: comes back at 0",
            "n0 reads the log",
        ),
    ),
}
