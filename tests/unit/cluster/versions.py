"""Another version of us, as it might come after this one: it knows one more command, of the next format."""

from dataclasses import dataclass, replace

from appliance.cluster.apply import Applied, apply
from appliance.cluster.codec import THIS, Version, encode_command
from appliance.cluster.state import FORMAT

NEXT_FORMAT = FORMAT + 1


@dataclass(frozen=True, slots=True)
class Rename:
    name: str


NEXT = Version(NEXT_FORMAT, {**THIS.commands, "Rename": Rename}, {**THIS.since, "Rename": NEXT_FORMAT})
CARELESS = Version(FORMAT, NEXT.commands, THIS.since)
"""The same, by somebody who has forgotten to give the new command a format."""


def judge(state, command):
    """As the next version applies commands."""
    return Applied(replace(state, name=command.name)) if isinstance(command, Rename) else apply(state, command)


def encoded(command):
    """As the next version writes it."""
    return encode_command(command, NEXT)
