"""R7, R7a and R8 as arithmetic: which votes show every acknowledged commit, and how the synchronous set changes."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace

from appliance.cluster.commands import ChangeSync, FinaliseSync
from appliance.cluster.config import Policy, policy_in_force
from appliance.cluster.state import (
    ASYNCHRONOUS,
    BLOCKED,
    Appointment,
    ClusterState,
    Grounds,
    LeaseStatus,
    Member,
    NodeRole,
    SyncSet,
    SyncVersion,
)

DEPTH = 4
"""How many appointments in a row that were never finalised are told apart (R7a); what is older is not asked any more,
which can only keep an appointment from being made."""


def union(versions: Iterable[SyncVersion]) -> tuple[frozenset[str], int]:
    """S and k for R7: while a change is joint the union of all S with the smallest k (R8, T5)."""
    sets = [listed.wanted for listed in versions]
    return frozenset[str]().union(*(s.members for s in sets)), min((s.k for s in sets), default=0)


def meets(versions: Iterable[SyncVersion], voters: Collection[str]) -> bool:
    """Whether `voters` share a member with every set of standbys that may have confirmed a commit (R7).

    With k = 0 the primary alone may have acknowledged one: nobody else shows it.
    """
    members, k = union(versions)
    return k > 0 and len(members.intersection(voters)) >= len(members) - k + 1


def vouchers(versions: Iterable[SyncVersion]) -> frozenset[str] | None:
    """R16: who all have to promise the primary that they do not vote; None: no promise lets it go on.

    Empty: the synchronous set cannot vouch, everybody who has data has to. While a change is joint it is the union.
    """
    listed = tuple(versions)
    if not listed or not all(version.wanted.failsafe for version in listed):
        return None
    members, k = union(listed)
    return members if k > 0 else frozenset()


def silences(versions: tuple[SyncVersion, ...], voters: Collection[str]) -> bool:
    """R16: whether one of `voters` must have been asked by a primary that goes on without a quorum.

    It may know less of the log: while a change is joint it may rely on a part of the union, of at least k members. A
    set that stands alone it has known since before that was so.
    """
    return not union(versions)[0].isdisjoint(voters) if len(versions) == 1 else meets(versions, voters)


def suffice(grounds: tuple[Grounds, ...], voters: Mapping[str, str]) -> bool:
    """R7 and R7a: whether one of `voters` (name to incarnation) must hold each acknowledged commit."""
    if not grounds:
        return False
    now, *before = grounds
    if voters.get(now.node) == now.incarnation:
        return True
    if not meets(now.sync, voters):
        return False
    return not before or not now.holders.isdisjoint(voters) or suffice(tuple(before), voters)


def missing(grounds: tuple[Grounds, ...], voters: Collection[str]) -> str:
    """In words, what the votes do not show."""
    now = grounds[0]
    members, k = union(now.sync)
    have, needed = members.intersection(voters), len(members) - k + 1
    alone = f"no vote of {now.node}, the last primary"
    if k == 0:
        return f"{alone}, and nobody else is known to have every commit"
    if len(have) < needed:
        return f"{alone}, and {len(have)} of {needed} needed votes of {', '.join(sorted(members))}"
    return f"{alone}, whose synchronous set was not finalised, nor of anybody who had the same: {_names(now.holders)}"


def counted(votes: Collection[object]) -> str:
    return "1 vote" if len(votes) == 1 else f"{len(votes)} votes"


def shown(grounds: tuple[Grounds, ...], voters: Mapping[str, str]) -> str:
    """In words, why votes that suffice do."""
    now = grounds[0]
    if voters.get(now.node) == now.incarnation:
        return f"one of them of {now.node}, the last primary"
    members, k = union(now.sync)
    have, needed = members.intersection(voters), len(members) - k + 1
    return f"{len(have)} of them of {_names(members)}, where {needed} suffice (k = {k})"


def may_lack(grounds: tuple[Grounds, ...], kept: Mapping[str, str], *, synchronous: bool) -> str | None:
    """R7: why acknowledged commits may be in none of the data directories `kept` (name to incarnation), in words.

    None: one of them must hold every commit that was acknowledged, as far as these grounds tell. Without `synchronous`
    only the last primary's does (R10).
    """
    if not grounds or (synchronous and suffice(grounds, kept)):
        return None
    now = grounds[0]
    if kept.get(now.node) == now.incarnation:
        return None
    if not synchronous:
        return f"commits waited for no standby, and the data of {now.node}, the last primary, is not kept"
    members, k = union(now.sync)
    alone = f"the data of {now.node}, the last primary, is not kept"
    if k == 0:
        return f"{alone}, and its commits waited for nobody else"
    have = sorted(members.intersection(kept))
    needed = len(members) - k + 1
    if len(have) < needed:
        waited = f"its commits waited for {k} of {_names(members)}, so {needed} of them would show each one"
        return f"{alone}; {waited}, and kept is the data of {_names(have)}"
    return f"{alone}; its synchronous set was not final, and none of who had all before is kept: {_names(now.holders)}"


def _names(members: Collection[str]) -> str:
    return ", ".join(sorted(members)) or "nobody"


def kept(grounds: tuple[Grounds, ...]) -> tuple[Grounds, ...]:
    """For an appointment's `before`: as many as are kept. The last one is then met by its own node alone."""
    if len(grounds) <= DEPTH:
        return grounds
    last = grounds[DEPTH - 1]
    return (*grounds[: DEPTH - 1], Grounds(last.node, last.incarnation))


