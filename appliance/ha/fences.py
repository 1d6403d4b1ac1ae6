"""The rules that end a primary (R4, R5, R11). They stand before all others."""

from appliance.cluster.commands import Release
from appliance.cluster.config import Policy
from appliance.cluster.state import Appointment, ClusterState, LeaseStatus, Phase
from appliance.ha.actions import Checkpoint, Decision, EndStray, NoteFenced, Propose, StopMode, StopPostgres
from appliance.ha.facts import appointed, is_writable, may_resume, wait_after_failed_checkpoint
from appliance.ha.seen import Observation
from appliance.ha.start import cannot_be_primary, clean_end

_TAKEN_WAIT_S = 1.0
"""A standby that streams has the last record of a PostgreSQL that is shut down long before."""


def fence_newer_epoch(state: ClusterState, seen: Observation, policy: Policy) -> Decision | None:
    """R5: a primary whose epoch is over stops at once.

    Protects: at most one writable primary. Here the node has read that another was appointed, that an election
    was opened, or that its lease was taken: it need not wait for its own deadline.
    """
    if not is_writable(seen) or state.appointment is None or may_resume(state, seen) is not None:
        return None
    reason = f"epoch {state.appointment.epoch} belongs to {state.appointment.node}, lease {state.lease}"
    return Decision(f"primary no more: {reason}", (StopPostgres(StopMode.IMMEDIATE),))


def end_stray(state: ClusterState, seen: Observation, policy: Policy) -> Decision | None:
    """R4: a PostgreSQL whose guard died cannot be fenced any more; it is ended and started again under a new guard."""
    pid = seen.directory.stray_pid
    if not pid:
        return None
    return Decision(f"postmaster {pid} runs without a guard", (EndStray(pid),))


def fence_without_lease(state: ClusterState, seen: Observation, policy: Policy) -> Decision | None:
    """R4: a primary that could not renew stops before its lease can run out.

    Protects: at most one writable primary. The agent begins at 60 % of ttl; the guard does the same just before
    the deadline, whatever has become of the agent.
    """
    held, lease = may_resume(state, seen), seen.lease
    if not is_writable(seen) or held is None:
        return None
    # A node process that has just begun has had no time to renew: until then the guard's deadline is enough.
    enough_s = policy.guard_margin_s if seen.contact_s is None else policy.fence_below_s
    if lease is not None and lease.epoch == held.epoch and lease.left_s > enough_s:
        return None
    left = f"{lease.left_s:.1f} s of lease left" if lease is not None else "no lease"
    # in this order: a disk that takes no note must not keep PostgreSQL running
    actions = (StopPostgres(StopMode.IMMEDIATE), NoteFenced(held.epoch))
    return Decision(f"primary with {left}: renewals have stopped", actions)


def give_back_after_fence(state: ClusterState, seen: Observation, policy: Policy) -> Decision | None:
    """R4: an epoch in which this node was fenced is given back, never resumed; without a quorum, reads go on first."""
    held = appointed(state, seen)
    if (
        held is None
        or state.lease not in {LeaseStatus.HELD, LeaseStatus.CONTESTED}
        or held.epoch > seen.notes.fenced_epoch
    ):
        return None
    if seen.contact_s is None or seen.contact_s > policy.failure_timeout_s:
        return None
    if is_writable(seen) or seen.stopping_s is not None:
        return None
    reason = f"{seen.me.name} stopped being primary in epoch {held.epoch}"
    release = Release(held.epoch, seen.me.name, reason, clean_end(state, seen))
    return Decision(reason, (NoteFenced(held.epoch), Propose(release)))


def crashed(state: ClusterState, seen: Observation, policy: Policy) -> Decision | None:
    """R11: where standbys have every commit, a primary whose PostgreSQL has died gives its epoch up at once.

    One without them comes back where it was: nobody else could be appointed.
    """
    held = may_resume(state, seen)
    if held is None or not held.opened or seen.postmaster is not None or seen.contact_s is None:
        return None
    if not state.synchronous or state.sync_now.wanted.k == 0 or state.running_operation() is not None:
        return None
    return let_go(held, f"PostgreSQL ended on {held.node}")


