"""When a report is sent, and that a lease counts from before the question (R3). A small replica stands behind it."""

import math
from dataclasses import replace

import pytest

from appliance.ha.seen import Notes
from appliance.node import reporter as module
from appliance.node.messages import ReportAnswer
from appliance.node.reporter import RETRY_S, Reporter
from raft import PeerUnreachable, RequestTimeout
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


def turn(reporter, report):
    """As the control loop does it: first what has come, then what is to be said."""
    confirmed = reporter.hear()
    reporter.tell(report, INTERVAL_S)
    return confirmed


def test_a_report_goes_to_the_raft_leader_and_the_next_only_after_the_answer(peers, reporter):
    assert turn(reporter, QUIET) is None
    turn(reporter, replace(QUIET, status="starting"))

    assert peers.reports == [("pg1", QUIET)]


def test_r9_a_raft_leader_that_is_not_heard_is_asked_nothing(peers, reporter, clock):
    """It would take each question of a primary that hears nobody for a renewal."""
    peers.contact_s = clock.now_s
    turn(reporter, QUIET)
    peers.asked[-1][2].set_exception(RequestTimeout("too late"))
    clock.now_s += module.ANSWER_LIMIT_S
    turn(reporter, QUIET)
    assert len(peers.asked) == 1
    assert reporter.due_s() == clock.now_s + RETRY_S

    for heard_s in (None, clock.now_s - module.ANSWER_LIMIT_S - 0.1):
        peers.contact_s = heard_s
        turn(reporter, replace(QUIET, status="stopped"))
    assert len(peers.asked) == 1, "not even news"
    clock.now_s += RETRY_S
    peers.contact_s = clock.now_s - module.ANSWER_LIMIT_S
    turn(reporter, QUIET)
    assert len(peers.asked) == 2


def test_one_that_leads_raft_tells_itself(peers, reporter, clock):
    peers.leader, peers.leads, peers.contact_s, peers.leading_since_s = "pg2", True, None, 0.0
    turn(reporter, QUIET)
    assert len(peers.asked) == 1


def test_while_an_answer_is_awaited_no_report_is_due(peers, reporter, clock):
    """Its answer, or its time limit, wakes the loop: until then it must not look again and again."""
    turn(reporter, QUIET)
    sent_s = clock.now_s - 0.2
    clock.now_s += INTERVAL_S + 1.0

    assert reporter.due_s() == math.inf
    peers.answer()
    turn(reporter, QUIET)
    assert len(peers.asked) == 2, "the next one was due meanwhile"
    peers.answer()
    turn(reporter, QUIET)
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
    turn(reporter, QUIET)
    peers.answer()
    turn(reporter, replace(QUIET, **change))

    assert len(peers.asked) == 2


def test_a_vote_for_another_position_is_news(peers, reporter):
    turn(reporter, replace(QUIET, vote=vote("pg2")))
    peers.answer()
    turn(reporter, replace(QUIET, vote=vote("pg2", LSN + 1)))

    assert len(peers.asked) == 2


@pytest.mark.parametrize(
    "change", [{"lsn": LSN + 1}, {"doing": "waits"}, {"progress": "40 %"}, {"notes": Notes(9)}], ids=str
)
def test_what_changes_all_the_time_waits_for_the_interval(peers, reporter, change):
    turn(reporter, QUIET)
    peers.answer()
    turn(reporter, replace(QUIET, **change))

    assert len(peers.asked) == 1


def test_r3_a_confirmation_belongs_to_the_time_before_its_question(peers, reporter, clock):
    """Not to when it had been sent, and not to when its answer came: the raft leader may have confirmed long ago."""
    asked_s = clock.now_s
    turn(reporter, QUIET)
    clock.now_s += 1.4
    peers.answer(confirmed_epoch=4, reports=heard(report("pg1")))
    confirmed = turn(reporter, QUIET)

    assert confirmed.asked_s == asked_s
    assert confirmed.answer.confirmed_epoch == 4
    assert set(reporter.reports) == {"pg1"}
    assert turn(reporter, QUIET) is None, "an answer is taken once"


