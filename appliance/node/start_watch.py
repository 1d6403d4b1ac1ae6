"""Counts PostgreSQL's starts that came to nothing, so that they are repeated with pauses and shown with their reason.

Memory of this process's life only: losing it costs one start without a pause.
"""

from pathlib import Path

from appliance.ha.seen import FailedStart
from appliance.node.guard_client import GuardStatus
from appliance.postgres.last_words import last_words

_DID_NOT_START = 1
"""exit status of a postmaster that gave up; killed ones and those that were told to end show others"""


class StartWatch:
    def __init__(self, log_file: Path) -> None:
        self._log_file = log_file
        self._pid = 0
        self._ended_s = 0.0
        self._in_a_row = 0
        self._error = ""

    def look(
        self, guard: GuardStatus | None, *, answered: bool, now_s: float, refused: str = "", log_begin: int = 0
    ) -> FailedStart | None:
        """The last start, if it failed and nothing has answered since.

        `refused`: why it did not come to a postmaster; `log_begin`: the log's size before it.
        """
        ended = guard.last_exit if guard is not None else None
        if answered:
            self._in_a_row = 0
        elif refused:
            self._failed(refused, now_s)
        elif ended is not None and ended.pid != self._pid and ended.code == _DID_NOT_START:
            self._failed(last_words(self._log_file, log_begin), now_s)
        self._pid = ended.pid if ended is not None else self._pid
        return FailedStart(now_s - self._ended_s, self._in_a_row, self._error) if self._in_a_row else None

    def _failed(self, error: str, now_s: float) -> None:
        self._in_a_row += 1
        self._ended_s, self._error = now_s, error
