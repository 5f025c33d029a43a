"""One choice of an answer: drawn by the generator, and again if the generator went away before anything was shown.

A choice that nobody has seen yet may be drawn anew under a *new* rollout id: should the first attempt have left a
rollout behind, then it is one without a token, and no id ever names two rollouts. What was shown is never taken back:
from then on an error ends the answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, replace

from services.gateway.chat.generation import Delta, Finished, GenerationRequest, Generator, Part, Started
from services.shared.domain.errors import DeadlineExceeded, ThumbloopError, Unavailable
from services.shared.domain.events import NewId
from services.shared.domain.rollout import FinishReason, VersionSpan

Monotonic = Callable[[], float]
"""Seconds on a clock that never jumps."""

FIRST_BACKOFF_S = 0.05
MAX_BACKOFF_S = 1.0


@dataclass(frozen=True, kw_only=True)
class ChoiceStarted:
    """First event of a choice. A second one voids all that came before it."""

    index: int
    rollout_id: str
    policy_version: str


@dataclass(frozen=True, kw_only=True)
class ChoiceDelta:
    """New text."""

    index: int
    text: str


@dataclass(frozen=True, kw_only=True)
class ChoiceFinished:
    """Last event of a choice."""

    index: int
    rollout_id: str
    finish_reason: FinishReason
    spans: tuple[VersionSpan, ...]
    prompt_tokens: int
    response_tokens: int


ChoiceEvent = ChoiceStarted | ChoiceDelta | ChoiceFinished


class ChoiceDrawer:
    """Draws choices. `retry_window_s`: how long a generator that went away is waited for."""

    def __init__(
        self,
        *,
        generator: Generator,
        retry_window_s: float,
        new_id: NewId,
        monotonic: Monotonic,
        on_retry: Callable[[], None],
    ) -> None:
        self._generator = generator
        self._retry_window_s = retry_window_s
        self._new_id = new_id
        self._monotonic = monotonic
        self._on_retry = on_retry

    async def draw(
        self, template: GenerationRequest, *, index: int, deadline: float, shown: bool
    ) -> AsyncGenerator[ChoiceEvent, None]:
        """Events of one choice until `deadline` (monotonic). `shown`: the client sees events as they come.

        `template` is sent with a rollout id of its own for each attempt; its own id is the first.
        """
        patience = min(deadline, self._monotonic() + self._retry_window_s)
        backoff = FIRST_BACKOFF_S
        request = template
        while True:
            attempt = _Attempt(index=index, rollout_id=request.rollout_id)
            try:
                async with aclosing(self._attempt(attempt, request, deadline)) as events:
                    async for event in events:
                        yield event
                return
            except Unavailable:
                if (shown and attempt.shown) or self._monotonic() + backoff >= patience:
                    raise
            self._on_retry()
            await asyncio.sleep(backoff)
            backoff = min(backoff * 2, MAX_BACKOFF_S)
            rollout_id = self._new_id()
            group_id = rollout_id if request.group_id == request.rollout_id else request.group_id
            request = replace(request, rollout_id=rollout_id, group_id=group_id)

    async def _attempt(
        self, attempt: _Attempt, request: GenerationRequest, deadline: float
    ) -> AsyncGenerator[ChoiceEvent, None]:
        timeout_s = deadline - self._monotonic()
        if timeout_s <= 0:
            raise DeadlineExceeded("The answer was not ready in time. Ask for fewer tokens, or try again later.")
        async with aclosing(self._generator.generate(request, timeout_s=timeout_s)) as parts:
            async for part in parts:
                for event in attempt.events(part):
                    yield event


class _Attempt:
    """Turns parts into events; holds the start back until there is something to show."""

    def __init__(self, *, index: int, rollout_id: str) -> None:
        self._index = index
        self._rollout_id = rollout_id
        self._version = ""
        self.shown = False

    def events(self, part: Part) -> list[ChoiceEvent]:
        """What a part means to the client."""
        if isinstance(part, Started):
            self._version = part.policy_version
            return []
        if isinstance(part, Delta):
            return [*self._start(), ChoiceDelta(index=self._index, text=part.text)]
        _raise_unless_complete(part.finish_reason)
        return [*self._start(), self._finish(part)]

    def _start(self) -> list[ChoiceEvent]:
        if self.shown:
            return []
        self.shown = True
        return [ChoiceStarted(index=self._index, rollout_id=self._rollout_id, policy_version=self._version)]

    def _finish(self, finished: Finished) -> ChoiceFinished:
        return ChoiceFinished(
            index=self._index,
            rollout_id=self._rollout_id,
            finish_reason=finished.finish_reason,
            spans=finished.spans,
            prompt_tokens=finished.prompt_tokens,
            response_tokens=finished.response_tokens,
        )


def _raise_unless_complete(reason: FinishReason) -> None:
    """An answer that was cut is an error to the client, never a shorter answer."""
    if reason is FinishReason.DEADLINE:
        raise DeadlineExceeded("The answer was not ready in time. Ask for fewer tokens, or try again later.")
    if reason is FinishReason.CANCELLED:
        raise Unavailable("The generator cancelled the answer. Send the request again.", reason="GENERATION_CANCELLED")
    if reason is FinishReason.ERROR:
        raise ThumbloopError("The generator's engine failed. Send the request again.", reason="ENGINE_FAILED")
