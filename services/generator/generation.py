"""One response, as the core sees it: what was asked, and the parts in which it is answered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol
from uuid import UUID

from services.shared.contracts.checks import check_short
from services.shared.domain.errors import InvalidInput
from services.shared.domain.rollout import ChatMessage, FinishReason, Purpose, Role, Sampling, VersionSpan

UUID_VERSION: Final = 7
_SHORT: Final = ("tenant", "conversation_id", "prompt_id", "group_id", "rater_id", "canary_id", "traceparent")
"""A rollout with one that is longer could not be recorded."""


@dataclass(frozen=True, kw_only=True)
class GenerationRequest:
    """See `GenerateRequest` in generator.proto; defaults are filled in later, where ids are made."""

    rollout_id: str
    tenant: str
    conversation_id: str
    prompt_id: str
    group_id: str
    purpose: Purpose
    messages: tuple[ChatMessage, ...]
    sampling: Sampling
    rater_id: str
    canary_id: str
    required_version: str
    recorded: bool
    traceparent: str


@dataclass(frozen=True, kw_only=True)
class Started:
    """The request was admitted; `policy_version` will draw the first token, as known now."""

    rollout_id: str
    policy_version: str
    prompt_tokens: int


@dataclass(frozen=True, kw_only=True)
class Delta:
    """Text that is final. `response_tokens` so far."""

    text: str
    response_tokens: int


@dataclass(frozen=True, kw_only=True)
class Finished:
    """The response ended, and its rollout is safe."""

    finish_reason: FinishReason
    spans: tuple[VersionSpan, ...]
    response_token_ids: tuple[int, ...]
    behaviour_log_probs: tuple[float, ...]
    prompt_tokens: int


Part = Started | Delta | Finished


class ChatTokenizer(Protocol):
    """Between text and token ids."""

    @property
    def tokenizer_digest(self) -> str:
        """sha256 of what makes ids of text."""

    @property
    def template_digest(self) -> str:
        """sha256 of what makes one text of a chat."""

    @property
    def control_texts(self) -> Sequence[str]:
        """Texts that stand for control tokens; no message may hold one."""

    def render(self, messages: Sequence[ChatMessage]) -> tuple[int, ...]:
        """The prompt: the chat by its template, ready for the assistant's turn."""

    def decode(self, token_ids: Sequence[int]) -> str:
        """Text of tokens, control tokens left out; U+FFFD for what is no whole character."""


def check_generation(request: GenerationRequest, tokenizer: ChatTokenizer) -> None:
    """Raises InvalidInput, naming the field and how to mend it. Lengths are the engine's to judge."""
    _check_rollout_id(request.rollout_id)
    if not request.tenant:
        raise InvalidInput("tenant is missing; name the customer.", reason="MISSING_FIELD", field="tenant")
    for field in _SHORT:
        check_short(field, getattr(request, field))
    if not request.messages:
        raise InvalidInput(
            "messages is empty; send at least the user's message.", reason="MISSING_FIELD", field="messages"
        )
    for index, message in enumerate(request.messages):
        _check_message(index, message, tokenizer.control_texts)
    if request.messages[-1].role is not Role.USER:
        raise InvalidInput(
            f"The last message is the {request.messages[-1].role}'s; it must be the user's.",
            reason="WRONG_ROLE",
            field=f"messages[{len(request.messages) - 1}].role",
        )


def _check_rollout_id(rollout_id: str) -> None:
    """In the one form in which ids are in the order of time."""
    try:
        parsed = UUID(rollout_id)
        valid = parsed.version == UUID_VERSION and str(parsed) == rollout_id
    except ValueError:
        valid = False
    if not valid:
        raise InvalidInput(
            f"rollout_id is {rollout_id[:40]!r}; mint a UUIDv7 for each response, in lower case with hyphens.",
            reason="BAD_ID",
            field="rollout_id",
        )


def _check_message(index: int, message: ChatMessage, control_texts: Sequence[str]) -> None:
    field = f"messages[{index}]"
    if message.role is Role.SYSTEM and index > 0:
        raise InvalidInput(
            f"{field} is the system's; there may be one, as the first.", reason="WRONG_ROLE", field=f"{field}.role"
        )
    if not message.content.strip() and message.role is not Role.ASSISTANT:
        raise InvalidInput(
            f"{field}.content is empty; leave the message out or fill it in.",
            reason="EMPTY_MESSAGE",
            field=f"{field}.content",
        )
    for text in control_texts:
        if text in message.content:
            raise InvalidInput(
                f"{field}.content holds {text!r}, which the chat template uses to tell turns apart; take it out.",
                reason="CONTROL_TOKEN",
                field=f"{field}.content",
            )