def without_watchdog(state: ClusterState, seen: Observation, policy: Policy) -> Decision | None:
    """R4: where a watchdog is required, nobody opens without one. Who is open already goes on and says so."""
    held, watchdog = may_resume(state, seen), seen.watchdog
    if held is None or watchdog is None or not watchdog.keeps_from_promotion or seen.contact_s is None:
        return None
    stands_by = seen.instance is not None and seen.instance.in_recovery and seen.promoting_s is None
    if seen.postmaster is not None and not stands_by:
        return None
    return let_go(held, f"{held.node} must not be primary: its watchdog is required and {watchdog.problem}")


def hand_over(state: ClusterState, seen: Observation, policy: Policy) -> Decision | None:
    """The source of a switchover stops fast, so that every standby gets its last record, then gives its lease back.

    The lease is kept until PostgreSQL is down: nobody else may open before (R10). Not every standby is waited for: one
    whose WAL receiver hangs would hold the stop up for wal_sender_timeout.
    """
    operation, held = state.running_operation(), appointed(state, seen)
    if operation is None or held is None or state.lease is not LeaseStatus.HELD:
        return None
    if operation.source != held.node or operation.epoch != held.epoch:
        return None
    name = f"{operation.kind} {operation.id}"
    if operation.phase is Phase.REQUESTED and not seen.checkpointing and is_writable(seen):
        if seen.checkpointed_operation == operation.id or wait_after_failed_checkpoint(seen):
            return None
        again = f" once more, the last one failed: {seen.failed_checkpoint.error}" if seen.failed_checkpoint else ""
        return Decision(f"{name}: checkpoint{again}, so that the stop is short", (Checkpoint(operation.id),))
    if operation.phase is not Phase.STOPPING:
        return None
    if seen.postmaster is None:
        end = clean_end(state, seen)
        reason = f"{name}: {held.node} stopped " + ("cleanly" if end else "without a shutdown checkpoint")
        return Decision(reason, (NoteFenced(held.epoch), Propose(Release(held.epoch, held.node, reason, end))))
    if seen.stopping_s is None:
        return Decision(f"{name}: stop for {operation.target or 'the best standby'}", (StopPostgres(StopMode.FAST),))
    if seen.stopping_s > policy.primary_stop_timeout_s:
        return Decision(f"{name}: not stopped after {seen.stopping_s:.0f} s", (StopPostgres(StopMode.KILL),))
    if seen.shut_down_s is not None and seen.shut_down_s > _TAKEN_WAIT_S and not policy.archives:
        reason = f"{name}: shut down for {seen.shut_down_s:.1f} s, and a standby does not take the last record"
        return Decision(reason, (StopPostgres(StopMode.IMMEDIATE),))
    return Decision(f"{name}: stopping for {seen.stopping_s:.1f} s")


def give_up(state: ClusterState, seen: Observation, policy: Policy) -> Decision | None:
    """R11: a primary that cannot come back, or not within primary_start_timeout, lets others be elected."""
    held = may_resume(state, seen)
    if held is None or seen.contact_s is None:
        return None
    problem = cannot_be_primary(state, seen) if seen.postmaster is None else None
    if held.opened and seen.instance is not None and seen.instance.in_recovery:
        return let_go(held, f"{held.node} opened in epoch {held.epoch} and runs as a standby now")
    if problem is None and (seen.instance is not None or seen.answer_age_s <= policy.primary_start_timeout_s):
        return None
    reason = problem or f"PostgreSQL has not answered for {seen.answer_age_s:.0f} s"
    if seen.postmaster is not None:
        return Decision(f"{reason}: stop", (StopPostgres(StopMode.IMMEDIATE), NoteFenced(held.epoch)))
    return let_go(held, reason)


def let_go(held: Appointment, reason: str) -> Decision:
    """End this epoch for this node, on disk first; nothing of it may be writable."""
    return Decision(reason, (NoteFenced(held.epoch), Propose(Release(held.epoch, held.node, reason))))
