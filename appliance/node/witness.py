"""What stands on a witness in the place of the guard and of PostgreSQL: a vote and an API are all it has.

Nothing is started and nothing is written for PostgreSQL, so its programs need not be on that host.
"""

from pathlib import Path

from appliance.ha.seen import DirectoryKind
from appliance.node.config import NodeConfig
from appliance.node.guard import PROTOCOL
from appliance.node.guard_client import GuardClient, GuardStatus
from appliance.node.guard_connection import GuardError, Message
from appliance.node.local import LocalPostgres
from appliance.postgres.binaries import Binaries
from appliance.postgres.directory import inspect

NO_PROGRAMS = Binaries(Path("/nowhere"), version="", major=0)
_NOTHING_RUNS = GuardStatus(
    pid=0,
    protocol=PROTOCOL,
    locked_memory=False,
    postmaster=None,
    ending=False,
    last_exit=None,
    deadline_s=None,
    deadline_epoch=None,
    fenced_epoch=None,
)


class NoGuard(GuardClient):
    """There is nothing to fence: no process and no socket."""

    def ensure(self, limit_s: float = 0.0) -> None:  # noqa: ARG002  # as the guard's
        return

    def status(self, limit_s: float = 0.0) -> GuardStatus:  # noqa: ARG002
        return _NOTHING_RUNS

    def _call(self, op: str, limit_s: float = 0.0, **arguments: object) -> Message:  # noqa: ARG002
        raise GuardError("unreachable", f"a witness has none to ask for {op}")


class NoPostgres(LocalPostgres):
    """No rule asks a witness for PostgreSQL (appliance.ha), so there are no leftovers either."""

    def settle(self) -> None:
        return


def objection(config: NodeConfig) -> str | None:
    """Why this host cannot be a witness, or None. A PostgreSQL that ran on would have nobody to fence it (R4)."""
    data_dir = config.postgresql.data_dir
    if inspect(data_dir, NO_PROGRAMS).kind is not DirectoryKind.CLUSTER:
        return None
    return (
        f"role: a witness has no PostgreSQL, and postgresql.data_dir {data_dir} holds a data directory: end the node"
        " that it belongs to (SIGINT) and move the directory away, or write role: data"
    )
