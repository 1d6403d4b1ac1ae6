"""The replicated state machine: `apply(state, command)` is pure, total and the same on every node.

Every safety condition is evaluated here, at its place in the log (docs/safety.md, "What is decided, and where"):
proposers may be one command behind. A refusal is a value that says why and leaves the state as it was.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import assert_never

from appliance.cluster import elections, operations, synchronous, tokens
from appliance.cluster.commands import (
    AbandonBootstrap,
    AdvanceOperation,
    Announce,
    Appoint,
    BeginBootstrap,
    ChangeSync,
    Command,
    Depose,
    FinaliseSync,
    FinishBootstrap,
    IssueToken,
    NotePosition,
    OpenElection,
    Promoted,
    RaiseFormat,
    Rebuild,
    Rebuilt,
    Recovered,
    Release,
    RemoveMember,
    RevokeToken,
    SetConfig,
    StartOperation,
    UseToken,
)
from appliance.cluster.config import ConfigError, read_policy
from appliance.cluster.names import slot_name
from appliance.cluster.state import (
    UNENDED,
    Appointment,
    Bootstrap,
    Change,
    ClusterState,
    Config,
    FailedBootstrap,
    HistoryEntry,
    LeaseStatus,
    NodeRole,
    Position,
    Recovery,
    SyncVersion,
    Timeline,
)
from appliance.cluster.zones import not_among, unknown_zone

REASON_LIMIT = 500
"""Characters that are kept of what a node says of itself."""


@dataclass(frozen=True, slots=True)
class Applied:
    state: ClusterState
    refused: str | None = None
    """None: applied. Otherwise `code: reason`, and `state` is the one before."""


def apply(state: ClusterState, command: Command) -> Applied:
    answer = _step(state, command)
    return Applied(state, refused=answer) if isinstance(answer, str) else Applied(answer)


def _step(state: ClusterState, command: Command) -> ClusterState | str:  # noqa: C901
    match command:
        case Announce():
            return _announce(state, command)
        case RemoveMember():
            return _remove_member(state, command)
        case BeginBootstrap():
            return _begin_bootstrap(state, command)
        case AbandonBootstrap():
            return _abandon_bootstrap(state, command)
        case FinishBootstrap():
            return _finish_bootstrap(state, command)
        case Depose():
            return _depose(state, command)
        case Release():
            return _release(state, command)
        case OpenElection():
            return elections.open_election(state, command)
        case Appoint():
            return elections.appoint(state, command)
        case Promoted():
            return _promoted(state, command)
        case ChangeSync():
            return synchronous.change(state, command)
        case FinaliseSync():
            return synchronous.finalise(state, command)
        case NotePosition():
            return _note_position(state, command)
        case Rebuild():
            return _rebuild(state, command)
        case Rebuilt():
            return _rebuilt(state, command)
        case Recovered():
            return _recovered(state, command)
        case SetConfig():
            return _set_config(state, command)
        case StartOperation():
            return operations.start(state, command)
        case AdvanceOperation():
            return operations.advance(state, command)
        case IssueToken():
            return tokens.issue(state, command)
        case UseToken():
            return tokens.use(state, command)
        case RevokeToken():
            return tokens.revoke(state, command)
        case RaiseFormat():
            return _raise_format(state, command)
        case _:
            assert_never(command)


def _announce(state: ClusterState, command: Announce) -> ClusterState | str:
    """Addresses, role and tags are the node's to say; incarnation and rebuilding are R13's and stay."""
    new, old = command.member, state.members.get(command.member.name)
    if not new.name:
        return "member.nameless: a member needs a name"
    if new.name in state.removed:
        return f"member.removed: {new.name} was removed from the cluster"
    for other in state.members.values():
        if other.name != new.name and other.raft == new.raft:
            return f"member.address_taken: {new.raft} is the raft address of {other.name}"
        if other.name != new.name and slot_name(other.name) == slot_name(new.name):
            return f"member.name_taken: {new.name} and {other.name} are one name to PostgreSQL"
    if old is not None and (old.role is NodeRole.WITNESS) is not (new.role is NodeRole.WITNESS):
        return f"member.role: {new.name} is known with role {old.role}, and cannot become {new.role}"
    if state.initialised and (problem := unknown_zone(state, new)) is not None:
        return f"member.zone: {problem}"
    if old is None:
        new = replace(new, incarnation="", rebuilding=False, leaving=False)
    else:
        new = replace(new, incarnation=old.incarnation, rebuilding=old.rebuilding, leaving=old.leaving)
    return replace(state, members={**state.members, new.name: new})


def _remove_member(state: ClusterState, command: RemoveMember) -> ClusterState | str:
    """Its tokens go too: one that it had used would let it in again. R7: the last primary stays."""
    name, held, running = command.node, state.appointment, state.running_operation()
    if name not in state.members:
        return f"member.unknown: {name}"
    if held is not None and held.node == name:
        return f"member.last_primary: {name} is the primary of epoch {held.epoch}"
    if state.bootstrap is not None and state.bootstrap.node == name:
        return f"bootstrap.running: {name} is initialising the cluster"
    if running is not None and name in {running.source, running.target}:
        return f"operation.running: {running.kind} {running.id} is under way ({running.phase})"
    left = {member.name: member for member in state.members.values() if member.name != name}
    if all(member.role is NodeRole.LEARNER for member in left.values()):
        return f"member.last_voter: nobody would have a vote without {name}"
    if name in synchronous.named(state.grounds):
        if state.members[name].leaving:
            return f"member.synchronous: {name} is a synchronous standby still"
        return replace(state, members={**state.members, name: replace(state.members[name], leaving=True)})
    if held is not None:
        held = synchronous.without_holder(held, name)
    tokens = tuple(token for token in state.tokens if token.member != name)
    return replace(state, members=left, removed=state.removed | {name}, appointment=held, tokens=tokens)


def _begin_bootstrap(state: ClusterState, command: BeginBootstrap) -> ClusterState | str:
    if state.initialised:
        return f"bootstrap.done: cluster {state.name!r} has system identifier {state.system_identifier}"
    if state.bootstrap is not None and state.bootstrap.node != command.node:
        return f"bootstrap.running: {state.bootstrap.node} is initialising the cluster"
    if command.node not in state.members:
        return f"member.unknown: {command.node} has not announced itself"
    if state.members[command.node].role is NodeRole.WITNESS:
        return f"bootstrap.witness: {command.node} has no PostgreSQL"
    if (problem := _unusable(state, command.document)) is not None:
        return problem
    return replace(
        state,
        name=command.cluster,
        bootstrap=Bootstrap(command.node, command.operation),
        failed_bootstrap=None,
        config=Config(version=state.config.version + 1, document=command.document),
    )


def _abandon_bootstrap(state: ClusterState, command: AbandonBootstrap) -> ClusterState | str:
    if state.bootstrap is None or state.bootstrap.node != command.node:
        return f"bootstrap.not_yours: {command.node} is not initialising the cluster"
    failed = FailedBootstrap(command.node, state.bootstrap.operation, command.reason)
    return replace(state, bootstrap=None, failed_bootstrap=failed)


def _finish_bootstrap(state: ClusterState, command: FinishBootstrap) -> ClusterState | str:
    if state.initialised:
        return f"bootstrap.done: cluster {state.name!r} has system identifier {state.system_identifier}"
    if state.bootstrap is None or state.bootstrap.node != command.node:
        return f"bootstrap.not_yours: {command.node} is not initialising the cluster"
    if not command.system_identifier or not command.incarnation or command.position.timeline != 1:
        return "bootstrap.incomplete: a new cluster has a system identifier, an incarnation, and starts on timeline 1"
    policy = read_policy(state.config.document)
    member = replace(state.members[command.node], incarnation=command.incarnation, rebuilding=False)
    return replace(
        state,
        system_identifier=command.system_identifier,
        bootstrap=None,
        members={**state.members, member.name: member},
        epoch=1,
        appointment=Appointment(
            epoch=1,
            node=command.node,
            incarnation=command.incarnation,
            timeline=1,
            start=command.position,
            opened=True,
            holders=frozenset({command.node}),
            ttl_s=policy.ttl_s,
            clock_drift=policy.clock_drift,
        ),
        lease=LeaseStatus.HELD,
        sync=(SyncVersion(1, 1, synchronous.first(policy)),),
        timelines=(Timeline(number=1, epoch=1, node=command.node, parent=0, switch_lsn=0),),
        last_known=command.position,
        last_known_at=command.at,
        history=(
            HistoryEntry(
                at=command.at,
                change=Change.BOOTSTRAP,
                epoch=1,
                timeline=1,
                lsn=0,
                previous="",
                primary=command.node,
                reason=f"cluster initialised on {command.node}",
            ),
        ),
    )


def _depose(state: ClusterState, command: Depose) -> ClusterState | str:
    if state.appointment is None or state.appointment.epoch != command.epoch:
        return f"epoch.moved: epoch {command.epoch} is not the appointed one"
    if state.lease not in UNENDED:
        return f"lease.not_held: the lease of epoch {command.epoch} is already {state.lease}"
    return replace(state, lease=LeaseStatus.EXPIRED, lease_over=command.reason[:REASON_LIMIT])


def _release(state: ClusterState, command: Release) -> ClusterState | str:
    held = state.appointment
    if held is None or held.epoch != command.epoch or held.node != command.node:
        return f"epoch.moved: epoch {command.epoch} is not {command.node}'s"
    if state.lease not in UNENDED:
        return f"lease.not_held: the lease of epoch {command.epoch} is already {state.lease}"
    return replace(
        elections.known(state, command.position),
        lease=LeaseStatus.RELEASED,
        lease_over=command.reason[:REASON_LIMIT],
    )


def _promoted(state: ClusterState, command: Promoted) -> ClusterState | str:
    held = state.appointment
    if held is None or held.epoch != command.epoch or held.node != command.node:
        return f"epoch.moved: epoch {command.epoch} is not {command.node}'s"
    if command.timeline != held.timeline:
        return f"timeline.wrong: timeline {held.timeline} was assigned to epoch {held.epoch}"
    if not 0 < command.parent < command.timeline:
        return f"timeline.parent: timeline {command.timeline} cannot have left timeline {command.parent}"
    if held.opened:
        return f"timeline.recorded: epoch {held.epoch} was opened before"
    switch = Position(command.timeline, command.switch_lsn)
    return replace(
        state,
        appointment=replace(held, opened=True),
        last_known=switch,
        last_known_at=command.at,
        timelines=tuple(
            replace(t, parent=command.parent, switch_lsn=command.switch_lsn) if t.number == held.timeline else t
            for t in state.timelines
        ),
        history=tuple(
            replace(h, lsn=command.switch_lsn, opened_at=command.at) if h.epoch == held.epoch else h
            for h in state.history
        ),
    )


def _note_position(state: ClusterState, command: NotePosition) -> ClusterState | str:
    if state.appointment is None or state.appointment.epoch != command.epoch:
        return f"epoch.moved: epoch {command.epoch} is not the appointed one"
    if state.last_known is not None and elections.order(command.position) < elections.order(state.last_known):
        return "position.old: a later position is known"
    return replace(state, last_known=command.position, last_known_at=command.at)


def _rebuild(state: ClusterState, command: Rebuild) -> ClusterState | str:
    member = state.members.get(command.node)
    if member is None:
        return f"member.unknown: {command.node}"
    held = state.appointment
    if held is not None and held.node == command.node:
        return f"rebuild.last_primary: {command.node} is the primary of epoch {held.epoch}"
    if command.node in synchronous.named(state.grounds):
        return f"rebuild.synchronous: {command.node} is a synchronous standby"
    if held is not None:
        held = synchronous.without_holder(held, command.node)
    member = replace(member, rebuilding=True, incarnation="")
    return replace(state, members={**state.members, member.name: member}, appointment=held)


def _rebuilt(state: ClusterState, command: Rebuilt) -> ClusterState | str:
    member = state.members.get(command.node)
    if member is None:
        return f"member.unknown: {command.node}"
    if not member.rebuilding:
        return f"rebuild.not_begun: {command.node} has not said that it rebuilds"
    member = replace(member, rebuilding=False, incarnation=command.incarnation)
    return replace(state, members={**state.members, member.name: member})


def _recovered(state: ClusterState, command: Recovered) -> ClusterState | str:
    """R13a: whose data was not kept has none. Its vote counts no more from here on, and neither does it as a holder.

    The lease stays as it is: who holds it has to give it back, or it runs out (R3), as if nothing had happened.
    """
    if command.number <= state.recovery.number:
        return f"recovery.old: recovery {state.recovery.number} is the last one"
    kept = {name: incarnation for name, incarnation in command.kept.items() if incarnation}
    members = {
        member.name: member if kept.get(member.name) == member.incarnation else replace(member, incarnation="")
        for member in state.members.values()
    }
    held = state.appointment
    if held is not None:
        for name in (name for name, member in members.items() if not member.incarnation):
            held = synchronous.without_holder(held, name)
    return replace(state, recovery=Recovery(command.number, kept), members=members, appointment=held)


def _set_config(state: ClusterState, command: SetConfig) -> ClusterState | str:
    if command.expected_version != state.config.version:
        return f"config.version: version {state.config.version} is current, not {command.expected_version}"
    if (problem := _unusable(state, command.document)) is not None:
        return problem
    return replace(state, config=Config(version=state.config.version + 1, document=command.document))


def _unusable(state: ClusterState, document: Mapping[str, object]) -> str | None:
    """What is wrong with a configuration document for these members, or None."""
    try:
        policy = read_policy(document)
    except ConfigError as error:
        return f"config.invalid: {error}"
    strange = (not_among(policy.zones, state.members[name]) for name in sorted(state.members))
    problem = next(filter(None, strange), None) or synchronous.too_much(state, policy)
    return None if problem is None else f"config.invalid: {problem}"


def _raise_format(state: ClusterState, command: RaiseFormat) -> ClusterState | str:
    if command.format <= state.format:
        return f"format.agreed: format {state.format} is agreed on already"
    return replace(state, format=command.format)
