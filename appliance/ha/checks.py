"""The table of checks that a switchover or failover is measured by: the same for a dry run and for the real thing."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from appliance.cluster import synchronous
from appliance.cluster.apply import apply
from appliance.cluster.commands import SetConfig
from appliance.cluster.config import Policy, flat, merged, policy_in_force
from appliance.cluster.state import ClusterState, LeaseStatus, Member, NodeRole
from appliance.ha.seen import ReportSeen
from appliance.ha.storage import NO_ROOM, lack, least_room, level

_TAGGED = "has the tag nofailover: name another, or take the tag from its node.yml"
_REMEDY = "start those nodes, or accept the loss with --allow-data-loss"
_WAIVED = frozenset({"candidate.nofailover", "candidate.storage", "candidate.streaming"})
"""what a failover does not ask"""
_FIXED = "what PostgreSQL itself is set to cannot be changed after bootstrap in this version"
FRESH_S = 2.0
"""A report older than this says nothing about the node's present."""


@dataclass(frozen=True, slots=True)
class Check:
    code: str
    candidate: str
    """empty: about the cluster"""
    ok: bool
    detail: str
    """with numbers, and what would change the answer"""


def cluster_checks(state: ClusterState, expected_primary: str, *, needs_primary: bool) -> tuple[Check, ...]:
    checks = [
        Check("cluster.initialised", "", state.initialised, state.system_identifier or "run `appliance bootstrap`")
    ]
    held = state.appointment
    if needs_primary:
        ok = state.primary is not None and held is not None and held.opened
        detail = f"{state.primary} holds epoch {held.epoch}" if ok and held else "no primary is open: use failover"
        checks.append(Check("cluster.primary", "", ok, detail))
    if expected_primary:
        ok = held is not None and held.node == expected_primary and state.lease is LeaseStatus.HELD
        checks.append(Check("cluster.primary_name", "", ok, f"the primary is {state.primary or 'nobody'}"))
    running = state.running_operation()
    detail = (
        "none under way" if running is None else f"{running.kind} {running.id} is {running.phase}: wait for its end"
    )
    checks.append(Check("operation.running", "", running is None, detail))
    return tuple(checks)


def candidate_checks(
    state: ClusterState,
    reports: Mapping[str, ReportSeen],
    policy: Policy,
    name: str,
    waived: frozenset[str] = frozenset(),
) -> tuple[Check, ...]:
    """Everything that must hold for `name` to take over from a running primary.

    The first failure that is not waived ends the list.
    """
    member = state.members.get(name)
    if member is None:
        return (_unknown(state, name),)
    checks = [Check("member.known", name, True, member.postgres)]
    for check in (
        has_data(member),
        _not_primary(state, name),
        reachable(reports.get(name), name),
        _streaming(state, reports.get(name), name),
        lag(state, reports, policy, name),
        tags(member),
        watchdog(reports.get(name), name),
        storage(reports.get(name), policy, name),
    ):
        checks.append(check)
        if not check.ok and check.code not in waived:
            break
    return tuple(checks)


def has_data(member: Member) -> Check:
    if member.role is NodeRole.WITNESS:
        return Check("candidate.data", member.name, False, "is a witness and has no PostgreSQL: name another")
    ok = bool(member.incarnation) and not member.rebuilding
    detail = "complete data directory" if ok else "no complete data directory: wait until it streams"
    return Check("candidate.data", member.name, ok, detail)


def _not_primary(state: ClusterState, name: str) -> Check:
    ok = state.primary != name
    return Check("candidate.not_primary", name, ok, "is a standby" if ok else "is the primary already: name another")


def reachable(seen: ReportSeen | None, name: str) -> Check:
    if seen is None:
        return Check("candidate.reachable", name, False, "has not reported to the raft leader: is its node running?")
    detail = f"reported {seen.age_s:.1f} s ago, PostgreSQL {seen.report.status}"
    if seen.age_s > FRESH_S:
        silent = (
            f"silent for {seen.age_s:.1f} s, the limit is {FRESH_S:g} s: is its node process running and reachable?"
        )
        return Check("candidate.reachable", name, False, silent)
    if seen.report.ending:
        return Check("candidate.reachable", name, False, "its node is being shut down: name another")
    if not seen.report.running:
        return Check("candidate.reachable", name, False, f"{detail}: {seen.report.doing or 'see its log'}")
    return Check("candidate.reachable", name, True, detail)


def _streaming(state: ClusterState, seen: ReportSeen | None, name: str) -> Check:
    held = state.appointment
    ok = seen is not None and held is not None and seen.report.streaming and seen.report.timeline == held.timeline
    doing = seen.report.doing if seen is not None else ""
    detail = "streams from the primary" if ok else f"does not stream from the primary: {doing or 'see its log'}"
    if state.primary is None:
        return Check("candidate.streaming", name, True, "there is no primary to stream from")
    return Check("candidate.streaming", name, ok, detail)


