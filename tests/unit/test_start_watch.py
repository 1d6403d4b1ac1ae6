"""Starts that fail: counted, told with their reason, and repeated with longer and longer pauses."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from appliance.ha.seen import FailedStart
from appliance.ha.start import wait_after_failed_start
from appliance.node.guard_client import Exited, GuardStatus
from appliance.node.start_watch import StartWatch

IDLE = GuardStatus(
    pid=1,
    protocol=1,
    locked_memory=True,
    postmaster=None,
    ending=False,
    last_exit=None,
    deadline_s=None,
    deadline_epoch=None,
    fenced_epoch=None,
)


def ended(pid, code=1, signal=None):
    return replace(IDLE, last_exit=Exited(pid, code, signal, clean=True))


@pytest.fixture
def watch(tmp_path):
    log = tmp_path / "postgres.log"
    log.write_text("FATAL:  no room\n")
    return StartWatch(log)


def test_failures_in_a_row_are_counted_until_postgresql_answers(watch):
    assert watch.look(IDLE, answered=False, now_s=10) is None
    assert watch.look(ended(7), answered=False, now_s=11) == FailedStart(0, 1, "no room")
    assert watch.look(ended(7), answered=False, now_s=12) == FailedStart(1, 1, "no room")
    assert watch.look(ended(8), answered=False, now_s=13) == FailedStart(0, 2, "no room")
    assert watch.look(ended(8), answered=True, now_s=14) is None
    assert watch.look(ended(8), answered=False, now_s=15) is None


def test_a_start_that_did_not_come_to_a_postmaster_is_counted_too(watch):
    assert watch.look(IDLE, answered=False, now_s=10, refused="work_mem: no") == FailedStart(0, 1, "work_mem: no")
    assert watch.look(IDLE, answered=False, now_s=12) == FailedStart(2, 1, "work_mem: no")
    assert watch.look(IDLE, answered=False, now_s=13, refused="work_mem: no") == FailedStart(0, 2, "work_mem: no")
    assert watch.look(ended(7), answered=False, now_s=14) == FailedStart(0, 3, "no room")


@pytest.mark.parametrize("status", [ended(7, code=0), ended(7, code=None, signal=9), None])
def test_a_killed_or_stopped_postmaster_is_no_failed_start(watch, status):
    assert watch.look(status, answered=False, now_s=10) is None


@pytest.mark.parametrize(
    ("in_a_row", "seconds", "waits"),
    [(1, 0.05, True), (1, 0.1, False), (3, 0.3, True), (3, 0.4, False), (99, 4.9, True), (99, 5.0, False)],
)
def test_pauses_grow_up_to_a_limit(in_a_row, seconds, waits):
    seen = SimpleNamespace(failed_start=FailedStart(seconds, in_a_row, "no room"))
    decision = wait_after_failed_start(seen)
    assert (decision is not None) is waits
    assert decision is None or "no room" in decision.because


def test_without_a_failure_nothing_waits():
    assert wait_after_failed_start(SimpleNamespace(failed_start=None)) is None
