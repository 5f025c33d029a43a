"""One response from admission to its rollout.

A session is a task of its own, not its caller's: a client that goes away ends the drawing, and what was drawn until
then is still recorded.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from services.generator.admission import Admission, Ticket
from services.generator.detokenizer import Detokenizer
from services.generator.engines.interface import (
    Engine,
    EngineFinished,
    EngineRequest,
    EngineToken,
    spans_of,
)
from services.generator.generation import ChatTokenizer, Delta, Finished, GenerationRequest, Part, Started
from services.shared.contracts.rollouts import encode_rollout
from services.shared.domain.errors import FailedPrecondition, ThumbloopError
from services.shared.domain.events import Clock, EventMeta, NewId
from services.shared.domain.rollout import FinishReason, Rollout
from services.shared.releases.forget_orders import ForgottenRaters
from services.shared.telemetry.log import get_logger
from services.shared.telemetry.metrics import Metrics

_log = get_logger()


class RolloutSink(Protocol):
    """Where rollouts are made safe."""

    async def record(self, rollout_id: str, event: bytes) -> None:
        """Returns when the event is safe."""

    def check_room(self, expected: int) -> None:
        """Raises Unavailable unless `expected` more would be safe even without Kafka."""


@dataclass(frozen=True, kw_only=True)
class SessionParts:
    """What every session works with."""

    engine: Engine
    tokenizer: ChatTokenizer
    admission: Admission
    sink: RolloutSink
    clock: Clock
    new_id: NewId
    metrics: Metrics
    deployment: str
    forgotten: ForgottenRaters
    """Nothing of theirs is recorded."""


class Session:
    """One response. `parts` may be read once; `abandon` may be called at any time."""

    def __init__(self, work: SessionParts, request: GenerationRequest, prompt: tuple[int, ...], ticket: Ticket) -> None:
        self._work = work
        self._request = request
        self._prompt = prompt
        self._ticket = ticket
        self._request_time = work.clock()
        self._tokens: list[EngineToken] = []
        self._text = Detokenizer(work.tokenizer.decode, request.sampling.stop)
        self._abandoned: FinishReason | None = None
        self._drawing = False
        self._recording = False
        self._parts: asyncio.Queue[Part | Exception | None] = asyncio.Queue()

    async def parts(self) -> AsyncIterator[Part]:
        """The answer as it comes. Raises what ended the session, where something did."""
        while (part := await self._parts.get()) is not None:
            if isinstance(part, Exception):
                raise part
            yield part

    def abandon(self, reason: FinishReason) -> None:
        """Nobody waits for the rest: ends as `reason`. No effect once the drawing has ended."""
        if self._abandoned is None:
            self._abandoned = reason
        self._work.admission.withdraw(self._ticket)
        if self._drawing:
            self._work.engine.cancel(self._request.rollout_id)

    async def run(self) -> None:
        """To the end, whatever happens. Never raises for what a client or Kafka does."""
        try:
            finished = await self._answer()
            await self._record(finished)
            self._parts.put_nowait(finished)
        except ThumbloopError as error:
            if self._tokens and self._request.recorded:
                _log.error(
                    "rollout_not_recorded",
                    rollout_id=self._request.rollout_id,
                    reason=error.reason,
                    message=error.message,
                )
            self._parts.put_nowait(error)
        except Exception as error:  # its caller must hear of it, whatever it is
            _log.error("session_failed", rollout_id=self._request.rollout_id, exc_info=error)
            self._parts.put_nowait(error)
        finally:
            self._parts.put_nowait(None)

    def is_recording(self, tenant: str, rater_id: str) -> bool:
        """Its rollout, one of this rater's, is being made safe."""
        return self._recording and (self._request.tenant, self._request.rater_id) == (tenant, rater_id)

    async def _record(self, finished: Finished) -> None:
        """Makes the rollout safe, unless it is to leave no trace."""
        request = self._request
        if not request.recorded or self._work.forgotten.has(request.tenant, request.rater_id):
            return
        self._recording = True
        try:
            await self._work.sink.record(request.rollout_id, encode_rollout(self._rollout(finished)))
        finally:
            self._recording = False

    async def _answer(self) -> Finished:
        """Draws while it may."""
        reason = FinishReason.CANCELLED
        if await self._ticket.granted:
            started = time.monotonic()
            try:
                reason = await self._draw()
            finally:
                self._drawing = False
                self._work.admission.release(self._ticket, time.monotonic() - started)
        if self._abandoned is not None and reason is FinishReason.CANCELLED:
            reason = self._abandoned
        self._give(self._text.finish())
        if self._text.stopped:
            reason = FinishReason.STOP
        self._count(reason)
        return Finished(
            finish_reason=reason,
            spans=spans_of(self._tokens, self._work.engine.capabilities.kv_at_flip),
            response_token_ids=tuple(token.token_id for token in self._tokens),
            behaviour_log_probs=tuple(token.log_prob for token in self._tokens),
            prompt_tokens=len(self._prompt),
        )

    async def _draw(self) -> FinishReason:
        request, engine = self._request, self._work.engine
        if self._abandoned is not None:
            return FinishReason.CANCELLED
        check_version(engine, request.required_version)
        events = engine.submit(
            EngineRequest(request_id=request.rollout_id, prompt_token_ids=self._prompt, sampling=request.sampling)
        )
        self._drawing = True
        self._parts.put_nowait(
            Started(rollout_id=request.rollout_id, policy_version=engine.live_version, prompt_tokens=len(self._prompt))
        )
        async for event in events:
            if isinstance(event, EngineFinished):
                if event.message:
                    _log.error("engine_error", rollout_id=request.rollout_id, message=event.message)
                return event.reason
            self._tokens.append(event)
            self._give(self._text.push(event.token_id))
            if self._text.stopped:
                engine.cancel(request.rollout_id)
                return FinishReason.STOP
        return FinishReason.ERROR

    def _give(self, text: str) -> None:
        if text:
            self._parts.put_nowait(Delta(text=text, response_tokens=len(self._tokens)))

    def _count(self, reason: FinishReason) -> None:
        purpose = str(self._request.purpose)
        metrics = self._work.metrics
        metrics.increment("thumbloop_generator_responses_total", purpose=purpose, finish_reason=str(reason))
        metrics.increment("thumbloop_generator_tokens_total", len(self._tokens), purpose=purpose)

    def _rollout(self, finished: Finished) -> Rollout:
        request, tokenizer, now = self._request, self._work.tokenizer, self._work.clock()
        raw = [token.raw_log_prob for token in self._tokens]
        return Rollout(
            meta=EventMeta(
                event_id=self._work.new_id(),
                deployment=self._work.deployment,
                tenant=request.tenant,
                event_time=now,
                traceparent=request.traceparent,
            ),
            rollout_id=request.rollout_id,
            conversation_id=request.conversation_id or self._work.new_id(),
            prompt_id=request.prompt_id,
            group_id=request.group_id or request.rollout_id,
            purpose=request.purpose,
            messages=request.messages,
            tokenizer_digest=tokenizer.tokenizer_digest,
            template_digest=tokenizer.template_digest,
            prompt_token_ids=self._prompt,
            response_token_ids=finished.response_token_ids,
            behaviour_log_probs=finished.behaviour_log_probs,
            raw_log_probs=tuple(value for value in raw if value is not None) if None not in raw else (),
            sampling=request.sampling,
            spans=finished.spans,
            finish_reason=finished.finish_reason,
            request_time=self._request_time,
            first_token_time=_first_time(self._tokens),
            end_time=now,
            canary_id=request.canary_id,
            rater_id=request.rater_id,
            response_text=self._text.text,
        )


def check_version(engine: Engine, required: str) -> None:
    """Raises FailedPrecondition where nothing is live, or another version than the required one."""
    live = engine.live_version
    if not live:
        raise FailedPrecondition(
            "No version of the policy is live yet; come again.", reason="NO_LIVE_VERSION", retry_after=1.0
        )
    if required and required != live:
        raise FailedPrecondition(
            f"{required} is not resident here; {live} is. Ask without required_version for that one.",
            reason="VERSION_NOT_RESIDENT",
            field="required_version",
        )


def _first_time(tokens: list[EngineToken]) -> datetime | None:
    return tokens[0].time if tokens else None
