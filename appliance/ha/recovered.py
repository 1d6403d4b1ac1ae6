"""R13a: rules for what comes from another history, after the cluster went on from a minority (`raft recover`).

Such data and notes may name the epochs and timelines of now and mean others. Raft refuses the old journals; here the
same is done for what lies beside them. Data of another system identifier is treated alike.
"""

from appliance.cluster.config import Policy
from appliance.cluster.state import ClusterState, NodeRole
from appliance.ha.actions import Action, BeginNotes, Decision, MarkDirectory, NoteFenced, StopMode, StopPostgres
from appliance.ha.facts import is_writable, may_resume, me, same_cluster, strange
from appliance.ha.seen import Observation
from appliance.ha.start import stop_for


def stop_strange(state: ClusterState, seen: Observation, policy: Policy) -> Decision | None:
    """PostgreSQL does not run on data of another history or system: nobody may read or copy it as this cluster's."""
    reason = strange(state, seen)
    return None if reason is None or seen.postmaster is None else _end(state, seen, reason, policy)


def begin_notes(state: ClusterState, seen: Observation, policy: Policy) -> Decision | None:
    """Notes of before the last recovery hold on only beside data that was kept; others are set aside.

    Their epochs may be higher than any of the new history will be for long, and would keep the node from acting.
    Nothing depends on them any more: the data that pledged and was fenced does not count.
    """
    number = state.recovery.number
    if not state.initialised or seen.notes.recovery == number or me(state, seen).role is NodeRole.WITNESS:
        return None
    if seen.directory.problem:
        return Decision(f"{seen.directory.problem}; whether its notes hold on shows once that can be read")
    if seen.directory.incarnation in state.recovery.kept.values():
        return Decision(f"its notes hold on after recovery {number}", (BeginNotes(number, keep=True),))
    reason = f"its notes are of another history than recovery {number} began: they are set aside"
    if seen.postmaster is not None:
        return _end(state, seen, reason, policy)
    return Decision(reason, (BeginNotes(number, keep=False),))


def mark_kept(state: ClusterState, seen: Observation, policy: Policy) -> Decision | None:
    """What was kept bears the number from now on: also when it loses its id, and whatever is copied from it."""
    number = state.recovery.number
    if not state.initialised or not same_cluster(state, seen) or seen.directory.recovery == number:
        return None
    return Decision(f"the data directory was kept by recovery {number}", (MarkDirectory(number),))


def refuse_strange(state: ClusterState, seen: Observation, policy: Policy) -> Decision | None:
    """It is not started, and never removed: whoever knows what it is does that (R12)."""
    reason = strange(state, seen)
    return None if reason is None else Decision(reason)


def _end(state: ClusterState, seen: Observation, reason: str, policy: Policy) -> Decision:
    if not is_writable(seen):
        return stop_for(seen, reason, policy)
    held, actions = may_resume(state, seen), list[Action]([StopPostgres(StopMode.IMMEDIATE)])
    if held is not None:
        actions.append(NoteFenced(held.epoch))
    return Decision(f"{reason}: stop", tuple(actions))
