"""The first thing a request meets: health and Patroni's routes are answered here, from memory, before any framework.

A router's own habits (405 to HEAD and OPTIONS, a redirect for a trailing slash, 404 for `//leader`) would make
HAProxy mark every node down. `/api/…` goes on to FastAPI, changes only for those who may.
"""

import asyncio
import json
from urllib.parse import parse_qsl

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from appliance.api.access import requester
from appliance.api.desk import Desk
from appliance.api.exposition import MEDIA_TYPE
from appliance.api.health import tidy
from appliance.api.manual import Kind, manual
from appliance.api.metrics import metrics
from appliance.api.patroni import read
from appliance.api.present import Present
from appliance.api.problem import Problem, problem, respond

BODY_LIMIT_BYTES = 64 << 10
BODY_LIMIT_S = 5.0

_READS = {"GET", "HEAD", "OPTIONS"}
_MANUAL: dict[str, Kind] = {"switchover": "switchover", "failover": "failover"}


class _BodyError(Exception):
    def __init__(self, status: int, code: str, detail: str) -> None:
        super().__init__(detail)
        self.problem = problem(status, code, detail)


class Front:
    def __init__(self, desk: Desk, app: ASGIApp, token: str) -> None:
        self._desk = desk
        self._app = app
        self._token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        path = tidy(scope["path"])
        if path == "/openapi.json" or path.split("/")[1] == "api":
            await self._own(dict(scope) | {"path": path}, receive, self._with_index(send))
        else:
            response = await self._patroni(scope, receive, path)
            await response(scope, receive, send)

    async def _own(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] == "HEAD":
            # The server drops the body; FastAPI knows no HEAD for a GET route.
            scope["method"] = "GET"
        if scope["method"] in _READS:
            await self._app(scope, receive, send)
            return
        refusal, body = await self._let_in(scope, receive)
        if refusal is not None:
            headers = {"www-authenticate": "Bearer"} if refusal.status == 401 else None
            await respond(refusal, headers)(scope, receive, send)
            return
        await self._app(scope, _replay(body, receive), send)

    async def _let_in(self, scope: Scope, receive: Receive) -> tuple[Problem | None, bytes]:
        who = requester(scope, self._token)
        if who is None:
            return _not_allowed(), b""
        scope["state"] = {**scope.get("state", {}), "requester": who}
        # Bodies are JSON whatever `curl -d` calls them.
        MutableHeaders(scope=scope)["content-type"] = "application/json"
        try:
            return None, await _body(scope, receive)
        except _BodyError as error:
            return error.problem, b""

    async def _patroni(self, scope: Scope, receive: Receive, path: str) -> Response:
        method = scope["method"]
        if method in _READS:
            return self._read(scope, path, with_body=method == "GET")
        kind = _MANUAL.get(path.split("/")[1])
        if method != "POST" or kind is None:
            return _text(501, f"{method} {path} is not available; see /openapi.json for what is")
        return await self._manual(scope, receive, kind)

    def _read(self, scope: Scope, path: str, *, with_body: bool) -> Response:
        gateway = self._desk.gateway
        if path.split("/")[1] == "metrics":
            text = metrics(gateway.published(), gateway.now_s()) if with_body else ""
            return Response(text, media_type=MEDIA_TYPE)
        status, document = read(gateway.published(), path, _query(scope), gateway.now_s())
        if not with_body or document is None:
            return Response(b"", status)
        return Response(json.dumps(document), status, media_type="application/json")

    async def _manual(self, scope: Scope, receive: Receive, kind: Kind) -> Response:
        if "content-length" not in Headers(scope=scope):
            return _text(411, "the body needs a Content-Length")
        refusal, body = await self._let_in(scope, receive)
        if refusal is not None:
            headers = {"www-authenticate": 'Bearer, Basic realm="Patroni"'} if refusal.status == 401 else None
            return _text(refusal.status, refusal.detail, headers)
        answer = await manual(self._desk, kind, body, scope["state"]["requester"])
        return _text(answer.status, answer.body)

    def _with_index(self, send: Send) -> Send:
        """Say with every answer how far this node has applied the log, and how old that knowledge is."""

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                gateway = self._desk.gateway
                present = Present.at(gateway.published(), gateway.now_s())
                age_s = present.contact_s
                headers = MutableHeaders(scope=message)
                headers["x-applied-index"] = str(present.published.raft.index)
                headers["x-applied-age"] = "unknown" if age_s is None else f"{age_s:.3f}"
                headers["cache-control"] = "no-store"
            await send(message)

        return sending


def _not_allowed() -> Problem:
    return problem(
        401,
        "access.denied",
        "this changes something: neither the unix socket of this node nor its token was used",
        hint="on the node, as root or its own user, use the `appliance` command; from elsewhere send"
        " `Authorization: Bearer TOKEN` with the token that lies beside the node's state",
    )


def _text(status: int, body: str, headers: dict[str, str] | None = None) -> Response:
    """Patroni labels its plain answers as HTML."""
    # A member's name may hold anything; as HTML it must not become markup.
    return Response(body.replace("&", "&amp;").replace("<", "&lt;"), status, headers, media_type="text/html")


def _query(scope: Scope) -> dict[str, str]:
    """The first value of each parameter."""
    pairs = parse_qsl(scope["query_string"].decode("ascii", "replace"))
    return dict(reversed(pairs))


async def _body(scope: Scope, receive: Receive) -> bytes:
    """Read all of it before anything is done, bounded in size and time."""
    announced = Headers(scope=scope).get("content-length", "0")
    if announced.isdigit() and int(announced) > BODY_LIMIT_BYTES:
        raise _too_large(int(announced))
    try:
        async with asyncio.timeout(BODY_LIMIT_S):
            return await _collect(Request(scope, receive))
    except TimeoutError:
        detail = f"the body did not arrive within {BODY_LIMIT_S:g} s"
        raise _BodyError(408, "body.slow", detail) from None
    except ClientDisconnect:
        raise _BodyError(400, "body.cut", "the client went away within the body") from None


async def _collect(request: Request) -> bytes:
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > BODY_LIMIT_BYTES:
            raise _too_large(len(body))
    return bytes(body)


def _too_large(size: int) -> _BodyError:
    return _BodyError(413, "body.too_large", f"a body of {size} bytes or more, the limit is {BODY_LIMIT_BYTES}")


def _replay(body: bytes, receive: Receive) -> Receive:
    sent = False

    async def replaying() -> Message:
        nonlocal sent
        if sent:
            return await receive()
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replaying