def named(grounds: tuple[Grounds, ...]) -> frozenset[str]:
    """Everybody in a synchronous set that an election may ask for (R13)."""
    return frozenset[str]().union(*(union(each.sync)[0] for each in grounds))


def without_holder(held: Appointment, node: str) -> Appointment:
    """R13: who gives its data up had everything no more, whichever appointment is asked about."""
    before = tuple(replace(each, holders=each.holders - {node}) for each in held.before)
    return replace(held, holders=held.holders - {node}, before=before)


def objection(state: ClusterState, policy: Policy, wanted: SyncSet, primary: str) -> str | None:
    """Why commits cannot wait for this set, or None."""
    if policy.synchronous_mode == "off":
        ends = state.sync_now.wanted.failsafe and wanted == replace(state.sync_now.wanted, failsafe=False)
        return None if ends or wanted == ASYNCHRONOUS else "sync.off: synchronous_mode is off"
    if wanted.asynchronous:
        return f"sync.on: synchronous_mode is {policy.synchronous_mode}"
    data = {m.name for m in state.members.values() if m.role is not NodeRole.WITNESS and not m.rebuilding}
    if strangers := sorted(wanted.members - (data - {primary})):
        return f"sync.members: {', '.join(strangers)}: no standby with data"
    if wanted.order and (frozenset(wanted.order) != wanted.members or len(wanted.order) != len(wanted.members)):
        return "sync.order: it names others than the members"
    if not min(1, len(wanted.members)) <= wanted.k <= len(wanted.members):
        return f"sync.k: {wanted.k} of {len(wanted.members)} members"
    if not wanted.members and policy.synchronous_mode_strict is not wanted.blocked:
        return "sync.strict: commits wait without a standby if, and only if, synchronous_mode_strict says so"
    if wanted.members and wanted.blocked:
        return "sync.blocked: it names whom commits wait for"
    if wanted.failsafe is not policy.failsafe_mode:
        return f"sync.failsafe: failsafe_mode is {'on' if policy.failsafe_mode else 'off'}"
    return None


def first(policy: Policy) -> SyncSet:
    """A new cluster's: nobody has anything to lose yet, so only strict mode waits before a standby streams."""
    if policy.synchronous_mode == "off":
        return ASYNCHRONOUS
    return replace(BLOCKED if policy.synchronous_mode_strict else SyncSet(), failsafe=policy.failsafe_mode)


