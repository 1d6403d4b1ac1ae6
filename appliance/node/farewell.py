"""The orderly end of everything on this node: PostgreSQL stops, the lease goes back, the guard leaves."""

import secrets
import time

from appliance.cluster.codec import encode_command
from appliance.cluster.commands import Release
from appliance.cluster.state import ClusterState, LeaseStatus
from appliance.node.guard_client import GuardClient, GuardError
from appliance.node.loop import ControlLoop
from appliance.node.notes import NotesFile, give_back
from raft import Applied, Replica

STOP_LIMIT_S = 60.0
RELEASE_LIMIT_S = 2.0


def stop_everything(
    me: str, loop: ControlLoop, replica: Replica[ClusterState], guard: GuardClient, notes: NotesFile
) -> None:
    """Bounded by STOP_LIMIT_S; what does not stop fast is stopped immediately, and what then is left, killed."""
    _stop_postgres(loop, guard)
    held = replica.view().state.appointment
    if held is not None and held.node == me and replica.view().state.lease is LeaseStatus.HELD:
        reason = f"{me} was shut down"
        command = encode_command(Release(held.epoch, me, reason))
        outcome = replica.propose(command, secrets.token_hex(8), RELEASE_LIMIT_S).result()
        if isinstance(outcome, Applied):
            give_back(notes, held.epoch)
    try:
        guard.quit()
    except GuardError:
        return  # it ends by itself when nothing runs and nobody is connected


def _stop_postgres(loop: ControlLoop, guard: GuardClient) -> None:
    try:
        guard.stop_postgres("fast")
    except GuardError:
        return  # none runs
    until_s = time.monotonic() + STOP_LIMIT_S
    while loop.postgres_runs():
        loop.keep_lease()
        if time.monotonic() > until_s:
            guard.kill_postgres()
            return
        time.sleep(0.02)
