"""Switchover, failover and bootstrap: say what will happen, ask, request it, and follow it to its end."""

import secrets
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from appliance.cli.checks import check_lines, refused
from appliance.cli.client import Answer, Client, Document, connect, unknown
from appliance.cli.exits import Code, CommandError
from appliance.cli.output import Format, Table, emit, say

LOOK_S = 0.1


@dataclass(frozen=True, slots=True)
class Manner:
    """How a change is to be carried out."""

    yes: bool
    dry_run: bool
    wait: bool
    timeout_s: float
    output: Format


@dataclass(frozen=True, slots=True)
class Change:
    what: str
    """switchover or failover"""
    path: str
    body: Document
    question: str
    based_on: str = ""
    """the version of what it changes"""


def switchover(to: str, reason: str, manner: Manner) -> int:
    body = {"to": to, "reason": reason}
    question = f"Stop writes for about a second and make {to or 'the best candidate'} the primary?"
    return carry_out(Change("switchover", "/api/v1/switchovers", body, question), manner)


def carry_out(change: Change, manner: Manner) -> int:
    """Refusals end with 4 and the checks; an end that was not seen with 5 and the operation's id."""
    client, operation = connect(), secrets.token_hex(8)
    answer = request(client, change, operation, manner)
    return Code.DONE if answer is None else conclude(client, answer, operation, manner)


def conclude(client: Client, answer: Answer, operation: str, manner: Manner) -> int:
    """Follow what was accepted to its end, if that is wanted."""
    if not manner.wait:
        emit(answer.body, Table(["ID"], [[operation]]), manner.output, text=[operation])
        return Code.UNKNOWN
    return _ended(follow(client, operation, manner.timeout_s), manner.output)


def request(client: Client, change: Change, operation: str, manner: Manner) -> Answer | None:
    """Show the checks, ask, and send it; None after a dry run. Raises CommandError 4 when it is refused."""
    if not (manner.yes or manner.dry_run):
        expect_terminal(change.what)
    if manner.dry_run or not manner.yes:
        _show_plan(client, change, manner)
    if manner.dry_run:
        return None
    if not manner.yes:
        confirm(change.what, change.question)
    answer = client.change(change.path, change.body, operation=operation, based_on=change.based_on)
    if not answer.ok:
        raise refused(change.what, answer)
    return answer


def _show_plan(client: Client, change: Change, manner: Manner) -> None:
    """Show what a dry run says. Raises CommandError 4 when a check stands in the way."""
    answer = client.change(
        change.path, change.body, operation=secrets.token_hex(8), dry_run=True, based_on=change.based_on
    )
    if manner.dry_run:
        emit_checks(change.what, answer, manner.output)
    elif not answer.ok:
        raise refused(change.what, answer)
    else:
        say(sys.stderr, *_verdict(answer))


def emit_checks(what: str, answer: Answer, output: Format) -> None:
    """What a dry run is asked for are the checks, whether they pass or not. Raises CommandError 4 when one does not."""
    checks = answer.body.get("checks", [])
    if answer.ok or output is not Format.TABLE:
        rows = [[c["code"], c["candidate"], str(c["ok"]).lower(), c["detail"]] for c in checks]
        emit(answer.body, Table(["CHECK", "CANDIDATE", "OK", "DETAIL"], rows), output, text=_verdict(answer))
    if not answer.ok:
        raise refused(what, answer)


def _verdict(answer: Answer) -> list[str]:
    return [*check_lines(answer.body.get("checks", [])), answer.text("message")]


def expect_terminal(what: str, instead: str = "--yes") -> None:
    """Raises CommandError 4 when there is nobody to ask."""
    if not sys.stdin.isatty():
        raise CommandError(Code.REFUSED, f"{what} asks first and there is no terminal to ask on; pass {instead}")


def confirm(what: str, question: str) -> None:
    """Raises CommandError 4 when nobody says yes."""
    if typed(f"{question} [y/N] ").lower() not in {"y", "yes"}:
        raise CommandError(Code.REFUSED, f"{what} not confirmed; nothing was changed")


def typed(prompt: str) -> str:
    """What somebody types after the prompt; empty when nobody does."""
    sys.stderr.write(prompt)
    sys.stderr.flush()
    try:
        return sys.stdin.readline().strip()
    except KeyboardInterrupt:
        return ""


