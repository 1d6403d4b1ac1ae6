"""One libpq URI that names every member, so that a client finds the primary by itself."""

from collections.abc import Mapping, Sequence
from urllib.parse import quote, urlencode


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
