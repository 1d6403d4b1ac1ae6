"""`appliance raft show` and `recover`: for a host whose node does not run, when a majority is gone for good."""

import json
import os
import socket
import sys
from collections.abc import Mapping, Sequence
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
from appliance.cluster.state import NodeRole
from appliance.ha.checks import Check
from appliance.node.config import NodeConfig
from appliance.node.config_values import split_address
from appliance.node.recovery import (
    FORMAT,
    Data,
    NodeRunsError,
    RecoveryError,
    SurvivorCopy,
    data_of,
    go_on_alone,
    kept_data,
    look,
    recovery_checks,
)

ANSWER_LIMIT_S = 1.0


@dataclass(frozen=True, slots=True)
class Manner:
    yes: bool
    dry_run: bool
    output: Format
    allow_data_loss: bool = False
    """go on although acknowledged commits may be missing"""


def show(directory: str, output: Format) -> int:
    """Print what this host's copy of the log holds, changing nothing."""
    config = None if directory else _own_config()
    copy = _look(config.raft.dir if config is not None else Path(directory), config)
    data = "not looked at with --dir: recovery would not keep it" if config is None else _data_in_words(copy)
    emit(
        to_json(copy),
        _table([copy]),
        output,
        text=[*_table([copy]).lines(), *_member_lines(copy), f"data directory: {data}"],
    )
    return Code.DONE


def recover(others: Sequence[str], dead: Sequence[str], left: str, manner: Manner) -> int:
    """Let the cluster go on from this host alone. Refusals end with 4 and every check.

    `left`: of whom the data is left and the journal is not; empty for nobody.
    """
    if not (manner.yes or manner.dry_run):
        expect_terminal("recovery")
    config = _own_config()
    copies = [_given(Path(path)) for path in others]
    own = _look(config.raft.dir, config)
    if (own.log.cluster, own.name) != (config.cluster, config.name):
        message = f"{config.raft.dir} holds the journal of {own.name} of cluster {own.log.cluster}"
        raise CommandError(Code.REFUSED, f"{message}, this is {config.name} of {config.cluster}: give its own file")
    gone = frozenset(dead)
    checks = recovery_checks(own, copies, gone, _answering(own, gone), left, loss_accepted=manner.allow_data_loss)
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
    return _carry_out(config, own, kept_data(own, copies, left), document, manner.output)


def _carry_out(
    config: NodeConfig, own: SurvivorCopy, data: Mapping[str, str], document: Document, output: Format
) -> int:
    try:
        kept = go_on_alone(config.raft.dir, own, data, config.raft_address)
    except NodeRunsError as error:
        raise CommandError(Code.REFUSED, f"recovery refused: {error}") from None
    except RecoveryError as error:
        raise CommandError(Code.FAILED, str(error)) from None
    after = _look(config.raft.dir, config)
    rest = sorted(member.name for member in after.log.members.all if member.name != own.name)
    done = {**document, "incarnation": after.log.incarnation, "kept": str(kept), "others": rest, "data": dict(data)}
    emit(done, _table([after]), output, text=_what_next(config, after, kept, rest))
    return Code.DONE


def _what_next(config: NodeConfig, after: SurvivorCopy, kept: Path, rest: Sequence[str]) -> list[str]:
    whole = [name for name in rest if name in after.recovery.kept]
    lost = [name for name in rest if name not in whole]
    raft, data = config.raft.dir, config.postgresql.data_dir
    steps = ["start the node here: systemctl start appliance; then `appliance status`"]
    if after.recovery.kept and after.name not in after.recovery.kept and config.role is not NodeRole.WITNESS:
        steps[0] = f"move {data} away: it is not kept. Then {steps[0]}"
    if whole:
        steps.append(
            f"on {', '.join(whole)}, before their nodes start: remove {raft} and nothing else (there as\n"
            "     their node.yml says). Their data are kept; they vote again once they have caught up"
        )
    if lost:
        steps.append(
            f"on {', '.join(lost)}, whether repaired or new hosts, before their nodes start: remove {raft}\n"
            f"     and {data} (there as their node.yml says). They join empty, clone, and vote again\n"
            "     once they have caught up. Data of before is refused, and `appliance status` says so"
        )
    if rest:
        steps.append("a host that still has its old journal is refused; never let a majority of the old ones run")
    return [
        f"✓ {after.name} goes on alone, as incarnation {after.log.incarnation}; the journal as it was is {kept}",
        "next:",
        *(f"  {number}. {step}" for number, step in enumerate(steps, 1)),
    ]


def _question(own: SurvivorCopy, dead: frozenset[str]) -> str:
    gone = f" Are {', '.join(sorted(dead))} gone for good, and kept from ever running again?" if dead else ""
    return (
        f"What was acknowledged and is in no data that is kept is lost.{gone}"
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


def _look(directory: Path, config: NodeConfig | None) -> SurvivorCopy:
    """Without a node's file, what data lies beside the copy is not known."""
    witness = config is None or config.role is NodeRole.WITNESS
    try:
        return look(directory, Data() if witness or config is None else data_of(config.postgresql.data_dir))
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
        problem = f"format {copy.format}, this version writes {FORMAT}"
        raise CommandError(Code.USAGE, f"--with: {path}: {problem}; use the same version on all hosts")
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
    return [
        f"cluster {copy.log.cluster}, id {copy.log.cluster_id or 'none yet'}, replica {copy.log.replica_id}",
        f"members: {', '.join(members) or 'none yet'}",
    ]


def _data_in_words(copy: SurvivorCopy) -> str:
    if not copy.data.id:
        return "none that is complete"
    return f"{copy.data.id}, recovery {copy.data.recovery}, timeline {copy.data_timeline}"
