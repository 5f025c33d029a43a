"""Outcomes from other threads to an event loop: however many come at one time, the loop is woken once.

`asyncio.wrap_future` wakes the loop for each future by itself, and makes two futures for one outcome. A log's client
answers whole batches, so there the wake-ups would cost more than what is done with the answers.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from typing import Generic, TypeVar

T = TypeVar("T")


class LoopOutcomes(Generic[T]):
    """The way to the futures of one loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._told: deque[tuple[asyncio.Future[T], T | BaseException]] = deque()
        self._woken = False

    def tell(self, future: asyncio.Future[T], outcome: T | BaseException) -> None:
        """From any thread. What nobody waits for any more (cancelled, or its loop closed) is dropped."""
        self._told.append((future, outcome))
        # Told first, asked second; `_deliver` does it the other way round, so that nothing can lie there unheard.
        if not self._woken:
            self._woken = True
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._deliver)

    def _deliver(self) -> None:
        self._woken = False
        while self._told:
            future, outcome = self._told.popleft()
            if future.done():
                continue
            if isinstance(outcome, BaseException):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)
