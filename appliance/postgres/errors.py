"""What can go wrong with the local PostgreSQL, in words for the person who has to mend it."""

from collections.abc import Sequence

LAST_LINES = 12
"""of a failed command's output: enough for the cause, short enough for a log line"""


class PostgresError(Exception):
    """A tool or a statement failed: what was run, how it ended, and the last lines it said."""

    def __init__(self, command: str, exit_code: int | None = None, lines: Sequence[str] = ()) -> None:
        self.command = command
        self.exit_code = exit_code
        """None: no process of our own, or none that ended"""
        self.lines = tuple(line.strip() for line in lines[-LAST_LINES:])
        super().__init__(self._text())

    def _text(self) -> str:
        ended = "" if self.exit_code is None else f" ended with {self.exit_code}"
        return ": ".join(part for part in (f"{self.command}{ended}", "; ".join(self.lines)) if part)


class PostgresUnreachable(PostgresError):  # noqa: N818  # a question got no answer, which is no error of PostgreSQL
    """No answer in time, or no connection. It is not known whether PostgreSQL is down."""


class NoBinaries(PostgresError):  # noqa: N818  # named after what is missing
    """No complete set of server programs: where they were looked for and what would do."""


class RewindError(PostgresError):
    """`needs_clone`: the directory is unusable now, or another try cannot end otherwise."""

    def __init__(self, error: PostgresError, *, needs_clone: bool) -> None:
        super().__init__(error.command, error.exit_code, error.lines)
        self.needs_clone = needs_clone


class SettingsError(ValueError):
    """A setting that PostgreSQL, or the appliance's promises, cannot do with."""
