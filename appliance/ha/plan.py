"""What the coordinator proposes: `plan(situation)`, an ordered tuple of small rules.

It runs on the raft leader only and is a suggestion: `apply` checks every condition again at its place in the log.
Reports are what the nodes sent; a node that has not reported is absent, not dead.
"""

from dataclasses import replace

from appliance.cluster import elections, synchronous
from appliance.cluster.commands import ChangeSync, NotePosition, RaiseFormat, Recovered, RemoveMember
from appliance.cluster.state import LeaseStatus, SyncSet
from appliance.ha.electing import appoint, depose_silent_primary, drop_target, open_election
from appliance.ha.operating import advance_operation
from appliance.ha.situation import Plan, Rule, Situation, fresh, reported_position
from appliance.ha.standbys import wanted_now

NOTE_EVERY_S = 5.0


def number_recovery(now: Situation) -> Plan | None:
    """R13a: a recovery by a version that told the state machine nothing of it: all data that is a member's is kept.

    A raft leader that has not applied everything yet proposes it as well; then the recovery's own command, which stands
    before all others of this incarnation, has the number already, and this one is refused.
    """
    number = now.leader.log_incarnation
    if number <= now.state.recovery.number:
        return None
    kept = {member.name: member.incarnation for member in now.state.members.values() if member.incarnation}
    return Plan(f"the log is of recovery {number}, which is not in the state", (Recovered(number, kept),))


def raise_format(now: Situation) -> Plan | None:
    """Only when every member, also one that is away, and every replica has just said that it knows a higher one.

    Who did not would end at the step, and come back only with a newer version (docs/decisions/0013).
    """
    names = sorted(now.leader.replicas | now.state.members.keys())
    said = [seen.report.format for seen in (fresh(now, name) for name in names) if seen is not None]
    if not names or len(said) < len(names) or min(said) <= now.state.format:
        return None
    return Plan(f"all {len(names)} members know format {min(said)}", (RaiseFormat(min(said)),))


def change_sync(now: Situation) -> Plan | None:
    """R8: let commits wait for the standbys that are there; one that is gone holds nobody up, one that came counts.

    A new raft leader hears the members one after the other: who has not reported to it yet is not gone.
    """
    state, held = now.state, now.state.appointment
    if held is None or not held.opened or state.lease is not LeaseStatus.HELD or state.election is not None:
        return None
    if now.leader.leading_s <= now.policy.all_heard_after_s:
        return None
    wanted = wanted_now(state, now.policy, now.reports, now.leader.away_s)
    newest = state.sync_now
    if wanted is None or wanted == newest.wanted:
        return None
    reason = f"commits wait for {_in_words(wanted)}, until now for {_in_words(newest.wanted)}"
    return Plan(reason, (ChangeSync(held.epoch, newest.version + 1, wanted),))


def finish_removal(now: Situation) -> Plan | None:
    """R13: who is to leave goes when nothing that an election may ask for names it any more."""
    needed = synchronous.named(now.state.grounds)
    gone = sorted(m.name for m in now.state.members.values() if m.leaving and m.name not in needed)
    if not gone or now.state.running_operation() is not None:
        return None
    held = now.state.appointment
    if held is not None and held.node == gone[0]:
        return None
    return Plan(f"{gone[0]} is waited for no more", (RemoveMember(gone[0]),))


def _in_words(wanted: SyncSet) -> str:
    return f"{_whom(wanted)}{', who can vouch for it' if wanted.failsafe and wanted.members else ''}"


def _whom(wanted: SyncSet) -> str:
    if wanted.k == 0:
        return "somebody, who is not there" if wanted.blocked else "nobody"
    how = "the first" if wanted.order else "any"
    return f"{how} {wanted.k} of {', '.join(wanted.order or sorted(wanted.members))}"


def note_position(now: Situation) -> Plan | None:
    """R10: write the primary's position every few seconds while it moves."""
    state, held = now.state, now.state.appointment
    position = reported_position(now)
    if held is None or position is None or now.leader.noted_s < NOTE_EVERY_S or state.lease is not LeaseStatus.HELD:
        return None
    if state.last_known is not None and elections.order(position) <= elections.order(state.last_known):
        return None
    return Plan("note the primary's position", (NotePosition(held.epoch, position, now.primary_heard_at),))


RULES: tuple[Rule, ...] = (
    number_recovery,
    depose_silent_primary,
    open_election,
    advance_operation,
    drop_target,
    appoint,
    change_sync,
    finish_removal,
    raise_format,
    note_position,
)


def plan(now: Situation) -> Plan:
    """The first rule that answers; a rule may answer with words alone, to say what it waits for."""
    for rule in RULES:
        answer = rule(now)
        if answer is not None:
            return replace(answer, rule=rule.__name__)
    return Plan("nothing to do")
