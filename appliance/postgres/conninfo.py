"""Connection strings for PostgreSQL's own processes: where to, as whom, and how soon a dead peer is noticed."""

import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

_PLAIN = re.compile(r"[A-Za-z0-9_./:@%+,=-]+")

PATIENCE: Mapping[str, str] = MappingProxyType(
    {
        "connect_timeout": "3",
        "keepalives_idle": "2",
        "keepalives_interval": "1",
        "keepalives_count": "3",
        "tcp_user_timeout": "5000",
    }
)
"""A peer that vanishes without a word is noticed after 5 s instead of the kernel's 15 minutes: unacknowledged data by
`tcp_user_timeout`, silence by keepalives. libpq takes at least 2 s to connect; a member that does not answer within the
limit is asked again soon."""


def conninfo(
    *,
    host: str,
    port: int,
    user: str,
    passfile: Path | None = None,
    dbname: str = "",
    application_name: str = "",
) -> str:
    """For `primary_conninfo`, pg_basebackup and pg_rewind; the password stays in the passfile."""
    values: dict[str, object] = {
        "host": host,
        "port": port,
        "user": user,
        "dbname": dbname,
        "passfile": passfile or "",
        "application_name": application_name,
        **PATIENCE,
        "sslmode": "prefer",
        "gssencmode": "disable",  # one round trip less, and nobody here has a ticket
    }
    return keywords({name: str(value) for name, value in values.items() if value != ""})


def keywords(values: Mapping[str, str]) -> str:
    return " ".join(f"{name}={_quoted(value)}" for name, value in values.items())


def _quoted(value: str) -> str:
    if _PLAIN.fullmatch(value):
        return value
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
