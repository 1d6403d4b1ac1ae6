"""The checks of a chaos run must be able to fail: each is given a ledger or contents that break what it is for."""

from dataclasses import replace

import pytest

from tests.chaos.checks import ACCOUNTS, BALANCE, TOTAL, Contents, Window, check, longest_gap_s, percentiles
from tests.chaos.ledger import Kind, Operation, Outcome, line, read

EMPTY = Contents(frozenset(), {}, dict.fromkeys(range(ACCOUNTS), BALANCE), {})


def operation(kind, id_, begun_s, ended_s, timeline=1, outcome=Outcome.ACKNOWLEDGED, **more):
    return Operation("c", kind, id_, begun_s, ended_s, outcome, f"n{timeline}", timeline, **more)


def insert(id_, begun_s=0.0, ended_s=0.1, timeline=1, **more):
    return operation(Kind.INSERT, id_, begun_s, ended_s, timeline, **more)


def append(id_, begun_s, ended_s, items, **more):
    return operation(Kind.APPEND, id_, begun_s, ended_s, key="l", items=items, **more)


def found(operations, contents=EMPTY, mode="quorum", windows=()):
    return check(operations, contents, windows, mode)


def violations(operations, contents=EMPTY, mode="quorum", windows=()):
    return "\n".join(found(operations, contents, mode, windows).violations)


def holding(*ids, **more):
    return replace(EMPTY, inserts=frozenset(ids), **more)


# What is lost


def test_what_was_acknowledged_and_is_there_breaks_nothing():
    verdict = found([insert(1), insert(2)], holding(1, 2))
    assert (verdict.violations, verdict.lost) == ((), 0)


@pytest.mark.parametrize("mode", ["quorum", "on"])
def test_an_acknowledged_insert_that_is_not_there_is_lost(mode):
    verdict = found([insert(1), insert(2)], holding(1), mode, [Window(0, 1)])
    assert verdict.lost == 1
    assert "acknowledged and lost: 1" in verdict.violations[0]


def test_of_unknown_outcome_it_may_be_there_or_not():
    unknown = [insert(1, outcome=Outcome.UNKNOWN), insert(2, outcome=Outcome.UNKNOWN)]
    assert found(unknown, holding(1)).violations == ()


def test_in_mode_off_a_loss_under_faults_is_counted_and_one_in_calm_is_a_violation():
    verdict = found([insert(1, 4.9, 5.0)], mode="off", windows=[Window(4.5, 9.0)])
    assert (verdict.violations, verdict.lost) == ((), 1)
    for window in (Window(5.5, 9.0), Window(1.0, 4.5)):
        assert "everything streamed" in violations([insert(1, 4.9, 5.0)], mode="off", windows=[window])


def test_an_acknowledged_transfer_with_another_amount_is_lost():
    moved = operation(Kind.TRANSFER, 7, 0, 1, moved=(0, 1, 30))
    balances = EMPTY.balances | {0: BALANCE - 20, 1: BALANCE + 20}
    assert "acknowledged and lost" in violations([moved], replace(EMPTY, transfers={7: (0, 1, 20)}, balances=balances))


# What should not be there


def test_what_failed_must_not_be_there():
    assert "failed, and there" in violations([insert(1, outcome=Outcome.FAILED)], holding(1))


def test_a_row_that_nobody_wrote_is_told():
    assert "written by nobody" in violations([], holding(9))


# The bank


def test_a_transfer_that_moved_money_once_breaks_nothing():
    moved = operation(Kind.TRANSFER, 7, 0, 1, moved=(0, 1, 30))
    balances = EMPTY.balances | {0: BALANCE - 30, 1: BALANCE + 30}
    assert violations([moved], replace(EMPTY, transfers={7: (0, 1, 30)}, balances=balances)) == ""


@pytest.mark.parametrize("balances", [{0: BALANCE - 60, 1: BALANCE + 60}, {0: BALANCE - 30, 1: BALANCE}, {}])
def test_a_transfer_that_moved_money_twice_or_half_or_not_at_all_is_a_double_spend(balances):
    moved = operation(Kind.TRANSFER, 7, 0, 1, moved=(0, 1, 30))
    contents = replace(EMPTY, transfers={7: (0, 1, 30)}, balances=EMPTY.balances | balances)
    assert "double spend" in violations([moved], contents)


def test_a_snapshot_with_another_sum_is_told():
    def snapshot(total):
        return operation(Kind.READ, 3, 0, 1, 0, total=total)

    assert violations([snapshot(TOTAL)]) == ""
    assert "sum is not" in violations([snapshot(TOTAL - 1)])


# Lists