def follow(client: Client, operation: str, timeout_s: float) -> dict[str, Any]:
    """Stream the phases of an operation to stderr until it has ended, and return it."""
    deadline_s = time.monotonic() + timeout_s
    shown = 0
    try:
        while True:
            document = _look(client, operation)
            marks = document.get("marks", [])
            say(sys.stderr, *(_phase_line(mark) for mark in marks[shown:]))
            shown = max(shown, len(marks))
            if document.get("phase") in {"done", "failed"}:
                return document
            if time.monotonic() > deadline_s:
                raise unknown(operation, f"not ended within {timeout_s:g} s")
            time.sleep(LOOK_S)
    except KeyboardInterrupt:
        message = f"waiting was interrupted; the operation goes on: appliance operations show {operation}"
        raise CommandError(Code.INTERRUPTED, message) from None


def _look(client: Client, operation: str) -> dict[str, Any]:
    """The operation as the nodes know it; empty while none of them answers or knows it."""
    try:
        answer = client.get(f"/api/v1/operations/{operation}")
    except CommandError:
        return {}
    return answer.body if answer.ok else {}


def _phase_line(mark: Document) -> str:
    detail = f"  {mark['detail']}" if mark["detail"] else ""
    return f"  {mark['at']}  {mark['phase']}{detail}"


def _ended(operation: Document, output: Format) -> int:
    what, message = operation["kind"], operation["message"] or "no reason was recorded"
    if operation["phase"] != "done":
        raise CommandError(Code.FAILED, f"{what} {operation['id']} failed: {message}")
    emit(operation, operation_table([operation]), output, text=[f"✓ {what} done: {message}"])
    return Code.DONE


def operation_table(operations: Sequence[Document]) -> Table:
    rows = [
        [o["id"], o["kind"], o["source"] or "-", o["target"] or "-", o["phase"], o["requester"], o["message"] or "-"]
        for o in operations
    ]
    return Table(["ID", "KIND", "FROM", "TO", "PHASE", "BY", "MESSAGE"], rows)


def bootstrap(timeout_s: float, wait: bool, output: Format, dry_run: bool = False) -> int:
    """Initialise the cluster, once. Not asked for confirmation: a node whose data directory holds data refuses."""
    client = connect()
    operation = secrets.token_hex(8)
    answer = client.change("/api/v1/bootstrap", {}, operation=operation, dry_run=dry_run)
    if dry_run:
        emit_checks("bootstrap", answer, output)
        return Code.DONE
    if not answer.ok:
        raise refused("bootstrap", answer)
    if not wait:
        emit(answer.body, Table(["ID"], [[operation]]), output, text=[operation])
        return Code.UNKNOWN
    view = wait_for_primary(client, timeout_s, operation)
    if view is None:
        message = f"the cluster has no open primary after {timeout_s:g} s; see `appliance status`"
        raise CommandError(Code.UNKNOWN, message, [f"operation {operation}"])
    row = [view["name"], view["primary"], view["system_identifier"]]
    text = [f"✓ cluster {row[0]} is initialised: primary {row[1]}, system identifier {row[2]}"]
    emit(view, Table(["CLUSTER", "PRIMARY", "SYSTEM"], [row]), output, text=text)
    return Code.DONE


def expect_bootstrap(view: Document, operation: str) -> None:
    """Raises CommandError when the bootstrap of this id was given up."""
    failed = view.get("failed_bootstrap")
    if failed and failed["operation"] == operation:
        message = f"bootstrap on {failed['node']} was given up: {failed['reason']} (bootstrap.failed)"
        again = "nothing was kept; after a change of its node.yml restart the node process, then bootstrap again"
        raise CommandError(Code.FAILED, message, [again])


def wait_for_primary(client: Client, timeout_s: float, operation: str) -> Document | None:
    """The cluster once it has an open primary; None when the time is up. Says on stderr what it waits for.

    Raises CommandError when this bootstrap was given up.
    """
    deadline_s = time.monotonic() + timeout_s
    said = ""
    while time.monotonic() < deadline_s:
        try:
            view = client.cluster()
        except CommandError:
            view = {}
        if view and not [p for p in view["problems"] if p["severity"] == "critical"] and view["primary"]:
            return view
        expect_bootstrap(view, operation)
        doing = "; ".join(f"{m['name']}: {m['doing']}" for m in view.get("members", []) if m["doing"])
        if doing and doing != said:
            say(sys.stderr, f"  {doing}")
            said = doing
        time.sleep(LOOK_S)
    return None
