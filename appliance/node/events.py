"""The catalogue of log events, and the one way to emit them. Changes are logged, looks are not."""

import logging
import sys
from typing import Literal

import structlog

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
        "job.ended",
        "lease.gained",
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
        "raft.unencrypted",
    }
)

Level = Literal["debug", "info", "warning", "error"]
_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


def configure(level: Level, form: Literal["json", "pretty", "auto"]) -> None:
    """JSON lines on standard output for the journal; readable lines on a terminal."""
    pretty = form == "pretty" or (form == "auto" and sys.stdout.isatty())
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer() if pretty else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=structlog.PrintLoggerFactory(sys.stdout),
        cache_logger_on_first_use=True,
    )


class Events:
    """Emits catalogued events with this node's name on each."""

    def __init__(self, node: str) -> None:
        self._log = structlog.get_logger().bind(node=node)

    def emit(self, event: str, level: Level = "info", **fields: object) -> None:
        assert event in CATALOGUE, event
        getattr(self._log, level)(event, **fields)
