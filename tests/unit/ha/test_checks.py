"""The table of checks that a switchover or failover is measured by, and which of them is told first."""

import pytest

from appliance.cluster.state import ClusterState, LeaseStatus, NodeRole
from appliance.ha.checks import (
    Check,
    candidate_checks,
    confirmed_check,
    failover_checks,
    refusal,
    switchover_checks,
)
from appliance.ha.seen import WatchdogSeen
from tests.unit.cluster.building import LIMIT, LSN, contested, member, state, vacant, with_members

from .building import ALL, POLICY, WAITING, heard, operation, report

NO_DEVICE = WatchdogSeen("/dev/watchdog", required=True, problem="/dev/watchdog: absent")


def switchover(present=None, reports=None, target="pg2", expected=""):
    failed = refusal(
        switchover_checks(present or state(), ALL if reports is None else reports, POLICY, target, expected)
    )
    return failed and (failed.code, failed.candidate)


def test_a_healthy_cluster_may_switch_over():
    assert switchover() is None
    assert switchover(target="") is None
    assert switchover(expected="pg1") is None


def test_a_witness_is_not_tried_as_the_best_candidate():
    present = with_members(state(), member("pg2", NodeRole.WITNESS))
    assert {c.candidate for c in switchover_checks(present, ALL, POLICY, "")} == {"", "pg3"}


@pytest.mark.parametrize(
    ("present", "reports", "expected"),
    [
        (ClusterState(), ALL, ("cluster.initialised", "")),
        (vacant(), ALL, ("cluster.primary", "")),
        (state(operations=(operation(),)), ALL, ("operation.running", "")),
        (with_members(state(), member("pg2", NodeRole.WITNESS)), ALL, ("candidate.data", "pg2")),
        (with_members(state(), member("pg2", rebuilding=True)), ALL, ("candidate.data", "pg2")),
        (with_members(state(), member("pg2", tags={"nofailover": True})), ALL, ("candidate.nofailover", "pg2")),
        (state(), ALL | heard(report("pg2", watchdog=NO_DEVICE)), ("candidate.watchdog", "pg2")),
        (state(), {}, ("candidate.reachable", "pg2")),
        (state(), ALL | heard(report("pg2"), age_s=2.1), ("candidate.reachable", "pg2")),
        (state(), ALL | heard(report("pg2", running=False)), ("candidate.reachable", "pg2")),
        (state(), ALL | heard(report("pg2", ending=True)), ("candidate.reachable", "pg2")),
        (state(), ALL | heard(report("pg2", streaming=False)), ("candidate.streaming", "pg2")),
        (state(), ALL | heard(report("pg2", timeline=1)), ("candidate.streaming", "pg2")),
        (state(), ALL | heard(report("pg2", lsn=LSN - LIMIT - 1)), ("candidate.lagging", "pg2")),
        (state(), ALL | heard(report("pg1", lsn=LSN + LIMIT + 1)), ("candidate.lagging", "pg2")),
    ],
)
def test_a_switchover_is_refused_with_the_check_that_failed(present, reports, expected):
    assert switchover(present, reports) == expected


def test_an_unknown_or_present_primary_is_no_target():
    assert switchover(target="pg9") == ("member.unknown", "pg9")
    assert switchover(target="pg1") == ("candidate.not_primary", "pg1")
    assert switchover(expected="pg2") == ("cluster.primary_name", "")


def test_the_first_failure_ends_a_candidates_list_and_says_the_numbers():
    checks = candidate_checks(state(), ALL | heard(report("pg2", lsn=0)), POLICY, "pg2")

    assert not checks[-1].ok
    assert all(c.ok for c in checks[:-1])
    behind = f"{LSN} bytes behind, maximum_lag_on_failover is {LIMIT}"
    assert checks[-1].detail == f"{behind}: wait until it has caught up"


@pytest.mark.parametrize(
    ("reports", "tags", "words"),
    [
        (heard(report("pg2"), age_s=2.1), {}, "silent for 2.1 s, the limit is 2 s: is its node process running"),
        (heard(report("pg2", running=False, status="crashed", doing="no room")), {}, "PostgreSQL crashed: no room"),
        (heard(report("pg2", streaming=False, doing="clone for 3 s")), {}, "from the primary: clone for 3 s"),
        ({}, {"nofailover": True}, "tag nofailover: name another, or take the tag from its node.yml"),
    ],
)
def test_a_check_that_fails_says_what_would_change_it(reports, tags, words):
    checks = candidate_checks(with_members(state(), member("pg2", tags=tags)), ALL | reports, POLICY, "pg2")

    assert words in checks[-1].detail