def listed(*items):
    return replace(EMPTY, lists={"l": items})


def test_a_list_that_grew_as_it_was_acknowledged_breaks_nothing():
    history = [append(1, 0, 1, (1,)), append(2, 2, 3, (1, 2)), append(3, 2, 4, (1, 2, 3))]
    assert violations(history, listed(1, 2, 3)) == ""


def test_an_append_that_saw_another_beginning_is_told():
    """Two primaries appended to the same list, and one of the two was kept."""
    history = [append(1, 0, 1, (1,)), append(3, 2, 3, (2, 3))]
    assert "not as it went on" in violations(history, listed(1, 3))


def test_in_mode_off_what_an_append_saw_may_be_lost_but_not_change_its_place():
    history = [append(1, 0, 1, (1,)), append(3, 2, 3, (1, 2, 3)), append(2, 1, 2, (1, 2), outcome=Outcome.UNKNOWN)]
    assert violations(history, listed(1, 3), "off", [Window(0, 9)]) == ""
    assert "not as it went on" in violations(history, listed(1, 3), "quorum")
    assert "not as it went on" in violations(history, listed(3, 1), "off", [Window(0, 9)])


def test_an_item_twice_is_told():
    assert "twice" in violations([append(1, 0, 1, (1,))], listed(1, 1))


def test_an_item_before_one_that_was_acknowledged_when_it_began_is_out_of_order():
    history = [append(1, 0, 1, (1,)), append(2, 2, 3, (2,))]
    assert "against the order" in violations(history, listed(2, 1))


def test_appends_that_overlap_may_stand_in_either_order():
    history = [append(1, 0, 3, (2, 1)), append(2, 1, 2, (2,))]
    assert violations(history, listed(2, 1)) == ""


def test_what_a_reader_saw_and_is_gone_is_counted():
    reader = operation(Kind.READ, 5, 0, 1, 0, total=TOTAL, key="l", items=(1, 2))
    verdict = found([reader, append(1, 0, 1, (1,)), append(2, 0, 1, (1, 2), outcome=Outcome.UNKNOWN)], listed(1))
    assert (verdict.violations, verdict.read_and_gone) == ((), 1)


# Epochs


def test_an_old_epoch_that_acknowledges_what_began_after_a_newer_one_did_is_told():
    history = [insert(1, 0, 1, 1), insert(2, 2, 3, 2), insert(3, 3.1, 3.2, 1)]
    assert "two primaries at a time" in violations(history, holding(1, 2, 3))


def test_also_the_oldest_of_three():
    history = [insert(1, 0, 1, 3), insert(2, 2, 3, 2), insert(3, 0.5, 3.2, 1)]
    assert "two primaries at a time: begun after a newer epoch had acknowledged: 1," in violations(
        history, holding(1, 2, 3)
    )


def test_what_was_under_way_at_the_change_is_no_conflict():
    history = [insert(1, 0, 1, 1), insert(2, 2, 3, 2), insert(3, 2.9, 3.2, 1)]
    assert violations(history, holding(1, 2, 3)) == ""


def test_a_timeline_of_two_nodes_is_told():
    history = [insert(1), replace(insert(2), node="n3")]
    assert "timeline 1 acknowledged by n1, n3" in violations(history, holding(1, 2))


# Figures and files


def test_the_longest_gap_counts_from_the_windows_begin_and_to_its_end():
    acks = [insert(1, 0, 1.0), insert(2, 0, 1.5), insert(3, 0, 9.0, outcome=Outcome.UNKNOWN)]
    assert longest_gap_s(acks, Window(0.8, 2.0)) == pytest.approx(0.5)
    assert longest_gap_s(acks, Window(0.8, 6.0)) == pytest.approx(4.5)
    assert longest_gap_s(acks, Window(-3.0, 1.2)) == pytest.approx(4.0)


def test_percentiles_of_one_and_of_none():
    assert percentiles([]) == {}
    assert percentiles([2.0]) == {"p50": 2.0, "p95": 2.0, "max": 2.0}
    assert percentiles([1.0, 3.0])["max"] == 3.0


def test_a_ledger_is_read_as_it_was_written(tmp_path):
    history = [
        append(1, 0, 3, (1,)),
        operation(Kind.TRANSFER, 2, 0, 1, outcome=Outcome.UNKNOWN, moved=(1, 2, 3), why="gone"),
        operation(Kind.READ, 3, 0, 2, 0, total=TOTAL, key="l"),
    ]
    for number, each in enumerate(history):
        (tmp_path / f"{number}.jsonl").write_text(line(each))
    assert read(tmp_path) == sorted(history, key=lambda each: each.ended_s)
