"""Routes that show releases."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from fastapi import APIRouter, Depends
from fastapi.sse import EventSourceResponse, ServerSentEvent

from services.gateway.access.http_access import HttpAccess
from services.gateway.documents import error_documents
from services.gateway.releases.board import ReleaseBoard


def releases_router(board: ReleaseBoard, access: HttpAccess | None = None) -> APIRouter:
    """The board as JSON and as a live stream. `access` None: whoever comes here was let in before."""
    router = APIRouter(
        tags=["releases"],
        dependencies=[] if access is None else [*access.documented, Depends(access.chat)],
        responses=error_documents(401, 403, 429, 503),
    )

    @router.get("/v1/releases", summary="List releases")
    async def list_releases() -> dict[str, Any]:
        """Newest first, with how training goes. `learner.reachable` false: what is shown is the last that was known."""
        return board.picture()

    @router.get("/v1/releases/events", summary="Watch releases", response_class=EventSourceResponse)
    async def watch_releases() -> AsyncIterator[ServerSentEvent]:
        """The same as `GET /v1/releases`, at once and after every change, as server-sent events named `releases`."""
        async for picture in board.watch():
            yield ServerSentEvent(data=picture, event="releases")

    return router
