"""Rollouts, to and from the wire."""

from __future__ import annotations

from thumbloop.generator.v1 import rollout_pb2
from thumbloop.shared.v1 import meta_pb2

from services.shared.contracts.checks import (
    check_count,
    check_id,
    check_integer,
    check_log_probs,
    check_sha256,
    check_short,
    check_text,
)
from services.shared.contracts.generation_values import (
    check_sampling,
    check_spans,
    finish_reason_from_proto,
    finish_reason_to_proto,
    message_from_proto,
    message_to_proto,
    purpose_from_proto,
    purpose_to_proto,
    sampling_from_proto,
    sampling_to_proto,
    span_from_proto,
    span_to_proto,
)
from services.shared.contracts.meta import meta_from_proto, meta_to_proto
from services.shared.contracts.wire import decode, encode, time_from_proto, time_to_proto
from services.shared.domain.errors import InvalidInput
from services.shared.domain.rollout import ObjectReference, Rollout

__all__ = [
    "SENT_BEFORE",
    "check_rollout",
    "decode_rollout",
    "encode_rollout",
    "finish_reason_from_proto",
    "finish_reason_to_proto",
    "message_from_proto",
    "message_to_proto",
    "purpose_from_proto",
    "purpose_to_proto",
    "rollout_from_proto",
    "rollout_to_proto",
    "sampling_from_proto",
    "sampling_to_proto",
    "span_from_proto",
    "span_to_proto",
    "tenant_of",
]

MAX_MESSAGES = 10_000
MAX_TOKEN_ID = 2**31 - 1
SENT_BEFORE = "sent-before"
"""Header of an event that its producer sends again, with the times that it had been acknowledged before, in decimal."""


def encode_rollout(rollout: Rollout) -> bytes:
    """Event bytes. Raises InvalidInput for a rollout that `check_rollout` refuses."""
    return encode(rollout, rollout_to_proto)


def decode_rollout(data: bytes) -> Rollout:
    """The rollout in an event. Raises Unprocessable with the broken rule's reason."""
    return decode(data, rollout_pb2.Rollout, rollout_from_proto)


def tenant_of(data: bytes) -> str:
    """Whose rollout is in an event; nothing else in it is looked at. Raises Unprocessable for other bytes."""
    return decode(data, rollout_pb2.Rollout, lambda message: message.meta.tenant)


def check_rollout(rollout: Rollout) -> None:
    """Raises InvalidInput unless every token has its log-prob and its version, and every value makes sense.

    A rollout with an overflow may leave messages and token ids to the object; its log-probs stay in the event and say
    how long the response is.
    """
    for field in ("rollout_id", "conversation_id", "group_id"):
        check_id(field, getattr(rollout, field))
    for field in ("prompt_id", "canary_id", "rater_id", "tokenizer_digest", "template_digest"):
        check_short(field, getattr(rollout, field))
    check_count("messages", rollout.messages, MAX_MESSAGES)
    check_text("response_text", rollout.response_text)
    check_sampling(rollout.sampling)
    _check_tokens(rollout)
    if rollout.overflow is not None:
        check_id("overflow.path", rollout.overflow.path)
        check_sha256("overflow.sha256", rollout.overflow.sha256)
        check_integer("overflow.size", rollout.overflow.size)


def _check_tokens(rollout: Rollout) -> None:
    """Token ids, log-probs and spans agree."""
    moved = rollout.overflow is not None
    if not rollout.messages and not moved:
        raise InvalidInput("messages is empty; a chat has at least one.", reason="MISSING_FIELD", field="messages")
    for field, ids in (
        ("prompt_token_ids", rollout.prompt_token_ids),
        ("response_token_ids", rollout.response_token_ids),
    ):
        if ids:
            check_integer(field, min(ids), most=MAX_TOKEN_ID)
            check_integer(field, max(ids), most=MAX_TOKEN_ID)
    tokens = len(rollout.response_token_ids) or (len(rollout.behaviour_log_probs) if moved else 0)
    check_log_probs("behaviour_log_probs", rollout.behaviour_log_probs, tokens=tokens)
    if rollout.raw_log_probs:
        check_log_probs("raw_log_probs", rollout.raw_log_probs, tokens=tokens)
    check_spans(rollout.spans, tokens)
    if tokens and rollout.first_token_time is None:
        raise InvalidInput(
            "first_token_time is missing though there are tokens.", reason="MISSING_FIELD", field="first_token_time"
        )


