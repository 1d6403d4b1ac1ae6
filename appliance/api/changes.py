"""`/api/v1`, the changing half: a request becomes an operation, or a problem that says why not.

The front has let in whoever gets here.
"""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Header
from fastapi.security import HTTPBearer
from starlette.responses import JSONResponse

from appliance.api.bodies import (
    BootstrapBody,
    Bootstrapping,
    ConfigView,
    DryRun,
    FailoverBody,
    InviteBody,
    Invited,
    RemovalBody,
    Removed,
    SwitchoverBody,
    TransferBody,
    Transferred,
)
from appliance.api.desk import SEEN_LIMIT_S, Desk, find
from appliance.api.problem import Problem, ProblemError, problem
from appliance.api.published import InviteRequest, OperatorAnswer, OperatorRequest
from appliance.api.routes import Wish, Wished, answer, config_answer
from appliance.cluster.config import ConfigError, duration_s
from appliance.cluster.state import Operation, OperationKind, Phase

_REFUSALS: dict[int | str, dict[str, Any]] = {
    401: {"model": Problem, "description": "not allowed: neither the unix socket nor the token"},
    409: {"model": Problem, "description": "refused by a check; nothing was changed"},
    422: {"model": Problem, "description": "the request cannot be read"},
    503: {
        "model": Problem,
        "description": "`quorum.none`: nothing was changed; `outcome.unknown`: it may still happen",
    },
}
_BEGUN: dict[int | str, dict[str, Any]] = {
    200: {"model": Operation | DryRun, "description": "ended within `wait`; or the checks of a dry run, all passed"},
    202: {"model": Operation, "description": "accepted: follow `Location`"},
    **_REFUSALS,
}
_BOOTSTRAPPED: dict[int | str, dict[str, Any]] = {
    200: {"model": Bootstrapping | DryRun, "description": "open within `wait`; or the checks of a dry run, all passed"},
    202: {"model": Bootstrapping, "description": "accepted: follow `Location`"},
    **_REFUSALS,
}
_INVITED: dict[int | str, dict[str, Any]] = {
    200: {"model": DryRun, "description": "a dry run"},
    201: {"model": Invited, "description": "the token, which is told this once"},
    **_REFUSALS,
}
_REMOVED: dict[int | str, dict[str, Any]] = {
    200: {"model": Removed | DryRun, "description": "it is no member any more; or the checks of a dry run, all passed"},
    **_REFUSALS,
}

_TRANSFERRED: dict[int | str, dict[str, Any]] = {
    200: {"model": Transferred | DryRun, "description": "another one leads; or the checks of a dry run, all passed"},
    **_REFUSALS,
}

_CONFIGURED: dict[int | str, dict[str, Any]] = {
    200: {"model": ConfigView | DryRun, "description": "as it is now; or the checks of a dry run, all passed"},
    202: {"model": ConfigView, "description": "changed, and not applied on this node yet: what it has still"},
    412: {"model": Problem, "description": "`config.version`: somebody else has changed it; nothing was changed"},
    428: {"model": Problem, "description": "`config.if_match`: without the version that it was made from"},
    **_REFUSALS,
}

# The front has checked the token; this only says so in the schema.
router = APIRouter(prefix="/api/v1", dependencies=[Depends(HTTPBearer(auto_error=False))])


@router.post("/switchovers", status_code=202, response_model=None, responses=_BEGUN)
async def switchover(wish: Wished, body: SwitchoverBody = SwitchoverBody()) -> JSONResponse:
    """Move the primary role to another member without losing a commit."""
    return await _begin(wish.desk, _asked("switchover", wish, body), wish.wait_s)


@router.post("/failovers", status_code=202, response_model=None, responses=_BEGUN)
async def failover(wish: Wished, body: FailoverBody) -> JSONResponse:
    """Make a named member the primary, whether or not there is one.

    With `allow_data_loss` only where nobody could be appointed without: a dry run shows what is known of the loss, and
    the request names the cluster.
    """
    request = replace(
        _asked("failover", wish, body),
        allow_data_loss=body.allow_data_loss,
        cluster=body.cluster,
        accepts=body.accepts,
    )
    return await _begin(wish.desk, request, wish.wait_s)


