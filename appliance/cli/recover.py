"""`appliance raft show` and `recover`: for a host whose node does not run, when a majority is gone for good."""

import json
import os
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from appliance.cli.change import confirm, expect_terminal
from appliance.cli.checks import check_lines
from appliance.cli.client import Document
from appliance.cli.exits import Code, CommandError
from appliance.cli.output import Format, Table, emit, say
from appliance.cli.target import SYSTEM_CONFIG
from appliance.cluster.codec import from_json, to_json
from appliance.cluster.lsn import format_lsn
from appliance.ha.checks import Check
from appliance.node.config import NodeConfig
from appliance.node.config_values import split_address
from appliance.node.recovery import (
    FORMAT,
    NodeRunsError,
    RecoveryError,
    SurvivorCopy,
    go_on_alone,
    look,
    recovery_checks,
)

ANSWER_LIMIT_S = 1.0


@dataclass(frozen=True, slots=True)
class Manner:
    yes: bool
    dry_run: bool
    output: Format


def show(directory: str, output: Format) -> int:
    """Print what this host's copy of the log holds, changing nothing."""
    place = Path(directory) if directory else _own_config().raft.dir
    copy = _look(place)
    emit(to_json(copy), _table([copy]), output, text=[*_table([copy]).lines(), *_member_lines(copy)])
    return Code.DONE


def recover(others: Sequence[str], dead: Sequence[str], manner: Manner) -> int:
    """Let the cluster go on from this host alone. Refusals end with 4 and every check."""
    if not (manner.yes or manner.dry_run):
        expect_terminal("recovery")
    config = _own_config()
    copies = [_given(Path(path)) for path in others]
    own = _look(config.raft.dir)
    if (own.log.cluster, own.name) != (config.cluster, config.name):
        message = f"{config.raft.dir} holds the journal of {own.name} of cluster {own.log.cluster}"
        raise CommandError(Code.REFUSED, f"{message}, this is {config.name} of {config.cluster}: give its own file")
    gone = frozenset(dead)
    checks = recovery_checks(own, copies, gone, _answering(own, gone))
    document = {"copies": to_json([own, *copies]), "checks": to_json(checks)}
    plan = [*_table([own, *copies]).lines(), "", *check_lines(document["checks"])]
    if manner.dry_run:
        emit(document, _table([own, *copies]), manner.output, text=plan)
    if not all(check.ok for check in checks):
        raise _refused(checks, plan)
    if manner.dry_run:
        return Code.DONE
    if not manner.yes:
        say(sys.stderr, *plan)
        confirm("recovery", _question(own, gone))
    return _carry_out(config, own, document, manner.output)


def _carry_out(config: NodeConfig, own: SurvivorCopy, document: Document, output: Format) -> int:
    try:
        kept = go_on_alone(config.raft.dir, own, config.raft_address)
    except NodeRunsError as error:
        raise CommandError(Code.REFUSED, f"recovery refused: {error}") from None
    except RecoveryError as error:
        raise CommandError(Code.FAILED, str(error)) from None
    after = _look(config.raft.dir)
    rest = sorted(member.name for member in after.log.members.all if member.name != own.name)
    done = {**document, "incarnation": after.log.incarnation, "kept": str(kept), "others": rest}
    emit(done, _table([after]), output, text=_what_next(config, after, kept, rest))
    return Code.DONE


def _what_next(config: NodeConfig, after: SurvivorCopy, kept: Path, rest: Sequence[str]) -> list[str]:
    lines = [
        f"✓ {after.name} goes on alone, as incarnation {after.log.incarnation}; the journal as it was is {kept}",
        "next:",
        "  1. start the node here: systemctl start appliance; then `appliance status`",
    ]
    if rest:
        places = ", ".join(str(path) for path in _to_remove(config))
        lines += [
            f"  2. on {', '.join(rest)}, whether repaired or new hosts, before their nodes start: remove {places}",
            "     (there as their node.yml says). They join empty, clone, and vote again once they have caught up",
            "  3. a host that still has its old journal is refused; never let a majority of the old ones run",
        ]
    return lines


def _to_remove(config: NodeConfig) -> Sequence[Path]:
    """Of a host that comes back. Its log may know appointments that this one lacks: then its notes and data do too."""
    return config.raft.dir, config.state_dir / "notes.json", config.postgresql.data_dir


def _question(own: SurvivorCopy, dead: frozenset[str]) -> str:
    gone = f" Are {', '.join(sorted(dead))} gone for good, and kept from ever running again?" if dead else ""
    return (
        f"What the others acknowledged and {own.name} has not is lost.{gone}"
        f" Let the cluster go on from {own.name} alone?"
    )


def _refused(checks: Sequence[Check], plan: Sequence[str]) -> CommandError:
    failed = next(check for check in checks if not check.ok)
    what = f"{failed.candidate}: {failed.detail}" if failed.candidate else failed.detail
    return CommandError(Code.REFUSED, f"recovery refused: {what} ({failed.code})", plan)


def _own_config() -> NodeConfig:
    from appliance.cli.node_file import load

    path = Path(os.environ.get("APPLIANCE_CONFIG") or SYSTEM_CONFIG)
    if path.is_dir():
        raise CommandError(Code.USAGE, f"{path} is a directory: name the file of the node on this host")
    return load(path)


def _look(directory: Path) -> SurvivorCopy:
    try:
        return look(directory)
    except NodeRunsError as error:
        hint = "a node that runs is looked at with `appliance raft status`"
        raise CommandError(Code.REFUSED, f"{error}; {hint} (node.runs)") from None
    except RecoveryError as error:
        raise CommandError(Code.FAILED, str(error)) from None


def _given(path: Path) -> SurvivorCopy:
    """A copy that was carried here."""
    try:
        copy: SurvivorCopy = from_json(SurvivorCopy, json.loads(path.read_text()))
    except (ValueError, RecursionError) as error:
        wanted = "give what `appliance raft show -o json` wrote on another host"
        raise CommandError(Code.USAGE, f"--with: {path}: {error}; {wanted}") from None
    if copy.format != FORMAT:
        raise CommandError(Code.USAGE, f"--with: {path}: format {copy.format}; use the same version on all hosts")
    return copy


def _answering(own: SurvivorCopy, dead: frozenset[str]) -> frozenset[str]:
    return frozenset(member.name for member in own.log.members.all if member.name in dead and _answers(member.address))


def _answers(address: str) -> bool:
    try:
        socket.create_connection(split_address(address), timeout=ANSWER_LIMIT_S).close()
    except OSError:
        return False
    return True


def _table(copies: Sequence[SurvivorCopy]) -> Table:
    """Side by side; the first is the one here."""
    header = ["COPY OF", "INCARNATION", "TERM", "LAST TERM", "LAST INDEX", "COMMITTED", "EPOCH", "PRIMARY", "POSITION"]
    return Table(header, [_row(copy) for copy in copies])


def _row(copy: SurvivorCopy) -> list[str]:
    log, at = copy.log, copy.position
    numbers = [log.incarnation, log.term, log.last_term, log.last_index, log.commit_index, copy.epoch]
    position = f"{at.timeline}:{format_lsn(at.lsn)}" if at is not None else "-"
    return [copy.name, *map(str, numbers), copy.primary or "-", position]


def _member_lines(copy: SurvivorCopy) -> list[str]:
    members = [f"{member.name} ({member.role}, {member.address})" for member in copy.log.members.all]
    lines = [f"cluster {copy.log.cluster}, id {copy.log.cluster_id or 'none yet'}, replica {copy.log.replica_id}"]
    return [*lines, f"members: {', '.join(members) or 'none yet'}"]
