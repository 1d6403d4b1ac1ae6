"""The API as the command line sees it: tries each endpoint, and turns every answer into a value or an exit code.

A request that may have reached a node is never sent to another one: its outcome is unknown, and said to be.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Literal

import httpx2

from appliance.cli.exits import Code, CommandError
from appliance.cli.target import Endpoint, find_target

CONNECT_LIMIT_S = 2.0
READ_LIMIT_S = 4.0
CHANGE_LIMIT_S = 15.0
"""the API itself answers a change within about eight seconds"""
AWAKE_LIMIT_S = 1.0
"""a node answers this from memory"""

Document = Mapping[str, Any]

_ERRNO = re.compile(r"\[Errno -?\d+\] ", re.IGNORECASE)
_NEVER_SENT = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.UnsupportedProtocol)


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    body: Any
    endpoint: Endpoint

    @property
    def ok(self) -> bool:
        return self.status < 400

    @property
    def code(self) -> str:
        """The problem's stable code; empty when there is none."""
        return str(self.body.get("code", "")) if isinstance(self.body, Mapping) else ""

    def text(self, key: str) -> str:
        return str(self.body.get(key, "")) if isinstance(self.body, Mapping) else ""


@dataclass(frozen=True, slots=True)
class _Failure:
    """Why an endpoint was of no use."""

    line: str
    because: Literal["away", "quorum", "denied"]


class Client:
    def __init__(self, endpoints: Sequence[Endpoint]) -> None:
        self.endpoints = endpoints

    def get(self, path: str, accept: Callable[[Answer], bool] = lambda answer: answer.ok) -> Answer:
        """The first answer that is acceptable, else the last one there was. Raises CommandError 3 without any."""
        failures: list[_Failure] = []
        last: Answer | None = None
        for answer in self._answers(path, failures):
            if accept(answer):
                return answer
            last = answer
        if last is None:
            raise _unreachable(failures)
        return last

    def cluster(self) -> Document:
        return self.view("/api/v1/cluster")

    def view(self, path: str) -> Document:
        """What a node with a quorum sees, else the view with the most applied (stale)."""
        failures: list[_Failure] = []
        views: list[Document] = []
        for answer in self._answers(path, failures):
            if answer.status == HTTPStatus.NOT_FOUND and answer.code:
                raise CommandError(Code.FAILED, f"{answer.text('detail')} ({answer.code})")
            if not answer.ok:
                said = f"{answer.endpoint.shown}: HTTP {answer.status} {answer.text('detail')}"
                failures.append(_Failure(said, "away"))
                continue
            views.append(answer.body)
            if answer.body["quorum"]:
                return views[-1]
        if not views:
            raise _unreachable(failures)
        return max(views, key=_applied_index)

    def change(self, path: str, body: Document, *, operation: str, dry_run: bool = False, based_on: str = "") -> Answer:
        """POST a request under its operation id; PATCH where it is `based_on` an ETag.

        Refusals are answers; what cannot go on raises CommandError.
        """
        failures: list[_Failure] = []
        for endpoint in self.endpoints:
            try:
                if len(self.endpoints) > 1:
                    # A node that hangs takes the connection all the same, and what it got could go nowhere else.
                    _call(endpoint, "GET", "/liveness", limit_s=AWAKE_LIMIT_S)
            except httpx2.HTTPError as error:
                failures.append(_failure(endpoint, error))
                continue
            try:
                method = "PATCH" if based_on else "POST"
                answer = _call(
                    endpoint, method, path, body=body, operation=operation, dry_run=dry_run, based_on=based_on
                )
            except httpx2.HTTPError as error:
                if not (dry_run or isinstance(error, _NEVER_SENT)):
                    raise unknown(operation, f"{endpoint.shown} did not answer: {_because(error)}") from None
                failures.append(_failure(endpoint, error))
                continue
            if answer.status == 503 and answer.code == "quorum.none":
                failures.append(_Failure(f"{endpoint.shown}: {answer.text('detail')}", "quorum"))
                continue
            return _passed(answer, operation)
        raise _unreachable(failures)

    def _answers(self, path: str, failures: list[_Failure]) -> Iterator[Answer]:
        for endpoint in self.endpoints:
            try:
                yield _call(endpoint, "GET", path)
            except httpx2.HTTPError as error:
                failures.append(_failure(endpoint, error))


