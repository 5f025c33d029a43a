"""Builders of domain facts for tests: valid by default, and what a test is about is named in the call.

`make_rollout(temperature=1.5)` gives a rollout that differs from the ordinary one in its temperature alone. Ids are
readable and derived from a name ("r1"), times count from `START`, so that failures can be read. (Arbitrary events,
for hypothesis, are in `tests.support.events`.)
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from services.shared.domain.events import EventMeta
from services.shared.domain.feedback import BODY_KINDS, Feedback, FeedbackBody, FeedbackKind, Thumb
from services.shared.domain.release import Announcement, AnnouncementReason, ReleaseKind, version_id
from services.shared.domain.rollout import (
    ChatMessage,
    FinishReason,
    KvHistory,
    Purpose,
    Role,
    Rollout,
    Sampling,
    VersionSpan,
)
from services.shared.domain.score import Score

START = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)
"""When time begins in tests."""

DEPLOYMENT = "test"
TENANT = "default"
BASE_DIGEST = "b" * 64
FEATURE_LAYOUT = "test/4"


def at(seconds: float) -> datetime:
    """So many seconds after `START`."""
    return START + timedelta(seconds=seconds)


def policy_version(number: int, epoch: int = 1) -> str:
    """The id of a policy release with this number."""
    return _version(ReleaseKind.POLICY, number, epoch)


def reward_version(number: int, epoch: int = 1) -> str:
    """The id of a reward model's release with this number."""
    return _version(ReleaseKind.REWARD_MODEL, number, epoch)


def _version(kind: ReleaseKind, number: int, epoch: int) -> str:
    digest = hashlib.sha256(f"{kind}{number}".encode()).hexdigest()
    return version_id(kind, epoch=epoch, number=number, content_sha256=digest)


def make_meta(name: str, *, seconds: float = 0.0, tenant: str = TENANT, deployment: str = DEPLOYMENT) -> EventMeta:
    """Provenance of an event called `name`."""
    return EventMeta(event_id=f"event-{name}", deployment=deployment, tenant=tenant, event_time=at(seconds))


def make_spans(versions: Sequence[tuple[str, int]], *, seconds: float = 0.0) -> tuple[VersionSpan, ...]:
    """Spans of (version, tokens) in order; a span's first token leaves 0.1 s after the one before it."""
    spans: list[VersionSpan] = []
    begin = 0
    for index, (version, tokens) in enumerate(versions):
        history = KvHistory.FRESH if index == 0 else KvHistory.KEPT
        first = at(seconds + 0.1 * (index + 1))
        spans.append(
            VersionSpan(
                policy_version=version, begin=begin, end=begin + tokens, kv_history=history, first_token_time=first
            )
        )
        begin += tokens
    return tuple(spans)


def make_rollout(
    name: str = "r1",
    *,
    seconds: float = 0.0,
    tenant: str = TENANT,
    deployment: str = DEPLOYMENT,
    versions: Sequence[tuple[str, int]] | None = None,
    purpose: Purpose = Purpose.USER,
    temperature: float = 0.8,
    top_p: float = 1.0,
    top_k: int = 0,
    finish_reason: FinishReason = FinishReason.STOP,
    rater: str = "rater-1",
    text: str = "You are welcome.",
    question: str = "Thank you!",
    raw_log_probs: bool = False,
) -> Rollout:
    """A response of `versions` [(policy version, tokens)]: four tokens of policy 0. Ends 1 s after `seconds`."""
    drawn = tuple(versions) if versions is not None else ((policy_version(0), 4),)
    tokens = sum(count for _, count in drawn)
    spans = make_spans(drawn, seconds=seconds)
    log_probs = tuple(_float32(-0.5 - 0.125 * index) for index in range(tokens))
    return Rollout(
        meta=make_meta(f"rollout-{name}", seconds=seconds + 1.0, tenant=tenant, deployment=deployment),
        rollout_id=name,
        conversation_id=f"conversation-{name}",
        prompt_id=f"prompt-{name}",
        group_id=name,
        purpose=purpose,
        messages=(ChatMessage(role=Role.USER, content=question),),
        tokenizer_digest="1" * 64,
        template_digest="2" * 64,
        prompt_token_ids=(1, 4093, 198, 40_000),
        response_token_ids=tuple(100 + index for index in range(tokens)),
        behaviour_log_probs=log_probs,
        raw_log_probs=tuple(_float32(value * temperature) for value in log_probs) if raw_log_probs else (),
        sampling=Sampling(temperature=temperature, top_p=top_p, top_k=top_k, max_tokens=64),
        spans=spans,
        finish_reason=finish_reason,
        request_time=at(seconds),
        first_token_time=spans[0].first_token_time if spans else None,
        end_time=at(seconds + 1.0),
        rater_id=rater,
        response_text=text,
    )


