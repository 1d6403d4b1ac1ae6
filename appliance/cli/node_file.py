"""A node's file as the command line reads it: problems become lines and an exit code."""

import sys
from pathlib import Path

from appliance.cli.exits import Code, CommandError
from appliance.cli.output import say
from appliance.cluster.state import NodeRole
from appliance.node.config import NodeConfig
from appliance.node.config_problems import ConfigProblem


def load(path: Path) -> NodeConfig:
    """Raises CommandError with every problem of the file."""
    try:
        return NodeConfig.load(path)
    except ConfigProblem as problem:
        first, *others = problem.problems
        shown = first if first.startswith(str(path)) else f"{path}: {first}"
        raise CommandError(Code.USAGE, shown, [f"{path}: {line}" for line in others]) from None


def check_certificate(path: Path, config: NodeConfig) -> None:
    """Raises CommandError for files that the node would not start with; what is doubtful is only said."""
    if config.tls is not None:
        from appliance.node.certificates import advice, objection
        from appliance.node.privileges import PrivilegeError, run_user

        try:
            user = run_user()
        except PrivilegeError as error:
            raise CommandError(Code.FAILED, str(error)) from None
        postgres = config.role is not NodeRole.WITNESS
        if found := objection(config.tls, config.cluster, config.name, user, postgres=postgres):
            raise CommandError(Code.USAGE, f"{path}: tls: {found}")
        for line in advice(config.tls, config.postgres_address):
            say(sys.stderr, f"appliance: {path}: {line}")


def ask_postgresql(path: Path, config: NodeConfig) -> None:
    """Raises CommandError for values that it would not take; where there is none, that is only said."""
    if config.role is NodeRole.WITNESS:
        return
    from appliance.node.config_parameters import refused_at_bootstrap, refused_locally
    from appliance.postgres.binaries import find
    from appliance.postgres.errors import PostgresError

    try:
        binaries = find(config.postgresql.bin_dir)
        refused = (*refused_locally(binaries, config), *refused_at_bootstrap(binaries, config))
    except PostgresError as error:
        say(sys.stderr, f"appliance: {path}: PostgreSQL was not asked about its parameters: {error}")
        return
    if refused:
        raise CommandError(Code.USAGE, f"{path}: {refused[0]}", [f"{path}: {line}" for line in refused[1:]])
