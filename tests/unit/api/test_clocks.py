"""What the status and the metrics say of clocks that leases cannot rely on."""

from dataclasses import replace

import pytest

from appliance.api.present import Present
from appliance.api.verdict import findings
from appliance.cluster.config import Policy
from appliance.ha.seen import ClockSeen
from tests.unit.api.building import TAKEN_S, published
from tests.unit.api.test_metrics import samples


def with_clock(name, clock, **policy):
    value = published(policy=Policy(**policy))
    return replace(value, reports={**value.reports, name: replace(value.reports[name], clock=clock)})


@pytest.mark.parametrize(
    ("name", "clock", "mode", "expected"),
    [
        ("pg2", ClockSeen(0.0, 0.0101), "quorum", ("clock.drift", "degraded")),
        ("pg1", ClockSeen(0.0, -0.0101), "quorum", ("clock.drift", "degraded")),
        ("pg1", ClockSeen(0.0, -0.0101), "off", ("clock.drift", "critical")),
        ("pg2", ClockSeen(0.0, -0.0101), "off", ("clock.drift", "degraded")),
        ("pg2", ClockSeen(10.1, 0.0), "quorum", ("clock.wall", "degraded")),
        ("pg1", ClockSeen(-10.1), "quorum", ("clock.wall", "degraded")),
    ],
)
def test_codes_and_severities(name, clock, mode, expected):
    (said,) = findings(Present.at(with_clock(name, clock, synchronous_mode=mode), TAKEN_S))
    assert (said.code, said.severity, said.member) == (*expected, name)


def test_messages_have_the_numbers():
    (said,) = findings(Present.at(with_clock("pg2", ClockSeen(0.0, 0.031)), TAKEN_S))
    assert said.message == "pg2: its clock runs 3.1% fast, measured by all members; clock_drift allows 1.0%"
    (said,) = findings(Present.at(with_clock("pg2", ClockSeen(-200.0)), TAKEN_S))
    assert said.message == "the wall clock of pg2 is 200 s behind those of the members together"


def test_clocks_that_are_right_or_not_compared_yet_are_no_problem():
    for clock in (None, ClockSeen(9.9), ClockSeen(-9.9, 0.0099)):
        assert findings(Present.at(with_clock("pg2", clock), TAKEN_S)) == ()


def test_the_numbers_are_metrics():
    shown = samples(with_clock("pg2", ClockSeen(1.5, -0.02)))
    assert shown["appliance_clock_drift", "pg2"] == -0.02
    assert shown["appliance_clock_wall_ahead_seconds", "pg2"] == 1.5
    assert ("appliance_clock_drift", "pg3") not in shown
