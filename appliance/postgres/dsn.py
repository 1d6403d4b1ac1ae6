"""One libpq URI that names every member, so that a client finds the primary by itself."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from urllib.parse import quote, urlencode

CLIENT_PATIENCE: Mapping[str, str] = MappingProxyType(
    {
        "connect_timeout": "2",
        "keepalives_idle": "1",
        "keepalives_interval": "1",
        "keepalives_count": "2",
        "tcp_user_timeout": "3000",
    }
)
"""How long an application believes in a primary that has vanished without a word: 3 s on its connection, and 2 s for
one attempt to reach that host again, since libpq asks the hosts in the order of the string.

3 s: sooner than `failure_timeout` and an election (2.2 s) there is nobody to go to. Where the round trip is short, data
is sent again after 0.2, 0.6 and 1.4 s before that, so a lost packet or two end nothing. Silence ends it as soon:
keepalives after 1 and 2 s, of which one may be lost. On Linux `tcp_user_timeout` decides about these as well; the count
is for who does not have it.

2 s, for each address: libpq makes 2 of less. It is enough for a second SYN after 1 s; the third goes out at 3 s only.

`tcp_user_timeout` also ends a connection whose server lives and takes no data for so long while there is more to send
(tried: a COPY whose row waits for a lock). Who loads in bulk gives more."""


def dsn(
    hosts: Sequence[tuple[str, int]],
    *,
    dbname: str,
    user: str = "",
    password: str = "",
    target_session_attrs: str = "read-write",
    parameters: Mapping[str, str] | None = None,
) -> str:
    """`hosts` in the order in which a client tries them. An empty `target_session_attrs` takes any member."""
    places = ",".join(f"{_host(host)}:{port}" for host, port in hosts)
    secret = f":{quote(password, safe='')}" if password else ""
    who = f"{quote(user, safe='')}{secret}@" if user else ""
    wanted = {"target_session_attrs": target_session_attrs} if target_session_attrs else {}
    query = urlencode({**wanted, **(parameters or {})}, quote_via=quote)
    return f"postgresql://{who}{places}/{quote(dbname, safe='')}" + (f"?{query}" if query else "")


def _host(host: str) -> str:
    return f"[{host}]" if ":" in host else quote(host, safe="")
