"""Connection strings for PostgreSQL's own processes: where to, as whom, and how soon a dead peer is noticed."""

import re
from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path
from types import MappingProxyType

_KNOWS_ADDRESSES_IN_CERTIFICATES = 15
_PLAIN = re.compile(r"[A-Za-z0-9_./:@%+,=-]+")

LINK_PATIENCE: Mapping[str, str] = MappingProxyType(
    {
        "connect_timeout": "3",
        "keepalives_idle": "2",
        "keepalives_interval": "1",
        "keepalives_count": "3",
        "tcp_user_timeout": "5000",
    }
)
"""A peer that vanishes without a word is noticed after 5 s instead of the kernel's 15 minutes: unacknowledged data by
`tcp_user_timeout`, silence by keepalives. A member that does not answer within `connect_timeout` is asked again soon.

Longer than `CLIENT_PATIENCE`, because less gains nothing here. A standby is told its new primary by a reload, which
does not wait for the old connection; a receiver whose primary is gone ends by `wal_receiver_timeout` anyway, as late.
And a link that is given up on a loaded network costs a base backup from its beginning, or a place in the synchronous
set."""


def conninfo(
    *,
    host: str,
    port: int,
    user: str,
    passfile: Path | None = None,
    dbname: str = "",
    application_name: str = "",
    ca: Path | None = None,
    major: int = _KNOWS_ADDRESSES_IN_CERTIFICATES,
) -> str:
    """For `primary_conninfo`, pg_basebackup and pg_rewind of release `major`; the password stays in the passfile.

    With `ca` nobody is spoken to but the member at `host`, by its certificate.
    """
    values: dict[str, object] = {
        "host": host,
        "port": port,
        "user": user,
        "dbname": dbname,
        "passfile": passfile or "",
        "application_name": application_name,
        **LINK_PATIENCE,
        **_verification(host, ca, major),
        "gssencmode": "disable",  # one round trip less, and nobody here has a ticket
    }
    return keywords({name: str(value) for name, value in values.items() if value != ""})


def _verification(host: str, ca: Path | None, major: int) -> dict[str, str]:
    """What is insisted on. Before release 15 libpq finds a host's name in a certificate, and no IP address."""
    if ca is None:
        return {"sslmode": "prefer"}
    findable = major >= _KNOWS_ADDRESSES_IN_CERTIFICATES or not _is_address(host)
    return {"sslmode": "verify-full" if findable else "verify-ca", "sslrootcert": str(ca)}


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def keywords(values: Mapping[str, str]) -> str:
    return " ".join(f"{name}={_quoted(value)}" for name, value in values.items())


def _quoted(value: str) -> str:
    if _PLAIN.fullmatch(value):
        return value
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
