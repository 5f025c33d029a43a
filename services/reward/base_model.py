"""What the reward room asks of the frozen base model: one adapter-off pass, two results.

The pass gives the reference policy's log-probs, which PPO needs for its KL, and the features that the reward model
reads, so that features cost nothing extra. Shapes: `T` response tokens, `F` features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from services.shared.domain.errors import InvalidInput
from services.shared.domain.rollout import ChatMessage


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A prompt as rendered and the response to it, in tokens of the base model."""

    prompt_token_ids: tuple[int, ...]
    response_token_ids: tuple[int, ...]
    temperature: float = 1.0
    """Divides the logits of the log-probs. 0, at which no distribution is defined, stands for 1."""

    @property
    def divisor(self) -> float:
        """The temperature that is applied."""
        return self.temperature if self.temperature > 0 else 1.0

    @property
    def tokens(self) -> int:
        """Length of prompt plus response."""
        return len(self.prompt_token_ids) + len(self.response_token_ids)


@dataclass(frozen=True, kw_only=True)
class PassResult:
    """What one pass says of one answer."""

    reference_log_probs: tuple[float, ...]
    """[T], in nats, of the reference policy at `Answer.divisor`."""
    features: bytes
    """[F], little-endian fp16."""


class BaseModel(Protocol):
    """A frozen language model. Not thread-safe: the model lane lets one caller in at a time."""

    @property
    def digest(self) -> str:
        """sha256 of the base model's files."""

    @property
    def feature_layout(self) -> str:
        """Name and layout of the features, e.g. "means-emb-l10-l20/576x3"."""

    @property
    def feature_count(self) -> int:
        """F."""

    @property
    def vocabulary(self) -> int:
        """Token ids run from 0 to below this."""

    @property
    def context_tokens(self) -> int:
        """Longest prompt plus response."""

    def encode(self, messages: Sequence[ChatMessage], response: str) -> Answer:
        """Renders a chat by the model's own template. Needs no lane."""

    def run(self, answers: Sequence[Answer]) -> list[PassResult]:
        """One pass over checked answers, in their order."""


def check(answer: Answer, base: BaseModel, *, name: str) -> None:
    """Raises InvalidInput, naming the item and the mend, for an answer that the base cannot read."""
    if not answer.prompt_token_ids or not answer.response_token_ids:
        raise InvalidInput(
            f"{name}: prompt and response need at least one token each.", reason="EMPTY_TOKENS", field=name
        )
    if answer.tokens > base.context_tokens:
        raise InvalidInput(
            f"{name}: {answer.tokens} tokens, but the base model reads at most {base.context_tokens}. Shorten it.",
            reason="TOO_LONG",
            field=name,
        )
    largest = max(max(answer.prompt_token_ids), max(answer.response_token_ids))
    if largest >= base.vocabulary:
        raise InvalidInput(
            f"{name}: token id {largest} is outside the vocabulary (0 to {base.vocabulary - 1}). "
            "Were the tokens made by another model's tokenizer?",
            reason="UNKNOWN_TOKEN",
            field=name,
        )
    if not 0 <= answer.temperature <= 2:
        raise InvalidInput(f"{name}: temperature must be 0 to 2.", reason="BAD_TEMPERATURE", field=name)
