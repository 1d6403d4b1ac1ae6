"""Why it is as it is, on one screen: the primary, failover or none, every member with its checks, the last changes."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

from appliance.cli.client import connect
from appliance.cli.exits import Code
from appliance.cli.output import Format, Table, emit, painted


def explain(member: str, output: Format) -> int:
    """Print what a node can say; 3 when it is only the last known."""
    query = f"?{urlencode({'member': member})}" if member else ""
    view = connect().view(f"/api/v1/explain{query}")
    found = view["explanation"]
    rows = [[m["member"], m["why"]["code"], m["why"]["text"]] for m in found["members"]]
    emit(view, Table(["MEMBER", "CODE", "WHY"], rows), output, text=list(screen(view)))
    return Code.DONE if view["quorum"] else Code.UNREACHABLE


def screen(view: Mapping[str, Any]) -> Iterator[str]:
    found = view["explanation"]
    yield f"{painted(view['name'], 'bold')} as {view['node']} knows it{_age(view)}"
    yield ""
    primary = found["primary"]
    if primary is not None:
        since = f", since {primary['since']}" if primary["since"] else ""
        yield f"Primary     {primary['member']}{since}: {_words(primary['why'])}"
    yield f"Failover    {_words(found['failover'])}"
    if found["votes"] is not None:
        yield f"Votes       {_mark(found['votes'])} {found['votes']['detail']}"
    yield f"Next        {found['next'] or 'nobody'}"
    if view["leader_says"]:
        yield f"Raft leader {view['leader'] or 'none'}: {view['leader_says']}"
    for member in found["members"]:
        yield from _member(member)
    yield from _changes(found["changes"])


def _age(view: Mapping[str, Any]) -> str:
    age_s = view["applied"]["age_s"]
    if view["quorum"]:
        return ""
    return ", from before it started" if age_s is None else f", {age_s:.1f} s old: it has no contact with a majority"


def _member(member: Mapping[str, Any]) -> Iterator[str]:
    yield ""
    yield f"{painted(member['member'], 'bold')}  {_words(member['why'])}"
    pledge = f", pledged to election {member['pledge']}" if member["pledge"] else ""
    age_s = member["reported_age_s"]
    heard = "has not reported" if age_s is None else f"reported {age_s:.1f} s ago"
    yield f"    {heard}; failover_priority {member['priority']}{pledge}"
    for check in member["checks"]:
        yield f"    {_mark(check)} {check['code']}  {check['detail']}"


def _changes(changes: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    if changes:
        yield ""
        yield "Last changes"
    for change in changes:
        yield f"    {change['entry']['at']}  {change['text']}"


def _mark(check: Mapping[str, Any]) -> str:
    return "✓" if check["ok"] else "✗"


def _words(reason: Mapping[str, Any]) -> str:
    return f"{reason['text']} ({reason['code']})"
