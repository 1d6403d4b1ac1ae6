"""Small questions that several rules ask of the state and of what the node sees."""

from appliance.cluster.config import Policy
from appliance.cluster.lsn import format_lsn
from appliance.cluster.state import Appointment, ClusterState, LeaseStatus, Member
from appliance.cluster.timelines import descent, parted_at
from appliance.ha.history import Standing, standing
from appliance.ha.seen import DirectoryKind, Observation

_CHECKPOINT_PAUSE_S = 1.0


def me(state: ClusterState, seen: Observation) -> Member:
    """This node as the state knows it, or as it announces itself until then."""
    return state.members.get(seen.me.name, seen.me)


def appointed(state: ClusterState, seen: Observation) -> Appointment | None:
    """The last appointment, if it is this node's; its lease may be gone."""
    held = state.appointment
    return held if held is not None and held.node == seen.me.name else None


def may_resume(state: ClusterState, seen: Observation) -> Appointment | None:
    """This node's appointment while it stands: lease held, no election, never fenced in it (R4), no later vote (R5)."""
    held = appointed(state, seen)
    if held is None or state.lease is not LeaseStatus.HELD or state.election is not None:
        return None
    return held if held.epoch > seen.notes.fenced_epoch and held.epoch >= seen.notes.pledge else None


def is_writable(seen: Observation) -> bool:
    """A postmaster runs here that is, or is about to be, a primary. Without an answer the signal file decides."""
    if seen.postmaster is None:
        return False
    if seen.instance is not None:
        return not seen.instance.in_recovery
    return not seen.directory.standby_signal


def holds_lease(state: ClusterState, seen: Observation, policy: Policy) -> bool:
    """Enough of the lease of the present appointment is left to begin something."""
    held, lease = may_resume(state, seen), seen.lease
    return held is not None and lease is not None and lease.epoch == held.epoch and lease.left_s > policy.fence_below_s


def wait_after_failed_checkpoint(seen: Observation) -> bool:
    """What a checkpoint failed with may pass; asking at every look would only add to it."""
    return seen.failed_checkpoint is not None and seen.failed_checkpoint.seconds < _CHECKPOINT_PAUSE_S


def awaits_recovery(state: ClusterState, seen: Observation) -> bool:
    """R13a: the log holds a recovery that is not applied here yet: nothing can be said of data or notes before."""
    return seen.log_incarnation > state.recovery.number


def behind(state: ClusterState, seen: Observation) -> str | None:
    """Why this state is too old to act on, or None. R13a: an epoch of another history says nothing about that."""
    if awaits_recovery(state, seen):
        return f"waits for the log: it holds recovery {seen.log_incarnation}"
    if state.initialised and seen.notes.recovery != state.recovery.number:
        return None
    epoch = state.appointment.epoch if state.appointment is not None else 0
    if epoch < seen.notes.epoch:
        return f"waits for the log: it has obeyed epoch {seen.notes.epoch}"
    if state.sync_now.version < seen.notes.sync_version:
        return f"waits for the log: it has loaded synchronous set {seen.notes.sync_version}"
    return None


def same_cluster(state: ClusterState, seen: Observation) -> bool:
    """Whether the data directory is of this system, and of its present history (R13a)."""
    directory = seen.directory
    if directory.system_identifier != state.system_identifier or awaits_recovery(state, seen):
        return False
    return state.counts(directory.incarnation, directory.recovery)


def strange(state: ClusterState, seen: Observation) -> str | None:
    """Why the data directory is none of this cluster's, and what would do; None when it is, or is no PostgreSQL's."""
    directory = seen.directory
    if not state.initialised or directory.kind is not DirectoryKind.CLUSTER or directory.problem:
        return None
    if same_cluster(state, seen) or awaits_recovery(state, seen):
        return None
    if directory.system_identifier != state.system_identifier:
        return (
            f"the data directory belongs to system {directory.system_identifier}, the cluster is"
            f" {state.system_identifier}: move it away, then this node clones the cluster"
        )
    return (
        f"the data directory is of another history (recovery {directory.recovery}) than the one that the cluster went"
        f" on with when a majority was lost (recovery {state.recovery.number}): move it away or remove it, then this"
        " node clones the cluster"
    )


def wal_standing(state: ClusterState, seen: Observation) -> Standing:
    """Where this node's WAL stands in the replicated history (R14)."""
    directory, instance, held = seen.directory, seen.instance, state.appointment
    if instance is not None:
        return standing(state, instance.timeline, instance.lsn)
    if not directory.was_primary or (directory.standby_signal and not directory.shut_down):
        # It is, or was about to be, in recovery as a standby, which tells in the end. Until then what the control file
        # has is the least: a primary's that crashed and began as a standby, a copy of a primary that never ran, or a
        # standby that gives no answer just now. A rewound one answers nobody before it has the WAL that its pages come
        # from; where history left that out, it never will.
        return standing(state, directory.timeline, least_lsn(seen))
    if directory.shut_down:
        # The shutdown checkpoint is the last record: the switch must lie behind its start.
        return standing(state, directory.timeline, directory.checkpoint_lsn + 1)
    if held is None or not held.opened:
        return Standing.UNKNOWN
    # A crashed primary: nobody knows where its WAL ends before recovery has run.
    return Standing.SAME if directory.timeline == held.timeline else Standing.DIVERGED


def least_lsn(seen: Observation) -> int:
    """How far, at the least, what is on this disk reaches, by the control file."""
    return max(seen.directory.checkpoint_lsn, seen.directory.min_recovery_lsn)


def needs_rebuild(state: ClusterState, seen: Observation) -> str | None:
    """Why this node's directory must be rewound or cloned before it takes part again, or None (R13, R14)."""
    member, directory = me(state, seen), seen.directory
    if not state.initialised or directory.kind is DirectoryKind.FOREIGN:
        return None
    if directory.kind is not DirectoryKind.CLUSTER:
        return "there is no data directory"
    if not same_cluster(state, seen):
        return None
    if seen.notes.needs_clone:
        return "only a clone helps"
    if member.rebuilding:
        return "a rebuild was begun"
    if directory.incarnation != member.incarnation or not member.incarnation:
        return "the data directory is not the one that the cluster knows"
    if wal_standing(state, seen) is Standing.DIVERGED and appointed(state, seen) is None:
        return diverged(state, seen)
    return None


def diverged(state: ClusterState, seen: Observation) -> str:
    """What this node has that history does not, with both positions (R12)."""
    held, instance, directory = state.appointment, seen.instance, seen.directory
    assert held is not None
    timeline, lsn = directory.timeline, least_lsn(seen)
    if instance is not None:
        timeline, lsn = instance.timeline, instance.lsn
    steps = descent(state.timelines, held.timeline, timeline)
    shown = f"its WAL reaches at least {format_lsn(lsn)} on timeline {timeline}"
    if not steps:
        return f"{shown}, which is no ancestor of {held.timeline}"
    parted = parted_at(steps)
    left = "a place not recorded" if parted is None else format_lsn(parted)
    return f"{shown}; timeline {held.timeline} left that at {left}"
