"""The orderly end of everything on this node: PostgreSQL stops, the lease goes back, jobs end, the guard leaves."""

import secrets
import time
from contextlib import suppress

from appliance.cluster.codec import encode_command
from appliance.cluster.commands import Release
from appliance.cluster.state import ClusterState, LeaseStatus
from appliance.node.guard_client import GuardClient
from appliance.node.guard_connection import GuardError
from appliance.node.loop import ControlLoop
from appliance.node.notes import NotesFile, give_back
from raft import Applied, Replica

STOP_LIMIT_S = 60.0
KILL_LIMIT_S = 5.0
RELEASE_LIMIT_S = 2.0
_LOOK_S = 0.02


def stop_everything(
    me: str, loop: ControlLoop, replica: Replica[ClusterState], guard: GuardClient, notes: NotesFile
) -> None:
    """Stop fast, and kill what has not stopped after STOP_LIMIT_S.

    What does not end within KILL_LIMIT_S of that, or of which nobody knows whether it runs, keeps its lease: the guard
    ends it at its deadline, and the lease runs out after that (R4).
    """
    if _stop_postgres(loop, guard):
        _give_lease_back(me, replica, notes)
    loop.end_job()
    with suppress(GuardError):  # it ends by itself when nothing runs and nobody is connected
        guard.quit()


def _stop_postgres(loop: ControlLoop, guard: GuardClient) -> bool:
    """Whether nothing of it runs. A guard that refuses, or gives no answer, is no proof of that: it is asked."""
    with suppress(GuardError):
        guard.stop_postgres("fast")
    if _ends_within(STOP_LIMIT_S, loop):
        return True
    with suppress(GuardError):
        guard.kill_postgres()
    return _ends_within(KILL_LIMIT_S, loop)


def _ends_within(limit_s: float, loop: ControlLoop) -> bool:
    until_s = time.monotonic() + limit_s
    while loop.postgres_runs():
        if time.monotonic() > until_s:
            return False
        loop.keep_lease()
        time.sleep(_LOOK_S)
    return True


def _give_lease_back(me: str, replica: Replica[ClusterState], notes: NotesFile) -> None:
    state = replica.view().state
    held = state.appointment
    if held is None or held.node != me or state.lease is not LeaseStatus.HELD:
        return
    command = encode_command(Release(held.epoch, me, f"{me} was shut down"))
    outcome = replica.propose(command, secrets.token_hex(8), RELEASE_LIMIT_S).result()
    if isinstance(outcome, Applied):
        give_back(notes, held.epoch)
