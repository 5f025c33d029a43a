"""Transformers' continuous batching as an engine: one decode loop in a thread, a paged KV cache, fp32 by default.

What this adds to the library: tokens are drawn and stamped by `token_sampler` in the step, so that spans are exact;
requests are checked before they reach the loop, because an exception there ends all of them; the cache is as large as
what may run at a time, so that nothing is ever evicted (an evicted response would be computed again, by other weights);
blocks are never shared between requests, because a shared prefix would outlive a flip; cancelled requests get an end.

A flip exchanges the weights while the loop stands between two steps. Responses keep their KV cache (`KvHistory.KEPT`),
but for prompts that were read in part only: those are read again, so that a response's first span is always of one
version alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal

import torch
from transformers import AutoModelForCausalLM, GenerationConfig, LogitsProcessorList
from transformers.generation.configuration_utils import ContinuousBatchingConfig
from transformers.generation.continuous_batching.cb_logits_processors import ContinuousBatchingLogitsProcessorList
from transformers.generation.continuous_batching.requests import GenerationOutput

from services.generator.engines import packed_attention
from services.generator.engines.interface import (
    EngineCapabilities,
    EngineEvent,
    EngineFinished,
    EngineRequest,
    FlipReport,
    check_request,
)
from services.generator.engines.release_weights import ReleaseWeights
from services.generator.engines.request_stream import RequestStream
from services.generator.engines.served_linear import Prepared, serve_linears
from services.generator.engines.split_prefills import restart_split_prefills
from services.generator.engines.token_sampler import TokenSampler, Trace
from services.shared.checkpoints import base_model_digest
from services.shared.domain.errors import Corrupt, FailedPrecondition, Unavailable
from services.shared.domain.events import Clock
from services.shared.domain.rollout import FinishReason, KvHistory

PAGE_TOKENS: Final = 32
MAX_STAGED: Final = 2
KV_BYTES: Final = 512 * 2**20
STOP_TIMEOUT_S: Final = 10.0
WATCH_INTERVAL_S: Final = 1.0
Dtype = Literal["float32", "bfloat16"]


@dataclass(frozen=True, kw_only=True)
class _Running:
    trace: Trace
    stream: RequestStream = field(default_factory=RequestStream)


@dataclass(frozen=True, kw_only=True)
class _Staged:
    """Exchanged weights by module; what is not in it is the base's. `problem` is what `verify` will say."""

    weights: Mapping[str, Prepared]
    problem: str


