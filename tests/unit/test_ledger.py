"""The ledger's own arithmetic: what counts as two primaries at a time, and as a loss that is not allowed."""

import pytest

from tests.harness.ledger import Audit, Row


def row(timeline, sent_s, acked_s, id_=0):
    return Row(id_, f"n{timeline}", timeline, sent_s, acked_s)


def audit(*rows, lost=()):
    return Audit(tuple(sorted(rows, key=lambda r: r.acked_s)), tuple(lost))


def test_a_row_of_the_old_epoch_after_the_new_one_has_acknowledged_is_a_conflict():
    found = audit(row(1, 0.0, 0.1), row(2, 5.0, 5.1), row(1, 5.2, 5.3))
    assert len(found.conflicts()) == 1
    with pytest.raises(AssertionError, match="two primaries"):
        found.expect_one_at_a_time()


def test_a_row_that_was_under_way_at_the_change_is_none():
    audit(row(1, 0.0, 0.1), row(2, 5.0, 5.1), row(1, 4.9, 5.2)).expect_one_at_a_time()


def test_nothing_acknowledged_proves_nothing():
    with pytest.raises(AssertionError, match="nothing"):
        audit().expect_one_at_a_time()


def test_a_loss_is_allowed_between_the_fault_and_the_fence_only():
    rows = [row(1, at_s - 0.1, at_s) for at_s in (1.0, 3.0, 9.0)]
    audit(*rows, lost=[rows[1]]).expect_loss_only_after(2.0, 6.0)
    for wrong in (rows[0], rows[2]):
        with pytest.raises(AssertionError):
            audit(*rows, lost=[wrong]).expect_loss_only_after(2.0, 6.0)
    with pytest.raises(AssertionError, match="lost"):
        audit(*rows, lost=[rows[1]]).expect_no_loss()


def test_gaps_and_epochs_follow_the_acknowledgements():
    found = audit(row(1, 0.0, 0.1), row(1, 0.2, 0.3), row(2, 4.0, 4.3))
    assert found.longest_gap_s() == pytest.approx(4.0)
    assert found.epochs() == [("n1", 1), ("n2", 2)]