def test_a_failover_away_from_a_living_primary_looks_at_the_lag_of_a_node_that_does_not_stream():
    """Else the primary would be stopped for a target that cannot win."""
    reports = ALL | heard(report("pg2", streaming=False, lsn=0))
    failed = refusal(failover_checks(state(), reports, POLICY, "pg2", allow_data_loss=False))

    assert failed is not None
    assert failed.code == "candidate.lagging"


def test_nothing_is_given_up_that_a_living_primary_has():
    reports = ALL | heard(report("pg2", streaming=False, lsn=0))
    failed = refusal(failover_checks(state(), reports, POLICY, "pg2", allow_data_loss=True))

    assert failed is not None
    assert (failed.code, failed.candidate) == ("loss.needless", "")
    assert "pg1 is open and reported 0.2 s ago" in failed.detail
    for without in (heard(report("pg1"), age_s=2.1), heard(report("pg1", running=False)), {}):
        others = {name: seen for name, seen in reports.items() if name != "pg1"} | without
        assert refusal(failover_checks(state(), others, POLICY, "pg2", allow_data_loss=True)) is None


def test_r7_is_asked_before_a_failover_begins_that_could_find_nobody():
    only = heard(report("pg2"))
    refused = failover_checks(contested(), only, WAITING, "pg2", allow_data_loss=False)[-1]
    accepted = failover_checks(contested(), only, WAITING, "pg2", allow_data_loss=True)[-1]

    assert (refused.code, refused.ok) == ("quorum.votes_missing", False)
    assert refused.detail == (
        "no vote of pg1, the last primary, and 1 of 2 needed votes of pg2, pg3: start those nodes, or accept the loss"
        " with --allow-data-loss"
    )
    assert (accepted.ok, accepted.detail.endswith("of pg2, pg3 (accepted)")) == (True, True)
    both = failover_checks(contested(), heard(report("pg2"), report("pg3")), WAITING, "pg2", allow_data_loss=False)[-1]
    assert both.detail == "2 votes, 2 of them of pg2, pg3, where 2 suffice (k = 1)"
    back = failover_checks(contested(), heard(report("pg1"), report("pg2")), WAITING, "pg2", allow_data_loss=False)[-1]
    assert back.detail == "2 votes, one of them of pg1, the last primary"


def test_whoever_gives_up_commits_names_the_cluster():
    assert confirmed_check(state(), "shop").ok
    for named in ("", "Shop", "pg1"):
        check = confirmed_check(state(), named)
        assert (check.code, check.ok) == ("loss.confirmed", False)


def test_a_failover_names_the_way_to_accept_the_loss():
    reports = ALL | heard(report("pg2", lsn=0))
    refused = failover_checks(vacant(), reports, POLICY, "pg2", allow_data_loss=False)[-2:]
    accepted = failover_checks(vacant(), reports, POLICY, "pg2", allow_data_loss=True)

    assert refused[-1].detail.endswith(": wait until it has caught up, or accept the loss with --allow-data-loss")
    assert next(c for c in accepted if c.code == "candidate.lagging").detail.endswith(f"is {LIMIT} (accepted)")


def test_without_a_target_one_fit_standby_is_enough():
    assert switchover(reports=ALL | heard(report("pg2", streaming=False)), target="") is None
    assert switchover(reports=heard(report("pg1")), target="") == ("candidate.reachable", "pg2")


def test_without_any_standby_the_refusal_says_so():
    alone = state(members={"pg1": member("pg1")})

    assert switchover(alone, target="") == ("candidate.none", "")


def test_a_failover_asks_less_but_needs_a_reachable_node_with_data():
    def failed(reports, *, loss=False):
        found = refusal(failover_checks(vacant(), reports, POLICY, "pg2", allow_data_loss=loss))
        return found and found.code

    assert failed(ALL) is None
    assert failed(ALL | heard(report("pg2", streaming=False))) is None
    assert failed({}) == "candidate.reachable"
    assert failed(ALL | heard(report("pg2", lsn=0))) == "candidate.lagging"
    assert failed(ALL | heard(report("pg2", lsn=0)), loss=True) is None


def test_a_cluster_check_is_told_before_a_candidates():
    checks = (Check("candidate.data", "pg2", False, ""), Check("cluster.primary", "", False, ""))

    assert refusal(checks).code == "cluster.primary"
    assert refusal(()).code == "candidate.none"


def test_a_lost_lease_is_no_primary():
    assert switchover(state(lease=LeaseStatus.EXPIRED)) == ("cluster.primary", "")
