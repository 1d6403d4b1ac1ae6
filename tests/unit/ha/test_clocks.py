"""Whose clock runs wild, by what the members said of theirs, however long that was on its way."""

import random
from dataclasses import replace

import pytest

from appliance.cluster.commands import Appoint
from appliance.cluster.config import Policy
from appliance.ha.clocks import APART_S, BUCKET_S, KEPT_S, Track, compared, heard, in_words, wild
from appliance.ha.plan import plan
from appliance.ha.seen import ClockReading, ClockSeen
from tests.unit.cluster.building import vacant, vote
from tests.unit.ha.building import heard as reported
from tests.unit.ha.building import report, situation

POLICY = Policy()
WALL_S = 1.79e9


def listened(rates, seconds=70.0, begin_s=1000.0, delay_s=lambda: 0.001, every_s=0.5, tracks=None, boots=None):
    """What one heard who had a report of each every half second; rates and offsets against its own clock."""
    tracks, boots, messages = dict(tracks or {}), boots or {}, []
    for number in range(int(seconds / every_s)):
        sent_s = begin_s + number * every_s
        for offset, (name, rate) in enumerate(rates.items()):
            boot_s = 5e5 * offset + (1 + rate) * sent_s
            said = ClockReading(boot_s, WALL_S + sent_s, boots.get(name, "boot"))
            messages.append((sent_s + delay_s(), name, said))
    for arrived_s, name, said in sorted(messages, key=lambda message: message[0]):
        tracks[name] = heard(tracks.get(name, Track()), said, arrived_s, WALL_S + arrived_s)
    return tracks, begin_s + seconds


def drifts(tracks, now_s):
    return {name: clock.drift for name, clock in compared(tracks, now_s).items()}


@pytest.mark.parametrize("wild_one", ["pg1", "pg2", "pg3"])
@pytest.mark.parametrize("rate", [0.03, -0.03, 0.012])
def test_of_three_the_one_that_runs_wild_is_named_whoever_compares(wild_one, rate):
    """Its own clock is the measure of whoever compares, so if that is the wild one the others seem to be."""
    for measure in ("pg1", "pg2", "pg3"):
        true = {name: rate if name == wild_one else 0.0 for name in ("pg1", "pg2", "pg3")}
        found = drifts(*listened({name: (1 + true[name]) / (1 + true[measure]) - 1 for name in true}))
        named = {name for name in found if wild(ClockSeen(0.0, found[name]), POLICY)}
        assert named == {wild_one}, (measure, found)
        assert found[wild_one] == pytest.approx(rate, abs=0.001)


def test_the_way_of_a_message_is_not_taken_for_drift():
    """Up to 2 s, worse and worse, and now and then one without delay."""
    chance = random.Random(7)
    growing = iter(range(10**9))

    def delay_s():
        return chance.choice([0.001, 0.3, 2.0, 0.002 * next(growing)])

    found = drifts(*listened({"pg1": 0.0, "pg2": 0.0, "pg3": 0.004}, 200, delay_s=delay_s))
    assert found == pytest.approx({"pg1": 0.0, "pg2": 0.0, "pg3": 0.004}, abs=0.002)


def test_nothing_is_said_before_there_is_enough_to_say_it_from():
    tracks, now_s = listened({"pg1": 0.0, "pg2": 0.05, "pg3": 0.0}, APART_S)
    assert set(drifts(tracks, now_s).values()) == {None}
    tracks, now_s = listened({"pg1": 0.0, "pg2": 0.05, "pg3": 0.0}, APART_S + 3 * BUCKET_S)
    assert drifts(tracks, now_s)["pg2"] == pytest.approx(0.05, abs=0.002)


def test_who_fell_silent_is_left_out_and_the_others_go_on():
    tracks, now_s = listened({"pg1": 0.0, "pg2": 0.05, "pg3": 0.0})
    later, now_s = listened({"pg1": 0.0, "pg3": 0.02}, 30, begin_s=now_s, tracks=tracks)
    assert set(compared(later, now_s)) == {"pg1", "pg3"}


def test_of_two_the_measure_is_whose_own_clock_it_is():
    found = drifts(*listened({"pg1": 0.0, "pg2": 0.05}))
    assert found == pytest.approx({"pg1": 0.0, "pg2": 0.05}, abs=0.001)
    assert compared({}, 5.0) == {}


def test_a_host_that_was_booted_anew_is_measured_anew():
    rates = {"pg1": 0.0, "pg2": 0.0, "pg3": 0.0}
    tracks, now_s = listened(rates)
    moved = {"pg1": 0.0, "pg3": 0.0, "pg2": 0.0}  # another offset: its clock began again
    unnoticed, _ = listened(moved, 30, begin_s=now_s, tracks=tracks)
    assert abs(drifts(unnoticed, now_s + 30)["pg2"]) > 0.5
    tracks, now_s = listened(moved, 30, begin_s=now_s, tracks=tracks, boots={"pg2": "another", "pg3": "another"})
    assert drifts(tracks, now_s) == pytest.approx({"pg1": 0.0, "pg2": None, "pg3": None})


def test_a_host_that_stood_still_with_its_clock_shows_for_a_while():
    """A virtual machine that was stopped: whatever it held a lease for had run out meanwhile."""
    rates = {"pg1": 0.0, "pg2": 0.0, "pg3": 0.0}
    tracks, now_s = listened(rates)
    before = tuple(replace(point, ahead_s=point.ahead_s + 12) for point in tracks["pg2"].points)
    tracks = {**tracks, "pg2": replace(tracks["pg2"], points=before)}
    shown, now_s = listened(rates, 30, begin_s=now_s, tracks=tracks)
    assert wild(compared(shown, now_s)["pg2"], POLICY)
    assert in_words(compared(shown, now_s)["pg2"]).endswith("% slow")
    later, now_s = listened(rates, KEPT_S + BUCKET_S, begin_s=now_s, tracks=shown)
    assert not wild(compared(later, now_s)["pg2"], POLICY)


def test_wall_clocks_are_compared_by_the_newest_message():
    tracks, now_s = listened({"pg1": 0.0, "pg2": 0.0, "pg3": 0.0})
    stepped = heard(tracks["pg3"], ClockReading(5.0, WALL_S + now_s + 200, "boot"), now_s, WALL_S + now_s)
    found = compared({**tracks, "pg3": stepped}, now_s)
    assert found["pg3"].wall_ahead_s == pytest.approx(200, abs=0.1)
    assert found["pg1"].wall_ahead_s == pytest.approx(0, abs=0.1)


def test_of_equals_one_whose_clock_runs_wild_does_not_win():
    def appointed(**clocks):
        votes = reported(*(report(name, vote=vote(name)) for name in ("pg2", "pg3")))
        known = {name: replace(seen, clock=clocks.get(name)) for name, seen in votes.items()}
        (command,) = plan(situation(vacant(), known, election_s=9.0)).commands
        assert isinstance(command, Appoint)
        return command.node, command.reason

    assert appointed()[0] == "pg2"
    node, reason = appointed(pg2=ClockSeen(0.0, 0.03), pg3=ClockSeen(0.0, 0.0))
    assert node == "pg3"
    assert reason.endswith("; not pg2: its clock runs 3.0% fast")
    both = appointed(pg2=ClockSeen(0.0, 0.03), pg3=ClockSeen(0.0, -0.03))
    assert both[0] == "pg2"
    assert "clock" not in both[1]
