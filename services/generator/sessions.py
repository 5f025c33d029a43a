"""All responses of this replica: opens them, ends them at their deadline, waits for them when the replica drains."""

from __future__ import annotations

import asyncio
from typing import Final

from services.generator.engines.interface import EngineRequest, check_request
from services.generator.generation import GenerationRequest, check_generation
from services.generator.session import Session, SessionParts, check_version
from services.shared.domain.errors import Conflict, Unavailable
from services.shared.domain.rollout import FinishReason

MOST_SECONDS: Final = 3600.0
"""Deadline of a request that names none."""


class Sessions:
    """Belongs to one event loop."""

    def __init__(self, work: SessionParts) -> None:
        self._work = work
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._open: dict[str, Session] = {}
        self._draining = False

    def open(self, request: GenerationRequest, *, remaining_s: float | None) -> Session:
        """Accepts a request and begins to answer it, or raises why not: InvalidInput, FailedPrecondition (version),
        Busy (queue full), Unavailable (draining, or rollouts could not be kept safe), Conflict (the id runs already).
        """
        work = self._work
        if self._draining:
            raise Unavailable("This replica is stopping; ask another.", reason="DRAINING", retry_after=1.0)
        check_generation(request, work.tokenizer)
        check_version(work.engine, request.required_version)
        if request.rollout_id in self._tasks:
            raise Conflict(f"{request.rollout_id} is being answered already; mint an id for each response.")
        prompt = work.tokenizer.render(request.messages)
        asked = EngineRequest(request_id=request.rollout_id, prompt_token_ids=prompt, sampling=request.sampling)
        check_request(asked, work.engine.capabilities)
        if request.recorded:
            work.sink.check_room(len(self._tasks) + 1)
        ticket = work.admission.ask(request.purpose, asked.tokens)
        session = Session(work, request, prompt, ticket)
        self._begin(request.rollout_id, session, MOST_SECONDS if remaining_s is None else remaining_s)
        return session

    def is_recording(self, tenant: str, rater_id: str) -> bool:
        """A rollout of the rater is being made safe at this moment."""
        return any(session.is_recording(tenant, rater_id) for session in self._open.values())

    async def drain(self, timeout_s: float) -> None:
        """Refuses new requests and waits until the accepted ones are answered and recorded; after the timeout it ends
        them as cancelled, and records them."""
        self._draining = True
        if self._tasks:
            await asyncio.wait(self._tasks.values(), timeout=timeout_s)
        for session in tuple(self._open.values()):
            session.abandon(FinishReason.CANCELLED)
        await asyncio.gather(*self._tasks.values())

    def _begin(self, rollout_id: str, session: Session, seconds: float) -> None:
        task = asyncio.create_task(session.run(), name=f"session {rollout_id}")
        self._tasks[rollout_id], self._open[rollout_id] = task, session
        timer = asyncio.get_running_loop().call_later(
            max(0.0, min(seconds, MOST_SECONDS)), session.abandon, FinishReason.DEADLINE
        )

        def ended(_: asyncio.Task[None]) -> None:
            timer.cancel()
            del self._tasks[rollout_id], self._open[rollout_id]

        task.add_done_callback(ended)
