"""The way of a request's events from an engine to whoever submitted it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from services.generator.engines.interface import EngineEvent, EngineFinished


class RequestStream:
    """Events in order, exactly one `EngineFinished` at the end. Belongs to one event loop.

    The queue is bounded by the request itself: at most `max_tokens` tokens and one end.
    """

    def __init__(self) -> None:
        self._events: asyncio.Queue[EngineEvent] = asyncio.Queue()
        self.finished = False

    def put(self, event: EngineEvent) -> None:
        """Adds an event; nothing after the end."""
        if self.finished:
            return
        self.finished = isinstance(event, EngineFinished)
        self._events.put_nowait(event)

    async def events(self) -> AsyncIterator[EngineEvent]:
        """All events; ends after `EngineFinished`."""
        while True:
            event = await self._events.get()
            yield event
            if isinstance(event, EngineFinished):
                return
