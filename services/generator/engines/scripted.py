"""The scripted engine: real token ids, true log-probs, real flips, no model.

It draws a token for every running request at a fixed interval, from the distributions of `scripted_language`. The same
prompt, seed and version give the same response. It lets the whole loop be tested in seconds, and ships with the code.
"""

from __future__ import annotations

import asyncio
import hashlib
import threading
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from services.generator.engines.interface import (
    EngineCapabilities,
    EngineEvent,
    EngineFinished,
    EngineRequest,
    EngineToken,
    FlipReport,
    check_request,
)
from services.generator.engines.request_stream import RequestStream
from services.generator.engines.scripted_language import draw, raw_log_prob
from services.shared.domain.errors import Corrupt, FailedPrecondition, Unavailable
from services.shared.domain.events import Clock
from services.shared.domain.rollout import FinishReason, KvHistory
from services.shared.domain.scripted_language import BASE_MODEL_DIGEST, END_TOKEN

MAX_STAGED = 2


@dataclass(kw_only=True)
class _Running:
    request: EngineRequest
    random: Random
    stream: RequestStream = field(default_factory=RequestStream)
    drawn: list[int] = field(default_factory=list)

    @property
    def previous_token(self) -> int:
        return self.drawn[-1] if self.drawn else self.request.prompt_token_ids[-1]


class ScriptedEngine:
    """See `Engine`. `interval_s` is the length of a decode step."""

    def __init__(
        self, *, clock: Clock, interval_s: float = 0.002, max_running: int = 16, context_tokens: int = 2048
    ) -> None:
        self._clock = clock
        self._interval_s = interval_s
        self._capabilities = EngineCapabilities(
            engine="scripted",
            resident_versions=1,
            kv_at_flip=KvHistory.KEPT,
            raw_log_probs=True,
            context_tokens=context_tokens,
            max_running=max_running,
            kv_tokens=max_running * context_tokens,
        )
        self._running: dict[str, _Running] = {}
        self._staged: dict[str, Path] = {}
        self._live = ""
        self._between_steps = threading.Lock()
        self._work = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._closing = False
        self._task: asyncio.Task[None] | None = None

    @property
    def capabilities(self) -> EngineCapabilities:
        """See `Engine`."""
        return self._capabilities

    @property
    def base_model_digest(self) -> str:
        """See `Engine`."""
        return BASE_MODEL_DIGEST

    @property
    def live_version(self) -> str:
        """See `Engine`."""
        return self._live

    @property
    def failure(self) -> str:
        """See `Engine`."""
        if self._task is None or not self._task.done() or self._task.cancelled():
            return ""
        return repr(self._task.exception())

    async def start(self) -> None:
        """See `Engine`."""
        self._task = asyncio.create_task(self._draw_steps(), name="scripted engine")

    async def drain(self, timeout_s: float) -> None:
        """See `Engine`."""
        self._closing = True
        try:
            await asyncio.wait_for(self._idle.wait(), timeout_s)
        except TimeoutError:
            return

    async def stop(self) -> None:
        """See `Engine`."""
        self._closing = True
        for request_id in tuple(self._running):
            self.cancel(request_id)
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def submit(self, request: EngineRequest) -> AsyncIterator[EngineEvent]:
        """See `Engine`."""
        check_request(request, self._capabilities)
        if not self._live:
            raise FailedPrecondition("No version of the policy is live yet; come again.", reason="NO_LIVE_VERSION")
        if self._closing or self.failure:
            raise Unavailable("The engine is stopping; ask another replica.", reason="ENGINE_STOPPING", retry_after=1.0)
        running = _Running(request=request, random=_random(request))
        self._running[request.request_id] = running
        self._idle.clear()
        self._work.set()
        return running.stream.events()

    def cancel(self, request_id: str) -> None:
        """See `Engine`."""
        self._finish(request_id, EngineFinished(reason=FinishReason.CANCELLED))

    def stage(self, version: str, folder: Path) -> None:
        """See `Engine`. Any folder will do: what the engine says depends on the version's name alone."""
        if not folder.is_dir():
            raise Corrupt(f"{folder} is no folder; fetch the release again.", reason="RELEASE_MISSING")
        while version not in self._staged and len(self._staged) >= MAX_STAGED:
            del self._staged[next(iter(self._staged))]
        self._staged[version] = folder

    def verify(self, version: str) -> None:
        """See `Engine`."""
        if version not in self._staged and version != self._live:
            raise FailedPrecondition(f"{version} was not staged.", reason="NOT_STAGED")

    def flip(self, version: str) -> FlipReport:
        """See `Engine`."""
        self.verify(version)
        asked = time.perf_counter()
        with self._between_steps:
            held = time.perf_counter()
            self._live = version
            self._staged.clear()
        return FlipReport(wait_s=held - asked, held_s=time.perf_counter() - held)

    async def _draw_steps(self) -> None:
        while True:
            await self._work.wait()
            await asyncio.sleep(self._interval_s)
            with self._between_steps:
                self._step(self._live)
            if not self._running:
                self._work.clear()

    def _step(self, version: str) -> None:
        """One token for every running request."""
        now = self._clock()
        for request_id, running in tuple(self._running.items()):
            previous = running.previous_token
            token_id, log_prob = draw(version, previous, running.request.sampling, running.random)
            running.drawn.append(token_id)
            running.stream.put(
                EngineToken(
                    token_id=token_id,
                    log_prob=log_prob,
                    raw_log_prob=raw_log_prob(version, previous, token_id),
                    policy_version=version,
                    time=now,
                )
            )
            if token_id == END_TOKEN:
                self._finish(request_id, EngineFinished(reason=FinishReason.STOP))
            elif len(running.drawn) >= running.request.sampling.max_tokens:
                self._finish(request_id, EngineFinished(reason=FinishReason.LENGTH))

    def _finish(self, request_id: str, event: EngineFinished) -> None:
        running = self._running.pop(request_id, None)
        if running is not None:
            running.stream.put(event)
        if not self._running:
            self._idle.set()


def _random(request: EngineRequest) -> Random:
    """Of the prompt and the seed; without a seed, of the machine's randomness."""
    if request.sampling.seed is None:
        return Random()
    prompt = hashlib.sha256(repr(request.prompt_token_ids).encode()).hexdigest()
    return Random(f"{prompt}/{request.sampling.seed}")
