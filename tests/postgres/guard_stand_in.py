"""Stands in for the node process: does with a guard what it is told, one JSON line each, until it is killed."""

import json
import sys
from pathlib import Path

from appliance.node.guard_client import Deadline, GuardClient
from appliance.node.guard_connection import GuardError


def perform(client: GuardClient, call: str, arguments: dict) -> str:
    for name in ("data_dir", "log_file"):
        if name in arguments:
            arguments[name] = Path(arguments[name])
    if arguments.get("deadline") is not None:
        arguments["deadline"] = Deadline(**arguments["deadline"])
    return repr(getattr(client, call)(**arguments))


def main() -> None:
    client = GuardClient(Path(sys.argv[1]))
    for line in sys.stdin:
        call, arguments = json.loads(line)
        try:
            answer = {"value": perform(client, call, arguments)}
        except GuardError as error:
            answer = {"error": error.code}
        print(json.dumps(answer), flush=True)


main()
