"""Who may change something: root and the node's own user over the unix socket, or whoever has the token.

Reads are open. The front asks here before it reads a body.
"""

import base64
import binascii
import os
from hmac import compare_digest

from starlette.datastructures import Headers
from starlette.types import Scope

PEER_UID = "peer_uid"
"""Key of the connection's state where the protocol leaves the uid at the other end of a unix socket."""


def requester(scope: Scope, token: str) -> str | None:
    """Say in words who asks, or None for nobody who may. An empty token lets nobody in by token."""
    uid = scope.get("state", {}).get(PEER_UID)
    if uid is not None and uid in {0, os.geteuid()}:
        return f"uid {uid} on the unix socket"
    shown = _credential(Headers(scope=scope).get("authorization", ""))
    if token and compare_digest(shown.encode(), token.encode()):
        client = scope.get("client")
        return f"token from {client[0] if client else 'the unix socket'}"
    return None


def _credential(header: str) -> str:
    """The bearer token; or the password of HTTP Basic, for tools that know only that."""
    scheme, _, value = header.partition(" ")
    match scheme.lower():
        case "bearer":
            return value.strip()
        case "basic":
            return _basic_password(value.strip())
        case _:
            return ""


def _basic_password(value: str) -> str:
    try:
        return base64.b64decode(value, validate=True).decode().partition(":")[2]
    except (binascii.Error, UnicodeDecodeError):
        return ""
