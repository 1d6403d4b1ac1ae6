"""One screen about the cluster: summary, members, problems with what would help."""

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from appliance.cli.client import Client, Document, connect
from appliance.cli.exits import Code, CommandError
from appliance.cli.output import Format, Table, emit, painted, say, size

_MARKS: Mapping[str, tuple[str, str]] = {
    "healthy": ("✓", "good"),
    "degraded": ("!", "warn"),
    "critical": ("✗", "bad"),
    "stale": ("?", "warn"),
}


def status(output: Format, *, exit_code: bool) -> int:
    """Print the view; 3 when it is only the last known one, 10 or 11 if asked for."""
    view = connect().cluster()
    emit(view, members_table(view), output, text=list(screen(view)))
    return _code(view, exit_code)


def watch(output: Format, interval_s: float) -> int:
    """Print the view again and again until interrupted."""
    client = connect()
    try:
        while True:
            _draw(client, output)
            time.sleep(interval_s)
    except KeyboardInterrupt:
        return Code.DONE


def _draw(client: Client, output: Format) -> None:
    try:
        view = client.cluster()
    except CommandError as error:
        lines: list[str] = [str(error), *error.lines]
        view = {}
    else:
        lines = list(screen(view))
    if sys.stdout.isatty():
        sys.stdout.write("\x1b[H\x1b[2J")
    if view:
        emit(view, members_table(view), output, text=lines)
    else:
        say(sys.stdout, *lines)


def _code(view: Document, exit_code: bool) -> int:
    if not view["quorum"] or view["verdict"] == "stale":
        return Code.UNREACHABLE
    if not exit_code:
        return Code.DONE
    return {"degraded": Code.DEGRADED, "critical": Code.CRITICAL}.get(view["verdict"], Code.DONE)


def screen(view: Document) -> Iterator[str]:
    yield _headline(view)
    yield ""
    yield from members_lines(view)
    yield ""
    yield from _facts(view)
    for problem in view["problems"]:
        mark, colour = _MARKS[problem["severity"]]
        yield painted(f"{mark} {problem['code']}  {problem['message']}", colour)
        if problem["hint"]:
            yield f"    {problem['hint']}"


def _headline(view: Document) -> str:
    mark, colour = _MARKS[view["verdict"]]
    verdict = painted(f"{mark} {view['verdict'].upper()}", colour)
    system = f" · system {view['system_identifier']}" if view["system_identifier"] else " · not initialised"
    age_s = view["applied"]["age_s"]
    age = "from before it started" if age_s is None else f"{_age(age_s)} old"
    stale = "" if view["quorum"] else f" · last known view of {view['node']}, {age}"
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    return f"{painted(view['name'], 'bold')}{system} · {verdict}{stale} · {now}"


def members_table(view: Document) -> Table:
    rows = [_member(member, view["raft"]) for member in view["members"]]
    return Table(["MEMBER", "HOST", "ROLE", "STATE", "TL", "LAG", "AGE", "RAFT", "DOING"], rows)


def members_lines(view: Document) -> list[str]:
    """The same for people, who find the primary at a glance."""
    table = members_table(view)
    rows = [[*row[:2], "● " * (row[2] == "primary") + row[2], *row[3:]] for row in table.rows]
    return Table(table.header, rows).lines()


def _member(member: Mapping[str, Any], raft: Mapping[str, Any]) -> list[str]:
    host = f"{member['host']}:{member['port']}" if member["port"] else member["host"] or "-"
    doing = member["progress"] or member["doing"] or "-"
    return [
        member["name"],
        host,
        member["role"],
        member["state"] + (" (restart pending)" if member["pending_restart"] else ""),
        str(member["timeline"] or "-"),
        "-" if member["role"] in {"primary", "witness"} else size(member["lag_bytes"]),
        _age(member["reported_age_s"]),
        _raft(member, raft),
        doing,
    ]


def _raft(member: Mapping[str, Any], raft: Mapping[str, Any]) -> str:
    if member["name"] == raft["leader"]:
        return f"leader, term {raft['term']}"
    if member["raft"]["connected"] and member["raft"]["role"] in {"learner", "joining"}:
        return str(member["raft"]["role"])
    return {True: "follower", False: "not connected"}.get(member["raft"]["connected"], "?")


def _certificates(members: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """The one that expires first."""
    ends = {member["name"]: (member.get("certificate") or {}).get("expires_at") for member in members}
    known = [(datetime.fromisoformat(end), name) for name, end in ends.items() if end]
    if known:
        end, name = min(known)
        yield f"TLS         certificates until {end:%Y-%m-%d %H:%MZ}, when that of {name} expires"


def _watchdogs(members: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Of members that shall have one: only a primary's runs."""
    found = {member["name"]: member.get("watchdog") for member in members}
    shown = [f"{name} {_watchdog(watchdog)}" for name, watchdog in found.items() if watchdog]
    if shown:
        yield f"Watchdog    {' · '.join(shown)}"


def _watchdog(watchdog: Mapping[str, Any]) -> str:
    required = " (required)" if watchdog["required"] else ""
    if watchdog["problem"]:
        return f"not usable{required}"
    armed = "ready" if watchdog["armed_s"] is None else f"armed, {watchdog['armed_s']} s"
    return f"{armed}{required}"


def _age(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds:.1f} s"


def _durability(sync: Mapping[str, Any]) -> str:
    """Whom commits wait for, and what that means for a failover."""
    if sync["mode"] == "off":
        return "asynchronous: a failover loses what no standby had received"
    if not sync["members"]:
        return "no standby: nobody else becomes primary by itself"
    return f"{sync['k']} of {', '.join(sync['members'])}"


def _facts(view: Document) -> Iterator[str]:
    lease = view["lease"]
    left = "" if lease["left_s"] is None else f", {lease['left_s']:.1f} s left"
    yield f"Primary     {view['primary'] or 'none'} · epoch {view['epoch']} · lease {lease['status']}{left}"
    vouching = ", who can vouch for it without a quorum" if view["sync"]["failsafe"] else ""
    yield f"Durability  {_durability(view['sync'])}{vouching}"
    change = view["last_change"]
    if change is not None:
        yield f"Last change {change['at']} {change['change']} to {change['primary']}: {change['reason']}"
    operation = view["operation"]
    if operation is not None:
        yield f"Under way   {operation['kind']} {operation['id']}: {operation['phase']}"
    yield from _certificates(view["members"])
    yield from _watchdogs(view["members"])
    if view["waiting_for"]:
        yield f"Waiting for {view['waiting_for']}"
