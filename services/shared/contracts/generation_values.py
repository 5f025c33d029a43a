"""Values that events of rollouts share with the generator's and the reward service's calls."""

from __future__ import annotations

from thumbloop.generator.v1 import rollout_pb2
from thumbloop.shared.v1 import meta_pb2

from services.shared.contracts.checks import (
    MAX_INTEGER,
    check_count,
    check_id,
    check_integer,
    check_number,
    check_short,
    check_text,
)
from services.shared.contracts.wire import EnumMap, shortest_float, time_from_proto, time_to_proto
from services.shared.domain.errors import InvalidInput
from services.shared.domain.rollout import (
    ChatMessage,
    FinishReason,
    KvHistory,
    Purpose,
    Role,
    Sampling,
    VersionSpan,
)

MAX_STOPS = 4
MAX_TOKENS = 2**31 - 1

ROLES: EnumMap[Role, meta_pb2.Role.ValueType] = EnumMap(Role, meta_pb2.Role, "ROLE")
PURPOSES: EnumMap[Purpose, rollout_pb2.Purpose.ValueType] = EnumMap(Purpose, rollout_pb2.Purpose, "PURPOSE")
FINISH_REASONS: EnumMap[FinishReason, rollout_pb2.FinishReason.ValueType] = EnumMap(
    FinishReason, rollout_pb2.FinishReason, "FINISH_REASON"
)
KV_HISTORIES: EnumMap[KvHistory, rollout_pb2.KvHistory.ValueType] = EnumMap(
    KvHistory, rollout_pb2.KvHistory, "KV_HISTORY"
)


def purpose_to_proto(purpose: Purpose) -> rollout_pb2.Purpose.ValueType:
    """The wire's number."""
    return PURPOSES.to_proto(purpose)


def purpose_from_proto(value: rollout_pb2.Purpose.ValueType, field: str = "purpose") -> Purpose:
    """Raises InvalidInput for an unknown one."""
    return PURPOSES.from_proto(value, field)


def finish_reason_to_proto(reason: FinishReason) -> rollout_pb2.FinishReason.ValueType:
    """The wire's number."""
    return FINISH_REASONS.to_proto(reason)


def finish_reason_from_proto(value: rollout_pb2.FinishReason.ValueType, field: str = "finish_reason") -> FinishReason:
    """Raises InvalidInput for an unknown one."""
    return FINISH_REASONS.from_proto(value, field)


def kv_history_to_proto(history: KvHistory) -> rollout_pb2.KvHistory.ValueType:
    """The wire's number."""
    return KV_HISTORIES.to_proto(history)


def kv_history_from_proto(value: rollout_pb2.KvHistory.ValueType, field: str = "kv_history") -> KvHistory:
    """Raises InvalidInput for an unknown one."""
    return KV_HISTORIES.from_proto(value, field)


def message_to_proto(message: ChatMessage) -> meta_pb2.ChatMessage:
    """One turn."""
    check_text("messages.content", message.content)
    return meta_pb2.ChatMessage(role=ROLES.to_proto(message.role), content=message.content)


def message_from_proto(message: meta_pb2.ChatMessage) -> ChatMessage:
    """Raises InvalidInput for an unknown role or a text that is too long."""
    check_text("messages.content", message.content)
    return ChatMessage(role=ROLES.from_proto(message.role, "messages.role"), content=message.content)


def check_sampling(sampling: Sampling) -> None:
    """Raises InvalidInput for parameters that no engine could have applied."""
    check_number("sampling.temperature", sampling.temperature, least=0, most=2)
    check_number("sampling.top_p", sampling.top_p, least=0, most=1)
    if sampling.top_p == 0:
        raise InvalidInput("sampling.top_p is 0; 1 is off.", reason="OUT_OF_RANGE", field="sampling.top_p")
    check_integer("sampling.top_k", sampling.top_k, most=MAX_TOKENS)
    check_integer("sampling.max_tokens", sampling.max_tokens, least=1, most=MAX_TOKENS)
    check_count("sampling.stop", sampling.stop, MAX_STOPS)
    for stop in sampling.stop:
        check_id("sampling.stop", stop)
    if sampling.seed is not None:
        check_integer("sampling.seed", sampling.seed, most=MAX_INTEGER)


def sampling_to_proto(sampling: Sampling) -> meta_pb2.SamplingParameters:
    """Raises InvalidInput as `check_sampling` does."""
    check_sampling(sampling)
    return meta_pb2.SamplingParameters(
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        max_tokens=sampling.max_tokens,
        stop=sampling.stop,
        seed=sampling.seed,
    )


def sampling_from_proto(message: meta_pb2.SamplingParameters) -> Sampling:
    """Raises InvalidInput as `check_sampling` does."""
    sampling = Sampling(
        temperature=shortest_float(message.temperature),
        top_p=shortest_float(message.top_p),
        top_k=message.top_k,
        max_tokens=message.max_tokens,
        stop=tuple(message.stop),
        seed=message.seed if message.HasField("seed") else None,
    )
    check_sampling(sampling)
    return sampling


def check_spans(spans: tuple[VersionSpan, ...], tokens: int) -> None:
    """Raises InvalidInput unless the spans cover response tokens [0, tokens) in order, without gap or overlap."""
    position = 0
    for index, span in enumerate(spans):
        check_id("spans.policy_version", span.policy_version)
        if span.begin != position or span.end <= span.begin:
            raise InvalidInput(
                f"spans[{index}] is [{span.begin}, {span.end}); it must begin at {position} and not be empty.",
                reason="BAD_SPANS",
                field="spans",
            )
        if index and span.kv_history is KvHistory.FRESH:
            raise InvalidInput(
                f"spans[{index}] says FRESH, which only a response's first span can be.",
                reason="BAD_SPANS",
                field="spans.kv_history",
            )
        position = span.end
    if position != tokens:
        raise InvalidInput(
            f"The spans end at {position}; the response has {tokens} tokens.", reason="BAD_SPANS", field="spans"
        )


def span_to_proto(span: VersionSpan) -> rollout_pb2.VersionSpan:
    """One span; `check_spans` looks at all of a response."""
    check_short("spans.policy_version", span.policy_version)
    check_integer("spans.begin", span.begin, most=MAX_TOKENS)
    check_integer("spans.end", span.end, most=MAX_TOKENS)
    first = span.first_token_time
    return rollout_pb2.VersionSpan(
        policy_version=span.policy_version,
        begin=span.begin,
        end=span.end,
        kv_history=kv_history_to_proto(span.kv_history),
        first_token_time=None if first is None else time_to_proto("spans.first_token_time", first),
    )


def span_from_proto(message: rollout_pb2.VersionSpan) -> VersionSpan:
    """Raises InvalidInput for an unknown KV history or a time that is none."""
    timed = message.HasField("first_token_time")
    return VersionSpan(
        policy_version=message.policy_version,
        begin=message.begin,
        end=message.end,
        kv_history=kv_history_from_proto(message.kv_history, "spans.kv_history"),
        first_token_time=time_from_proto("spans.first_token_time", message.first_token_time) if timed else None,
    )
