"""Rules for a PostgreSQL that does not run: make it, bring it back, or rebuild it."""

from appliance.cluster.commands import AbandonBootstrap, FinishBootstrap, Rebuild
from appliance.cluster.config import Policy
from appliance.cluster.state import ClusterState, LeaseStatus, NodeRole, Position
from appliance.ha.actions import (
    Action,
    Clone,
    Decision,
    ForgetIncarnation,
    Initialise,
    NoteFenced,
    Propose,
    Rewind,
    StartPrimary,
    StartStandby,
    StopMode,
    StopPostgres,
)
from appliance.ha.facts import appointed, holds_lease, is_writable, may_resume, me, needs_rebuild, same_cluster, strange
from appliance.ha.history import switch_point
from appliance.ha.seen import DirectoryKind, JobSeen, Observation
from appliance.ha.standby import upstream

_RETRY_S = {"clone": 5.0, "rewind": 1.0}
_SOURCE_AWAY_RETRY_S = 1.0
"""Nothing is wrong here: a primary that is just being started answers within a moment."""
STANDBY_STOP_S = 5.0
"""A fast stop of a standby takes a moment; one that takes longer hangs in something that an immediate one does not."""
_START_PAUSE_S = 0.1
"""After a start that failed; doubled with each that follows."""
_START_PAUSE_LIMIT_S = 5.0


def retry_after_s(job: JobSeen) -> float:
    """How long a failed job is shown before it is tried again."""
    return _SOURCE_AWAY_RETRY_S if job.source_away else _RETRY_S.get(job.kind, 5.0)


def progress(job: JobSeen) -> str:
    share = ""
    if job.done_bytes is not None and job.total_bytes:
        share = f", {100 * job.done_bytes / job.total_bytes:.0f} % of {job.total_bytes / 2**20:.0f} MiB"
    return f"{job.kind} for {job.seconds:.0f} s{', ' + job.phase if job.phase else ''}{share}"


def clean_end(state: ClusterState, seen: Observation) -> Position | None:
    """The last record of a primary that shut down cleanly; None when it did not, or is not this cluster's."""
    directory = seen.directory
    if strange(state, seen) is None and seen.postmaster is None and directory.shut_down and directory.was_primary:
        return Position(directory.timeline, directory.checkpoint_lsn)
    return None


def initialise(state: ClusterState, seen: Observation, policy: Policy) -> Decision | None:
    """The one node that was chosen runs initdb, in a directory that is missing or empty; never over data."""
    if state.initialised or state.bootstrap is None or state.bootstrap.node != seen.me.name or seen.contact_s is None:
        return None
    directory = seen.directory
    if directory.kind in {DirectoryKind.MISSING, DirectoryKind.EMPTY}:
        return Decision("initialises the cluster", (Initialise(),))
    complete = directory.kind is DirectoryKind.CLUSTER and directory.incarnation and not directory.problem
    if complete and state.counts(directory.incarnation, directory.recovery):
        command = FinishBootstrap(
            node=seen.me.name,
            system_identifier=directory.system_identifier,
            incarnation=directory.incarnation,
            position=Position(directory.timeline, directory.checkpoint_lsn),
            at=seen.wall_time,
        )
        return Decision("the new data directory is complete", (Propose(command),))
    reason = directory.problem or "the data directory is not empty"
    return Decision(reason, (Propose(AbandonBootstrap(seen.me.name, reason)),))


def give_bootstrap_up(state: ClusterState, seen: Observation) -> Decision | None:
    """A new cluster that cannot be made is given up with the reason; another try would meet the same settings."""
    job, ours = seen.job, state.bootstrap is not None and state.bootstrap.node == seen.me.name
    if job is None or job.kind != "initialise" or not job.failed or not ours or state.initialised:
        return None
    if seen.directory.kind not in {DirectoryKind.MISSING, DirectoryKind.EMPTY}:
        return None
    return Decision(f"initialise failed: {job.error}", (Propose(AbandonBootstrap(seen.me.name, job.error)),))


def cannot_be_primary(state: ClusterState, seen: Observation) -> str | None:
    """Why the appointed node's directory can not open in this epoch, or None (R13, R14)."""
    held, directory = appointed(state, seen), seen.directory
    if directory.kind is not DirectoryKind.CLUSTER:
        return f"the data directory is {directory.kind}"
    if directory.problem:
        return directory.problem
    if (reason := strange(state, seen)) is not None:
        return reason
    if held is not None and directory.incarnation != held.incarnation:
        return "the data directory is not the one that was appointed"
    if held is not None and held.opened and seen.postmaster is None and directory.timeline != held.timeline:
        return f"the data directory is on timeline {directory.timeline}, not {held.timeline}"
    return None


def wait_after_failed_start(seen: Observation) -> Decision | None:
    """A start that fails at once is not repeated at once: what stands in its way is shown, and may go away."""
    failed = seen.failed_start
    if failed is None:
        return None
    pause_s = min(_START_PAUSE_LIMIT_S, _START_PAUSE_S * 2 ** min(failed.in_a_row - 1, 10))
    if failed.seconds >= pause_s:
        return None
    often = f", {failed.in_a_row} times in a row" if failed.in_a_row > 1 else ""
    return Decision(f"PostgreSQL did not start{often}: {failed.error or 'see its log'}")