@router.post("/bootstrap", status_code=202, response_model=None, responses=_BOOTSTRAPPED)
async def bootstrap(wish: Wished, body: BootstrapBody = BootstrapBody()) -> JSONResponse:
    """Initialise the cluster, once, on any node."""
    request = OperatorRequest(
        kind="bootstrap", id=wish.id, requester=wish.requester, reason=body.reason, dry_run=wish.dry_run
    )
    said = await _accepted(wish.desk, request, dry_run=wish.dry_run)
    if wish.dry_run:
        return answer(DryRun(said.message, said.checks))
    done = await wish.desk.initialised(wish.id, wish.wait_s)
    failed = wish.desk.gateway.published().state.failed_bootstrap
    if failed is not None and failed.operation == wish.id:
        detail = f"the bootstrap on {failed.node} was given up: {failed.reason}"
        raise ProblemError(problem(409, "bootstrap.failed", detail, hint="nothing was kept: mend it, then ask again"))
    headers = {"location": "/api/v1/cluster"}
    return answer(Bootstrapping(wish.id, done, said.message), 200 if done else 202, headers)


@router.post("/members", status_code=201, response_model=None, responses=_INVITED)
async def invite(wish: Wished, body: InviteBody) -> JSONResponse:
    """Make a token with which one node may join."""
    try:
        valid_for_s = duration_s("valid_for", body.valid_for)
    except ConfigError as error:
        raise ProblemError(problem(422, "request.invalid", str(error))) from None
    request = InviteRequest(wish.id, wish.requester, body.name, body.role, valid_for_s)
    if wish.dry_run:
        return answer(DryRun(f"a token for {body.name} would be made", ()))
    expires_at = datetime.now(UTC) + timedelta(seconds=valid_for_s)
    said = await _accepted(wish.desk, request)
    return answer(Invited(body.name, body.role, said.message, expires_at.isoformat(timespec="seconds")), 201)


@router.patch("/config", response_model=None, responses=_CONFIGURED)
async def configure(
    wish: Wished,
    patch: dict[str, Any],
    if_match: Annotated[str, Header(description='the ETag of `GET config`, as `"7"`; or `*`: whatever it is')] = "",
) -> JSONResponse:
    """Change settings of the configuration document (RFC 7386): null takes one back to its default."""
    held = wish.desk.gateway.published().state.config.version
    version = _expected(if_match)
    request = OperatorRequest(
        kind="config", id=wish.id, requester=wish.requester, dry_run=wish.dry_run, patch=patch, version=version
    )
    try:
        said = await _accepted(wish.desk, request, dry_run=wish.dry_run)
    except ProblemError as error:
        if error.problem.code != "config.version":
            raise
        detail, hint = error.problem.detail, "look at what has changed, then ask again"
        raise ProblemError(problem(412, "config.version", detail, hint=hint)) from None
    if wish.dry_run:
        return answer(DryRun(said.message, said.checks))
    seen = await wish.desk.configured(held if version is None else version, SEEN_LIMIT_S)
    return config_answer(wish.desk, 200 if seen else 202)


def _expected(if_match: str) -> int | None:
    """The version; None: any."""
    text = if_match.strip().strip('"')
    if text == "*":
        return None
    if not text.isdecimal() or len(text) > 9:
        detail = "the header If-Match has to say which version of the document the change was made from"
        hint = 'send the ETag of GET /api/v1/config, as `If-Match: "7"`; or `If-Match: *`'
        raise ProblemError(problem(428, "config.if_match", detail, hint=hint))
    return int(text)


@router.post("/raft/leader", response_model=None, responses=_TRANSFERRED)
async def transfer_leader(wish: Wished, body: TransferBody = TransferBody()) -> JSONResponse:
    """Hand the leadership of the consensus to another voter. The primary stays where it is."""
    request = OperatorRequest(
        kind="raft_transfer", id=wish.id, requester=wish.requester, target=body.to, dry_run=wish.dry_run
    )
    said = await _accepted(wish.desk, request)
    return answer(DryRun(said.message, said.checks) if wish.dry_run else Transferred(said.message))


