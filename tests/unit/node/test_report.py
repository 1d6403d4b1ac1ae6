"""What a node tells the raft leader, made of one observation."""

from dataclasses import replace

import pytest

from appliance.cluster.state import FORMAT, NodeRole
from appliance.ha.seen import DirectoryKind, Report
from appliance.node.report import make_report, status
from tests.unit.cluster.building import LSN, member, state, vacant, vote
from tests.unit.ha.building import job, primary, standby, stopped, voter

CRASHED = stopped(primary(), shut_down=False)


@pytest.mark.parametrize(
    ("seen", "words"),
    [
        (primary(), "running"),
        (primary(instance=None), "starting"),
        (primary(stopping_s=1.0), "stopping"),
        (CRASHED, "crashed"),
        (stopped(primary(), shut_down=True), "stopped"),
        (stopped(primary(), kind=DirectoryKind.MISSING), "stopped"),
        (replace(CRASHED, job=job("clone")), "creating replica"),
        (replace(CRASHED, job=job("initialise")), "initializing new cluster"),
        (replace(CRASHED, job=job("rewind")), "stopped"),
        (replace(CRASHED, job=job("clone", running=False)), "stopped"),
    ],
)
def test_the_status_is_in_patronis_words(seen, words):
    assert status(seen) == words


def test_the_status_of_a_witness_is_that_it_is_one():
    seen = stopped(standby("pg3"), kind=DirectoryKind.MISSING)

    assert status(replace(seen, me=member("pg3", NodeRole.WITNESS))) == "witness"


def test_the_report_of_a_primary_asks_for_its_lease():
    report = make_report(state(), primary(), None, "primary of epoch 4")

    assert (report.node, report.in_recovery, report.timeline, report.lsn) == ("pg1", False, 2, LSN)
    assert (report.renew_epoch, report.vote, report.doing) == (4, None, "primary of epoch 4")


def test_a_report_says_the_highest_format_that_this_version_knows():
    assert make_report(state(), standby(), None, "").format == FORMAT > Report.__dataclass_fields__["format"].default


def test_the_report_of_a_voter_carries_its_vote():
    assert make_report(vacant(), voter(), None, "").vote == vote("pg2")


def test_what_is_unknown_is_not_no():
    report = make_report(state(), standby(instance=None), None, "")

    assert report.running
    assert report.in_recovery is None
    assert (report.lsn, report.streaming) == (0, False)


def test_progress_is_told_while_a_job_runs():
    assert "clone for 3 s" in make_report(state(), replace(CRASHED, job=job()), None, "").progress
    assert make_report(state(), replace(CRASHED, job=job(running=False)), None, "").progress == ""
