"""How late the raft thread was, as a look now and then must find it."""

from raft.ticks import WINDOW_S, Ticks


def run(ticks, begin_s, end_s, late_s=0.0):
    """Ticks a tenth of a second apart."""
    for tenth in range(round(begin_s * 10), round(end_s * 10)):
        ticks.note(tenth / 10, tenth / 10 - late_s)


def test_the_last_one_the_longest_of_a_minute_and_all_that_were_too_late():
    ticks = Ticks()
    run(ticks, 1000, 1010, late_s=0.01)
    ticks.note(1010.25, 1010.0)
    ticks.note(1010.26, 1010.4)
    assert (ticks.late_s, ticks.late_longest_s, ticks.late_count) == (0.0, 0.25, 1)
    ticks.note(1010.5, 1010.5 - 0.0625)
    assert (ticks.late_s, ticks.late_longest_s, ticks.late_count) == (0.0625, 0.25, 1)


def test_the_longest_is_forgotten_after_a_minute_and_not_before():
    ticks = Ticks()
    ticks.note(1003.0, 1001.0)
    run(ticks, 1003, 1003 + WINDOW_S)
    assert ticks.late_longest_s == 2.0
    run(ticks, 1003 + WINDOW_S, 1003 + WINDOW_S * 7 / 6 + 1)
    assert (ticks.late_longest_s, ticks.late_count) == (0.0, 1)


def test_who_has_slept_remembers_the_sleep_alone():
    ticks = Ticks()
    ticks.note(1000.0, 995.0)
    ticks.note(90_000.0, 89_999.0)
    assert (ticks.late_longest_s, ticks.late_count) == (1.0, 2)