@router.post("/removals", response_model=None, responses=_REMOVED)
async def removal(wish: Wished, body: RemovalBody) -> JSONResponse:
    """Take a member out of the cluster for good; the raft leader takes its replica out of consensus after that."""
    request = OperatorRequest(
        kind="remove",
        id=wish.id,
        requester=wish.requester,
        reason=body.reason,
        target=body.member,
        dry_run=wish.dry_run,
        force=body.force,
    )
    said = await _accepted(wish.desk, request, dry_run=wish.dry_run)
    if wish.dry_run:
        return answer(DryRun(said.message, said.checks))
    return answer(Removed(body.member, f"{body.member} is no member any more"))


def _asked(kind: Literal["switchover", "failover"], wish: Wish, body: SwitchoverBody | FailoverBody) -> OperatorRequest:
    return OperatorRequest(
        kind=kind,
        id=wish.id,
        requester=wish.requester,
        reason=body.reason,
        target=body.to,
        expected_primary=body.source,
        dry_run=wish.dry_run,
    )


async def _begin(desk: Desk, request: OperatorRequest, wait_s: float) -> JSONResponse:
    known = None if request.dry_run else find(desk.gateway.published(), request.id)
    if known is not None:
        _same_request(known, request)
    else:
        said = await _accepted(desk, request, dry_run=request.dry_run)
        if request.dry_run:
            return answer(DryRun(said.message, said.checks, said.prospect))
    operation = await _started(desk, request)
    if wait_s:
        operation = await desk.follow(request.id, wait_s) or operation
    headers = {"location": f"/api/v1/operations/{operation.id}", "retry-after": "1"}
    return answer(operation, 200 if operation.phase.ended else 202, headers)


def _same_request(known: Operation, request: OperatorRequest) -> None:
    """The key of an operation repeats it only with the same words."""
    before = (known.kind.value, known.target, known.allow_data_loss)
    if before != (request.kind, request.target, request.allow_data_loss):
        detail = f"{known.id} is the key of a {known.kind} to {known.target or 'the best candidate'}"
        hint = "a new request needs a new Idempotency-Key"
        raise ProblemError(problem(422, "idempotency.mismatch", detail, hint=hint, operation=known.id))


async def _started(desk: Desk, request: OperatorRequest) -> Operation:
    """The accepted operation as applied here; or, where this node is behind, as it was asked for."""
    return await desk.seen(request.id, SEEN_LIMIT_S) or Operation(
        id=request.id,
        kind=OperationKind(request.kind),
        requester=request.requester,
        reason=request.reason,
        source=request.expected_primary,
        target=request.target,
        epoch=desk.gateway.published().state.epoch,
        phase=Phase.REQUESTED,
        message="accepted; not applied on this node yet",
        allow_data_loss=request.allow_data_loss,
        accepted=request.accepts,
    )


async def _accepted(desk: Desk, request: OperatorRequest | InviteRequest, *, dry_run: bool = False) -> OperatorAnswer:
    """Ask the raft leader; everything but acceptance ends as a problem."""
    said = await desk.ask(request)
    match said.outcome:
        case "accepted":
            return said
        case "refused":
            if said.code == "operation.known" and not dry_run:
                # The same key came twice at once, and the other one was first.
                return said
            raise ProblemError(_refused(desk, said))
        case "no_quorum":
            detail = said.message or "no quorum: nothing was changed"
            raise ProblemError(problem(503, said.code or "quorum.none", detail, hint=said.hint))
        case "unknown":
            raise _unknown(said, request)


def _refused(desk: Desk, said: OperatorAnswer) -> Problem:
    running = desk.gateway.published().state.running_operation()
    return problem(
        409,
        said.code or "refused",
        said.message,
        hint=said.hint,
        checks=said.checks,
        operation="" if running is None else running.id,
    )


def _unknown(said: OperatorAnswer, request: OperatorRequest | InviteRequest) -> ProblemError:
    operation = said.id or request.id
    hint = said.hint or "look at the operation before you ask again, or repeat with the same Idempotency-Key"
    detail = f"{said.message or 'no answer from the raft leader'}; it may still happen"
    what = problem(503, said.code or "outcome.unknown", detail, hint=hint, operation=operation)
    return ProblemError(what, {"location": f"/api/v1/operations/{operation}"})
