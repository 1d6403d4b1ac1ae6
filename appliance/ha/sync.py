"""Synchronous standbys, on the primary: what PostgreSQL has to load, and how a change of it is finalised (R8)."""

from appliance.cluster import synchronous
from appliance.cluster.commands import FinaliseSync
from appliance.cluster.config import Policy
from appliance.cluster.lsn import format_lsn
from appliance.cluster.state import ClusterState, SyncSet, SyncVersion
from appliance.ha.actions import Checkpoint, Decision, EndSenders, MarkWal, Propose, ShowSync
from appliance.ha.facts import may_resume, wait_after_failed_checkpoint
from appliance.ha.seen import InstanceSeen, Observation, SyncProgress

NOT_APPOINTED = 0
"""The version that a PostgreSQL loads which is no primary."""


def to_load(state: ClusterState, node: str) -> SyncVersion | None:
    """The version for this node's settings, or None: it is not the appointed primary.

    R5, T7: who is not waits for a standby that never comes. So commits wait from the very first on if it is promoted,
    and a PostgreSQL that was opened without an appointment acknowledges none.
    """
    held = state.appointment
    return state.sync_now if held is not None and held.node == node else None


def waits_for(state: ClusterState, node: str, *, in_recovery: bool) -> SyncSet | None:
    """Whom the commits of this node's PostgreSQL wait for; None: for somebody who never comes.

    T7: the checkpointer owns the flag that makes commits wait, and clears it when it reads an empty set. A standby that
    had loaded one would open before the flag is back. So an empty set is loaded by a primary that is open, and by
    nobody else. In asynchronous mode the first commits of a new primary wait for that reload.
    """
    loaded = to_load(state, node)
    if loaded is None or loaded.wanted.blocked or (in_recovery and loaded.wanted.k == 0):
        return None
    return loaded.wanted


def settle_sync(state: ClusterState, seen: Observation, policy: Policy) -> Decision | None:
    """R8: the newest set stands alone when all four steps have been seen, in this order. Writes never wait for it."""
    held, instance = may_resume(state, seen), seen.instance
    if held is None or not held.opened or instance is None or instance.in_recovery or state.settled:
        return None
    newest, progress = state.sync_now, seen.sync
    name = f"synchronous set {newest.version}"
    if progress.version != newest.version:
        return Decision(f"{name}: is it loaded?", (ShowSync(newest.version),))
    done = Decision(f"{name} is in force", (Propose(FinaliseSync(held.epoch, newest.version)),))
    if _began_empty(state) and not progress.checkpointed:
        if seen.checkpointing or wait_after_failed_checkpoint(seen):
            return None
        return Decision(f"{name}: checkpoint, so that commits wait for it", (Checkpoint(sync_version=newest.version),))
    return _follow_walsenders(state, instance, progress, name) or _follow_wal(newest, instance, progress, name) or done


def _follow_walsenders(
    state: ClusterState, instance: InstanceSeen, progress: SyncProgress, name: str
) -> Decision | None:
    """(b): each walsender of a listed member counts by the new set, or there is none; None when that is so."""
    newest = state.sync_now
    if progress.first_lsn is None:
        return Decision(f"{name}: mark the WAL", (MarkWal(newest.version, first=True),))
    members, _ = synchronous.union(state.sync)
    old = sorted({s.member for s in instance.senders if s.member in members and s.flushed_lsn < progress.first_lsn})
    if leaving := tuple(member for member in old if member not in newest.wanted.members):
        reason = f"{name}: the walsenders of {', '.join(leaving)} may count still: end them"
        return Decision(reason, (EndSenders(leaving),))
    if old:
        return Decision(f"{name}: waits until {', '.join(old)} flushed {format_lsn(progress.first_lsn)}")
    return None


def _follow_wal(newest: SyncVersion, instance: InstanceSeen, progress: SyncProgress, name: str) -> Decision | None:
    """(c), (d): enough of the new set have all that could be acknowledged before (T6); None when that is so."""
    wanted = newest.wanted
    if wanted.k == 0:
        return None
    if progress.second_lsn is None:
        return Decision(f"{name}: mark the WAL again", (MarkWal(newest.version, first=False),))
    have = {s.member for s in instance.senders if s.member in wanted.members and s.flushed_lsn >= progress.second_lsn}
    if len(have) >= wanted.k:
        return None
    position = format_lsn(progress.second_lsn)
    return Decision(f"{name}: waits until {wanted.k} of its members flushed {position}, {len(have)} have")


def _began_empty(state: ClusterState) -> bool:
    """T7: until the checkpointer has seen a set that is not empty, commits do not wait, whatever a session shows."""
    return any(listed.wanted.k == 0 and not listed.wanted.blocked for listed in state.sync[:-1])
