"""`appliance node`: check a file, print a sample, or run the node."""

import sys
from pathlib import Path

from appliance.cli.exits import Code
from appliance.cli.output import say
from appliance.cli.target import SYSTEM_CONFIG


def run(path: Path, *, check: bool, sample: bool) -> int:
    """Returns when the node has ended."""
    if sample:
        from appliance.node.config_sample import SAMPLE

        say(sys.stdout, SAMPLE.rstrip("\n"))
        return Code.DONE
    from appliance.cli.node_file import ask_postgresql, check_certificate, load

    path = SYSTEM_CONFIG if path == Path() else path
    config = load(path)
    for line in config.advice():
        say(sys.stderr, f"appliance: {path}: {line}")
    if check:
        check_certificate(path, config)
        ask_postgresql(path, config)
        say(sys.stdout, f"{path}: node {config.name} of cluster {config.cluster}, {len(config.members)} members: fine")
        return Code.DONE
    from appliance.node.run import run as run_node

    return run_node(config)