def test_contact_counts_only_when_this_node_has_applied_what_the_leader_had(peers, reporter):
    assert reporter.contact_s() is None
    turn(reporter, QUIET)
    peers.answer(index=9)
    confirmed = turn(reporter, QUIET)

    assert reporter.contact_s() is None
    peers.index = 9
    assert reporter.contact_s() == confirmed.asked_s


def test_a_renewal_that_was_not_confirmed_is_asked_again_soon(peers, reporter, clock):
    wants = replace(QUIET, renew_epoch=4)
    turn(reporter, wants)
    peers.answer(confirmed_epoch=None)
    turn(reporter, wants)
    assert len(peers.asked) == 1

    assert reporter.due_s() == clock.now_s + RETRY_S
    clock.now_s += RETRY_S
    turn(reporter, wants)
    assert len(peers.asked) == 2


def test_an_answer_of_one_that_leads_no_more_is_no_confirmation(peers, reporter):
    turn(reporter, QUIET)
    peers.answer(leader=False, confirmed_epoch=4)

    assert turn(reporter, QUIET) is None
    assert reporter.problem == "pg1 does not lead any more"


def test_an_answer_that_comes_after_the_leader_changed_still_counts_if_it_was_there_first(peers, reporter):
    turn(reporter, QUIET)
    peers.leader = "pg3"
    turn(reporter, replace(QUIET, status="starting"))

    assert [peer for peer, _ in peers.reports] == ["pg1", "pg3"], "the new leader is told, the old one not waited for"


@pytest.mark.parametrize("failure", [PeerUnreachable("refused"), b"junk"])
def test_a_failure_is_named_and_tried_again(peers, reporter, failure):
    turn(reporter, QUIET)
    future = peers.asked[0][2]
    future.set_exception(failure) if isinstance(failure, Exception) else future.set_result(failure)

    assert turn(reporter, QUIET) is None
    assert reporter.problem


def test_without_a_leader_nothing_is_sent(peers, reporter):
    peers.leader = None

    assert turn(reporter, QUIET) is None
    assert peers.asked == []


def answered(peers, reporter, sent=QUIET, **answer):
    """Tell one report and hear the answer to it."""
    reporter.tell(sent, 0.0)
    peers.answer(**answer)
    return reporter.hear()


ALL = heard(report("pg1"), report("pg2"))
HOLDER = replace(QUIET, renew_epoch=4)


@pytest.mark.parametrize(
    ("answer", "news"),
    [
        ({"reports": heard(report("pg1", lsn=LSN + 1, doing="waits"), report("pg2"), age_s=0.4), "index": 8}, False),
        ({"reports": heard(report("pg1", status="stopped"), report("pg2"))}, True),
        ({"reports": heard(report("pg1"))}, True),
        ({"confirmed_epoch": None}, True),
    ],
    ids=["positions", "a status", "a member fewer", "no renewal"],
)
def test_an_answer_is_news_when_it_says_more_than_positions_and_ages(peers, reporter, answer, news):
    known = {"confirmed_epoch": 4, "reports": ALL}
    assert answered(peers, reporter, HOLDER, **known).news, "the first one"
    assert not answered(peers, reporter, HOLDER, **known).news

    assert answered(peers, reporter, HOLDER, **known | answer).news is news


def test_the_first_renewal_of_an_epoch_is_news(peers, reporter):
    answered(peers, reporter, reports=ALL)

    assert answered(peers, reporter, HOLDER, confirmed_epoch=4, reports=ALL).news


def test_a_renewal_that_is_refused_again_is_news_again(peers, reporter):
    answered(peers, reporter, HOLDER, reports=ALL)

    assert answered(peers, reporter, HOLDER, reports=ALL).news


def test_the_first_answer_after_a_failure_is_news(peers, reporter, clock):
    answered(peers, reporter, reports=ALL)
    assert answered(peers, reporter, leader=False) is None
    clock.now_s += RETRY_S

    assert answered(peers, reporter, reports=ALL).news
    assert not answered(peers, reporter, reports=ALL).news
