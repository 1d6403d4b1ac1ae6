"""Sends this node's report, with its lease renewal, to the raft leader: one at a time, never waiting."""

import math
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass

from appliance.cluster.state import ClusterState
from appliance.ha.seen import Report, ReportSeen
from appliance.node.clock import boottime_s, clock_reading
from appliance.node.messages import MessageError, ReportAnswer, SendReport, decode, encode
from appliance.node.report import alike
from raft import Replica, ReplicaError, View

ANSWER_LIMIT_S = 1.5
RETRY_S = 0.1
"""After a failure, for example while the raft leader changes."""


@dataclass(frozen=True, slots=True)
class Confirmed:
    """An answer of the raft leader, and when its question was sent: a lease counts from then (R3)."""

    asked_s: float
    answer: ReportAnswer
    news: bool
    """It says something else than the one before, positions and ages aside, or comes after a failure."""


@dataclass(frozen=True, slots=True)
class _Sent:
    leader: str
    asked_s: float
    report: Report
    future: Future[bytes]


class Reporter:
    """Used by the control loop only."""

    def __init__(
        self, replica: Replica[ClusterState], wake: Callable[[], None], silence_limit_s: float = ANSWER_LIMIT_S
    ) -> None:
        """A raft leader whose last message came longer than `silence_limit_s` ago is asked nothing."""
        self._replica = replica
        self._wake = wake
        self._silence_limit_s = silence_limit_s
        self._sent: _Sent | None = None
        self._last: Report | None = None
        self.answered: Report | None = None
        """the last one that a raft leader has answered"""
        self._next_s = 0.0
        self._contact_s: float | None = None
        self._awaited: Confirmed | None = None
        self._said: ReportAnswer | None = None
        self.reports: Mapping[str, ReportSeen] = {}
        self.reports_at_s = 0.0
        self.leader_says = ""
        self.problem = ""
        """why the last attempt failed, empty when it did not"""

    def due_s(self) -> float:
        """CLOCK_BOOTTIME of the next report if nothing changes; never while an answer, which wakes, is awaited."""
        return self._next_s if self._sent is None else math.inf

    def contact_s(self) -> float | None:
        """When the raft leader was last asked something whose answer this node has also applied."""
        if self._awaited is not None and self._replica.view().index >= self._awaited.answer.index:
            self._contact_s, self._awaited = self._awaited.asked_s, None
        return self._contact_s

    def tell(self, report: Report, interval_s: float) -> None:
        """Send when a report is due or says something new, and no answer is awaited."""
        now_s, view = boottime_s(), self._replica.view()
        leader = view.leader
        if self._sent is not None and self._sent.leader != leader:
            self._sent = None
        if leader is None or not self._hears(view, now_s):
            self._next_s = now_s + RETRY_S
        elif self._sent is None and (now_s >= self._next_s or _news(self._last, report)):
            self._send(leader, report, now_s, interval_s)

    def _hears(self, view: View[ClusterState], now_s: float) -> bool:
        """An answer of one that is not heard would not come either, while every question would be a renewal there: a
        primary that hears nobody would not be silent before it is fenced (R9)."""
        return view.is_leader or (view.contact_s is not None and now_s - view.contact_s <= self._silence_limit_s)

    def _send(self, leader: str, report: Report, now_s: float, interval_s: float) -> None:
        future = self._replica.request(leader, encode(SendReport(report, clock_reading())), ANSWER_LIMIT_S)
        self._sent = _Sent(leader, now_s, report, future)
        self._last, self._next_s = report, now_s + interval_s
        future.add_done_callback(lambda _: self._wake())

    def hear(self) -> Confirmed | None:
        """Take the answer that has come, if any."""
        sent = self._sent
        if sent is None or not sent.future.done():
            return None
        self._sent = None
        try:
            answer = decode(sent.future.result())
        except (ReplicaError, MessageError) as error:
            self._failed(str(error))
            return None
        if not isinstance(answer, ReportAnswer) or not answer.leader:
            self._failed(f"{sent.leader} does not lead any more")
            return None
        confirmed = Confirmed(sent.asked_s, answer, self._is_news(sent, answer))
        self.problem, self._said, self.answered = "", answer, sent.report
        self.reports, self.reports_at_s, self.leader_says = answer.reports, boottime_s(), answer.says
        self._awaited = self._awaited if self._awaited is not None else confirmed
        if sent.report.renew_epoch is not None and answer.confirmed_epoch is None:
            self._next_s = min(self._next_s, boottime_s() + RETRY_S)
        return confirmed

    def _is_news(self, sent: _Sent, answer: ReportAnswer) -> bool:
        before = self._said
        if before is None or self.problem or answer.confirmed_epoch != sent.report.renew_epoch:
            return True
        return answer.confirmed_epoch != before.confirmed_epoch or not _all_alike(answer.reports, before.reports)

    def _failed(self, problem: str) -> None:
        self.problem = problem
        self._next_s = boottime_s() + RETRY_S


def _all_alike(reports: Mapping[str, ReportSeen], before: Mapping[str, ReportSeen]) -> bool:
    return reports.keys() == before.keys() and all(alike(r.report, before[n].report) for n, r in reports.items())


def _news(last: Report | None, report: Report) -> bool:
    """Something that the coordinator may be waiting for: it is told at once."""
    if last is None:
        return True
    return _essence(last) != _essence(report)


def _essence(report: Report) -> tuple[object, ...]:
    return (
        report.vote,
        report.renew_epoch,
        report.running,
        report.in_recovery,
        report.timeline,
        report.streaming,
        report.status,
        report.incarnation,
        report.checkpointed_operation,
        report.directory,
        report.ending,
        report.restarting,
    )
