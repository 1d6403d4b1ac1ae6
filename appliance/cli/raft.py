"""`appliance raft status` and `transfer-leader`: the consensus of the nodes that run."""

import secrets
from collections.abc import Iterator

from appliance.cli.change import Change, Manner, request
from appliance.cli.client import Document, connect
from appliance.cli.exits import Code, CommandError
from appliance.cli.output import Format, Table, emit, size
from appliance.cli.reads import read


def status(output: Format) -> int:
    """The replica of the first node that answers."""
    view = read("/api/v1/raft")
    table = _members(view)
    emit(view, table, output, text=[*_summary(view), "", *table.lines(), *_problems(view)])
    return Code.DONE


def transfer_leader(to: str, manner: Manner) -> int:
    """Hand the raft leadership over, and wait for the answer: it takes no longer than an election timeout."""
    question = f"Hand the raft leadership over to {to or 'the voter that has most of the log'}? The primary stays."
    change = Change("transfer", "/api/v1/raft/leader", {"to": to}, question)
    try:
        answer = request(connect(), change, secrets.token_hex(8), manner)
    except CommandError as error:
        if error.code is not Code.UNKNOWN:
            raise
        # It is no operation of the cluster, so there is none to look at.
        message = "it is not known whether the leadership was handed over: look with `appliance raft status`"
        raise CommandError(Code.UNKNOWN, message) from None
    if answer is None:
        return Code.DONE
    message = answer.text("message")
    emit(answer.body, Table(["MESSAGE"], [[message]]), manner.output, text=[f"✓ {message}"])
    return Code.DONE


def _summary(view: Document) -> Iterator[str]:
    votes = "" if view["votes"] else ", has no vote"
    yield f"{view['node']} is {view['role']}{votes}; term {view['term']}, {_leader(view)}"
    yield f"group {view['cluster_id'] or 'none yet'}, incarnation {view['incarnation']}, replica {view['replica_id']}"
    yield (
        f"log {view['first_index']}..{view['last_index']} ({size(view['log_bytes'])}),"
        f" committed {view['commit_index']}, applied {view['applied_index']}"
    )
    fsyncs = view["fsyncs"]
    yield (
        f"fsync {_ms(fsyncs['last_s'])}, longest {_ms(fsyncs['longest_s'])} of {fsyncs['count']};"
        f" tick late {_ms(view['tick_late_s'])}, lately at most {_ms(view['tick_late_longest_s'])}"
    )
    yield f"certificate {_certificate(view)}"


def _leader(view: Document) -> str:
    """A replica without a quorum goes on to name the last leader of its term."""
    if not view["leader"]:
        return "no leader"
    lost = any(member["leads"] and member["connected"] is False for member in view["members"])
    return f"leader {view['leader']}{', to which there is no connection' * lost}"


def _certificate(view: Document) -> str:
    certificate = view["certificate"]
    if certificate is None:
        return "none: connections between members are in the clear"
    return certificate["problem"] or f"valid until {certificate['expires_at']}"


def _problems(view: Document) -> Iterator[str]:
    refusals = {reason: count for reason, count in view["refusals"].items() if count}
    lines = [f"{member['name']}: {member['problem']}" for member in view["members"] if member["problem"]]
    lines += [line for member in view["members"] if (line := _refused_us(member))]
    if refusals:
        counted = ", ".join(f"{reason} {count}" for reason, count in sorted(refusals.items()))
        lines.append(f"refused connections since the start: {counted}")
    if view["removed_by"]:
        lines.append(f"removed from the group, by the word of {', '.join(view['removed_by'])}")
    if view["failure"]:
        lines.append(f"failed: {view['failure']}")
    if lines:
        yield ""
        yield from lines


def _refused_us(member: Document) -> str:
    """What it said when it was reached last, where it is not the present problem anyway."""
    words, age_s = member["refused_us"], member["refused_us_age_s"]
    if words is None or words in (member["problem"] or ""):
        return ""
    return f"{member['name']}: refused us {age_s:.0f} s ago: {words}"


def _members(view: Document) -> Table:
    header = ["MEMBER", "ROLE", "REPLICA", "ADDRESS", "LINK", "MATCH", "LAG"]
    return Table(header, [_row(member) for member in view["members"]])


def _row(member: Document) -> list[str]:
    link = {None: "-", True: "up", False: "down"}[member["connected"]]
    role = f"{member['role']}, leads" if member["leads"] else member["role"]
    numbers = ["-" if number is None else str(number) for number in (member["match_index"], member["lag"])]
    return [member["name"], role, member["replica_id"], member["address"], link, *numbers]


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms"