def rollout_to_proto(rollout: Rollout) -> rollout_pb2.Rollout:
    """Raises InvalidInput as `check_rollout` does."""
    check_rollout(rollout)
    first, overflow = rollout.first_token_time, rollout.overflow
    return rollout_pb2.Rollout(
        meta=meta_to_proto(rollout.meta),
        rollout_id=rollout.rollout_id,
        conversation_id=rollout.conversation_id,
        prompt_id=rollout.prompt_id,
        group_id=rollout.group_id,
        purpose=purpose_to_proto(rollout.purpose),
        messages=[message_to_proto(message) for message in rollout.messages],
        tokenizer_digest=rollout.tokenizer_digest,
        template_digest=rollout.template_digest,
        prompt_token_ids=rollout.prompt_token_ids,
        response_token_ids=rollout.response_token_ids,
        behaviour_log_probs=rollout.behaviour_log_probs,
        raw_log_probs=rollout.raw_log_probs,
        sampling=sampling_to_proto(rollout.sampling),
        spans=[span_to_proto(span) for span in rollout.spans],
        finish_reason=finish_reason_to_proto(rollout.finish_reason),
        request_time=time_to_proto("request_time", rollout.request_time),
        first_token_time=None if first is None else time_to_proto("first_token_time", first),
        end_time=time_to_proto("end_time", rollout.end_time),
        canary_id=rollout.canary_id,
        rater_id=rollout.rater_id,
        response_text=rollout.response_text,
        overflow=None if overflow is None else _overflow_to_proto(overflow),
    )


def rollout_from_proto(message: rollout_pb2.Rollout) -> Rollout:
    """Raises InvalidInput as `check_rollout` does, and for missing required messages."""
    meta = meta_from_proto(message.meta, present=message.HasField("meta"))
    for field in ("sampling", "request_time", "end_time"):
        if not message.HasField(field):
            raise InvalidInput(f"{field} is missing.", reason="MISSING_FIELD", field=field)
    timed = message.HasField("first_token_time")
    rollout = Rollout(
        meta=meta,
        rollout_id=message.rollout_id,
        conversation_id=message.conversation_id,
        prompt_id=message.prompt_id,
        group_id=message.group_id,
        purpose=purpose_from_proto(message.purpose),
        messages=tuple(map(message_from_proto, message.messages)),
        tokenizer_digest=message.tokenizer_digest,
        template_digest=message.template_digest,
        prompt_token_ids=tuple(message.prompt_token_ids),
        response_token_ids=tuple(message.response_token_ids),
        behaviour_log_probs=tuple(message.behaviour_log_probs),
        raw_log_probs=tuple(message.raw_log_probs),
        sampling=sampling_from_proto(message.sampling),
        spans=tuple(map(span_from_proto, message.spans)),
        finish_reason=finish_reason_from_proto(message.finish_reason),
        request_time=time_from_proto("request_time", message.request_time),
        first_token_time=time_from_proto("first_token_time", message.first_token_time) if timed else None,
        end_time=time_from_proto("end_time", message.end_time),
        canary_id=message.canary_id,
        rater_id=message.rater_id,
        response_text=message.response_text,
        overflow=_overflow_from_proto(message.overflow) if message.HasField("overflow") else None,
    )
    check_rollout(rollout)
    return rollout


def _overflow_to_proto(overflow: ObjectReference) -> meta_pb2.ObjectReference:
    return meta_pb2.ObjectReference(path=overflow.path, sha256=overflow.sha256, size=overflow.size)


def _overflow_from_proto(message: meta_pb2.ObjectReference) -> ObjectReference:
    return ObjectReference(path=message.path, sha256=message.sha256, size=message.size)
