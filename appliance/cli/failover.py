"""Failover by hand. With `--allow-data-loss`: show what is known to be lost, have the cluster's name typed, and send
exactly what was shown, so that no more than that is given up.
"""

import secrets
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from appliance.cli.change import Change, Manner, carry_out, conclude, emit_checks, expect_terminal, typed
from appliance.cli.checks import check_lines, refused
from appliance.cli.client import Answer, Document, connect
from appliance.cli.exits import Code, CommandError
from appliance.cli.output import Format, Table, emit, say
from appliance.cluster.lsn import format_lsn

_PATH = "/api/v1/failovers"


@dataclass(frozen=True, slots=True)
class Stated:
    """What the command line says, for want of a terminal to ask on."""

    cluster: str
    stopped: str
    """the last primary, whose host is off (R16)"""


def failover(to: str, reason: str, manner: Manner) -> int:
    question = f"Make {to} the primary now? (Refused if more could be lost by it than the configuration allows.)"
    return carry_out(Change("failover", _PATH, {"to": to, "reason": reason}, question), manner)


def failover_with_loss(to: str, reason: str, stated: Stated, manner: Manner) -> int:
    """Raises CommandError 4 when the cluster is not named, by typing it or with `--cluster`.

    Likewise the last primary, where only whoever asks can know that it does not go on.
    """
    if not manner.dry_run:
        _expect_name(stated.cluster, manner)
    body: dict[str, Any] = {"to": to, "reason": reason, "allow_data_loss": True}
    client = connect()
    shown = client.change(_PATH, body, operation=secrets.token_hex(8), dry_run=True)
    if manner.dry_run:
        _emit(shown, manner.output)
        return Code.DONE
    if not shown.ok:
        raise refused("failover", shown)
    say(sys.stderr, *_lines(shown))
    prospect = shown.body["prospect"]
    name = stated.cluster if manner.yes else typed("Type the name of the cluster to give that up for good: ")
    if not name:
        raise CommandError(Code.REFUSED, "failover not confirmed; nothing was changed")
    body |= {"cluster": name, "accepts": prospect["accepts"] | {"stopped": _stopped(prospect, stated, manner)}}
    operation = secrets.token_hex(8)
    answer = client.change(_PATH, body, operation=operation)
    if not answer.ok:
        raise refused("failover", answer)
    return conclude(client, answer, operation, manner)


def _expect_name(cluster: str, manner: Manner) -> None:
    if manner.yes and not cluster:
        raise CommandError(Code.REFUSED, "with --allow-data-loss --yes is not enough; pass --cluster NAME as well")
    if not manner.yes:
        expect_terminal("failover --allow-data-loss", "--yes and --cluster NAME")


def _stopped(prospect: Document, stated: Stated, manner: Manner) -> str:
    """The last primary, as far as it is stated to be stopped. Raises CommandError 4 where that is needed and is not."""
    if stated.stopped or not prospect["may_write"]:
        return stated.stopped
    primary = prospect["primary"]
    if manner.yes:
        message = f"only you can know that {primary} is stopped: switch its host off, then pass --stopped {primary} too"
        raise CommandError(Code.REFUSED, message)
    name = typed(f"Type the name of the last primary to state that its host is off ({primary}): ")
    if name != primary:
        raise CommandError(Code.REFUSED, f"nobody stated that {primary} is stopped; nothing was changed")
    return name


def _emit(shown: Answer, output: Format) -> None:
    """The dry run. Raises CommandError 4 when a check stands in the way."""
    if not shown.ok:
        emit_checks("failover", shown, output)
    emit(shown.body, _table(shown.body["prospect"]), output, text=_lines(shown))


def _lines(shown: Answer) -> list[str]:
    return [*check_lines(shown.body["checks"]), *prospect_lines(shown.body["prospect"])]


def prospect_lines(prospect: Document) -> Iterator[str]:
    """What is known of the last primary, what everybody has, and what would be given up."""
    yield ""
    yield _known(prospect)
    yield ""
    yield from _table(prospect).lines()
    yield ""
    yield _given_up(prospect)
    if prospect["may_write"]:
        yield ""
        yield _may_write(prospect)


def _known(prospect: Document) -> str:
    if prospect["known"] is None:
        return f"No position of {prospect['primary']}, the last primary, is known."
    age_s = prospect["known_age_s"]
    age = "nobody knows how old that is" if age_s is None else f"reported {age_s:.1f} s ago"
    return (
        f"Last known position of {prospect['primary']}, the last primary: {_at(prospect['known'])}, {age}."
        " What it acknowledged after that is in no number here."
    )


def _given_up(prospect: Document) -> str:
    target, much = prospect["target"], prospect["lost_bytes"]
    if not prospect["objection"]:
        return f"Nothing stands in the way of {target}: the rules would appoint it without a loss."
    bytes_ = "an unknown amount" if much is None else f"{much} bytes"
    return (
        f"With {target} is given up: {bytes_} of what is known, and what is not. In the way is {prospect['objection']}"
    )


def _may_write(prospect: Document) -> str:
    primary, target = prospect["primary"], prospect["target"]
    return (
        f"{prospect['may_write']}. With --stopped {primary} you state that it is stopped, and that its host is off or"
        f" gone: neither paused nor merely out of reach. Should it run after all, {primary} and {target} are primaries"
        " at one time."
    )


def _table(prospect: Document) -> Table:
    header = ["CANDIDATE", "TL", "LSN", "BEHIND (BYTES)", "STREAMING", "AGE", "IN ITS WAY"]
    return Table(header, [_row(candidate) for candidate in prospect["candidates"]])


def _row(candidate: Document) -> list[str]:
    position, behind, age_s = candidate["position"], candidate["behind_bytes"], candidate["age_s"]
    failed = [check for check in candidate["checks"] if not check["ok"]]
    return [
        candidate["member"],
        "-" if position is None else str(position["timeline"]),
        "-" if position is None else format_lsn(position["lsn"]),
        "?" if behind is None else str(behind),
        "yes" if candidate["streaming"] else "no",
        "-" if age_s is None else f"{age_s:.1f} s",
        "; ".join(f"{check['detail']} ({check['code']})" for check in failed) or "-",
    ]


def _at(position: Document) -> str:
    return f"{format_lsn(position['lsn'])} on timeline {position['timeline']}"
