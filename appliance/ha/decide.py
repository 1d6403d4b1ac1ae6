"""What a node does next: `decide(state, seen, policy)`, an ordered tuple of small rules. The first answer wins.

Safety stands before liveness, liveness before comfort; the order in RULES is the specification. No rule reads a
clock and none remembers anything: what must outlive a look is in the state, on disk, or visible in PostgreSQL.
"""

from collections.abc import Callable
from dataclasses import replace

from appliance.cluster.commands import Announce, Promoted, Rebuilt
from appliance.cluster.config import Policy
from appliance.cluster.names import slot_name
from appliance.cluster.state import ClusterState, LeaseStatus, Member, NodeRole, Position, Vote
from appliance.cluster.zones import unknown_zone
from appliance.ha import failsafe, fences, gate, recovered, standby, start, storage, sync
from appliance.ha.actions import (
    ApplySettings,
    Checkpoint,
    CreateSlots,
    Decision,
    DiscardReplaced,
    DropSlots,
    FinishJob,
    Pledge,
    Promote,
    Propose,
    SettleHistory,
    StopMode,
    StopPostgres,
)
from appliance.ha.facts import (
    behind,
    holds_lease,
    may_resume,
    me,
    needs_rebuild,
    same_cluster,
    strange,
    wait_after_failed_checkpoint,
)
from appliance.ha.seen import DirectoryKind, Observation

Rule = Callable[[ClusterState, Observation, Policy], Decision | None]

REPLACED_KEPT_S = 3600.0
_PROMOTE_AGAIN_S = 2.0
"""A promotion that shows no effect is signalled again after this time."""


def finish_job(state: ClusterState, seen: Observation, policy: Policy) -> Decision | None:
    """Long work goes on by itself; when it ended, its result is taken over, once."""
    job = seen.job
    if job is None:
        return None
    if job.running:
        return Decision(start.progress(job))
    given_up = start.give_bootstrap_up(state, seen)
    if given_up is not None:
        return given_up
    left_s = 0.0 if job.kind == "initialise" else start.retry_after_s(job) - job.seconds
    if job.failed and left_s > 0:
        return Decision(f"{job.kind} failed: {job.error}")
    return Decision(f"{job.kind} ended", (FinishJob(),))


def retire(state: ClusterState, seen: Observation, policy: Policy) -> Decision | None:
    """A member that was removed serves nobody any more: it stops, and its slot can go (R15). Its data stay."""
    if seen.me.name not in state.removed:
        return None
    reason = f"{seen.me.name} was removed from the cluster"
    return Decision(reason) if seen.postmaster is None else start.stop_for(seen, reason, policy)


def announce(state: ClusterState, seen: Observation, policy: Policy) -> Decision | None:
    """Make this node's addresses and tags known; again when they change."""
    known, mine = state.members.get(seen.me.name), seen.me
    if seen.contact_s is None:
        return None
    if known is not None and known == _as_known(mine, known):
        return None
    if known is not None and (known.role is NodeRole.WITNESS) is not (mine.role is NodeRole.WITNESS):
        return Decision(f"the cluster knows {mine.name} with role {known.role}, its node.yml says {mine.role}")
    if (problem := unknown_zone(state, mine)) is not None:
        # a member goes on as it is known; its report says what is wrong
        return Decision(problem) if known is None else None
    return Decision(f"announce {mine.name} at {mine.postgres or mine.raft}", (Propose(Announce(mine)),))


def _as_known(mine: Member, known: Member) -> Member:
    """With what is not the node's to say (R13)."""
    return replace(mine, incarnation=known.incarnation, rebuilding=known.rebuilding, leaving=known.leaving)


def pledge(state: ClusterState, seen: Observation, policy: Policy) -> Decision | None:
    """R6: the pledge is on disk before anything else is done for that election; `follow` then detaches."""
    election = state.election
    if election is None or me(state, seen).role is NodeRole.WITNESS or needs_rebuild(state, seen) is not None:
        return None
    if seen.notes.pledge >= election.number:
        return None
    return Decision(f"pledge for election {election.number}", (Pledge(election.number),))


