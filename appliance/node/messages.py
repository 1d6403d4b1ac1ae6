"""What nodes say to each other beside the log: reports with renewals, operators' requests, credentials.

JSON through the one codec; a message that does not fit is a `MessageError`, never an exception of another kind.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from appliance.api.published import OperatorAnswer, OperatorRequest
from appliance.cluster.codec import from_json, to_json
from appliance.cluster.state import NodeRole
from appliance.ha.seen import ClockReading, Report, ReportSeen


class MessageError(ValueError):
    """A message from a peer that this node cannot read."""


@dataclass(frozen=True, slots=True)
class SendReport:
    report: Report
    clock: ClockReading | None = None
    """when it was sent; None: by a version that does not say"""


@dataclass(frozen=True, slots=True)
class ReportAnswer:
    leader: bool
    """False: the receiver does not lead; nothing else in the answer counts"""
    confirmed_epoch: int | None = None
    """the lease of this epoch was renewed by a read barrier made after the report arrived (R3)"""
    index: int = 0
    """the leader's applied index: the sender's knowledge is fresh once it has applied as much"""
    reports: Mapping[str, ReportSeen] = field(default_factory=dict)
    says: str = ""
    """what the raft leader is doing, in words"""


@dataclass(frozen=True, slots=True)
class Operate:
    request: OperatorRequest
    document: Mapping[str, object] = field(default_factory=dict)
    """first configuration, for a bootstrap"""
    cluster: str = ""
    objection: str = ""
    """why the node that is asked could not live with `document`; empty when it can"""


@dataclass(frozen=True, slots=True)
class AskCredentials:
    """For a member that is about to clone; answered with the replication and rewind roles' passwords."""

    node: str


@dataclass(frozen=True, slots=True)
class CredentialsAnswer:
    credentials: Mapping[str, object]
    """empty: this node has none yet"""


@dataclass(frozen=True, slots=True)
class AskPromise:
    """R16: a primary without a quorum asks that this node casts no vote for a ttl."""

    node: str
    epoch: int


@dataclass(frozen=True, slots=True)
class Promise:
    refused: str = ""
    """why not; empty: it is promised, from after the question came"""


@dataclass(frozen=True, slots=True)
class Join:
    """A stranger's question: it has a token, and a key that its certificate shall be for."""

    token: str
    secret: str
    member: str
    address: str
    """host:port of its replica, as the others reach it"""
    key: str
    """SHA-256 of its public key; without TLS of whatever it draws and keeps"""
    request: str = ""
    """certificate request in PEM; empty without TLS"""
    hosts: tuple[str, ...] = ()
    """further names and addresses for the certificate"""
    format: int = 0
    """the highest format of log and state that its version knows; 0: it is from before there were any"""


@dataclass(frozen=True, slots=True)
class Joined:
    cluster: str
    members: Mapping[str, str]
    role: NodeRole
    certificate: str
    ca: str


@dataclass(frozen=True, slots=True)
class Admit:
    """For the raft leader: the node that used this token shall be a member."""

    token: str
    member: str
    address: str
    key: str


@dataclass(frozen=True, slots=True)
class Admitted:
    members: Mapping[str, str]
    """name to raft address, the new one included"""


@dataclass(frozen=True, slots=True)
class Certify:
    """For a member that holds the authority's key: the node that used this token needs a certificate."""

    token: str
    member: str
    address: str
    key: str
    request: str
    hosts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Certified:
    certificate: str
    """PEM"""


@dataclass(frozen=True, slots=True)
class Declined:
    """Why a member did not do what `Admit` or `Certify` asks for."""

    reason: str


KINDS: Mapping[str, type] = {
    c.__name__: c
    for c in (
        SendReport,
        ReportAnswer,
        Operate,
        OperatorAnswer,
        AskCredentials,
        CredentialsAnswer,
        AskPromise,
        Promise,
        Join,
        Joined,
        Admit,
        Admitted,
        Certify,
        Certified,
        Declined,
    )
}


def encode(message: object) -> bytes:
    return json.dumps({"type": type(message).__name__, "body": to_json(message)}, separators=(",", ":")).encode()


def decode(raw: bytes) -> Any:
    """The message, of one of KINDS. Raises MessageError."""
    try:
        document = json.loads(raw)
        return from_json(KINDS[document["type"]], document["body"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise MessageError(f"not a message of this version: {error}") from error
