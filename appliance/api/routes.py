"""What the routes of `/api/v1` share: the desk behind them, parameters, and how a value becomes an answer."""

from dataclasses import dataclass
from typing import Annotated, Literal

from fastapi import Depends, Header, Query, Request
from starlette.responses import JSONResponse

from appliance.api.bodies import ConfigView
from appliance.api.desk import Desk, new_id
from appliance.api.problem import Mistake, ProblemError, problem
from appliance.cluster.codec import to_json
from appliance.cluster.config import ConfigError, duration_s

WAIT_LIMIT_S = 300.0


def local(consistency: Annotated[Literal["local"], Query(description="no other is available yet")] = "local") -> str:
    """Refuse other consistencies aloud: a local answer to a linearizable question would be a lie."""
    return consistency


def _desk(request: Request) -> Desk:
    desk = request.app.state.desk
    assert isinstance(desk, Desk)
    return desk


def _wait_s(wait: Annotated[str, Query(description="wait for the end, at most so long: `30s`")] = "0s") -> float:
    try:
        return min(duration_s("wait", wait), WAIT_LIMIT_S)
    except ConfigError as error:
        mistake = Mistake("query wait", str(error))
        raise ProblemError(problem(422, "request.invalid", str(error), errors=[mistake])) from None


AtDesk = Annotated[Desk, Depends(_desk)]
WaitS = Annotated[float, Depends(_wait_s)]

_KEY = Header(pattern=r"^[A-Za-z0-9._:-]{1,128}$", description="becomes the operation's id")


@dataclass(frozen=True, slots=True)
class Wish:
    """How a change is asked for, whatever it is."""

    desk: Desk
    requester: str
    id: str
    wait_s: float
    dry_run: bool


def _wish(
    request: Request,
    desk: AtDesk,
    wait_s: WaitS,
    idempotency_key: Annotated[str | None, _KEY] = None,
    *,
    dry_run: Annotated[bool, Query(description="only run the checks")] = False,
) -> Wish:
    return Wish(desk, request.state.requester, idempotency_key or new_id(), wait_s, dry_run)


Wished = Annotated[Wish, Depends(_wish)]


def config_answer(desk: Desk, status: int = 200) -> JSONResponse:
    held = desk.gateway.published().state.config
    return answer(ConfigView(held.version, held.document), status, {"etag": f'"{held.version}"'})


def answer(value: object, status: int = 200, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse(to_json(value), status, headers=headers)
