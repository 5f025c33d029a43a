"""Routes that show releases."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing
from typing import Any

from fastapi import APIRouter, Depends
from fastapi.responses import Response, StreamingResponse
from fastapi.sse import KEEPALIVE_COMMENT, format_sse_event

from services.gateway.access.http_access import HttpAccess
from services.gateway.chat.stream import EventStream
from services.gateway.documents import error_documents
from services.gateway.releases.board import ReleaseBoard
from services.gateway.releases.watchers import Watchers

SLOW_CLIENT_S = 30.0
"""How much longer than a stream's life a client may take to read it."""

_EVENT_SCHEMA = {
    "type": "object",
    "properties": {"event": {"const": "releases"}, "data": {"type": "string", "contentMediaType": "application/json"}},
    "required": ["event", "data"],
}


def releases_router(board: ReleaseBoard, watchers: Watchers, access: HttpAccess | None = None) -> APIRouter:
    """The board as JSON and as a live stream. `access` None: whoever comes here was let in before."""
    router = APIRouter(
        tags=["releases"],
        dependencies=[] if access is None else [*access.documented, Depends(access.chat)],
        responses=error_documents(401, 403, 429, 503),
    )

    @router.get("/v1/releases", summary="List releases", response_model=dict[str, Any])
    async def list_releases() -> Response:
        """Newest first, with how training goes. `learner.reachable` false: what is shown is the last that was known."""
        return Response(board.shown, media_type="application/json")

    @router.get(
        "/v1/releases/events",
        summary="Watch releases",
        response_class=StreamingResponse,
        responses={200: {"content": {"text/event-stream": {"itemSchema": _EVENT_SCHEMA}}}},
    )
    async def watch_releases() -> Response:
        """The same as `GET /v1/releases`, at once and after every change, as server-sent events named `releases`.

        Streams end after some minutes: open another. There are only so many at a time; 429 says when to come again.
        """
        async with AsyncExitStack() as held:
            held.enter_context(watchers.place())
            pictures = await held.enter_async_context(aclosing(board.watch(life_s=watchers.life_s)))
            return EventStream(_events(pictures), held.pop_all(), timeout_s=watchers.life_s + SLOW_CLIENT_S)

    return router


async def _events(pictures: AsyncIterator[str]) -> AsyncIterator[bytes]:
    async for picture in pictures:
        yield format_sse_event(data_str=picture, event="releases") if picture else KEEPALIVE_COMMENT
