"""R3 on the raft leader: what a ledger confirms, and what it never confirms again (T13)."""

from hypothesis import given
from hypothesis import strategies as st

from appliance.node.coordinator import LeaseLedger, Watch

TTL_S = 6.0


def test_a_confirmation_is_remembered_in_its_term_only():
    ledger = LeaseLedger()

    assert ledger.confirm(1, 4, 10.0)
    assert ledger.confirmed_s(1, 4) == 10.0
    assert ledger.confirmed_s(2, 4) is None, "a new or re-elected raft leader forgets older notes"
    assert ledger.confirmed_s(1, 5) is None


def test_r3_the_last_confirmation_counts_whichever_is_noted_last():
    """Two requests are answered by two threads; one may be held up between its look at the clock and its note."""
    ledger = LeaseLedger()
    ledger.confirm(1, 4, 13.0)
    ledger.confirm(1, 4, 10.0)

    assert ledger.confirmed_s(1, 4) == 13.0


def test_t13_no_confirmation_after_a_deposition_was_begun_in_that_term():
    ledger = LeaseLedger()
    ledger.confirm(1, 4, 10.0)

    assert ledger.begin_deposing(1, 4, confirmed_before_s=10.1)
    assert not ledger.confirm(1, 4, 17.0)
    assert ledger.confirmed_s(1, 4) == 10.0
    assert ledger.confirm(1, 5, 17.0), "the next epoch is not its business"


def test_t13_a_confirmation_between_plan_and_proposal_stops_the_deposition():
    ledger = LeaseLedger()
    ledger.confirm(1, 4, 10.0)
    planned_s = 16.2
    ledger.confirm(1, 4, 16.1)

    assert not ledger.begin_deposing(1, 4, confirmed_before_s=planned_s - TTL_S)
    assert ledger.confirm(1, 4, 16.3)


def test_a_deposition_that_never_entered_the_log_is_forgotten():
    ledger = LeaseLedger()
    ledger.cease_deposing(4, ledger.begin_deposing(1, 4, 20.0))

    assert ledger.confirm(1, 4, 21.0)


def test_t13_what_is_said_late_of_an_earlier_deposition_does_not_end_a_later_one():
    ledger = LeaseLedger()
    first = ledger.begin_deposing(1, 4, 20.0)
    ledger.begin_deposing(1, 4, 20.0)
    ledger.cease_deposing(4, first)

    assert not ledger.confirm(1, 4, 21.0)


def test_a_new_term_begins_with_an_empty_ledger():
    ledger = LeaseLedger()
    ledger.confirm(1, 4, 10.0)
    ledger.begin_deposing(1, 4, 10.1)

    assert ledger.confirm(2, 4, 20.0)
    assert ledger.confirmed_s(2, 4) == 20.0


def test_what_comes_late_from_an_older_term_is_refused():
    ledger = LeaseLedger()
    ledger.confirm(2, 4, 10.0)

    assert not ledger.confirm(1, 4, 30.0)
    assert not ledger.begin_deposing(1, 4, 99.0)
    assert ledger.confirmed_s(2, 4) == 10.0


steps = st.lists(
    st.tuples(st.sampled_from(["confirm", "depose"]), st.integers(1, 3), st.integers(1, 2), st.floats(0, 9)),
    max_size=20,
)


@given(steps)
def test_t13_in_any_order_of_confirmations_and_depositions(taken):
    """Of two answers for one epoch in one term, none that says yes to a renewal comes after a yes to a deposition."""
    ledger, begun, highest, now_s = LeaseLedger(), set(), 0, 100.0
    for kind, term, epoch, passed_s in taken:
        now_s += passed_s
        highest = max(highest, term)
        if kind == "confirm":
            if ledger.confirm(term, epoch, now_s):
                assert (term, epoch) not in begun
                assert term == highest
        elif ledger.begin_deposing(term, epoch, now_s - TTL_S):
            before_s = ledger.confirmed_s(term, epoch)
            assert before_s is None or now_s - before_s > TTL_S
            begun.add((term, epoch))


def test_a_watch_counts_from_the_first_sight_of_a_change():
    watch = Watch()

    assert watch.age_s("a", 10.0) == 0.0
    assert watch.age_s("a", 12.5) == 2.5
    assert watch.age_s("b", 13.0) == 0.0
    assert watch.age_s("a", 14.0) == 0.0
