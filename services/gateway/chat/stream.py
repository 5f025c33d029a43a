"""Streaming by server-sent events, and clients that go away."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any, TypeVar

from fastapi import Request
from fastapi.responses import StreamingResponse
from fastapi.sse import format_sse_event
from starlette.types import Receive, Scope, Send

from services.gateway.chat.choice import ChoiceEvent
from services.gateway.chat.response import ChatRenderer
from services.gateway.errors import error_body
from services.shared.domain.errors import ThumbloopError
from services.shared.telemetry.log import get_logger

T = TypeVar("T")
_HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
DONE = "[DONE]"


class ClientGoneError(Exception):
    """The client closed its connection; there is nobody to answer."""


class EventStream(StreamingResponse):
    """Sends server-sent events; `held` is let go when the stream ends, however it ends.

    A client that stops reading without closing is left after `timeout_s`.
    """

    def __init__(self, events: AsyncIterator[bytes], held: AsyncExitStack, *, timeout_s: float) -> None:
        super().__init__(events, media_type="text/event-stream", headers=_HEADERS)
        self._held = held
        self._timeout_s = timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends, then lets go."""
        try:
            async with asyncio.timeout(self._timeout_s):
                await super().__call__(scope, receive, send)
        except TimeoutError:
            get_logger().warning("stream_abandoned", timeout_s=self._timeout_s)
        finally:
            await self._held.aclose()


async def render_stream(
    first: ChoiceEvent, rest: AsyncIterator[ChoiceEvent], renderer: ChatRenderer, *, include_usage: bool
) -> AsyncGenerator[bytes, None]:
    """The bytes of a stream. An error midway becomes a last event of its own: the status line has long been sent."""
    yield _event(renderer.chunk(first))
    try:
        async for event in rest:
            yield _event(renderer.chunk(event))
    except ThumbloopError as error:
        yield _event(error_body(error))
        return
    if include_usage:
        yield _event(renderer.usage_chunk())
    yield format_sse_event(data_str=DONE)


async def unless_gone(request: Request, work: Awaitable[T]) -> T:
    """Awaits `work`; cancels it and raises ClientGoneError when the client goes away. The body must have been read."""
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_disconnected(request.receive))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise ClientGoneError
    finally:
        for future in (task, gone):
            future.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def _disconnected(receive: Callable[[], Awaitable[Any]]) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _event(data: dict[str, Any]) -> bytes:
    return format_sse_event(data_str=json.dumps(data, separators=(",", ":")))