def make_feedback(
    name: str = "f1",
    *,
    rollout: str = "r1",
    body: FeedbackBody | None = None,
    kind: FeedbackKind | None = None,
    rater: str = "rater-1",
    seconds: float = 2.0,
    revision: int | None = None,
    retracted: bool = False,
    tenant: str = TENANT,
    event: str | None = None,
) -> Feedback:
    """What a rater said of a rollout; by default a thumb up. A retraction has no body unless one is given.

    `revision` is by default the accept time in milliseconds. `event` names another event of the same feedback id.
    """
    said = body if body is not None or retracted else Thumb(up=True)
    accept_time = at(seconds)
    return Feedback(
        meta=make_meta(event or f"feedback-{name}", seconds=seconds, tenant=tenant),
        feedback_id=name,
        rollout_id=rollout,
        prompt_id=f"prompt-{rollout}",
        rater_id=rater,
        kind=kind or (BODY_KINDS[type(said)] if said is not None else FeedbackKind.THUMB),
        body=said,
        revision=revision if revision is not None else int(accept_time.timestamp() * 1000),
        retracted=retracted,
        accept_time=accept_time,
        token_key_id="key-1",
    )


def make_thumb(
    name: str = "f1",
    *,
    rollout: str = "r1",
    up: bool = True,
    rater: str = "rater-1",
    seconds: float = 2.0,
    revision: int | None = None,
    tenant: str = TENANT,
) -> Feedback:
    """A thumb."""
    body = Thumb(up=up)
    return make_feedback(
        name, rollout=rollout, body=body, rater=rater, seconds=seconds, revision=revision, tenant=tenant
    )


def make_features(*values: float) -> bytes:
    """Little-endian fp16 features in `FEATURE_LAYOUT`."""
    return struct.pack(f"<{len(values)}e", *values)


def make_score(
    rollout: Rollout | None = None,
    *,
    version: str | None = None,
    mean: float = 0.75,
    spread: float = 0.125,
    seconds: float = 3.0,
    features: bytes | None = None,
    event: str | None = None,
) -> Score:
    """What a reward model (by default release 0) says of a rollout (by default the default one)."""
    scored = rollout or make_rollout()
    by = version or reward_version(0)
    tokens = len(scored.response_token_ids)
    name = event or f"score-{scored.rollout_id}-{by}"
    return Score(
        meta=make_meta(name, seconds=seconds, tenant=scored.meta.tenant, deployment=scored.meta.deployment),
        rollout_id=scored.rollout_id,
        reward_model_version=by,
        mean=_float32(mean),
        spread=_float32(spread),
        terms=(("thumb", _float32(2 * mean - 1)),),
        reference_log_probs=tuple(_float32(-0.75 - 0.125 * index) for index in range(tokens)),
        temperature=scored.sampling.temperature,
        base_model_digest=BASE_DIGEST,
        features=make_features(1.0, 0.5, -0.5, 0.25) if features is None else features,
        feature_layout=FEATURE_LAYOUT,
    )


def make_announcement(
    version: str | None = None,
    *,
    kind: ReleaseKind = ReleaseKind.POLICY,
    epoch: int = 1,
    sequence: int = 1,
    parent: str = "",
    manifest_sha256: str = "c" * 64,
    reason: AnnouncementReason = AnnouncementReason.RELEASE,
    seconds: float = 0.0,
) -> Announcement:
    """A version is live."""
    announced = version or _version(kind, 0, epoch)
    return Announcement(
        meta=make_meta(f"announcement-{kind}-{epoch}-{sequence}", seconds=seconds),
        kind=kind,
        epoch=epoch,
        sequence=sequence,
        version=announced,
        parent_version=parent,
        checkpoint_path=f"{kind}/{epoch}/{announced}",
        manifest_sha256=manifest_sha256,
        base_model_digest=BASE_DIGEST,
        reason=reason,
    )


def _float32(value: float) -> float:
    """The nearest value that an event's `float` holds, so that facts are equal after a round trip."""
    return float(struct.unpack("<f", struct.pack("<f", value))[0])