def promote(state: ClusterState, seen: Observation, policy: Policy) -> Decision | None:
    """R5, R14: open last: with the lease and the synchronous set of its own appointment, the winning vote's WAL, on the
    given timeline; with a closed gate where R5a asks for it."""
    held, instance = may_resume(state, seen), seen.instance
    if held is None or held.opened or instance is None or not instance.in_recovery:
        return None
    if seen.directory.incarnation != held.incarnation:
        return fences.let_go(held, f"the data directory is not the one that voted in epoch {held.epoch}")
    if instance.timeline >= held.timeline and seen.promoting_s is None:  # else it is about to open there
        return fences.let_go(held, f"was promoted to timeline {held.timeline} before, and came back as a standby")
    if not holds_lease(state, seen, policy):
        return Decision(f"appointed in epoch {held.epoch}: waits for the lease")
    if instance.sync_version != state.sync_now.version or instance.admits is not gate.admits(state, seen):
        return Decision(f"appointed in epoch {held.epoch}: load its synchronous set", (ApplySettings(),))
    if (instance.timeline, instance.lsn) < (held.start.timeline, held.start.lsn):
        return Decision(f"appointed in epoch {held.epoch}: waits for the WAL of its own vote")
    if seen.promoting_s is not None and seen.promoting_s < _PROMOTE_AGAIN_S:
        return Decision(f"promoting to timeline {held.timeline} for {seen.promoting_s:.1f} s")
    return Decision(f"appointed in epoch {held.epoch}", (Promote(held.epoch, held.timeline),))


def record_promotion(state: ClusterState, seen: Observation, policy: Policy) -> Decision | None:
    """Tell everybody where the old timeline ended; only then do others follow (R14)."""
    held, instance = may_resume(state, seen), seen.instance
    if held is None or held.opened or instance is None or instance.in_recovery:
        return None
    if instance.timeline != held.timeline:
        reason = f"promoted to timeline {instance.timeline}, assigned was {held.timeline}"
        return Decision(reason, (StopPostgres(StopMode.IMMEDIATE),))
    left = seen.switch.get(held.timeline)
    if left is None:
        return Decision(f"reads the history of timeline {held.timeline}")
    slots = _missing_slots(state, seen)
    command = Promoted(held.epoch, seen.me.name, held.timeline, left.timeline, left.lsn, seen.wall_time)
    created = (CreateSlots(slots),) if slots else ()
    return Decision(f"opened on timeline {held.timeline}", (SettleHistory(held.timeline), *created, Propose(command)))


def settle_incarnation(state: ClusterState, seen: Observation, policy: Policy) -> Decision | None:
    """R13: the rebuilt directory becomes a voter again."""
    member, directory = me(state, seen), seen.directory
    if not member.rebuilding or directory.kind is not DirectoryKind.CLUSTER or not directory.incarnation:
        return None
    command = Rebuilt(member.name, directory.incarnation)
    return Decision(f"{member.name} has a complete data directory again", (Propose(command),))


def settings(state: ClusterState, seen: Observation, policy: Policy) -> Decision | None:
    """Bring PostgreSQL's files in line with the configuration document."""
    if seen.instance is None or not seen.settings_changed:
        return None
    return Decision(f"apply configuration version {state.config.version}", (ApplySettings(),))


def keep_slots(state: ClusterState, seen: Observation, policy: Policy) -> Decision | None:
    """R15: the primary keeps WAL for every other member, also for one that is away (bounded by its size limit).

    A slot beyond that limit keeps nothing any more, and PostgreSQL 18 refuses whoever comes with it: it is made anew.
    """
    if seen.instance is None or seen.instance.in_recovery:
        return None
    if lost := _members_of(seen.instance.lost_slots, state):
        return Decision(f"the WAL of slots {', '.join(lost)} is gone: make them anew", (DropSlots(lost),))
    if gone := _left_slots(state, seen.instance.idle_slots):
        return Decision(f"drop slots {', '.join(gone)}: they were removed", (DropSlots(gone),))
    missing = _missing_slots(state, seen)
    return Decision(f"create slots {', '.join(missing)}", (CreateSlots(missing),)) if missing else None


def drop_slots(state: ClusterState, seen: Observation, policy: Policy) -> Decision | None:
    """R15: slots of a time as primary would keep WAL for members that stream from another one, up to their limit."""
    instance = seen.instance
    if instance is None or not instance.in_recovery or not instance.streaming:
        return None
    stale = _members_of(instance.idle_slots, state) or _left_slots(state, instance.idle_slots)
    return Decision(f"drop slots {', '.join(stale)}", (DropSlots(stale),)) if stale else None


def checkpoint_after_promotion(state: ClusterState, seen: Observation, policy: Policy) -> Decision | None:
    """R15: pg_rewind reads the source's timeline from its control file, which the first checkpoint writes."""
    held, instance = may_resume(state, seen), seen.instance
    if held is None or instance is None or instance.in_recovery or seen.checkpointing:
        return None
    if instance.checkpoint_timeline >= held.timeline or wait_after_failed_checkpoint(seen):
        return None
    return Decision(f"first checkpoint on timeline {held.timeline}", (Checkpoint(),))


