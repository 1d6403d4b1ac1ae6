"""PostgreSQL's parameters in a node's file, as PostgreSQL's own program on this host sees them."""

from collections.abc import Mapping

from appliance.cluster.config import read_policy
from appliance.node.config import NodeConfig
from appliance.postgres.binaries import Binaries
from appliance.postgres.validate import refused_values


def refused_locally(binaries: Binaries, config: NodeConfig) -> tuple[str, ...]:
    """A line for each value that this node's PostgreSQL would not take. Raises PostgresError: it cannot be asked."""
    return _refused(binaries, "postgresql.parameters", config.postgresql.parameters)


def refused_at_bootstrap(binaries: Binaries, config: NodeConfig) -> tuple[str, ...]:
    """The same of the first configuration document, which the whole cluster is to live with."""
    policy = read_policy(config.bootstrap.config, election_max_s=config.raft.election_timeout[1])
    return _refused(binaries, "bootstrap.config.postgresql.parameters", policy.parameters)


def _refused(binaries: Binaries, section: str, parameters: Mapping[str, str]) -> tuple[str, ...]:
    if not parameters:
        return ()
    refused = refused_values(binaries, parameters)
    return tuple(
        f"{section}.{name}: {parameters[name]!r} is refused by PostgreSQL {binaries.version}: {why}"
        for name, why in refused.items()
    )
