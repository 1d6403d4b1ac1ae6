"""What the status says where commits wait for nobody who is there."""

import pytest

from appliance.api.present import Present
from appliance.api.verdict import findings
from appliance.cluster.state import ASYNCHRONOUS, BLOCKED, NodeRole, SyncSet, SyncVersion
from tests.unit.api.building import TAKEN_S, member, published, state


def codes(wanted):
    value = published(state=state(sync=(SyncVersion(1, 4, wanted),)))
    return [(found.code, found.severity, found.member) for found in findings(Present.at(value, TAKEN_S))]


def test_strict_mode_without_a_standby_is_critical_and_says_why_commits_hang():
    assert codes(BLOCKED) == [("sync.blocked", "critical", "pg1")]


def test_commits_that_wait_for_nobody_are_shown_where_somebody_could_be_waited_for():
    assert codes(SyncSet()) == [("sync.alone", "degraded", "pg1")]
    alone = state(
        sync=(SyncVersion(1, 4, SyncSet()),), members={"pg1": member("pg1"), "w": member("w", NodeRole.WITNESS)}
    )
    found = findings(Present.at(published(state=alone), TAKEN_S))
    assert not [finding for finding in found if finding.code.startswith("sync.")]


@pytest.mark.parametrize("wanted", [ASYNCHRONOUS, SyncSet(1, frozenset({"pg2"}))])
def test_commits_that_go_on_are_no_problem(wanted):
    assert codes(wanted) == []
