"""Rollouts to SQL rows and back, without loss."""

from __future__ import annotations

from typing import Any

from services.learner.state.eligibility import is_eligible
from services.shared.domain.errors import InvalidInput
from services.shared.domain.events import EventMeta
from services.shared.domain.release import version_number
from services.shared.domain.rollout import (
    ChatMessage,
    FinishReason,
    KvHistory,
    ObjectReference,
    Purpose,
    Role,
    Rollout,
    Sampling,
    VersionSpan,
)
from services.shared.store.columns import from_micros, pack_floats, pack_ids, to_micros, unpack_floats, unpack_ids

Row = dict[str, Any]


def meta_columns(meta: EventMeta) -> Row:
    """Provenance, as every table of events has it."""
    return {
        "event_id": meta.event_id,
        "deployment": meta.deployment,
        "tenant": meta.tenant,
        "event_time": meta.event_time,
        "schema_version": meta.schema_version,
        "traceparent": meta.traceparent,
    }


def meta_from(row: Any) -> EventMeta:
    """The inverse of `meta_columns`, from a row of any such table."""
    return EventMeta(
        event_id=row.event_id,
        deployment=row.deployment,
        tenant=row.tenant,
        event_time=row.event_time,
        schema_version=row.schema_version,
        traceparent=row.traceparent,
    )


def rollout_row(rollout: Rollout) -> Row:
    """A row of `rollouts`."""
    oldest, number = oldest_version(rollout)
    return meta_columns(rollout.meta) | {
        "rollout_id": rollout.rollout_id,
        "conversation_id": rollout.conversation_id,
        "prompt_id": rollout.prompt_id,
        "group_id": rollout.group_id,
        "purpose": rollout.purpose.value,
        "messages": [[message.role.value, message.content] for message in rollout.messages],
        "tokenizer_digest": rollout.tokenizer_digest,
        "template_digest": rollout.template_digest,
        "prompt_token_ids": pack_ids(rollout.prompt_token_ids),
        "response_token_ids": pack_ids(rollout.response_token_ids),
        "behaviour_log_probs": pack_floats(rollout.behaviour_log_probs),
        "raw_log_probs": pack_floats(rollout.raw_log_probs),
        "sampling": _sampling_json(rollout.sampling),
        "spans": [_span_json(span) for span in rollout.spans],
        "finish_reason": rollout.finish_reason.value,
        "request_time": rollout.request_time,
        "first_token_time": rollout.first_token_time,
        "end_time": rollout.end_time,
        "canary_id": rollout.canary_id,
        "rater_id": rollout.rater_id,
        "response_text": rollout.response_text,
        "overflow": _overflow_json(rollout.overflow),
        "starting_version": rollout.spans[0].policy_version if rollout.spans else "",
        "oldest_version": oldest,
        "oldest_version_number": number,
    }


def rollout_from_row(row: Any) -> Rollout:
    """The rollout of a row of `rollouts`."""
    sampling = dict(row.sampling)
    return Rollout(
        meta=meta_from(row),
        rollout_id=row.rollout_id,
        conversation_id=row.conversation_id,
        prompt_id=row.prompt_id,
        group_id=row.group_id,
        purpose=Purpose(row.purpose),
        messages=tuple(ChatMessage(role=Role(role), content=content) for role, content in row.messages),
        tokenizer_digest=row.tokenizer_digest,
        template_digest=row.template_digest,
        prompt_token_ids=unpack_ids(row.prompt_token_ids),
        response_token_ids=unpack_ids(row.response_token_ids),
        behaviour_log_probs=unpack_floats(row.behaviour_log_probs),
        raw_log_probs=unpack_floats(row.raw_log_probs),
        sampling=Sampling(**(sampling | {"stop": tuple(sampling["stop"])})),
        spans=tuple(_span_from(span) for span in row.spans),
        finish_reason=FinishReason(row.finish_reason),
        request_time=row.request_time,
        first_token_time=row.first_token_time,
        end_time=row.end_time,
        canary_id=row.canary_id,
        rater_id=row.rater_id,
        response_text=row.response_text,
        overflow=None if row.overflow is None else ObjectReference(**row.overflow),
    )


def version_rows(rollout: Rollout) -> list[Row]:
    """Rows of `rollout_versions`: for each version its tokens and when its first one left the engine."""
    total = len(rollout.response_token_ids)
    rows: dict[str, Row] = {}
    for span in rollout.spans:
        row = rows.setdefault(
            span.policy_version,
            {
                "rollout_id": rollout.rollout_id,
                "policy_version": span.policy_version,
                "tenant": rollout.meta.tenant,
                "purpose": rollout.purpose.value,
                "tokens": 0,
                "first_token_time": span.first_token_time,
            },
        )
        row["tokens"] += span.end - span.begin
    for row in rows.values():
        row["whole"] = row["tokens"] == total
    return list(rows.values())


def experience_row(rollout: Rollout) -> Row:
    """What the rollout says of its experience."""
    oldest, _ = oldest_version(rollout)
    return {
        "rollout_id": rollout.rollout_id,
        "tenant": rollout.meta.tenant,
        "end_time": rollout.end_time,
        "oldest_version": oldest,
        "eligible": is_eligible(rollout),
        "state": "open",
    }


def oldest_version(rollout: Rollout) -> tuple[str, int | None]:
    """The version with the least number among those that drew tokens, and that number; ("", None) without tokens."""
    versions = {span.policy_version for span in rollout.spans}
    numbered = sorted((_number_or_none(version), version) for version in versions if _is_version(version))
    if numbered:
        number, version = numbered[0]
        return version, number
    return (min(versions), None) if versions else ("", None)


def _is_version(version: str) -> bool:
    return _number_or_none(version) >= 0


def _number_or_none(version: str) -> int:
    try:
        return version_number(version)
    except InvalidInput:  # a version id of another make: never fresh, but the rollout is kept all the same
        return -1


def _sampling_json(sampling: Sampling) -> Row:
    return {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "max_tokens": sampling.max_tokens,
        "stop": list(sampling.stop),
        "seed": sampling.seed,
    }


def _span_json(span: VersionSpan) -> list[Any]:
    first = None if span.first_token_time is None else to_micros(span.first_token_time)
    return [span.policy_version, span.begin, span.end, span.kv_history.value, first]


def _span_from(values: list[Any]) -> VersionSpan:
    version, begin, end, history, first = values
    return VersionSpan(
        policy_version=version,
        begin=begin,
        end=end,
        kv_history=KvHistory(history),
        first_token_time=None if first is None else from_micros(first),
    )


def _overflow_json(overflow: ObjectReference | None) -> Row | None:
    if overflow is None:
        return None
    return {"path": overflow.path, "sha256": overflow.sha256, "size": overflow.size}
