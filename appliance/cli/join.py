"""`members add` and `join`: a new node's way into a running cluster, from both ends."""

import secrets
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from appliance.cli.checks import refused
from appliance.cli.client import connect
from appliance.cli.exits import Code, CommandError
from appliance.cli.node_file import load
from appliance.cli.output import Format, Table, emit, say
from appliance.cli.target import SYSTEM_CONFIG
from appliance.node import joining
from appliance.node.certificates import write_readable
from appliance.node.config import DEFAULT_STATE_DIR, NodeConfig, TlsSection
from appliance.node.invitation import Invitation, InvitationError, decode
from appliance.node.joining import JoinProblem
from appliance.node.messages import Joined

FROM_INPUT = "-"
"""Instead of a token: it is the first line of standard input, and no list of processes shows it."""
MOST_CHARACTERS = 128 * 1024


@dataclass(frozen=True, slots=True)
class Here:
    """What is known of this host."""

    config: Path
    address: str
    hosts: tuple[str, ...]


def invite(name: str, role: str, valid_for: str, output: Format) -> int:
    body = {"name": name, "role": role, "valid_for": valid_for}
    client = connect()
    members = {member["name"] for member in client.cluster()["members"]} if output is Format.TABLE else set()
    answer = client.change("/api/v1/members", body, operation=secrets.token_hex(8))
    if not answer.ok:
        raise refused("members add", answer)
    line = f"appliance join --token {answer.body['token']}"
    said = [answer.body[key] for key in ("member", "role", "expires_at")]
    emit(
        {**answer.body, "command": line},
        Table(["MEMBER", "ROLE", "EXPIRES", "COMMAND"], [[*said, line]]),
        output,
        text=[line],
    )
    if output is Format.TABLE:
        say(sys.stderr, f"Run this on {name} before {said[2]}. Whoever has it can join as {name}, once.")
        say(sys.stderr, f"Add --address HOST:PORT, the raft address of {name}, unless a node.yml is there that has it.")
        if name in members:
            say(sys.stderr, f"{name} is a member already: who joins with this takes its place.")
    return Code.DONE


def join(token: str, here: Here, timeout_s: float) -> int:
    """Each step may be repeated: after an error, run the same line again."""
    try:
        invitation = decode(sys.stdin.readline(MOST_CHARACTERS) if token == FROM_INPUT else token)
    except InvitationError as error:
        raise CommandError(Code.USAGE, f"--token: {error}") from None
    path = SYSTEM_CONFIG if here.config == Path() else here.config
    known = load(path) if path.exists() else None
    address = _address(invitation, known, path, here.address)
    tls = _tls(invitation, known, path)
    try:
        joined = joining.join(invitation, address, tls, here.hosts, timeout_s)
    except JoinProblem as problem:
        if not problem.answered:
            would_do = "are their nodes running, and may this host reach their raft ports?"
            raise CommandError(Code.UNREACHABLE, f"{problem}; {would_do}") from None
        raise CommandError(Code.REFUSED, str(problem)) from None
    if known is not None and known.role is not joined.role:
        message = f"{path}: role: {known.role}, the token is for a {joined.role}; correct the file and run this again"
        raise CommandError(Code.REFUSED, message)
    if known is None:
        _write_config(path, invitation, joined, tls)
        say(sys.stdout, f"{path}: written; edit it if you need more than the defaults")
    say(sys.stdout, f"{invitation.member} is a member of {joined.cluster}: start its node process")
    return Code.DONE


def _address(invitation: Invitation, known: NodeConfig | None, path: Path, given: str) -> str:
    if known is None:
        if not given:
            raise CommandError(Code.USAGE, f"{path} is not there: say --address HOST:PORT, this node's raft address")
        try:
            joining.check_address(given)
        except JoinProblem as problem:
            raise CommandError(Code.USAGE, f"--address: {problem}") from None
        return given
    if (known.name, known.cluster) != (invitation.member, invitation.cluster):
        raise CommandError(
            Code.REFUSED,
            f"{path} is of node {known.name!r} of cluster {known.cluster!r}, the token is for {invitation.member!r} of"
            f" {invitation.cluster!r}; correct the file, or make a token for this node",
        )
    if missing := sorted(set(invitation.members) - set(known.members)):
        # alone among its members, or with nobody that knows it, it would begin a cluster of its own
        lines = [f"  {name}: {invitation.members[name]}" for name in missing]
        raise CommandError(Code.REFUSED, f"{path}: members: add those that are there already, then join again", lines)
    if given and given != known.raft_address:
        raise CommandError(
            Code.USAGE, f"--address: {given} is not {known.raft_address}, as {path} has it; leave it out"
        )
    return known.raft_address


def _tls(invitation: Invitation, known: NodeConfig | None, path: Path) -> TlsSection | None:
    if known is None:
        below = DEFAULT_STATE_DIR / "tls"
        tls = TlsSection(ca=below / "ca.crt", cert=below / "node.crt", key=below / "node.key", ca_key=None)
        return tls if invitation.ca else None
    if (known.tls is not None) != bool(invitation.ca):
        has = "has TLS" if invitation.ca else "has no TLS"
        raise CommandError(Code.REFUSED, f"{path}: tls: the cluster {has}; make the file agree")
    return known.tls


def _write_config(path: Path, invitation: Invitation, joined: Joined, tls: TlsSection | None) -> None:
    settings: dict[str, object] = {
        "name": invitation.member,
        "cluster": joined.cluster,
        "role": joined.role.value,
        "members": dict(joined.members),
    }
    if tls is not None:
        paths: Mapping[str, Path] = {"ca": tls.ca, "cert": tls.cert, "key": tls.key}
        settings["tls"] = {name: str(place) for name, place in paths.items()}
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    write_readable(path, yaml.safe_dump(settings, sort_keys=False))
