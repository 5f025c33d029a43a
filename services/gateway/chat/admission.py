"""A bound on the chat requests that run at a time, and a way to wait until they have ended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from services.shared.domain.errors import Busy, Unavailable

RETRY_AFTER_S = 1.0


class Admission:
    """Counts what runs. Belongs to one event loop. `on_change` hears the count."""

    def __init__(self, max_running: int, on_change: Callable[[int], None] = lambda running: None) -> None:
        self._max_running = max_running
        self._on_change = on_change
        self._idle = asyncio.Event()
        self._idle.set()
        self._draining = False
        self.running = 0

    @property
    def draining(self) -> bool:
        """No more requests are taken."""
        return self._draining

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """Held while a request runs. Raises Busy when all are taken, Unavailable while draining."""
        if self._draining:
            raise Unavailable(
                "This gateway is shutting down. Send the request again.", reason="DRAINING", retry_after=RETRY_AFTER_S
            )
        if self.running >= self._max_running:
            raise Busy(
                f"{self.running} chat requests are running, which is the limit. Come again shortly.",
                retry_after=RETRY_AFTER_S,
            )
        self._count(1)
        try:
            yield
        finally:
            self._count(-1)

    def _count(self, change: int) -> None:
        self.running += change
        self._on_change(self.running)
        if self.running:
            self._idle.clear()
        else:
            self._idle.set()

    async def drain(self, timeout_s: float) -> bool:
        """Takes no more requests and waits for those that run. False: some still ran after the timeout."""
        self._draining = True
        try:
            await asyncio.wait_for(self._idle.wait(), timeout_s)
        except TimeoutError:
            return False
        return True
