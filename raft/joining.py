"""How a node that is no member yet asks one to let it in: one question and one answer, on the port of the log.

What question and answer say is the owner's. This end shows no certificate, which it may have none of; it looks at the
other's, so that the question, with the secret in it, reaches nobody else.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass

from raft import address, codec, tls
from raft.api import ReplicaError
from raft.certificates import Subject
from raft.codec import CodecError
from raft.connection import Connection
from raft.introductions import Introducer
from raft.members import Introduction
from raft.refusals import RefusedError

_CONNECT_LIMIT_S = 3.0
_ANSWERS = frozenset({"answer", "refuse"})


@dataclass(frozen=True, slots=True)
class Door:
    """Where one may ask."""

    cluster: str
    members: Mapping[str, str]
    """Name to host:port; asked one after the other."""
    ca: bytes
    """Certificates of the cluster's authorities in PEM; empty: the cluster speaks in the clear."""


class JoinError(ReplicaError):
    """No member has answered the question, or the one that did has not let us in; the message says which and why."""

    def __init__(self, message: str, *, answered: bool = True) -> None:
        super().__init__(message)
        self.answered = answered
        """False: nobody could be reached"""


def ask(door: Door, name: str, question: bytes, timeout_s: float) -> bytes:
    """Ask each member in turn until one answers, each for `timeout_s` seconds; JoinError when none has.

    A member may have acted although its answer was lost, so the question must be one that can be asked again.
    """
    context = tls.visitor(door.ca) if door.ca else None
    own = Subject(door.cluster, name)
    introducer = Introducer(
        own, door.members, lambda: Introduction("", ""), admits=lambda _: False, certified=context is not None
    )
    problems: dict[str, list[str]] = {}
    answered = False
    for member, place in door.members.items():
        try:
            with socket.create_connection(address.parse(place), timeout=_CONNECT_LIMIT_S) as opened:
                return _ask(Connection(opened, timeout_s), introducer, member, context, question)
        except (OSError, RefusedError, CodecError, ReplicaError) as error:
            answered = answered or not isinstance(error, OSError)
            problems.setdefault(address.reason(error), []).append(f"{member} at {place}")
    said = "; ".join(f"{', '.join(members)}: {reason}" for reason, members in problems.items())
    raise JoinError(said or "there is no member to ask", answered=answered)


def _ask(
    connection: Connection,
    introducer: Introducer,
    member: str,
    context: ssl.SSLContext | None,
    question: bytes,
) -> bytes:
    if context is not None:
        introducer.check_server(member, connection.secure(context, server=False))
    connection.say(introducer.hello(member, "join"))
    connection.say({"type": "request", "id": 0, "payload": question})
    answer = codec.decode(connection.hear(), _ANSWERS)
    if answer["type"] == "refuse":
        raise RefusedError("refused", f"refused us: {answer['reason']}")
    payload: bytes = answer["payload"]
    return payload
