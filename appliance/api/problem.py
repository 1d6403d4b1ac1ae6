"""Errors of `/api/v1` as RFC 9457 problem documents: what was refused, by which checks, and what would do."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from appliance.cluster.codec import to_json
from appliance.ha.checks import Check

MEDIA_TYPE = "application/problem+json"


@dataclass(frozen=True, slots=True)
class Mistake:
    """One field of a request that cannot be used."""

    field: str
    message: str


@dataclass(frozen=True, slots=True)
class Problem:
    type: str
    title: str
    status: int
    code: str
    """stable, for programs: `candidate.lagging`, `quorum.none`"""
    detail: str
    hint: str = ""
    checks: tuple[Check, ...] = ()
    errors: tuple[Mistake, ...] = ()
    operation: str = ""
    """id of the operation in question, if there is one"""


class ProblemError(Exception):
    """Ends a request with this problem."""

    def __init__(self, problem: Problem, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(problem.detail)
        self.problem = problem
        self.headers = headers


def problem(
    status: int,
    code: str,
    detail: str,
    *,
    hint: str = "",
    checks: Sequence[Check] = (),
    errors: Sequence[Mistake] = (),
    operation: str = "",
) -> Problem:
    return Problem(
        type=f"urn:pg-appliance:problem:{code}",
        title=HTTPStatus(status).phrase,
        status=status,
        code=code,
        detail=detail,
        hint=hint,
        checks=tuple(checks),
        errors=tuple(errors),
        operation=operation,
    )


def respond(problem: Problem, headers: Mapping[str, str] | None = None) -> Response:
    """Empty members are left out, but for the ones RFC 9457 names and `code`."""
    always = {"type", "title", "status", "code", "detail"}
    body = {key: value for key, value in to_json(problem).items() if key in always or value}
    return JSONResponse(body, problem.status, headers=headers, media_type=MEDIA_TYPE)


async def on_problem(_request: Request, error: Exception) -> Response:
    assert isinstance(error, ProblemError)
    return respond(error.problem, error.headers)


async def on_invalid(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    mistakes = [_mistake(e) for e in error.errors()]
    detail = "; ".join(f"{m.field}: {m.message}" for m in mistakes)
    return respond(problem(422, "request.invalid", detail, errors=mistakes))


def _mistake(found: Mapping[str, Any]) -> Mistake:
    if found["type"] == "json_invalid":
        # FastAPI gives the place of the character as if it were a field.
        return Mistake("body", f"not JSON at character {found['loc'][-1]}: {found['ctx']['error']}")
    return Mistake(_place(found["loc"]), str(found["msg"]))


def _place(location: Sequence[object]) -> str:
    """`to` for a field of the body, `query dry_run` for the rest; the body itself is `body`."""
    first, *rest = map(str, location)
    name = ".".join(rest)
    return name or first if first == "body" else f"{first} {name}"


async def on_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = {404: "path.unknown", 405: "method.unknown"}.get(error.status_code, f"http.{error.status_code}")
    detail = f"{request.method} {request.url.path}: {error.detail}"
    return respond(problem(error.status_code, code, detail), error.headers)


async def on_bug(request: Request, error: Exception) -> Response:
    detail = f"{request.method} {request.url.path}: {type(error).__name__}; the node's log has the rest"
    # The server drops the connection after a bug: say so, or a client would send its next request into it.
    return respond(problem(500, "internal", detail), {"connection": "close"})
