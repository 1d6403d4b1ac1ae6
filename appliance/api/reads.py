"""`/api/v1`, the reading half: the cluster, its members, operations and history as this node knows them."""

from collections.abc import Iterable
from typing import Annotated

from fastapi import APIRouter, Depends, Query
from starlette.responses import JSONResponse

from appliance.api.bodies import NAME_LIMIT, ConfigView, History, Members, Operations
from appliance.api.desk import SEEN_LIMIT_S
from appliance.api.explained import ExplainView, explain_view
from appliance.api.problem import Problem, ProblemError, problem
from appliance.api.raft_view import RaftView
from appliance.api.routes import AtDesk, WaitS, answer, config_answer, local
from appliance.api.view import ClusterView, MemberView, cluster_view, members_view
from appliance.cluster.state import Operation

router = APIRouter(prefix="/api/v1", dependencies=[Depends(local)])


@router.get("/cluster", response_model=ClusterView)
async def cluster(desk: AtDesk) -> JSONResponse:
    """Everything about the cluster as this node knows it, with a verdict."""
    return answer(cluster_view(desk.gateway.published(), desk.gateway.now_s()))


@router.get("/members", response_model=Members)
async def members(desk: AtDesk) -> JSONResponse:
    return answer(Members(members_view(desk.gateway.published(), desk.gateway.now_s())))


@router.get("/members/{name}", response_model=MemberView, responses={404: {"model": Problem}})
async def member(name: str, desk: AtDesk) -> JSONResponse:
    views = members_view(desk.gateway.published(), desk.gateway.now_s())
    found = next((view for view in views if view.name == name), None)
    if found is None:
        raise _unknown(name, (view.name for view in views))
    return answer(found)


def _unknown(name: str, known: Iterable[str]) -> ProblemError:
    return ProblemError(
        problem(404, "member.unknown", f"no member {name!r}; known: {', '.join(sorted(known)) or 'none'}")
    )


@router.get("/explain", response_model=ExplainView, responses={404: {"model": Problem}})
async def explain(
    desk: AtDesk, member: Annotated[str, Query(max_length=NAME_LIMIT, description="only this one")] = ""
) -> JSONResponse:
    """Why who is primary, who could be and why not, and why there was or was no failover."""
    published = desk.gateway.published()
    if member and member not in published.state.members:
        raise _unknown(member, published.state.members)
    return answer(explain_view(published, desk.gateway.now_s(), member))


@router.get("/config", response_model=ConfigView)
async def config(desk: AtDesk) -> JSONResponse:
    """The configuration document; its version is the ETag."""
    return config_answer(desk)


@router.get("/operations", response_model=Operations)
async def operations(desk: AtDesk) -> JSONResponse:
    return answer(Operations(desk.gateway.published().state.operations))


@router.get("/operations/{operation}", response_model=Operation, responses={404: {"model": Problem}})
async def one_operation(operation: str, desk: AtDesk, wait_s: WaitS) -> JSONResponse:
    """One operation; with `wait`, as it is when it has ended or the time is up."""
    # One that nobody started is not waited for: only for as long as an accepted one takes to get here.
    if await desk.seen(operation, min(wait_s, SEEN_LIMIT_S)) is None:
        hint = "this node keeps the last 50; an operation that was just accepted elsewhere appears within a second"
        raise ProblemError(problem(404, "operation.unknown", f"no operation {operation!r}", hint=hint))
    return answer(await desk.follow(operation, wait_s))


@router.get("/raft", response_model=RaftView)
async def raft(desk: AtDesk) -> JSONResponse:
    """This node's consensus replica, and what it knows of the others."""
    return answer(desk.gateway.raft())


@router.get("/history", response_model=History)
async def history(desk: AtDesk) -> JSONResponse:
    return answer(History(desk.gateway.published().state.history))
