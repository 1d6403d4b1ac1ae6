"""The small commands that only read: history, operations, version."""

import platform
import re

from appliance import __version__
from appliance.cli.change import operation_table
from appliance.cli.client import Answer, Document, connect
from appliance.cli.exits import Code, CommandError
from appliance.cli.output import Format, Table, emit

_OPERATION_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")


def history(output: Format, limit: int) -> int:
    """Newest first, as people ask for it."""
    document = read("/api/v1/history")
    entries = list(reversed(document["history"]))[:limit]
    rows = [
        [
            *(e["at"], str(e["epoch"]), str(e["timeline"]), e["change"], e["previous"] or "-", e["primary"]),
            *(_lost(e["lost"]), e["reason"]),
        ]
        for e in entries
    ]
    emit(entries, Table(["WHEN", "EPOCH", "TL", "CHANGE", "FROM", "TO", "LOST", "REASON"], rows), output)
    return Code.DONE


def _lost(lost: Document | None) -> str:
    """What a person has given up with it, as far as anybody knows; all of it: `appliance explain`."""
    if lost is None:
        return "-"
    much = "unknown" if lost["bytes"] is None else f">= {lost['bytes']} B"
    return f"{much} by {lost['requester']}"


def operations(output: Format) -> int:
    listed = list(reversed(read("/api/v1/operations")["operations"]))
    emit(listed, operation_table(listed), output)
    return Code.DONE


def operation(name: str, output: Format) -> int:
    if not _OPERATION_ID.fullmatch(name):
        shown = repr(name if len(name) <= 60 else f"{name[:57]}...")
        raise CommandError(Code.USAGE, f"{shown} is no operation's id; `appliance operations list` shows them")
    found = read(f"/api/v1/operations/{name}")
    header = f"{found['kind']} {found['id']}: {found['phase']}  {found['message']}".rstrip()
    marks = [f"  {mark['at']}  {mark['phase']}  {mark['detail']}".rstrip() for mark in found["marks"]]
    emit(found, operation_table([found]), output, text=[header, *marks])
    return Code.DONE


def version(output: Format) -> int:
    document = {"appliance": __version__, "python": platform.python_version()}
    emit(document, Table(["VERSION", "PYTHON"], [list(document.values())]), output, text=[f"appliance {__version__}"])
    return Code.DONE


def read(path: str) -> Document:
    answer = connect().get(path)
    if not answer.ok:
        raise CommandError(_read_code(answer), answer.text("detail") or f"HTTP {answer.status}")
    body: Document = answer.body
    return body


def _read_code(answer: Answer) -> Code:
    return Code.NOT_ALLOWED if answer.status in {401, 403} else Code.FAILED
