"""The table of checks behind an acceptance or a refusal: every check, per candidate, with its numbers."""

from collections.abc import Sequence
from typing import Any

from appliance.cli.client import Answer
from appliance.cli.exits import Code, CommandError
from appliance.cli.output import Table


def check_lines(checks: Sequence[dict[str, Any]]) -> list[str]:
    """Nothing for no checks; else a table, those about the cluster first."""
    if not checks:
        return []
    rows = [
        ["✓" if check["ok"] else "✗", check["candidate"] or "cluster", check["code"], check["detail"]]
        for check in checks
    ]
    return Table(["OK", "CANDIDATE", "CHECK", "DETAIL"], rows).lines()


def refused(what: str, answer: Answer) -> CommandError:
    """What the checks stand in the way of. Nothing was changed."""
    hint = f"; {answer.text('hint')}" if answer.text("hint") else ""
    checks = answer.body.get("checks", [])
    return CommandError(
        Code.REFUSED, f"{what} refused: {answer.text('detail')} ({answer.code}){hint}", check_lines(checks)
    )
