"""A node's file as the command line reads it: problems become lines and an exit code."""

from pathlib import Path

from appliance.cli.exits import Code, CommandError
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