def lag(state: ClusterState, reports: Mapping[str, ReportSeen], policy: Policy, name: str) -> Check:
    seen, primary = reports.get(name), reports.get(state.primary or "")
    known = state.last_known.lsn if state.last_known is not None else 0
    ahead = max(known, primary.report.lsn if primary is not None else 0)
    lag = max(0, ahead - (seen.report.lsn if seen is not None else 0))
    limit = policy.maximum_lag_on_failover_bytes
    detail = f"{lag} bytes behind, maximum_lag_on_failover is {limit}"
    wait = "" if lag <= limit else ": wait until it has caught up"
    return Check("candidate.lagging", name, lag <= limit, f"{detail}{wait}")


def tags(member: Member) -> Check:
    ok = member.tags.get("nofailover") is not True
    return Check("candidate.nofailover", member.name, ok, "may become primary" if ok else _TAGGED)


def watchdog(seen: ReportSeen | None, name: str) -> Check:
    watchdog = seen.report.watchdog if seen is not None else None
    if watchdog is None or not watchdog.keeps_from_promotion:
        return Check("candidate.watchdog", name, True, "none is required" if watchdog is None else watchdog.device)
    detail = f"it is required and {watchdog.problem}: mend that, or write `watchdog: automatic` in its node.yml"
    return Check("candidate.watchdog", name, False, detail)


def storage(seen: ReportSeen | None, policy: Policy, name: str) -> Check:
    """As primary it would refuse writes, or make everybody wait."""
    found = seen.report.storage if seen is not None else None
    ok = level(found, policy) > NO_ROOM
    detail = least_room(found) if ok else f"{lack(found, policy)}: mend that, or name another"
    return Check("candidate.storage", name, ok, detail)


def switchover_checks(
    state: ClusterState,
    reports: Mapping[str, ReportSeen],
    policy: Policy,
    target: str,
    expected_primary: str = "",
) -> tuple[Check, ...]:
    """All checks of a switchover. Without a target every standby is tried; one that passes is enough."""
    checks = cluster_checks(state, expected_primary, needs_primary=True)
    others = (m for m in state.members.values() if m.name != state.primary and m.role is not NodeRole.WITNESS)
    names = [target] if target else sorted(m.name for m in others)
    for name in names:
        checks += candidate_checks(state, reports, policy, name)
    return checks


def failover_checks(
    state: ClusterState,
    reports: Mapping[str, ReportSeen],
    policy: Policy,
    target: str,
    *,
    allow_data_loss: bool,
) -> tuple[Check, ...]:
    """A failover asks less: the target must be there and have data; lag and R7 count unless they were accepted."""
    checks = list(cluster_checks(state, "", needs_primary=False))
    if allow_data_loss:
        checks.append(_needless(state, reports))
    waived = _WAIVED | ({"candidate.lagging"} if allow_data_loss else frozenset())
    for check in candidate_checks(state, reports, policy, target, waived):
        if not check.ok and check.code in waived:
            checks.append(replace(check, ok=True, detail=f"{check.detail.partition(':')[0]} (accepted)"))
        elif not check.ok and check.code == "candidate.lagging":
            checks.append(replace(check, detail=f"{check.detail}, or accept the loss with --allow-data-loss"))
        else:
            checks.append(check)
    if state.initialised and state.synchronous:
        votes = votes_check(state, voters(state, reports))
        if allow_data_loss and not votes.ok:
            votes = replace(votes, ok=True, detail=f"{votes.detail} (accepted)")
        checks.append(votes if votes.ok else replace(votes, detail=f"{votes.detail}: {_REMEDY}"))
    return tuple(checks)


def _needless(state: ClusterState, reports: Mapping[str, ReportSeen]) -> Check:
    """What an open primary has need not be given up: it is stopped first, and votes."""
    seen, name = reports.get(state.primary or ""), state.primary
    lives = seen is not None and seen.age_s <= FRESH_S and seen.report.running and seen.report.in_recovery is False
    if seen is None or not lives:
        return Check("loss.needless", "", True, f"{name} is not heard of as one" if name else "there is no primary")
    words = f"{name} is open and reported {seen.age_s:.1f} s ago: move away from it without losing anything, or end it"
    return Check("loss.needless", "", False, words)


def confirmed_check(state: ClusterState, named: str) -> Check:
    """Whoever gives up commits says of which cluster."""
    ok = named == state.name
    return Check(
        "loss.confirmed", "", ok, "the cluster was named" if ok else f"give the cluster's name, {state.name!r}"
    )


def voters(state: ClusterState, reports: Mapping[str, ReportSeen]) -> Mapping[str, str]:
    """Who can vote now, as far as is known (R6), with the data directory it would vote with."""
    return {name: member.incarnation for name, member in state.members.items() if can_vote(member, reports.get(name))}


