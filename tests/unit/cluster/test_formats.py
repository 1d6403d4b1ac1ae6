"""Each format of log and state is what it was: a change here would part clusters that run (docs/decisions/0013)."""

import json

import pytest

from appliance.cluster.codec import SINCE, THIS
from appliance.cluster.state import FORMAT
from appliance.node.machine import ClusterMachine
from tests.unit.cluster.recorded_formats import read, shapes

FORMATS = range(1, FORMAT + 1)


@pytest.mark.parametrize("number", FORMATS)
def test_the_commands_of_a_format_are_what_they_were(number):
    """Another command, field or value needs the next format, and a name of its own in SINCE."""
    assert shapes(number) == read(number, "shapes")


@pytest.mark.parametrize("number", FORMATS)
def test_a_log_of_a_format_comes_to_what_it_came_to(number):
    """Begins at a state, and ends at one, as they were written then."""
    machine = ClusterMachine()
    for walk in read(number, "log"):
        present = machine.load(walk["begin"].encode())
        applied = []
        for entry, _ in walk["steps"]:
            present, verdict = machine.apply(present, entry.encode())
            applied.append(verdict.refused is None)
        assert applied == [was for _, was in walk["steps"]]
        assert present == machine.load(walk["end"].encode())


def test_the_recorded_log_tries_every_command_of_the_first_format_in_both_ways():
    outcomes = {(json.loads(entry)["type"], was) for walk in read(1, "log") for entry, was in walk["steps"]}
    first = {name for name in THIS.commands if THIS.format_of(name) == 1}
    assert {name for name, was in outcomes if was} == first - {"RaiseFormat"}
    assert {name for name, was in outcomes if not was} == first


def test_what_came_later_is_a_command_that_there_is_and_of_a_format_that_there_is():
    assert set(SINCE) <= set(THIS.commands)
    assert all(1 < number <= FORMAT for number in SINCE.values())
    assert {*SINCE.values(), 1} == set(FORMATS)
