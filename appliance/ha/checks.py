"""The table of checks that a switchover or failover is measured by: the same for a dry run and for the real thing."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from appliance.cluster.config import Policy
from appliance.cluster.state import ClusterState, LeaseStatus, Member, NodeRole
from appliance.ha.seen import ReportSeen

_TAGGED = "has the tag nofailover: name another, or take the tag from its node.yml"
_WAIVED = frozenset({"candidate.nofailover", "candidate.streaming"})
"""what a failover does not ask"""
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
        _has_data(member),
        _not_primary(state, name),
        _reachable(reports.get(name), name),
        _streaming(state, reports.get(name), name),
        _lag(state, reports, policy, name),
        _tags(member),
    ):
        checks.append(check)
        if not check.ok and check.code not in waived:
            break
    return tuple(checks)


def _has_data(member: Member) -> Check:
    if member.role is NodeRole.WITNESS:
        return Check("candidate.data", member.name, False, "is a witness and has no PostgreSQL: name another")
    ok = bool(member.incarnation) and not member.rebuilding
    detail = "complete data directory" if ok else "no complete data directory: wait until it streams"
    return Check("candidate.data", member.name, ok, detail)


def _not_primary(state: ClusterState, name: str) -> Check:
    ok = state.primary != name
    return Check("candidate.not_primary", name, ok, "is a standby" if ok else "is the primary already: name another")


def _reachable(seen: ReportSeen | None, name: str) -> Check:
    if seen is None:
        return Check("candidate.reachable", name, False, "has not reported to the raft leader: is its node running?")
    detail = f"reported {seen.age_s:.1f} s ago, PostgreSQL {seen.report.status}"
    if seen.age_s > FRESH_S:
        silent = (
            f"silent for {seen.age_s:.1f} s, the limit is {FRESH_S:g} s: is its node process running and reachable?"
        )
        return Check("candidate.reachable", name, False, silent)
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


def _lag(state: ClusterState, reports: Mapping[str, ReportSeen], policy: Policy, name: str) -> Check:
    seen, primary = reports.get(name), reports.get(state.primary or "")
    known = state.last_known.lsn if state.last_known is not None else 0
    ahead = max(known, primary.report.lsn if primary is not None else 0)
    lag = max(0, ahead - (seen.report.lsn if seen is not None else 0))
    limit = policy.maximum_lag_on_failover_bytes
    detail = f"{lag} bytes behind, maximum_lag_on_failover is {limit}"
    wait = "" if lag <= limit else ": wait until it has caught up"
    return Check("candidate.lagging", name, lag <= limit, f"{detail}{wait}")


def _tags(member: Member) -> Check:
    ok = member.tags.get("nofailover") is not True
    return Check("candidate.nofailover", member.name, ok, "may become primary" if ok else _TAGGED)


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
    """A failover asks less: the target must be there and have data; lag counts unless the operator accepted it."""
    checks = list(cluster_checks(state, "", needs_primary=False))
    waived = _WAIVED | ({"candidate.lagging"} if allow_data_loss else frozenset())
    for check in candidate_checks(state, reports, policy, target, waived):
        if not check.ok and check.code in waived:
            checks.append(replace(check, ok=True, detail=f"{check.detail.partition(':')[0]} (accepted)"))
        elif not check.ok and check.code == "candidate.lagging":
            checks.append(replace(check, detail=f"{check.detail}, or accept the loss with --allow-data-loss"))
        else:
            checks.append(check)
    return tuple(checks)


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
