"""Why PostgreSQL ended while it was starting: the complaints at the end of its log, for people."""

import re
from pathlib import Path

_TAIL_BYTES = 8192
_LIMIT_CHARACTERS = 500
_BEGIN = "LOG:  starting PostgreSQL"
_COMPLAINT = re.compile(r"\b(?:HINT|WARNING|ERROR|FATAL|PANIC):\s+(.*)")


def last_words(log_file: Path) -> str:
    """Everything above LOG since the last start; empty where the log says nothing or is written another way."""
    try:
        with log_file.open("rb") as log:
            log.seek(max(0, log_file.stat().st_size - _TAIL_BYTES))
            text = log.read().decode(errors="replace")
    except OSError:
        return ""
    said = _COMPLAINT.findall(text.rpartition(_BEGIN)[2])
    return "; ".join(dict.fromkeys(line.strip().rstrip(".") for line in said))[:_LIMIT_CHARACTERS]
