"""The contract of an engine: what draws tokens from the live version of the policy.

Vocabulary. A *version* is a release that the engine holds. `stage` reads one from a folder beside the live one,
`verify` says whether it can be served, `flip` makes it live *between two decode steps*: no running response is refused,
cut or started again. Each token carries its *stamp*: the version that drew it. A running response's *KV cache* (keys
and values of its earlier positions) may be kept at a flip, or computed again; `EngineCapabilities.kv_at_flip` says
which.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final, Protocol

from services.shared.domain.errors import InvalidInput
from services.shared.domain.rollout import FinishReason, KvHistory, Sampling, VersionSpan

LEAST_TEMPERATURE: Final = 0.01


@dataclass(frozen=True, kw_only=True)
class EngineCapabilities:
    """What an engine declares of itself.

    `kv_tokens` bounds the sum of `EngineRequest.tokens` over the requests that run at a time: whoever keeps to it is
    promised that no running response loses its place.
    """

    engine: str
    resident_versions: int
    kv_at_flip: KvHistory
    raw_log_probs: bool
    context_tokens: int
    max_running: int
    kv_tokens: int


@dataclass(frozen=True, kw_only=True)
class EngineRequest:
    """One response asked for. `request_id` is unique among those that run. Stop strings are the caller's affair."""

    request_id: str
    prompt_token_ids: tuple[int, ...]
    sampling: Sampling

    @property
    def tokens(self) -> int:
        """Positions that the response may come to need, prompt included."""
        return len(self.prompt_token_ids) + self.sampling.max_tokens


@dataclass(frozen=True, kw_only=True)
class EngineToken:
    """One token. Log-probs are in nats: `log_prob` of the distribution that it was drawn from (after temperature,
    top-k, top-p), `raw_log_prob` of the raw model at temperature 1, where the engine gives it."""

    token_id: int
    log_prob: float
    raw_log_prob: float | None
    policy_version: str
    time: datetime


@dataclass(frozen=True, kw_only=True)
class EngineFinished:
    """The last event of a request: STOP (end token drawn), LENGTH, CANCELLED, or ERROR with `message`."""

    reason: FinishReason
    message: str = ""


EngineEvent = EngineToken | EngineFinished


@dataclass(frozen=True, kw_only=True)
class FlipReport:
    """`wait_s`: until the running step ended, decoding meanwhile. `held_s`: how long decoding stood still."""

    wait_s: float
    held_s: float


class Engine(Protocol):
    """`start`, `submit`, `cancel` belong to one event loop; `stage`, `verify`, `flip` block and are called from another
    thread, one at a time."""

    @property
    def capabilities(self) -> EngineCapabilities:
        """Constant."""

    @property
    def base_model_digest(self) -> str:
        """sha256 of the base model's files. A release of another base cannot be staged here."""

    @property
    def live_version(self) -> str:
        """What draws the next token. "": nothing was flipped yet."""

    @property
    def failure(self) -> str:
        """Why the engine can draw no more. "": it can."""

    async def start(self) -> None:
        """Loads what is needed and begins to draw. Raises Misconfigured."""

    async def drain(self, timeout_s: float) -> None:
        """Returns when nothing runs any more, or after the timeout. `submit` is refused meanwhile."""

    async def stop(self) -> None:
        """Ends running requests as CANCELLED and releases the engine. Twice is once."""

    def submit(self, request: EngineRequest) -> AsyncIterator[EngineEvent]:
        """Tokens as they are drawn, then one `EngineFinished`. The request is accepted, or refused, at the call:
        raises InvalidInput (`check_request`), FailedPrecondition (nothing is live), Unavailable (draining, failed)."""

    def cancel(self, request_id: str) -> None:
        """Ends a request as CANCELLED; its iterator still gets `EngineFinished`. Unknown or ended: no effect."""

    def stage(self, version: str, folder: Path) -> None:
        """Makes a release ready beside the live one. The same again changes nothing. Raises Corrupt, naming the file,
        where the folder does not hold what the engine can serve. The oldest staged version goes where no more fit."""

    def verify(self, version: str) -> None:
        """Returns when a staged version can be served. Raises FailedPrecondition (not staged), Corrupt (not finite)."""

    def flip(self, version: str) -> FlipReport:
        """Makes a staged version live between two decode steps; earlier ones leave memory. Live already: no effect.
        Raises FailedPrecondition where it was not staged, Unavailable where the engine has failed."""


def check_request(request: EngineRequest, capabilities: EngineCapabilities) -> None:
    """Raises InvalidInput, naming the request's field, for what no engine may be handed."""
    sampling = request.sampling
    if not request.prompt_token_ids:
        raise InvalidInput("The prompt has no tokens; send at least one message with text.", field="messages")
    if 0 < sampling.temperature < LEAST_TEMPERATURE:
        raise InvalidInput(
            f"sampling.temperature is {sampling.temperature}; it must be 0 (the likeliest token) or at least "
            f"{LEAST_TEMPERATURE}, below which logits overflow.",
            reason="OUT_OF_RANGE",
            field="sampling.temperature",
        )
    if request.tokens > capabilities.context_tokens:
        raise InvalidInput(
            f"The prompt has {len(request.prompt_token_ids)} tokens and sampling.max_tokens is {sampling.max_tokens}; "
            f"together they may be {capabilities.context_tokens}. Shorten the conversation or lower max_tokens.",
            reason="CONTEXT_TOO_LONG",
            field="messages" if len(request.prompt_token_ids) >= capabilities.context_tokens else "sampling.max_tokens",
        )


def spans_of(tokens: Sequence[EngineToken], kv_at_flip: KvHistory) -> tuple[VersionSpan, ...]:
    """The version spans of a response: one for each run of tokens of one version, covering all of them in order."""
    spans: list[VersionSpan] = []
    begin = 0
    for index in range(1, len(tokens) + 1):
        if index < len(tokens) and tokens[index].policy_version == tokens[begin].policy_version:
            continue
        spans.append(
            VersionSpan(
                policy_version=tokens[begin].policy_version,
                begin=begin,
                end=index,
                kv_history=kv_at_flip if begin else KvHistory.FRESH,
                first_token_time=tokens[begin].time,
            )
        )
        begin = index
    return tuple(spans)