class ContinuousBatchingEngine:
    """See `Engine`.

    `max_batch_tokens` bounds a step, so a long prompt is read in parts between others' tokens. `kv_bytes` bounds the KV
    cache; it holds one longest response in any case, and no more than `max_running` of them.
    """

    def __init__(
        self,
        *,
        model_dir: Path,
        clock: Clock,
        device: str = "cpu",
        dtype: Dtype = "float32",
        max_running: int = 16,
        context_tokens: int = 2048,
        max_batch_tokens: int = 256,
        kv_bytes: int = KV_BYTES,
    ) -> None:
        self._model_dir = model_dir
        self._device = torch.device(device)
        self._dtype = dtype
        self._max_running = max_running
        self._max_batch_tokens = max(max_batch_tokens, max_running)
        self._asked_context_tokens = context_tokens
        self._kv_bytes = kv_bytes
        self._sampler = TokenSampler(clock=clock, version=lambda: self._live)
        self._running: dict[str, _Running] = {}
        self._staged: dict[str, _Staged] = {}
        self._live = ""
        self._exchanged: frozenset[str] = frozenset()
        self._failure = ""
        self._closing = False
        self._idle = asyncio.Event()
        self._idle.set()
        self._manager: Any = None
        self._watch: asyncio.Task[None] | None = None

    @property
    def capabilities(self) -> EngineCapabilities:
        """See `Engine`. Known after `start`."""
        return self._capabilities

    @property
    def base_model_digest(self) -> str:
        """See `Engine`. Known after `start`."""
        return self._base_model_digest

    @property
    def live_version(self) -> str:
        """See `Engine`."""
        return self._live

    @property
    def failure(self) -> str:
        """See `Engine`."""
        return self._failure

    async def start(self) -> None:
        """See `Engine`."""
        await asyncio.to_thread(self._load)
        self._manager.start()
        self._watch = asyncio.create_task(self._watch_loop(), name="continuous batching watch")

    def _load(self) -> None:
        self._base_model_digest = base_model_digest(self._model_dir)
        model: Any = AutoModelForCausalLM.from_pretrained(
            str(self._model_dir), dtype=getattr(torch, self._dtype), attn_implementation="sdpa"
        )
        model = model.to(self._device).eval().requires_grad_(False)
        self._capabilities = self._declare(model.config)
        self._linears = serve_linears(model, batch_hint=self._max_running)
        self._release_weights = ReleaseWeights(self._model_dir, self._linears)
        end = model.generation_config.eos_token_id
        self._end_tokens = frozenset([end] if isinstance(end, int) else end or ())
        make_config: Any = GenerationConfig
        self._manager = model.init_continuous_batching(
            generation_config=make_config(do_sample=False, eos_token_id=sorted(self._end_tokens) or -1),
            continuous_batching_config=ContinuousBatchingConfig(
                page_size=PAGE_TOKENS,
                # A page more for each that may run: a response's last page is rarely full.
                num_blocks=-(-self._capabilities.kv_tokens // PAGE_TOKENS) + self._max_running,
                max_batch_tokens=self._max_batch_tokens,
                max_requests_per_batch=self._max_running,
                max_blocks_per_request=0,
                allow_block_sharing=False,
                use_async_batching=False,
                use_cuda_graph=False,
                auto_switch_to_flash=False,
                return_logprobs=False,
                safety_margin=0.0,
            ),
        )
        if packed_attention.suits(model.config, self._device):
            packed_attention.install(model)
        processors = ContinuousBatchingLogitsProcessorList(LogitsProcessorList([self._sampler]))
        processors.tensors_required = 1
        self._manager.logit_processor = processors

    def _declare(self, config: Any) -> EngineCapabilities:
        context_tokens = min(self._asked_context_tokens, int(config.max_position_embeddings))
        affordable = self._kv_bytes // _kv_bytes_a_token(config, getattr(torch, self._dtype))
        return EngineCapabilities(
            engine="continuous-batching",
            resident_versions=1,
            kv_at_flip=KvHistory.KEPT,
            raw_log_probs=True,
            context_tokens=context_tokens,
            max_running=self._max_running,
            kv_tokens=max(context_tokens, min(affordable, context_tokens * self._max_running)),
        )

    async def drain(self, timeout_s: float) -> None:
        """See `Engine`."""
        self._closing = True
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._idle.wait(), timeout_s)

    async def stop(self) -> None:
        """See `Engine`."""
        self._closing = True
        for request_id in tuple(self._running):
            self.cancel(request_id)
        manager, self._manager = self._manager, None
        if manager is None:
            return
        if self._watch is not None:
            self._watch.cancel()
        await asyncio.to_thread(partial(manager.stop, block=True, timeout=STOP_TIMEOUT_S, hard_stop=True))

    def submit(self, request: EngineRequest) -> AsyncIterator[EngineEvent]:
        """See `Engine`."""
        check_request(request, self._capabilities)
        if not self._live:
            raise FailedPrecondition("No version of the policy is live yet; come again.", reason="NO_LIVE_VERSION")
        if self._closing or self._failure:
            raise Unavailable("The engine is stopping; ask another replica.", reason="ENGINE_STOPPING", retry_after=1.0)
        request_id = request.request_id
        running = _Running(trace=self._sampler.watch(request_id, request.sampling))
        self._running[request_id] = running
        self._idle.clear()
        self._manager.register_result_handler(request_id, partial(self._deliver, request_id))
        accepted = self._manager.add_request(
            [int(token) for token in request.prompt_token_ids],
            request_id=request_id,
            max_new_tokens=int(request.sampling.max_tokens),
            streaming=True,
        )
        if accepted is None:
            self._end(request_id, EngineFinished(reason=FinishReason.ERROR, message="the decode loop has ended"))
            raise Unavailable("The engine has failed; ask another replica.", reason="ENGINE_FAILED", retry_after=1.0)
        return running.stream.events()

    def cancel(self, request_id: str) -> None:
        """See `Engine`."""
        if request_id in self._running:
            self._manager.cancel_request(request_id)
            self._end(request_id, EngineFinished(reason=FinishReason.CANCELLED))

    def stage(self, version: str, folder: Path) -> None:
        """See `Engine`."""
        if version in self._staged or version == self._live:
            return
        while len(self._staged) >= MAX_STAGED:
            del self._staged[next(iter(self._staged))]
        weights, problem = self._release_weights.prepare(folder)
        self._staged[version] = _Staged(weights=weights, problem=problem)

    def verify(self, version: str) -> None:
        """See `Engine`."""
        if version == self._live:
            return
        if version not in self._staged:
            raise FailedPrecondition(f"{version} was not staged.", reason="NOT_STAGED")
        if problem := self._staged[version].problem:
            del self._staged[version]
            raise Corrupt(f"{version} cannot be served: {problem}", reason="NOT_FINITE")

    def flip(self, version: str) -> FlipReport:
        """See `Engine`."""
        self.verify(version)
        if version == self._live:
            return FlipReport(wait_s=0.0, held_s=0.0)
        if self._manager is None or self._failure:
            raise Unavailable("The engine does not run.", reason="ENGINE_FAILED")
        staged = self._staged[version].weights
        weights = {**self._release_weights.base(self._exchanged - staged.keys()), **staged}
        if self._device.type == "cuda":
            # Copies were begun on this thread's stream, and the decode loop, which has its own, does not wait for it.
            torch.cuda.synchronize(self._device)
        asked = time.perf_counter()
        try:
            with self._manager.pause():
                held = time.perf_counter()
                for name, prepared in weights.items():
                    self._linears[name].exchange(prepared)
                self._live = version
                restart_split_prefills(self._manager.batch_processor)
                released = time.perf_counter()
        except RuntimeError as error:
            raise Unavailable(f"The decode loop has ended: {error}", reason="ENGINE_FAILED") from error
        self._exchanged = frozenset(staged)
        self._staged.clear()
        return FlipReport(wait_s=held - asked, held_s=released - held)

    def _deliver(self, request_id: str, output: GenerationOutput) -> None:
        """On the event loop, after each step: hands over what the sampler has drawn for the request."""
        running = self._running.get(request_id)
        if running is None:
            return
        self._hand_over(running)
        if running.trace.failure:
            self._manager.cancel_request(request_id)
            self._end(request_id, EngineFinished(reason=FinishReason.ERROR, message=running.trace.failure))
        elif output.error is not None:
            self._end(request_id, EngineFinished(reason=FinishReason.ERROR, message=output.error))
        elif output.is_finished():
            stopped = output.generated_tokens[-1] in self._end_tokens
            self._end(request_id, EngineFinished(reason=FinishReason.STOP if stopped else FinishReason.LENGTH))

    def _hand_over(self, running: _Running) -> None:
        trace = running.trace
        for token in trace.tokens[trace.delivered :]:
            trace.delivered += 1
            running.stream.put(token)

    def _end(self, request_id: str, event: EngineFinished) -> None:
        running = self._running.pop(request_id, None)
        self._sampler.forget(request_id)
        # The library forgets a handler at its request's end alone, which a cancelled request never has.
        self._manager.output_router.result_handlers.pop(request_id, None)
        if running is not None:
            self._hand_over(running)
            running.stream.put(event)
        if not self._running:
            self._idle.set()

    async def _watch_loop(self) -> None:
        """Ends what would wait for ever where the decode loop has died."""
        while self._manager.is_running():  # noqa: ASYNC110 (a thread of the library, which tells nobody)
            await asyncio.sleep(WATCH_INTERVAL_S)
        cause = self._manager.background_thread_status.fatal_error
        self._failure = f"the decode loop has ended: {cause!r}"
        for request_id in tuple(self._running):
            self._end(request_id, EngineFinished(reason=FinishReason.ERROR, message=self._failure))


def _kv_bytes_a_token(config: Any, dtype: torch.dtype) -> int:
    """Keys and values of one position over all layers."""
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    return 2 * int(config.num_hidden_layers) * int(heads) * int(head) * dtype.itemsize
