"""One seed is one schedule, and every kind has its turn."""

from itertools import islice

import pytest

from tests.chaos.faults import FAULTS, OPERATIONS
from tests.chaos.schedule import FaultKind, rounds

KINDS = [FaultKind(f"fault {number}", (1.0, 2.0)) for number in range(7)]
ERRANDS = [FaultKind("errand")]


def schedule(seed, count=60, kinds=KINDS, mode="quorum"):
    return list(islice(rounds(seed, kinds, ERRANDS, mode), count))


def test_a_seed_is_one_schedule():
    assert schedule(1) == schedule(1)
    assert schedule(1) != schedule(2)
    assert schedule(1, 10) == schedule(1, 20)[:10]


def test_every_kind_strikes_before_any_strikes_again():
    names = [strike.kind for round_ in schedule(3) for strike in round_.strikes if strike.kind != "errand"]
    counts = [names.count(kind.name) for kind in KINDS]
    assert max(counts) - min(counts) <= 1
    assert "errand" in {strike.kind for round_ in schedule(3) for strike in round_.strikes}


def test_strikes_come_in_their_order_and_last_as_long_as_their_kind_may():
    for round_ in schedule(4):
        assert round_.strikes
        assert [strike.at_s for strike in round_.strikes] == sorted(strike.at_s for strike in round_.strikes)
        assert all(strike.kind == "errand" or 1.0 <= strike.hold_s <= 2.0 for strike in round_.strikes)


def test_mode_off_has_no_faults_that_it_promises_nothing_about():
    kinds = [FaultKind("sync only", asynchronous=False), *(FaultKind(f"halt {n}", halts=True) for n in range(3))]
    for round_ in schedule(5, kinds=kinds, mode="off"):
        halts = [strike for strike in round_.strikes if strike.kind.startswith("halt")]
        assert len(halts) <= 1
        assert all(strike.kind != "sync only" for strike in round_.strikes)
    together = schedule(5, kinds=kinds)
    assert any(strike.kind == "sync only" for round_ in together for strike in round_.strikes)
    assert any(sum(s.kind.startswith("halt") for s in round_.strikes) > 1 for round_ in together)


@pytest.mark.parametrize("mode", ["quorum", "off"])
def test_the_real_faults_have_names_of_their_own_and_all_come(mode):
    names = [kind.name for kind in (*FAULTS, *OPERATIONS)]
    assert len(set(names)) == len(names)
    expected = {kind.name for kind in (*FAULTS, *OPERATIONS) if kind.asynchronous or mode != "off"}
    struck = {s.kind for r in islice(rounds(6, list(FAULTS), list(OPERATIONS), mode), 80) for s in r.strikes}
    assert struck == expected
