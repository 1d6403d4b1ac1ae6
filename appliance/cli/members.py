"""The members of the cluster: who they are, with which vote, and how one leaves."""

import secrets
import time
from collections.abc import Mapping
from typing import Any

from appliance.cli.change import LOOK_S, Change, Manner, request
from appliance.cli.client import Client, Document, connect
from appliance.cli.exits import Code, CommandError
from appliance.cli.output import Format, Table, emit


def members(output: Format) -> int:
    """Everybody that the cluster or consensus knows."""
    view = connect().cluster()
    emit(view["members"], _table(view), output)
    return Code.DONE


def _table(view: Document) -> Table:
    rows = [_member(member) for member in view["members"]]
    known = {member["name"] for member in view["members"]}
    others = sorted((name, replica) for name, replica in view["raft"]["members"].items() if name not in known)
    rows += [[name, "-", "-", "-", replica["address"], replica["role"]] for name, replica in others]
    return Table(["MEMBER", "ROLE", "STATE", "POSTGRESQL", "RAFT", "VOTE"], rows)


def _member(member: Mapping[str, Any]) -> list[str]:
    postgres = f"{member['host']}:{member['port']}" if member["port"] else "-"
    raft = member["raft"]
    return [member["name"], member["kind"], member["state"], postgres, raft["address"], raft["role"] or "none"]


def remove(name: str, force: bool, reason: str, manner: Manner) -> int:
    """Returns when consensus goes on without it; 5 when that was not seen in time: the raft leader goes on trying."""
    body = {"member": name, "force": force, "reason": reason}
    question = f"Remove {name} from the cluster? Its data stay where they are, and it is refused from then on."
    client, operation = connect(), secrets.token_hex(8)
    answer = request(client, Change("removal", "/api/v1/removals", body, question), operation, manner)
    if answer is None:
        return Code.DONE
    if manner.wait and not _gone(client, name, manner.timeout_s):
        message = f"{name} is no member any more, and its replica still belongs to consensus; see `appliance status`"
        raise CommandError(Code.UNKNOWN, message)
    emit(answer.body, Table(["MEMBER"], [[name]]), manner.output, text=[f"✓ {name} is no member any more"])
    return Code.DONE


def _gone(client: Client, name: str, timeout_s: float) -> bool:
    until_s = time.monotonic() + timeout_s
    while time.monotonic() < until_s:
        try:
            view = client.cluster()
        except CommandError:
            view = {}
        told = any(found["code"] == "node.removed" and found["member"] == name for found in view.get("problems", ()))
        if told or (view.get("quorum") and name not in view["raft"]["members"]):
            return True
        time.sleep(LOOK_S)
    return False