def restart_in_place(state: ClusterState, seen: Observation, policy: Policy) -> Decision | None:
    """R11: in asynchronous mode a crashed primary comes back where it was; a failover would lose commits."""
    held, directory = may_resume(state, seen), seen.directory
    if held is None or seen.postmaster is not None or not holds_lease(state, seen, policy):
        return None
    if not held.opened and directory.timeline != held.timeline:
        return None
    if directory.standby_signal or not directory.was_primary or cannot_be_primary(state, seen) is not None:
        return None
    return wait_after_failed_start(seen) or Decision(
        f"primary of epoch {held.epoch}: start in place", (StartPrimary(held.epoch),)
    )


def await_lease(state: ClusterState, seen: Observation, policy: Policy) -> Decision | None:
    """A primary that was restarted asks for its lease before it becomes a standby; for two ttl at most."""
    held = may_resume(state, seen)
    if held is None or seen.postmaster is not None or seen.directory.standby_signal:
        return None
    if holds_lease(state, seen, policy) or seen.answer_age_s > 2 * policy.ttl_s:
        return None
    return Decision(f"waits for the lease of epoch {held.epoch}")


def rebuild(state: ClusterState, seen: Observation, policy: Policy) -> Decision | None:
    """R13, R15: forget the incarnation, say so, stop, then rewind if that can work, else clone."""
    reason = needs_rebuild(state, seen)
    held = state.appointment
    if reason is None or held is None or held.node == seen.me.name or me(state, seen).role is NodeRole.WITNESS:
        return None
    if state.lease is not LeaseStatus.HELD or not state.has_source or seen.contact_s is None:
        return Decision(f"{reason}; waits for an open primary to copy from")
    if not me(state, seen).rebuilding or seen.directory.incarnation:
        return Decision(reason, (ForgetIncarnation(), Propose(Rebuild(seen.me.name))))
    if seen.postmaster is not None:
        return stop_for(seen, reason, policy)
    if was_given_up(state, seen):
        reason = f"{reason}; a person gave that up, so it is kept beside the copy"
    elif _rewindable(seen, policy):
        return Decision(f"{reason}: rewind to {held.node}", (Rewind(held.node, held.timeline),))
    return Decision(f"{reason}: clone {held.node}", (Clone(held.node),))


def was_given_up(state: ClusterState, seen: Observation) -> bool:
    """R12: commits that a person gave up are in this directory: a clone keeps it as it is, a rewind would not."""
    held = state.appointment
    step = switch_point(state.timelines, held.timeline, seen.directory.timeline) if held is not None else None
    return step is not None and any(h.lost is not None and h.timeline == step.number for h in state.history)


def _rewindable(seen: Observation, policy: Policy) -> bool:
    """pg_rewind wants a primary's directory, or a standby's that was shut down (R15)."""
    directory = seen.directory
    if directory.kind is not DirectoryKind.CLUSTER or seen.notes.needs_clone or not policy.use_pg_rewind:
        return False
    return directory.was_primary or directory.shut_down


def standby_stop_s(policy: Policy) -> float:
    return min(STANDBY_STOP_S, policy.primary_stop_timeout_s)


def stop_for(seen: Observation, reason: str, policy: Policy) -> Decision:
    """Stop a standby fast, and immediately when that has taken its time: it waits for nobody's WAL."""
    if seen.stopping_s is None:
        return Decision(f"{reason}: stop", (StopPostgres(StopMode.FAST),))
    if seen.stopping_s > standby_stop_s(policy):
        return Decision(f"{reason}: not stopped after {seen.stopping_s:.0f} s", (StopPostgres(StopMode.IMMEDIATE),))
    return Decision(f"{reason}: stopping for {seen.stopping_s:.1f} s")


def finish_stop(state: ClusterState, seen: Observation, policy: Policy) -> Decision | None:
    """A standby's stop that was begun comes to its end, also where what it was begun for no longer shows."""
    if seen.stopping_s is None or seen.postmaster is None or is_writable(seen):
        return None
    return stop_for(seen, "PostgreSQL is being stopped", policy)


def start_standby(state: ClusterState, seen: Observation, policy: Policy) -> Decision | None:
    """Serve reads, with the present primary as source or, when there is none or no quorum, without one."""
    directory = seen.directory
    if seen.postmaster is not None or me(state, seen).role is NodeRole.WITNESS or not state.initialised:
        return None
    if directory.kind is not DirectoryKind.CLUSTER or directory.problem or not same_cluster(state, seen):
        return None
    if seen.contact_s is None and seen.answer_age_s <= 2 * policy.ttl_s:
        return Decision("waits for a quorum before it starts")
    if (waiting := wait_after_failed_start(seen)) is not None:
        return waiting
    held, actions = may_resume(state, seen), list[Action]()
    if held is not None and held.opened:
        actions.append(NoteFenced(held.epoch))
    source = upstream(state, seen.me.name, seen.notes.pledge) if seen.contact_s is not None else ""
    actions.append(StartStandby(source))
    return Decision(f"start as standby of {source}" if source else "start as standby without a source", tuple(actions))


def why_stopped(seen: Observation) -> str:
    directory = seen.directory
    if directory.kind is DirectoryKind.FOREIGN:
        return "the data directory holds other files: move them away or set postgresql.data_dir"
    return directory.problem or "PostgreSQL is stopped"
