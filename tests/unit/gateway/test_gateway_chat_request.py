"""Chat requests: what is taken, and for each mistake an error that names the parameter."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from services.gateway.chat.body import ChatBody
from services.gateway.chat.request import ChatLimits, ChatRequest, parse_request
from services.gateway.chat.unsupported import UNSUPPORTED
from services.shared.domain.errors import InvalidInput, NotFound, NotSupported, ThumbloopError
from services.shared.domain.rollout import ChatMessage, Role

LIMITS = ChatLimits(
    model_name="thumbloop",
    max_messages=5,
    max_prompt_chars=100,
    max_tokens_default=16,
    max_tokens_limit=64,
    max_choices=4,
)
USER = {"role": "user", "content": "hi"}


def parse(**changes: Any) -> ChatRequest:
    body = {"model": "thumbloop", "messages": [USER], **changes}
    return parse_request(ChatBody.model_validate(body), LIMITS)


def test_defaults() -> None:
    request = parse()
    assert request.messages == (ChatMessage(role=Role.USER, content="hi"),)
    sampling = request.sampling
    assert (sampling.temperature, sampling.top_p, sampling.max_tokens, sampling.stop, sampling.seed) == (
        1.0,
        1.0,
        16,
        (),
        None,
    )
    assert (request.choices, request.stream, request.recorded, request.user) == (1, False, True, "")


def test_what_is_asked_for_is_kept() -> None:
    request = parse(
        messages=[
            {"role": "developer", "content": "be kind"},
            {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
            {"role": "assistant", "content": None, "refusal": None, "annotations": [], "tool_calls": None},
            USER,
        ],
        temperature=0,
        top_p=0.5,
        max_completion_tokens=64,
        stop="END",
        seed=7,
        n=4,
        user="alice",
        metadata={"conversation_id": "c-1", "other": "x"},
        store=False,
        stream=True,
        stream_options={"include_usage": True},
    )
    assert [message.role for message in request.messages] == [Role.SYSTEM, Role.USER, Role.ASSISTANT, Role.USER]
    assert request.messages[1].content == "ab" and request.messages[2].content == ""
    sampling = request.sampling
    assert (sampling.temperature, sampling.top_p, sampling.max_tokens, sampling.stop, sampling.seed) == (
        0,
        0.5,
        64,
        ("END",),
        7,
    )
    assert (request.choices, request.user, request.conversation_id) == (4, "alice", "c-1")
    assert (request.recorded, request.stream, request.include_usage) == (False, True, True)


def test_parameters_that_ask_for_nothing_pass() -> None:
    neutral = {name: rule.neutral[0] for name, rule in UNSUPPORTED.items() if rule.neutral}
    assert parse(**neutral, prompt_cache_key="k", **dict.fromkeys(UNSUPPORTED.keys() - neutral.keys())) == parse()


SYSTEM = {"role": "system", "content": "s"}
MISTAKES: list[tuple[dict[str, Any], type[ThumbloopError], str, str]] = [
    ({"messages": []}, InvalidInput, "messages", "empty"),
    ({"messages": [USER] * 6}, InvalidInput, "messages", "at most 5"),
    ({"messages": [{"role": "user", "content": "x" * 101}]}, InvalidInput, "messages", "at most 100"),
    ({"messages": [{"role": "tool", "content": "x"}]}, InvalidInput, "messages[0].role", "'tool'"),
    ({"messages": [USER, SYSTEM, USER]}, InvalidInput, "messages[1].role", "first message"),
    ({"messages": [USER, {"role": "assistant", "content": "x"}]}, InvalidInput, "messages[1].role", "last message"),
    ({"messages": [SYSTEM]}, InvalidInput, "messages[0].role", "last message"),
    ({"messages": [{"role": "user", "content": " "}]}, InvalidInput, "messages[0].content", "empty"),
    ({"messages": [{"role": "user"}]}, InvalidInput, "messages[0].content", "empty"),
    ({"messages": [{"role": "user", "content": "\ud800"}]}, InvalidInput, "messages[0].content", "surrogate"),
    ({"messages": [{**USER, "name": "bob"}]}, InvalidInput, "messages[0].name", "not supported"),
    (
        {"messages": [USER, {"role": "assistant", "content": "x", "tool_calls": [{"id": "1"}]}, USER]},
        InvalidInput,
        "messages[1].tool_calls",
        "not supported",
    ),
    ({"model": "gpt-5"}, NotFound, "model", "does not exist"),
    ({"n": 5}, InvalidInput, "n", "at most 4"),
    ({"max_tokens": 65}, InvalidInput, "max_tokens", "at most 64"),
    ({"max_completion_tokens": 65}, InvalidInput, "max_completion_tokens", "at most 64"),
    ({"max_tokens": 3, "max_completion_tokens": 4}, InvalidInput, "max_tokens", "differ"),
    ({"stop": ["a"] * 5}, InvalidInput, "stop", "at most 4"),
    ({"stop": [""]}, InvalidInput, "stop", "1 to 256"),
    ({"metadata": {"conversation_id": "a b"}}, InvalidInput, "metadata.conversation_id", "1 to 128"),
    ({"metadata": {"conversation_id": "a" * 129}}, InvalidInput, "metadata.conversation_id", "1 to 128"),
    ({"stream_options": {"include_usage": True}}, InvalidInput, "stream_options", "'stream': true"),
    ({"tools": [{"type": "function"}]}, NotSupported, "tools", "Leave it out"),
    ({"response_format": {"type": "json_schema"}}, NotSupported, "response_format", "text"),
    ({"logit_bias": {"1": 2}}, NotSupported, "logit_bias", "Leave it out"),
    ({"logprobs": True}, NotSupported, "logprobs", "false"),
    ({"presence_penalty": 0.1}, NotSupported, "presence_penalty", "0"),
    ({"frequency_penalty": -0.1}, NotSupported, "frequency_penalty", "0"),
    ({"top_k": 5}, NotSupported, "top_k", "top_p"),
    ({"tempreature": 1}, InvalidInput, "tempreature", "temperature"),
]


@pytest.mark.parametrize(("changes", "kind", "field", "words"), MISTAKES)
def test_mistakes(changes: dict[str, Any], kind: type[ThumbloopError], field: str, words: str) -> None:
    with pytest.raises(kind) as caught:
        parse(**changes)
    assert type(caught.value) is kind
    assert caught.value.field == field
    assert words in caught.value.message


@pytest.mark.parametrize(
    "changes",
    [
        {"temperature": -0.1},
        {"temperature": 2.1},
        {"temperature": "1"},
        {"temperature": float("nan")},
        {"top_p": 0},
        {"top_p": 1.1},
        {"n": 0},
        {"n": 1.5},
        {"n": True},
        {"max_tokens": 0},
        {"seed": -1},
        {"seed": 2**63},
        {"stream": "yes"},
        {"messages": "hi"},
        {"messages": [{"content": "hi"}]},
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
        {"user": "x" * 513},
        {"user": "\udfff"},
        {"metadata": {"a": 1}},
        {"stream_options": {"x": 1}},
    ],
)
def test_out_of_range_or_shape(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        parse(**changes)