def discard_replaced(state: ClusterState, seen: Observation, policy: Policy) -> Decision | None:
    """R12: what a clone replaced is kept until the new copy streams, and an hour at least, for people to look at."""
    if seen.instance is None or not seen.instance.streaming or seen.replaced_kept_s is None:
        return None
    if seen.replaced_kept_s < REPLACED_KEPT_S:
        return None
    return Decision("the replaced data directory is no longer needed", (DiscardReplaced(),))


RULES: tuple[Rule, ...] = (
    fences.end_stray,
    recovered.stop_strange,
    fences.fence_newer_epoch,
    fences.fence_without_lease,
    storage.give_up_stalled,
    recovered.begin_notes,
    fences.give_back_after_fence,
    fences.crashed,
    fences.without_watchdog,
    fences.hand_over,
    storage.await_disk,
    finish_job,
    retire,
    recovered.mark_kept,
    announce,
    start.initialise,
    pledge,
    storage.pass_on,
    promote,
    record_promotion,
    fences.give_up,
    recovered.refuse_strange,
    start.restart_in_place,
    start.await_lease,
    settle_incarnation,
    start.rebuild,
    start.start_standby,
    start.finish_stop,
    standby.follow,
    standby.left_behind,
    standby.leave_dead_timeline,
    storage.refuse_writes,
    gate.admit,
    settings,
    keep_slots,
    drop_slots,
    checkpoint_after_promotion,
    sync.settle_sync,
    discard_replaced,
    gate.await_confirmation,
)


def decide(state: ClusterState, seen: Observation, policy: Policy) -> Decision:
    """The first rule that answers. Never acts on a state older than what this node has obeyed (R5), nor on a disk that
    hangs."""
    if (waiting := behind(state, seen)) is not None:
        return Decision(waiting, rule="wait_for_log")
    for rule in RULES:
        decision = rule(state, seen, policy)
        if decision is not None:
            return storage.put_off(replace(decision, rule=rule.__name__), seen)
    return Decision(_at_rest(state, seen), rule="at_rest")


def _at_rest(state: ClusterState, seen: Observation) -> str:
    if me(state, seen).role is NodeRole.WITNESS:
        return "witness: a vote and no PostgreSQL"
    if not state.initialised:
        return f"{state.bootstrap.node} initialises" if state.bootstrap else "waits for `appliance bootstrap`"
    if seen.instance is None:
        return "waits for PostgreSQL to answer" if seen.postmaster else start.why_stopped(seen)
    if not seen.instance.in_recovery:
        return (
            f"primary of epoch {state.appointment.epoch}{failsafe.in_words(seen)}" if state.appointment else "primary"
        )
    source = standby.upstream(state, seen.me.name, seen.notes.pledge)
    return f"standby of {source}" if seen.instance.upstream else "standby without a source"


def cast_vote(state: ClusterState, seen: Observation) -> Vote | None:
    """This node's vote in the open election, or None while R6's conditions do not all hold.

    The position is the end of WAL after everything local was replayed; a node that does not run has none yet.
    """
    election, instance = state.election, seen.instance
    if election is None or instance is None or not instance.in_recovery:
        return None
    if seen.directory.kind is not DirectoryKind.CLUSTER or not same_cluster(state, seen) or needs_rebuild(state, seen):
        return None
    if seen.notes.pledge != election.number or instance.receiver_running or instance.upstream:
        return None
    if instance.replayed_lsn < instance.received_lsn or not instance.replay_waits or seen.promised_left_s > 0:
        return None
    position = Position(instance.timeline, instance.lsn)
    return Vote(election.number, seen.me.name, seen.directory.incarnation, position)


def wants_lease(state: ClusterState, seen: Observation) -> int | None:
    """The epoch whose lease this node asks the raft leader to renew, or None."""
    held = may_resume(state, seen)
    if held is None or state.lease is not LeaseStatus.HELD or strange(state, seen) is not None:
        return None
    return held.epoch


def _missing_slots(state: ClusterState, seen: Observation) -> tuple[str, ...]:
    if seen.instance is None:
        return ()
    others = (m.name for m in state.members.values() if m.name != seen.me.name and m.role is not NodeRole.WITNESS)
    return tuple(sorted(n for n in others if slot_name(n) not in seen.instance.slots))


def _members_of(slots: frozenset[str], state: ClusterState) -> tuple[str, ...]:
    """The members whose slots these are; slots of anybody else are not ours."""
    return tuple(sorted(name for name in state.members if slot_name(name) in slots))


def _left_slots(state: ClusterState, slots: frozenset[str]) -> tuple[str, ...]:
    """The removed members whose slots these are; a member of today may have a slot of the same name."""
    free = slots - {slot_name(name) for name in state.members}
    return tuple(sorted(name for name in state.removed if slot_name(name) in free))
