"""The agreed state as `raft/` sees it: bytes in, verdicts out."""

from appliance.cluster.apply import apply
from appliance.cluster.codec import Malformed, decode_command, decode_state, encode_state
from appliance.cluster.state import ClusterState
from raft import Verdict


class ClusterMachine:
    """Pure and total: junk in the log is a refusal, the same on every node."""

    def initial(self) -> ClusterState:
        return ClusterState()

    def apply(self, state: ClusterState, command: bytes) -> tuple[ClusterState, Verdict]:
        decoded = decode_command(command)
        if isinstance(decoded, Malformed):
            return state, Verdict(refused=f"command.malformed: {decoded.reason}")
        applied = apply(state, decoded)
        return applied.state, Verdict(refused=applied.refused)

    def dump(self, state: ClusterState) -> bytes:
        return encode_state(state)

    def load(self, dumped: bytes) -> ClusterState:
        return decode_state(dumped)