def can_vote(member: Member, seen: ReportSeen | None) -> bool:
    """It is known to be alive and to have data."""
    able = member.role is not NodeRole.WITNESS and member.incarnation and not member.rebuilding
    return bool(able) and seen is not None and seen.age_s <= FRESH_S


def votes_check(state: ClusterState, able: Mapping[str, str]) -> Check:
    """R7: whether these votes show every acknowledged commit."""
    if synchronous.suffice(state.grounds, able):
        return Check(
            "quorum.votes_missing", "", True, f"{synchronous.counted(able)}, {synchronous.shown(state.grounds, able)}"
        )
    return Check("quorum.votes_missing", "", False, synchronous.missing(state.grounds, able))


def removal_checks(
    state: ClusterState, reports: Mapping[str, ReportSeen], name: str, majority_problem: str | None, *, force: bool
) -> tuple[Check, ...]:
    """What must hold for a member to leave; `majority_problem` is why the others' votes would not do without it."""
    member = state.members.get(name)
    if member is None:
        return (_unknown(state, name),)
    held, running, seen = state.appointment, state.running_operation(), reports.get(name)
    primary = held is not None and held.node == name
    opened = held is not None and held.opened and state.lease is LeaseStatus.HELD
    alone = "no primary is open, and it may have what the next one needs: wait for one, or say --force"
    fresh = seen is not None and seen.age_s <= FRESH_S
    lives = fresh and seen is not None and seen.report.running
    age = "its PostgreSQL is down" if fresh else "it does not report"
    if lives and seen is not None:
        age = f"its PostgreSQL runs and it reported {seen.age_s:.1f} s ago"
    stop = ": stop its node (SIGINT) first, or say --force" if lives and not force else ""
    under_way = f"{running.kind} {running.id} is {running.phase}: wait for its end" if running else "none under way"
    return (
        Check("member.known", name, True, member.raft),
        Check("member.last_primary", name, not primary, "is the primary: switch over first" if primary else "is none"),
        Check("operation.running", name, running is None, under_way),
        Check("cluster.primary", name, force or opened or not state.initialised, state.primary or alone),
        Check("member.running", name, force or not lives, f"{age}{stop}"),
        Check("quorum.kept", name, majority_problem is None, majority_problem or "a majority of the others is up"),
        _strict_without(state, name),
    )


def _strict_without(state: ClusterState, name: str) -> Check:
    """Strict mode would make every commit wait for ever."""
    left = replace(state, members={m.name: m for m in state.members.values() if m.name != name})
    policy = policy_in_force(state)
    asked = replace(policy, synchronous_node_count=1)
    problem = synchronous.too_much(left, asked) if policy.synchronous_mode_strict and state.initialised else None
    return Check("sync.strict", name, problem is None, problem or "commits have somebody to wait for, or need not")


def config_checks(state: ClusterState, patch: Mapping[str, object], version: int | None) -> tuple[Check, ...]:
    """What must hold for a change of the configuration document; `version`: what it was made from, if that matters.

    A change of synchronous standbys is never too early: one that is under way is joined by the next (R8).
    """
    current = state.config.version
    same = version is None or version == current
    moved = f"version {current} is current, not {version}: look again"
    fixed = sorted(flat({"postgresql": section}) if isinstance((section := patch.get("postgresql")), Mapping) else ())
    if "postgresql" in patch and not fixed:
        fixed = ["postgresql"]
    refused = apply(state, SetConfig(current, merged(state.config.document, patch))).refused or ""
    return (
        Check("cluster.initialised", "", state.initialised, state.system_identifier or "run `appliance bootstrap`"),
        Check("config.version", "", same, f"version {current} is current" if same else moved),
        Check("config.fixed", "", not fixed, f"{', '.join(fixed)}: {_FIXED}" if fixed else "can be changed"),
        Check("config.invalid", "", not refused, refused.partition(": ")[2] or "can be read"),
    )


def _unknown(state: ClusterState, name: str) -> Check:
    known = ", ".join(sorted(state.members))
    return Check("member.unknown", name, False, f"no member of this name; known: {known}")


def refusal(checks: tuple[Check, ...]) -> Check | None:
    """The check that stands in the way: a cluster check, or, when no candidate passes all of its own, the first."""
    failed = next((c for c in checks if not c.candidate and not c.ok), None)
    if failed is not None:
        return failed
    candidates = {c.candidate for c in checks if c.candidate}
    passing = {n for n in candidates if all(c.ok for c in checks if c.candidate == n)}
    if passing:
        return None
    failed = next((c for c in checks if not c.ok), None)
    return failed or Check("candidate.none", "", False, "there is no standby: add one, or wait until one streams")
