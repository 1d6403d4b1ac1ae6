"""R3, R4: the holder counts its lease from before it asked, and the guard ends PostgreSQL before the lease does."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.cluster.config import Policy
from appliance.ha.seen import LeaseSeen
from appliance.node.guard_client import GuardStatus
from appliance.node.lease import NO_LEASE, Lease, adopted

POLICY = Policy()


def status(**changes):
    base = GuardStatus(1, 1, True, None, False, None, None, None, None)
    return replace(base, **changes)


def test_a_renewal_counts_from_before_it_was_asked_for():
    lease = NO_LEASE.renewed(4, asked_s=100.0, policy=POLICY)

    assert lease == Lease(4, 100.0 + 6.0 * 0.99)
    assert lease.seen(103.0) == LeaseSeen(4, pytest.approx(2.94))
    assert lease.seen(200.0).left_s < 0


def test_an_answer_that_comes_late_never_shortens_the_lease():
    lease = NO_LEASE.renewed(4, 100.0, POLICY)

    assert lease.renewed(4, 99.0, POLICY) == lease
    assert lease.renewed(4, 101.0, POLICY).until_s > lease.until_s


def test_another_epoch_is_another_lease():
    assert Lease(4, 500.0).renewed(5, 100.0, POLICY) == Lease(5, 100.0 + POLICY.lease_s)


@given(st.floats(0, 1e6), st.floats(5, 60), st.floats(0.1, 1.0), st.floats(0, 0.1))
def test_the_guard_ends_postgresql_a_margin_before_the_lease(asked_s, ttl_s, margin_s, drift):
    policy = replace(POLICY, ttl_s=ttl_s, guard_margin_s=margin_s, clock_drift=drift)
    lease = NO_LEASE.renewed(7, asked_s, policy)
    deadline = lease.deadline(policy)

    assert deadline.epoch == 7
    assert deadline.at_s + 2 * deadline.half_margin_s == pytest.approx(lease.until_s)
    assert deadline.at_s < asked_s + ttl_s


def test_a_new_node_process_adopts_what_the_guard_still_knows():
    lease = Lease(4, 106.0)
    deadline = lease.deadline(POLICY)

    assert adopted(status(deadline_s=deadline.at_s, deadline_epoch=4)) == Lease(4, deadline.at_s)
    assert deadline.at_s < lease.until_s, "never longer than what was held, whatever the margin is"
    assert adopted(status()) == NO_LEASE
    assert adopted(status(deadline_s=5.0)) == NO_LEASE