def connect() -> Client:
    """A client for what the command line or the environment names."""
    return Client(find_target().endpoints)


def _applied_index(view: Document) -> int:
    return int(view["applied"]["index"])


def _call(
    endpoint: Endpoint,
    method: str,
    path: str,
    *,
    body: Document | None = None,
    operation: str = "",
    dry_run: bool = False,
    based_on: str = "",
    limit_s: float = 0.0,
) -> Answer:
    headers = {"Idempotency-Key": operation} if operation else {}
    if based_on:
        headers["If-Match"] = based_on
    if endpoint.token:
        headers["Authorization"] = f"Bearer {endpoint.token}"
    # Reading the certificates of the machine takes 30 ms, so only where they are looked at.
    transport = httpx2.HTTPTransport(
        uds=str(endpoint.socket) if endpoint.socket is not None else None,
        verify=endpoint.url.startswith("https"),
    )
    limit_s = limit_s or (READ_LIMIT_S if method == "GET" else CHANGE_LIMIT_S)
    limits = httpx2.Timeout(limit_s, connect=CONNECT_LIMIT_S)
    with httpx2.Client(transport=transport, base_url=endpoint.url, timeout=limits, headers=headers) as client:
        response = client.request(method, path, json=body, params={"dry_run": "true"} if dry_run else None)
    if response.is_success and "x-applied-index" not in response.headers:
        # Every answer of the API has it.
        return Answer(HTTPStatus.BAD_GATEWAY, {"detail": "this is not the API of a node"}, endpoint)
    try:
        return Answer(response.status_code, response.json(), endpoint)
    except json.JSONDecodeError:
        return Answer(response.status_code, {"detail": response.text.strip()[:200]}, endpoint)


def _because(error: Exception) -> str:
    said = _ERRNO.sub("", str(error)).rstrip(".")
    return (said or type(error).__name__).lower()


def _failure(endpoint: Endpoint, error: Exception) -> _Failure:
    # The client wraps the system's error: only its argument tells which one it was.
    denied = any(isinstance(inner, PermissionError) for inner in getattr(error.__cause__, "args", ()))
    return _Failure(f"{endpoint.shown}: {_because(error)}", "denied" if denied else "away")


def _unreachable(failures: Sequence[_Failure]) -> CommandError:
    """One failure stands in the message, several stand below it."""
    kinds, lines = {failure.because for failure in failures}, [failure.line for failure in failures]
    code, one = Code.UNREACHABLE, len(failures) == 1
    if "quorum" in kinds:
        what, would_do = "no quorum, nothing was changed", "start the missing nodes or mend the network"
    elif kinds == {"denied"}:
        code = Code.NOT_ALLOWED
        what, would_do = "not allowed", "be root or the user whom the node runs as, or use --api http://HOST:8008"
    else:
        what, would_do = "no node answers", "is the node running?" if one else "are the nodes running?"
    if one:
        return CommandError(code, f"{what}: {lines[0]}; {would_do}")
    return CommandError(code, f"{what}; {would_do}", lines)


def unknown(operation: str, why: str) -> CommandError:
    """The request may have been carried out, or may yet be."""
    message = f"outcome not known: {why}; look with `appliance operations show {operation}`"
    return CommandError(Code.UNKNOWN, message, [f"operation {operation}"])


def _passed(answer: Answer, operation: str) -> Answer:
    """Refusals (409) and acceptance go back to the command; everything else ends it."""
    detail = answer.text("detail") or f"HTTP {answer.status}"
    hint = f"; {answer.text('hint')}" if answer.text("hint") else ""
    if answer.ok or answer.status == 409:
        return answer
    match answer.status:
        case 401 | 403:
            raise CommandError(Code.NOT_ALLOWED, f"not allowed: {detail}{hint}")
        case 412:
            raise CommandError(Code.CHANGED, f"changed under you: {detail}{hint}")
        case 422 | 400:
            raise CommandError(Code.USAGE, f"not understood by the node: {detail}{hint}")
        case 503 if answer.code == "outcome.unknown":
            raise unknown(answer.text("operation") or operation, detail)
        case _:
            raise CommandError(Code.FAILED, f"{answer.endpoint.shown}: HTTP {answer.status}: {detail}{hint}")
