"""`/api/v1`, the reading half: the cluster, its members, operations and history as this node knows them."""

from fastapi import APIRouter, Depends
from starlette.responses import JSONResponse

from appliance.api.bodies import History, Members, Operations
from appliance.api.desk import SEEN_LIMIT_S
from appliance.api.problem import Problem, ProblemError, problem
from appliance.api.raft_view import RaftView
from appliance.api.routes import AtDesk, WaitS, answer, local
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
        known = ", ".join(view.name for view in views) or "none"
        raise ProblemError(problem(404, "member.unknown", f"no member {name!r}; known: {known}"))
    return answer(found)


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
