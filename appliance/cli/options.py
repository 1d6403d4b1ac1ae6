"""Options that several commands share, and how their texts are read."""

from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, TypeVar

import typer

from appliance.cli.exits import Code, CommandError
from appliance.cli.output import Format

Output = Annotated[Format, typer.Option("--output", "-o", help="JSON is the API's object.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only run the checks; 4 if one stands in the way.")]
Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="Follow it to its end, or print its id and exit with 5.")]
Timeout = Annotated[str, typer.Option(metavar="DURATION", help="How long to wait, like 30s or 2min.")]
Interval = Annotated[str, typer.Option(metavar="DURATION", help="Between two looks.")]
Reason = Annotated[str, typer.Option(help="Goes into the history.")]

ANYWHERE = ("--config", "--api", "--token")

E = TypeVar("E", bound=StrEnum)


def hoisted(arguments: Sequence[str]) -> list[str]:
    """Move the options that may stand anywhere to the front, where the parser wants them.

    After `join` a token is the one to join with.
    """
    front: list[str] = []
    rest: list[str] = []
    given = iter(arguments)
    for argument in given:
        if argument == "--":
            return [*front, *rest, argument, *given]
        if rest[:1] == ["join"] and argument.partition("=")[0] == "--token":
            rest.append(argument)
        elif argument in ANYWHERE:
            value = next(given, None)
            if value is None:
                raise CommandError(Code.USAGE, f"option '{argument}' requires an argument; see `appliance --help`")
            front += [argument, value]
        elif argument.startswith(tuple(f"{option}=" for option in ANYWHERE)):
            front.append(argument)
        else:
            rest.append(argument)
    return front + rest


def seconds(option: str, text: str, *, at_least_s: float = 0.0) -> float:
    """A duration with its unit; a bare number is seconds."""
    from appliance.cluster.config import ConfigError, duration_s

    try:
        found_s = duration_s(option, float(text) if text.replace(".", "", 1).isdecimal() else text)
    except ConfigError as error:
        raise CommandError(Code.USAGE, str(error)) from None
    if found_s < at_least_s:
        raise CommandError(Code.USAGE, f"{option}: {text!r} is too short; write {at_least_s:g}s or more")
    return found_s


def named(option: str, text: str | None) -> str:
    """Empty when the option is not there. A script's empty variable must not stand for anybody."""
    if text is not None and not text.strip():
        raise CommandError(Code.USAGE, f"{option}: {text!r} names nobody; name a member")
    return text or ""


def one_of(option: str, allowed: type[E], text: str) -> E:
    try:
        return allowed(text)
    except ValueError:
        raise CommandError(Code.USAGE, f"{option}: {text!r} is not one of {', '.join(allowed)}") from None
