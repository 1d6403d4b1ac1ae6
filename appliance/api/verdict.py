"""How the cluster is, in one word, and every reason why it is not better: each with a code, numbers and a hint.

A pure function of the published value. A code says which verdict it leads to; the worst one found is the verdict.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from appliance.api.present import Present
from appliance.cluster.state import Member, NodeRole
from appliance.ha import clocks, storage
from appliance.ha.seen import Report

_REMOVED = "removed, or not added yet"
"""what a replica is told that is no member, or none any more"""
_BACK = "the others do not take {0} for a member: `appliance members add {0}` on one of them if it is to come back"

Verdict = Literal["healthy", "degraded", "critical", "stale"]


@dataclass(frozen=True, slots=True)
class Finding:
    code: str
    severity: Literal["degraded", "critical", "stale"]
    member: str
    """empty: about the cluster"""
    message: str
    hint: str


def verdict(found: tuple[Finding, ...]) -> Verdict:
    """Stale before all: a node without a quorum cannot know whether it still is as bad as it was."""
    severities = {finding.severity for finding in found}
    if "stale" in severities:
        return "stale"
    if "critical" in severities:
        return "critical"
    return "degraded" if found else "healthy"


def findings(present: Present) -> tuple[Finding, ...]:
    return (
        *_removal(present),
        *_contact(present),
        *_primary(present),
        *_standbys(present),
        *_storage(present),
        *_raft(present),
        *_certificates(present),
        *_watchdogs(present),
        *_clocks(present),
        *_objections(present),
    )


def _removal(present: Present) -> Iterator[Finding]:
    """It was down when it was removed, or the change did not reach it: only the others can tell."""
    if by := present.published.raft.removed_by:
        message = f"{present.me} was removed from the cluster, by the word of {', '.join(by)}"
        hint = (
            f"to have it back, `appliance members add {present.me}` on a member and `appliance join` here;"
            " otherwise end it for good and remove its data"
        )
        yield Finding("node.removed", "critical", present.me, message, hint)


def _contact(present: Present) -> Iterator[Finding]:
    if present.age_s > present.policy.ttl_s:
        message = f"the control loop of {present.me} has not looked for {present.age_s:.1f} s"
        yield Finding(
            "node.stuck", "stale", present.me, message, "see its log; restarting it leaves PostgreSQL running"
        )
    if present.in_contact():
        return
    contact_s, peers = present.contact_s, present.published.raft.peers
    since = "since this node started" if contact_s is None else f"for {contact_s:.1f} s"
    away = ", ".join(sorted(name for name, up in peers.items() if not up)) or "none"
    message = f"{present.me} has had no contact with a quorum {since}; peers not connected: {away}"
    why = "; ".join(reason for _, reason in sorted(present.published.raft.away.items()))
    hint = "this is the last known view; start the missing nodes or mend the network"
    hint = f"{hint}: {why}" if why else hint
    if _REMOVED in why:
        hint = _BACK.format(present.me)
    yield Finding("quorum.none", "stale", "", message, hint)


def _primary(present: Present) -> Iterator[Finding]:
    state, held, name = present.state, present.state.appointment, present.state.primary
    if not state.initialised:
        running = state.bootstrap
        message = "the cluster has no data yet" if running is None else f"{running.node} is initialising the cluster"
        hint = "run `appliance bootstrap`" if running is None else "wait until it is done"
        yield Finding("cluster.not_initialised", "critical", "", message, hint)
        if state.failed_bootstrap is not None:
            failed, hint = state.failed_bootstrap, "nothing was kept: mend it, then run `appliance bootstrap` again"
            message = f"the last bootstrap, on {failed.node}, was given up: {failed.reason}"
            yield Finding("bootstrap.failed", "critical", failed.node, message, hint)
    elif name is None or held is None:
        why = f"election {state.election.number} is open: {state.election.reason}" if state.election else "no election"
        message = f"no primary: the lease is {state.lease}; {why}"
        yield Finding("cluster.no_primary", "critical", "", message, "`appliance explain` says what is missing")
    elif not held.opened:
        message = f"{name} was appointed for epoch {held.epoch} and is not open yet"
        yield Finding("primary.opening", "critical", name, message, f"see what {name} is doing")
    else:
        yield from _open_primary(present, name)
        yield from _nobody_confirms(present, name)


def _open_primary(present: Present, name: str) -> Iterator[Finding]:
    seen = present.report(name)
    limit_s = present.policy.failure_timeout_s
    if seen is None or seen.age_s > limit_s:
        since = "has not reported" if seen is None else f"last reported {seen.age_s:.1f} s ago"
        yield Finding("primary.silent", "critical", name, f"primary {name} {since}", _why_silent(present, name))
    elif name == present.me:
        yield from _own_primary(present)
    elif seen.report.gate:
        yield _gated(name, seen.report)
    elif not seen.report.running or seen.report.in_recovery is not False:
        message = f"PostgreSQL of primary {name} is {seen.report.status} and takes no writes"
        yield Finding("primary.not_writable", "critical", name, message, seen.report.doing or "see its log")


def _nobody_confirms(present: Present, name: str) -> Iterator[Finding]:
    """Strict mode without a standby: reads go on, and whoever writes sees its commit hang and no reason. Else commits
    wait for nobody, though they are meant to."""
    wanted = present.state.sync_now.wanted
    others = [m for m in present.state.members.values() if m.name != name and m.role is not NodeRole.WITNESS]
    if wanted.k == 0 and not wanted.blocked and not wanted.asynchronous and others:
        message = f"commits on {name} wait for no standby: if it is lost now, so is what only it has"
        hint = "a standby is waited for when it has caught up; see why none streams, and the tags nosync and nofailover"
        yield Finding("sync.alone", "degraded", name, message, hint)
    if wanted.blocked:
        message = f"commits on {name} wait for a synchronous standby, and there is none (synchronous_mode_strict)"
        hint = "bring a standby back, or `appliance config set synchronous_mode_strict=false` to go on with one disk"
        yield Finding("sync.blocked", "critical", name, message, hint)


def _own_primary(present: Present) -> Iterator[Finding]:
    """What `/primary` answers here and the verdict must not differ."""
    if present.published.report.gate:
        yield _gated(present.me, present.published.report)
    elif not present.writable:
        left_s, report = present.lease_left_s, present.published.report
        lease = "no lease" if left_s is None else f"{left_s:.1f} s of lease left"
        message = f"{present.me} takes no writes: PostgreSQL is {report.status}, {lease}"
        yield Finding("primary.not_writable", "critical", present.me, message, report.doing or "see its log")


def _gated(name: str, report: Report) -> Finding:
    hint = "see why they do not stream; what applications would read could be lost with this node"
    return Finding("primary.gated", "critical", name, f"{name} {report.gate}", hint)


def _standbys(present: Present) -> Iterator[Finding]:
    for name in sorted(present.state.members):
        member = present.state.members[name]
        if name != present.state.primary and present.state.initialised:
            yield from _standby(present, member)


def _standby(present: Present, member: Member) -> Iterator[Finding]:
    name, seen = member.name, present.report(member.name)
    if seen is None or seen.age_s > present.policy.failure_timeout_s:
        since = "has not reported to the raft leader" if seen is None else f"last reported {seen.age_s:.1f} s ago"
        yield Finding("member.silent", "degraded", name, f"{name} {since}", _why_silent(present, name))
    elif member.role is not NodeRole.WITNESS:
        yield from _postgres(present, name, seen.report)


def _storage(present: Present) -> Iterator[Finding]:
    """Of every member that has reported lately; a primary's troubles are everybody's."""
    for name in sorted(present.state.members):
        seen = present.report(name)
        if seen is not None and seen.age_s <= present.policy.failure_timeout_s:
            yield from _stalled(present, name, seen.report)
            yield from _room(present, name, seen.report)


def _stalled(present: Present, name: str, report: Report) -> Iterator[Finding]:
    limit_s = storage.hung_after_s(present.policy)
    why = storage.why_stalled(report.storage, present.policy.failure_timeout_s)
    if why is None:
        return
    over = storage.stalled_s(report.storage) > limit_s
    primary = name == present.state.primary
    code, hint = "storage.stalled", f"see the kernel's log and the storage of {name}"
    if storage.disk_stalled_s(report.storage) <= present.policy.failure_timeout_s:
        code, hint = "postmaster.stalled", f"see the load of {name}, and whether its postmaster is stopped"
    if primary:
        alone = name == present.me and not present.published.seen.successors
        then = "nobody else could take over" if alone else "it gives its lease up, if another member could take over"
        hint = f"{hint}; after {limit_s:g} s {then}"
    yield Finding(code, "critical" if primary and over else "degraded", name, f"{name}: {why}", hint)


def _room(present: Present, name: str, report: Report) -> Iterator[Finding]:
    hung = storage.stalled_s(report.storage) > storage.hung_after_s(present.policy)
    level = storage.ROOM if hung else storage.level(report.storage, present.policy)
    primary = name == present.state.primary
    message = f"{name}: {storage.least_room(report.storage)}"
    if level == storage.NO_ROOM:
        other = ", or switch over to a member with more room" if primary else ""
        hint = f"make room on {name}{other}; writes are let in again by themselves"
        yield Finding("storage.full", "critical" if primary else "degraded", name, message, hint)
    elif level == storage.LITTLE_ROOM:
        yield Finding("storage.filling", "degraded", name, message, f"make room on {name}, or give it a larger disk")


def _why_silent(present: Present, name: str) -> str:
    absence = present.published.raft.away.get(name)
    heard = f" From {present.me}: {absence}" if absence else ""
    return f"is its node process running and reachable?{heard}"


def _postgres(present: Present, name: str, report: Report) -> Iterator[Finding]:
    limit = present.policy.maximum_lag_on_failover_bytes
    behind = present.primary_lsn - report.lsn
    doing = report.progress or report.doing or "see its log"
    if not report.running:
        yield Finding("member.down", "degraded", name, f"PostgreSQL of {name} is {report.status}", doing)
    elif report.in_recovery is False:
        message = f"{name} runs as a primary without being appointed"
        yield Finding("member.not_fenced", "degraded", name, message, "it ends before its lease does; see its log")
    elif present.state.primary is not None and not report.streaming:
        yield Finding("member.not_streaming", "degraded", name, f"{name} does not stream from the primary", doing)
    elif behind > limit:
        message = f"{name} is {behind} bytes behind, more than maximum_lag_on_failover of {limit}"
        yield Finding("member.lagging", "degraded", name, message, "it cannot take over until it has caught up")


def _raft(present: Present) -> Iterator[Finding]:
    raft = present.published.raft
    for name, why in sorted(raft.refusals.items()):
        if name in raft.removed_by:
            continue  # `node.removed` says it
        yield Finding("raft.refused", "degraded", name, f"{name} is refused as a peer: {why}", _remedy(present.me, why))
    voters = {name for name, replica in raft.members.items() if replica.role == "voter"}
    away = {name for name in voters if name != present.me and not raft.peers.get(name)}
    connected = len(voters) - len(away)
    if away and connected == len(voters) // 2 + 1:
        missing = ", ".join(sorted(away))
        message = (
            f"{connected} of {len(voters)} voters are connected: one more lost and writes stop; missing: {missing}"
        )
        yield Finding("quorum.no_margin", "degraded", "", message, "start the missing nodes")
    for name, member in sorted(present.state.members.items()):
        if member.leaving:
            yield _leaving(present, name)
    for name in sorted(present.state.removed & set(raft.members)):
        message = f"{name} was removed, and its replica still is a {raft.members[name].role}"
        hint = "the raft leader takes it out as soon as a majority of the other voters is up"
        yield Finding("member.leaving", "degraded", name, message, hint)


def _leaving(present: Present, name: str) -> Finding:
    """R13: it was to leave while commits waited for it."""
    message, hint = f"{name} is to leave, and is a synchronous standby still", "it leaves when no commit waits for it"
    if present.state.primary == name:
        message = f"{name} is to leave, and became primary before it could"
        hint = "`appliance switchover`: it leaves then"
    return Finding("member.leaving", "degraded", name, message, hint)


def _remedy(me: str, why: str) -> str:
    if "certificate" in why:
        return "`appliance certs show` on both: each needs one of an authority that the other trusts, and a right clock"
    return _BACK.format(me) if _REMOVED in why else "correct its node.yml"


def _certificates(present: Present) -> Iterator[Finding]:
    for name in sorted(present.state.members):
        seen = present.report(name)
        found = seen.report.certificate if seen is not None else None
        if found is None or not found.problem:
            continue
        hint = _certificate_remedy(name, found.problem)
        if found.usable:
            message = f"the certificate of {name} needs to be mended or renewed: {found.problem}"
            yield Finding("certificate.due", "degraded", name, message, hint)
        else:
            message = f"the other members do not accept the certificate of {name}: {found.problem}"
            yield Finding("certificate.unusable", "critical", name, message, hint)


def _watchdogs(present: Present) -> Iterator[Finding]:
    """A primary that runs without a required one is worse off than the lease says."""
    for name in sorted(present.state.members):
        seen = present.report(name)
        found = seen.report.watchdog if seen is not None else None
        if found is None or not found.problem:
            continue
        primary = present.state.primary == name
        without = f"the watchdog of {name} is not usable: {found.problem}"
        effect = "it is not made primary" if found.required and not primary else "its guard has nothing behind it"
        severity: Literal["critical", "degraded"] = "critical" if found.required and primary else "degraded"
        hint = (
            f"load a driver or let the node's user write {found.device} on {name}; or `watchdog: off` in its node.yml"
        )
        yield Finding("watchdog.unusable", severity, name, f"{without}; {effect}", hint)


def _clocks(present: Present) -> Iterator[Finding]:
    """As the raft leader compared them; what depends on them is in safety.md R3."""
    for name in sorted(present.state.members):
        seen = present.report(name)
        clock = None if seen is None else seen.clock
        if seen is None or clock is None or seen.age_s > present.policy.failure_timeout_s:
            continue
        if clocks.wild(clock, present.policy):
            limit = present.policy.clock_drift
            message = f"{name}: {clocks.in_words(clock)}, measured by all members; clock_drift allows {limit:.1%}"
            alone = name == present.state.primary and present.policy.synchronous_mode == "off"
            hint = f"see the clock source of {name} (dmesg, the hypervisor), and whether it was stopped for a while"
            hint = f"{hint}; its leases end too late or too early" if alone else hint
            yield Finding("clock.drift", "critical" if alone else "degraded", name, message, hint)
        if abs(clock.wall_ahead_s) > clocks.WALL_LIMIT_S:
            how = "ahead of" if clock.wall_ahead_s > 0 else "behind"
            message = f"the wall clock of {name} is {abs(clock.wall_ahead_s):.0f} s {how} those of the members together"
            yield Finding(
                "clock.wall", "degraded", name, message, f"set the clock of {name}; is its NTP client running?"
            )


def _objections(present: Present) -> Iterator[Finding]:
    for name in sorted(present.state.members):
        seen = present.report(name)
        if seen is not None and seen.report.objection:
            hint = f"correct the tags in the node.yml of {name} and restart its node process; or name it in `zones`"
            yield Finding("member.zone", "degraded", name, f"{seen.report.objection}; it counts as before", hint)


def _certificate_remedy(name: str, problem: str) -> str:
    if "set the clock" in problem:
        return f"set the clock of {name}"
    if "cannot read" in problem or problem.startswith("tls.key"):
        return f"mend the file on {name}; `appliance node --check` there says what else it wants"
    return f"`appliance certs renew` on {name}, or `appliance certs issue {name} --replace` where the authority is"
