"""Patroni's `POST /switchover` and `POST /failover`: plain text and its status codes, over our own operations.

Scheduled ones are refused; everything else that Patroni lets one POST is not here yet.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeGuard

from appliance.api.bodies import NAME_LIMIT
from appliance.api.desk import Desk, new_id
from appliance.api.published import OperatorAnswer, OperatorRequest
from appliance.cluster.state import Operation, Phase

RESULT_LIMIT_S = 20.0
"""Patroni's 2 x max(10, loop_wait)."""

Kind = Literal["switchover", "failover"]

_PHRASES = {
    "cluster.primary_name": "leader name does not match",
    "member.unknown": "candidate does not exists",
}
"""Patroni's words, spelt as there, for what its users match on."""


@dataclass(frozen=True, slots=True)
class Text:
    status: int
    body: str


@dataclass(frozen=True, slots=True)
class _Asked:
    kind: Kind
    leader: str
    candidate: str


async def manual(desk: Desk, kind: Kind, raw: bytes, requester: str) -> Text:
    """Run one request to its end or to the limit, as Patroni does."""
    asked = _read(kind, raw)
    if isinstance(asked, Text):
        return asked
    request = OperatorRequest(
        kind=asked.kind,
        id=new_id(),
        requester=requester,
        reason=f"Patroni's POST /{kind}",
        target=asked.candidate,
        expected_primary=asked.leader,
    )
    answer = await desk.ask(request)
    if answer.outcome != "accepted":
        return _not_accepted(asked.kind, answer)
    return _result(desk, asked, await desk.follow(request.id, RESULT_LIMIT_S))


def _read(kind: Kind, raw: bytes) -> _Asked | Text:
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError):
        return Text(400, "the body is not JSON")
    if not isinstance(body, dict):
        return Text(400, "the body is not a JSON object")
    return _checked(kind, body)


def _checked(kind: Kind, body: Mapping[str, object]) -> _Asked | Text:
    leader, candidate = body.get("leader") or "", body.get("candidate") or body.get("member") or ""
    if not _may_be_a_name(leader) or not _may_be_a_name(candidate):
        return Text(400, "leader and candidate must be names of members")
    if kind == "failover" and not candidate:
        return Text(400, "Failover could be performed only to a specific candidate")
    if kind == "switchover" and not leader:
        return Text(400, "Switchover could be performed only from a specific leader")
    if body.get("scheduled_at"):
        return Text(501, f"scheduled {kind} is not available: leave out scheduled_at")
    if leader and leader == candidate:
        return Text(400, "Switchover target and source are the same")
    # With a leader named Patroni takes a failover for a switchover.
    return _Asked("switchover" if leader else kind, leader, candidate)


def _may_be_a_name(value: object) -> TypeGuard[str]:
    r"""JSON may hold halves of characters (`\ud800`), which no answer could repeat."""
    return isinstance(value, str) and len(value) <= NAME_LIMIT and not any("\ud800" <= c <= "\udfff" for c in value)


def _not_accepted(kind: Kind, answer: OperatorAnswer) -> Text:
    match answer.outcome:
        case "unknown":
            return Text(503, f"{kind.capitalize()} status unknown: {answer.message}; operation {answer.id}")
        case "no_quorum":
            return Text(503, f"{kind} is not possible: {answer.message or 'no quorum'}")
        case _:
            phrase = _PHRASES.get(answer.code, f"{kind} is not possible")
            return Text(412, ": ".join(part for part in (phrase, answer.message, answer.hint) if part))


def _result(desk: Desk, asked: _Asked, operation: Operation | None) -> Text:
    kind, verb = asked.kind.capitalize(), "switched" if asked.kind == "switchover" else "failed"
    if operation is None or not operation.phase.ended:
        return Text(503, f"{kind} status unknown")
    if operation.phase is Phase.FAILED:
        return Text(503, f"{kind} failed: {operation.message}")
    primary = desk.gateway.published().state.primary or operation.target
    if asked.candidate and primary != asked.candidate:
        return Text(200, f'{verb.capitalize()} over to "{primary}" instead of "{asked.candidate}"')
    return Text(200, f'Successfully {verb} over to "{primary}"')
