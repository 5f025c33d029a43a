"""From a chat body to a request that the generator can take, or an error that says how to mend it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from services.gateway.chat.body import ChatBody, MessageBody
from services.gateway.chat.unsupported import refuse_unsupported
from services.shared.domain.errors import InvalidInput, NotFound
from services.shared.domain.rollout import ChatMessage, Role, Sampling

MAX_STOPS = 4
MAX_STOP_CHARS = 256
_CONVERSATION_ID = re.compile(r"[\w.:@/+=-]{1,128}", re.ASCII)
_ROLES = {"system": Role.SYSTEM, "developer": Role.SYSTEM, "user": Role.USER, "assistant": Role.ASSISTANT}
_ECHOED = frozenset({"refusal", "annotations", "audio", "function_call", "tool_calls", "name", "reasoning_content"})
"""Fields of an assistant's message that clients send back; let through while they are empty."""


@dataclass(frozen=True, kw_only=True)
class ChatLimits:
    """Bounds of this installation."""

    model_name: str
    max_messages: int
    max_prompt_chars: int
    max_tokens_default: int
    max_tokens_limit: int
    max_choices: int


@dataclass(frozen=True, kw_only=True)
class ChatRequest:
    """A checked request. `user` and `conversation_id` are "" where the client names none."""

    model: str
    messages: tuple[ChatMessage, ...]
    sampling: Sampling
    choices: int
    stream: bool
    include_usage: bool
    user: str
    conversation_id: str
    recorded: bool


def parse_request(body: ChatBody, limits: ChatLimits) -> ChatRequest:
    """Raises InvalidInput (NotSupported among it) or NotFound, naming the parameter."""
    refuse_unsupported(body.others, frozenset(ChatBody.model_fields))
    if body.model != limits.model_name:
        raise NotFound(
            f"The model {_shown(body.model)} does not exist. Use {limits.model_name!r}, which GET /v1/models lists.",
            reason="MODEL_NOT_FOUND",
            field="model",
        )
    if body.stream_options is not None and not body.stream:
        raise InvalidInput(
            "'stream_options' is only allowed with 'stream': true. Set it, or leave the options out.",
            field="stream_options",
        )
    return ChatRequest(
        model=body.model,
        messages=_conversation(body.messages, limits),
        sampling=_sampling(body, limits),
        choices=_at_most(body.n or 1, limits.max_choices, "n"),
        stream=bool(body.stream),
        include_usage=bool(body.stream_options and body.stream_options.include_usage),
        user=body.user or body.safety_identifier or "",
        conversation_id=_conversation_id(body),
        recorded=body.store is not False,
    )


def _conversation(messages: Sequence[MessageBody], limits: ChatLimits) -> tuple[ChatMessage, ...]:
    """Messages with their roles, in an order that the model's template knows."""
    if not messages:
        raise InvalidInput("'messages' is empty. Send at least one message of role 'user'.", field="messages")
    if len(messages) > limits.max_messages:
        raise InvalidInput(
            f"The conversation has {len(messages)} messages; at most {limits.max_messages} are allowed. "
            "Leave out the oldest.",
            reason="CONTEXT_LENGTH_EXCEEDED",
            field="messages",
        )
    parsed = tuple(_message(message, index) for index, message in enumerate(messages))
    characters = sum(len(message.content) for message in parsed)
    if characters > limits.max_prompt_chars:
        raise InvalidInput(
            f"The conversation has {characters} characters; at most {limits.max_prompt_chars} are allowed. "
            "Shorten it or leave out the oldest messages.",
            reason="CONTEXT_LENGTH_EXCEEDED",
            field="messages",
        )
    if parsed[-1].role is not Role.USER:
        raise InvalidInput(
            f"The last message is of role {messages[-1].role!r}; it must be the user's, for it is what gets answered.",
            field=f"messages[{len(parsed) - 1}].role",
        )
    return parsed


def _message(message: MessageBody, index: int) -> ChatMessage:
    place = f"messages[{index}]"
    role = _ROLES.get(message.role)
    if role is None:
        raise InvalidInput(
            f"Role {_shown(message.role)} is not supported. Use one of: {', '.join(_ROLES)}.", field=f"{place}.role"
        )
    if role is Role.SYSTEM and index > 0:
        raise InvalidInput(
            "Only the first message may be of role 'system' (or 'developer'). Join the instructions into one message.",
            field=f"{place}.role",
        )
    for name, value in (message.model_extra or {}).items():
        if name not in _ECHOED or value:
            raise InvalidInput(f"{name!r} is not supported in a message. Leave it out.", field=f"{place}.{name}")
    content = _utf8(_text(message), f"{place}.content")
    if not content.strip() and role is not Role.ASSISTANT:
        raise InvalidInput(f"The message of role {message.role!r} is empty. Write a text.", field=f"{place}.content")
    return ChatMessage(role=role, content=content)


def _text(message: MessageBody) -> str:
    if isinstance(message.content, list):
        return "".join(part.text for part in message.content)
    return message.content or ""


def _sampling(body: ChatBody, limits: ChatLimits) -> Sampling:
    return Sampling(
        temperature=1.0 if body.temperature is None else body.temperature,
        top_p=1.0 if body.top_p is None else body.top_p,
        max_tokens=_max_tokens(body, limits),
        stop=_stops(body),
        seed=body.seed,
    )


def _max_tokens(body: ChatBody, limits: ChatLimits) -> int:
    name = "max_tokens" if body.max_completion_tokens is None else "max_completion_tokens"
    asked = {body.max_tokens, body.max_completion_tokens} - {None}
    if len(asked) > 1:
        raise InvalidInput(
            "'max_tokens' and 'max_completion_tokens' differ. They mean the same: send one of them.", field="max_tokens"
        )
    value = body.max_completion_tokens or body.max_tokens
    return _at_most(value, limits.max_tokens_limit, name) if value else limits.max_tokens_default


def _stops(body: ChatBody) -> tuple[str, ...]:
    stops = (body.stop,) if isinstance(body.stop, str) else tuple(body.stop or ())
    if len(stops) > MAX_STOPS or any(not 0 < len(stop) <= MAX_STOP_CHARS for stop in stops):
        raise InvalidInput(
            f"'stop' must hold at most {MAX_STOPS} texts of 1 to {MAX_STOP_CHARS} characters.", field="stop"
        )
    return tuple(_utf8(stop, "stop") for stop in stops)


def _conversation_id(body: ChatBody) -> str:
    conversation_id = (body.metadata or {}).get("conversation_id", "")
    if conversation_id and not _CONVERSATION_ID.fullmatch(conversation_id):
        raise InvalidInput(
            "'metadata.conversation_id' must have 1 to 128 characters: letters, digits and any of _ . : @ / + = -",
            field="metadata.conversation_id",
        )
    return conversation_id


def _at_most(value: int, limit: int, name: str) -> int:
    if value > limit:
        raise InvalidInput(f"{name!r} is {value}; at most {limit} is allowed here.", field=name)
    return value


def _utf8(text: str, field: str) -> str:
    """JSON can spell half a surrogate pair, which is no text."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidInput(
            "The text has half a surrogate pair (\\ud800 to \\udfff alone). Send valid Unicode.", field=field
        ) from error
    return text


def _shown(text: str) -> str:
    """A client's own word, fit for an error message."""
    return ascii(text[:64])
