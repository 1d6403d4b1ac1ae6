"""The catalogue of log events, and the one way to emit them. Changes are logged, looks are not."""

import logging
import sys
from typing import Any, Literal

import structlog

from appliance.node.line_writer import LineWriter

CATALOGUE = frozenset(
    {
        "action.done",
        "action.failed",
        "certificate.problem",
        "certificate.renewed",
        "coordinator.proposed",
        "decision.changed",
        "guard.killed",
        "guard.lost",
        "handover.ended",
        "handover.refused",
        "job.ended",
        "lease.gained",
        "lease.vouched",
        "log.lost",
        "loop.failed",
        "node.began",
        "node.stopped",
        "peer.refused",
        "postgres.exited",
        "primary.fenced",
        "proposal.refused",
        "proposal.unknown",
        "raft.failed",
        "raft.leader_changed",
        "raft.members_changed",
        "raft.removed",
        "raft.unencrypted",
    }
)

Level = Literal["debug", "info", "warning", "error"]
_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


class _Queue:
    """The end of structlog's chain: hands each line to the writer."""

    def __init__(self, writer: LineWriter) -> None:
        self.debug = self.info = self.warning = self.error = writer.put


class Events:
    """Emits catalogued events with this node's name on each: JSON lines on standard output for the journal, readable
    lines on a terminal. Emitting never waits.
    """

    def __init__(self, node: str, level: Level, form: Literal["json", "pretty", "auto"]) -> None:
        pretty = form == "pretty" or (form == "auto" and sys.stdout.isatty())
        self._node, self._level = node, level
        self._renderer: structlog.typing.Processor = (
            structlog.dev.ConsoleRenderer() if pretty else structlog.processors.JSONRenderer()
        )
        self._rendered = self._logger(structlog.ReturnLogger())
        sys.stdout.flush()
        self._writer = LineWriter(sys.stdout.fileno(), self._say_lost)
        self._log = self._logger(_Queue(self._writer))

    def emit(self, event: str, level: Level = "info", **fields: object) -> None:
        assert event in CATALOGUE, event
        getattr(self._log, level)(event, **fields)

    def close(self, limit_s: float) -> None:
        """Write what has been emitted, within the limit."""
        self._writer.close(limit_s)

    def _logger(self, end: object) -> Any:
        return structlog.wrap_logger(
            end,
            processors=[
                structlog.processors.add_log_level,
                structlog.processors.TimeStamper(fmt="iso", utc=True),
                self._renderer,
            ],
            wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[self._level]),
            node=self._node,
        )

    def _say_lost(self, lines: int) -> str:
        """An error, so that no level hides it."""
        line: str = self._rendered.error("log.lost", lines=lines)
        return line
