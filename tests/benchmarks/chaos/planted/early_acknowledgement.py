"""The gateway answers 2xx first, and makes the feedback durable a moment later.

A kill between the two loses what was acknowledged.
"""

from __future__ import annotations

import asyncio
from typing import Any

from services.gateway import wiring
from services.gateway.main import run
from services.shared.domain.feedback import Feedback, FeedbackState
from services.shared.settings import load_settings
from tests.benchmarks.chaos.planted.seam import replace

DELAY_S = 0.5


class EarlySink:
    """A sink that says yes before the one it wraps has been asked."""

    def __init__(self, sink: Any) -> None:
        self._sink = sink
        self._tasks: set[asyncio.Task[None]] = set()

    def __getattr__(self, name: str) -> Any:
        """What else the sink can do."""
        return getattr(self._sink, name)

    async def store(self, feedback: Feedback) -> FeedbackState:
        """Accepted, whatever becomes of it."""
        task = asyncio.create_task(self._later(feedback))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return FeedbackState.ACCEPTED

    async def _later(self, feedback: Feedback) -> None:
        await asyncio.sleep(DELAY_S)
        await self._sink.store(feedback)


def early(service: Any) -> Any:
    """The feedback service's maker, which is handed the early sink."""

    def make(*, sink: Any, **parts: Any) -> Any:
        return service(sink=EarlySink(sink), **parts)

    return make


if __name__ == "__main__":
    replace(wiring, "FeedbackService", early)
    run(load_settings())
