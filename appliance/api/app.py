"""The FastAPI application behind the front: `/api/v1` and its schema at `/openapi.json`."""

from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from appliance import __version__
from appliance.api import changes, problem, reads
from appliance.api.desk import Desk
from appliance.api.problem import ProblemError


class _App(FastAPI):
    def openapi(self) -> dict[str, Any]:
        """FastAPI's schema, with every error as what it really is: a problem document."""
        schema = super().openapi()
        for path in schema["paths"].values():
            for method in path.values():
                for status, response in method["responses"].items():
                    if status >= "400":
                        response["content"] = {problem.MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
        for name in ("HTTPValidationError", "ValidationError"):
            schema["components"]["schemas"].pop(name, None)
        return schema


def create(desk: Desk) -> FastAPI:
    """No documentation page: FastAPI's own loads from another host."""
    app = _App(
        title="pg-appliance",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        exception_handlers={
            ProblemError: problem.on_problem,
            RequestValidationError: problem.on_invalid,
            HTTPException: problem.on_http_error,
            Exception: problem.on_bug,
        },
    )
    app.state.desk = desk
    app.include_router(reads.router)
    app.include_router(changes.router)
    return app
