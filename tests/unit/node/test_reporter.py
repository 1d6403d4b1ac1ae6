"""When a report is sent, and that a lease counts from before the question (R3). A small replica stands behind it."""

import math
from dataclasses import replace

import pytest

from appliance.ha.seen import Notes
from appliance.node import reporter as module
from appliance.node.messages import ReportAnswer
from appliance.node.reporter import RETRY_S, Reporter
from raft import PeerUnreachable
from tests.unit.cluster.building import LSN, state, vote
from tests.unit.ha.building import heard, report

from .building import Clock, Consensus

INTERVAL_S = 30.0
"""So long that only news makes a second report."""
QUIET = report("pg2")


class Peers(Consensus):
    """Takes reports and lets the test answer them. Sending one takes a while."""

    def __init__(self, clock):
        super().__init__(state())
        self.clock = clock

    def request(self, peer, payload, limit_s):
        self.clock.now_s += 0.2
        return super().request(peer, payload, limit_s)

    def answer(self, **changes):
        super().answer(ReportAnswer(**{"leader": True, "index": 7} | changes))

    @property
    def reports(self):
        return [(peer, message.report) for peer, message, _ in self.asked]


@pytest.fixture
def clock(monkeypatch):
    return Clock.of(monkeypatch, module)


@pytest.fixture
def peers(clock):
    return Peers(clock)


@pytest.fixture
def reporter(peers):
    return Reporter(peers, lambda: None)


def test_a_report_goes_to_the_raft_leader_and_the_next_only_after_the_answer(peers, reporter):
    assert reporter.step(QUIET, INTERVAL_S) is None
    reporter.step(replace(QUIET, status="starting"), INTERVAL_S)

    assert peers.reports == [("pg1", QUIET)]


def test_while_an_answer_is_awaited_no_report_is_due(peers, reporter, clock):
    """Its answer, or its time limit, wakes the loop: until then it must not look again and again."""
    reporter.step(QUIET, INTERVAL_S)
    sent_s = clock.now_s - 0.2
    clock.now_s += INTERVAL_S + 1.0

    assert reporter.due_s() == math.inf
    peers.answer()
    reporter.step(QUIET, INTERVAL_S)
    assert len(peers.asked) == 2, "the next one was due meanwhile"
    peers.answer()
    reporter.step(QUIET, INTERVAL_S)
    assert reporter.due_s() == sent_s + 0.2 + INTERVAL_S + 1.0 + INTERVAL_S


@pytest.mark.parametrize(
    "change",
    [
        {"vote": vote("pg2")},
        {"renew_epoch": 5},
        {"running": False},
        {"in_recovery": None},
        {"timeline": 3},
        {"streaming": False},
        {"status": "stopped"},
        {"incarnation": ""},
        {"checkpointed_operation": "op1"},
    ],
    ids=str,
)
def test_news_is_told_at_once(peers, reporter, change):
    reporter.step(QUIET, INTERVAL_S)
    peers.answer()
    reporter.step(replace(QUIET, **change), INTERVAL_S)

    assert len(peers.asked) == 2


def test_a_vote_for_another_position_is_news(peers, reporter):
    reporter.step(replace(QUIET, vote=vote("pg2")), INTERVAL_S)
    peers.answer()
    reporter.step(replace(QUIET, vote=vote("pg2", LSN + 1)), INTERVAL_S)

    assert len(peers.asked) == 2


@pytest.mark.parametrize(
    "change", [{"lsn": LSN + 1}, {"doing": "waits"}, {"progress": "40 %"}, {"notes": Notes(9)}], ids=str
)
def test_what_changes_all_the_time_waits_for_the_interval(peers, reporter, change):
    reporter.step(QUIET, INTERVAL_S)
    peers.answer()
    reporter.step(replace(QUIET, **change), INTERVAL_S)

    assert len(peers.asked) == 1


def test_r3_a_confirmation_belongs_to_the_time_before_its_question(peers, reporter, clock):
    """Not to when it had been sent, and not to when its answer came: the raft leader may have confirmed long ago."""
    asked_s = clock.now_s
    reporter.step(QUIET, INTERVAL_S)
    clock.now_s += 1.4
    peers.answer(confirmed_epoch=4, reports=heard(report("pg1")))
    confirmed = reporter.step(QUIET, INTERVAL_S)

    assert confirmed.asked_s == asked_s
    assert confirmed.answer.confirmed_epoch == 4
    assert set(reporter.reports) == {"pg1"}
    assert reporter.step(QUIET, INTERVAL_S) is None, "an answer is taken once"


def test_contact_counts_only_when_this_node_has_applied_what_the_leader_had(peers, reporter):
    assert reporter.contact_s() is None
    reporter.step(QUIET, INTERVAL_S)
    peers.answer(index=9)
    confirmed = reporter.step(QUIET, INTERVAL_S)

    assert reporter.contact_s() is None
    peers.index = 9
    assert reporter.contact_s() == confirmed.asked_s


def test_a_renewal_that_was_not_confirmed_is_asked_again_soon(peers, reporter, clock):
    wants = replace(QUIET, renew_epoch=4)
    reporter.step(wants, INTERVAL_S)
    peers.answer(confirmed_epoch=None)
    reporter.step(wants, INTERVAL_S)
    assert len(peers.asked) == 1

    assert reporter.due_s() == clock.now_s + RETRY_S
    clock.now_s += RETRY_S
    reporter.step(wants, INTERVAL_S)
    assert len(peers.asked) == 2


def test_an_answer_of_one_that_leads_no_more_is_no_confirmation(peers, reporter):
    reporter.step(QUIET, INTERVAL_S)
    peers.answer(leader=False, confirmed_epoch=4)

    assert reporter.step(QUIET, INTERVAL_S) is None
    assert reporter.problem == "pg1 does not lead any more"


def test_an_answer_that_comes_after_the_leader_changed_still_counts_if_it_was_there_first(peers, reporter):
    reporter.step(QUIET, INTERVAL_S)
    peers.leader = "pg3"
    reporter.step(replace(QUIET, status="starting"), INTERVAL_S)

    assert [peer for peer, _ in peers.reports] == ["pg1", "pg3"], "the new leader is told, the old one not waited for"


@pytest.mark.parametrize("failure", [PeerUnreachable("refused"), b"junk"])
def test_a_failure_is_named_and_tried_again(peers, reporter, failure):
    reporter.step(QUIET, INTERVAL_S)
    future = peers.asked[0][2]
    future.set_exception(failure) if isinstance(failure, Exception) else future.set_result(failure)

    assert reporter.step(QUIET, INTERVAL_S) is None
    assert reporter.problem


def test_without_a_leader_nothing_is_sent(peers, reporter):
    peers.leader = None

    assert reporter.step(QUIET, INTERVAL_S) is None
    assert peers.asked == []
