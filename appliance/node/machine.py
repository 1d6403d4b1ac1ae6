"""The agreed state as `raft/` sees it: bytes in, verdicts out."""

from collections.abc import Callable

from appliance.cluster.apply import Applied, apply
from appliance.cluster.codec import THIS, Malformed, Newer, Version, decode_command, decode_state, encode_state
from appliance.cluster.commands import Command
from appliance.cluster.state import ClusterState
from raft import NewerVersionNeeded, Verdict


class ClusterMachine:
    """Pure and total: junk in the log is a refusal, the same on every node.

    What a newer version wrote is none: it may apply that, so this one must not go on past it (docs/decisions/0013).
    """

    def __init__(self, version: Version = THIS, judge: Callable[[ClusterState, Command], Applied] = apply) -> None:
        self._version = version
        self._judge = judge

    def initial(self) -> ClusterState:
        return ClusterState()

    def objection(self, state: ClusterState, command: bytes) -> str | None:
        """The one door into the log: nothing that is malformed, newer than this node, or above the agreed format."""
        decoded = self._read(state, command)
        return decoded.refused if isinstance(decoded, Verdict) else None

    def apply(self, state: ClusterState, command: bytes) -> tuple[ClusterState, Verdict]:
        decoded = self._read(state, command)
        if isinstance(decoded, Verdict):
            return state, decoded
        applied = self._judge(state, decoded)
        return applied.state, Verdict(refused=applied.refused)

    def _read(self, state: ClusterState, command: bytes) -> Command | Verdict:
        """The command, or why it is refused whatever it says. Raises NewerVersionNeeded."""
        decoded = decode_command(command, self._version)
        if isinstance(decoded, Newer):
            raise NewerVersionNeeded(str(decoded))
        if isinstance(decoded, Malformed):
            return Verdict(refused=f"command.malformed: {decoded.reason}")
        name = type(decoded).__name__
        if (needed := self._version.format_of(name)) > state.format:
            return Verdict(refused=f"format.ahead: {name} needs format {needed}, {state.format} is agreed on")
        return decoded

    def dump(self, state: ClusterState) -> bytes:
        return encode_state(state)

    def load(self, dumped: bytes) -> ClusterState:
        state = decode_state(dumped, self._version)
        if isinstance(state, Newer):
            raise NewerVersionNeeded(str(state))
        return state
