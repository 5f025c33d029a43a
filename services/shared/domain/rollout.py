"""A rollout: one response with all that PPO needs."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from services.shared.domain.events import EventMeta


class Role(StrEnum):
    """Who speaks."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"


class Purpose(StrEnum):
    """Why a response was asked for. Only USER gets a feedback token; GATE is never trained on."""

    USER = "user"
    LEARNER = "learner"
    GATE = "gate"
    SHADOW = "shadow"


class FinishReason(StrEnum):
    """Why a response ended."""

    STOP = "stop"
    LENGTH = "length"
    CANCELLED = "cancelled"
    DEADLINE = "deadline"
    ERROR = "error"


class RolloutProgress(StrEnum):
    """How far a rollout has come on its way into the store. SETTLED: scored too, or never wanted again."""

    MISSING = "missing"
    UNSCORED = "unscored"
    SETTLED = "settled"


class KvHistory(StrEnum):
    """How the positions before a span had been computed."""

    FRESH = "fresh"
    KEPT = "kept"
    RECOMPUTED = "recomputed"


@dataclass(frozen=True, kw_only=True)
class ChatMessage:
    """One turn."""

    role: Role
    content: str


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How tokens were drawn, defaults filled in. `top_k` 0 and `top_p` 1 are off."""

    temperature: float
    top_p: float = 1.0
    top_k: int = 0
    max_tokens: int
    stop: tuple[str, ...] = ()
    seed: int | None = None


@dataclass(frozen=True, kw_only=True)
class VersionSpan:
    """Response tokens [begin, end) were drawn by `policy_version`."""

    policy_version: str
    begin: int
    end: int
    kv_history: KvHistory
    first_token_time: datetime | None


@dataclass(frozen=True, kw_only=True)
class ObjectReference:
    """Bytes kept in the object store instead of the event."""

    path: str
    sha256: str
    size: int


@dataclass(frozen=True, kw_only=True)
class Rollout:
    """One response. Token lists run over the response's T tokens; log-probs are in nats.

    `behaviour_log_probs` are of the distribution that was sampled from; `raw_log_probs`, where the engine gives
    them, of the raw model at temperature 1 (else empty). `spans` cover [0, T) without gaps.
    """

    meta: EventMeta
    rollout_id: str
    conversation_id: str
    prompt_id: str
    group_id: str
    purpose: Purpose
    messages: tuple[ChatMessage, ...]
    tokenizer_digest: str
    template_digest: str
    prompt_token_ids: tuple[int, ...]
    response_token_ids: tuple[int, ...]
    behaviour_log_probs: tuple[float, ...]
    raw_log_probs: tuple[float, ...] = ()
    sampling: Sampling
    spans: tuple[VersionSpan, ...]
    finish_reason: FinishReason
    request_time: datetime
    first_token_time: datetime | None
    end_time: datetime
    canary_id: str = ""
    rater_id: str = ""
    response_text: str
    overflow: ObjectReference | None = None