def too_much(state: ClusterState, policy: Policy) -> str | None:
    """What the configuration asks for and these members cannot give, or None."""
    able, held = _able(state), state.appointment
    standbys = len(able - {held.node}) if held is not None else len(able) - 1
    if policy.synchronous_mode == "off":
        return None
    if policy.synchronous_mode_strict and standbys < 1:
        return (
            "synchronous_mode_strict: there is no standby, so no commit would ever be acknowledged; leave it out,"
            f" or first add a member without the tags nosync and nofailover{_untagged(state, able)}"
        )
    if policy.synchronous_node_count > max(1, standbys):
        return (
            f"synchronous_node_count: {policy.synchronous_node_count} is more than the standbys that there are,"
            f" {standbys}{_untagged(state, able)}; write {max(1, standbys)} at most"
        )
    return None


def _able(state: ClusterState) -> frozenset[str]:
    """All that commits could wait for one day, the primary too."""
    return frozenset(m.name for m in state.members.values() if m.role is not NodeRole.WITNESS and confirms(m))


def confirms(member: Member) -> bool:
    """A member that would not become primary does not stand for a commit either: then nobody could go on from it."""
    return member.tags.get("nosync") is not True and member.tags.get("nofailover") is not True


def _untagged(state: ClusterState, able: frozenset[str]) -> str:
    kept_out = sorted(m.name for m in state.members.values() if m.role is not NodeRole.WITNESS and m.name not in able)
    return f" (not {', '.join(kept_out)}, by tag)" if kept_out else ""


def appended(listed: tuple[SyncVersion, ...], newest: SyncVersion) -> tuple[SyncVersion, ...]:
    """R8: what was listed becomes one entry, with the union of all S and the smallest k, which is all R7 asks of it.

    Where nobody is to be waited for any more, nothing of it matters (R10).
    """
    if not listed or newest.wanted.asynchronous:
        return (newest,)
    if any(version.wanted.asynchronous for version in listed):
        before = ASYNCHRONOUS
    else:
        members, k = union(listed)
        before = SyncSet(k, members, failsafe=any(version.wanted.failsafe for version in listed))
    return (SyncVersion(listed[-1].version, listed[-1].epoch, before), newest)


def change(state: ClusterState, command: ChangeSync) -> ClusterState | str:
    """R8: joint from here on. Commits wait for the new set as soon as the primary has loaded it."""
    held, newest = state.appointment, state.sync_now
    if held is None or held.epoch != command.epoch:
        return f"epoch.moved: epoch {command.epoch} is not the appointed one"
    if state.lease is not LeaseStatus.HELD or state.election is not None:
        return f"lease.not_held: nobody would load it, the lease of epoch {held.epoch} is {state.lease}"
    if command.version != newest.version + 1:
        return f"sync.version: version {newest.version} is the newest, {command.version} is not the next"
    refused = objection(state, policy_in_force(state), command.wanted, held.node)
    if refused is not None:
        return refused
    if command.wanted.asynchronous and any(listed.wanted.failsafe for listed in state.sync):
        return f"sync.failsafe: {held.node} may go on without a quorum until it has loaded a set without failsafe_mode"
    if command.wanted == newest.wanted:
        return f"sync.same: version {newest.version} says that already"
    step = SyncVersion(command.version, command.epoch, command.wanted)
    before = () if command.wanted.asynchronous else held.before
    return replace(state, sync=appended(state.sync, step), appointment=replace(held, before=before))


def finalise(state: ClusterState, command: FinaliseSync) -> ClusterState | str:
    """R8: the newest stands alone. T8: only by the primary that loaded it, and only if nothing came after it."""
    held, newest = state.appointment, state.sync_now
    if held is None or held.epoch != command.epoch or newest.epoch != command.epoch:
        return f"epoch.moved: epoch {command.epoch} is not the appointed one"
    if not held.opened:
        return f"sync.not_open: {held.node} has not opened in epoch {held.epoch}"
    if command.version != newest.version:
        return f"sync.version: version {newest.version} is the newest, not {command.version}"
    if state.settled:
        return f"sync.final: version {newest.version} is finalised"
    settled = replace(held, before=(), holders=frozenset({held.node}))
    return replace(state, sync=(newest,), appointment=settled)
