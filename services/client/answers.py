"""What the client gives out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace


@dataclass(frozen=True, kw_only=True)
class Span:
    """Response tokens [begin, end) were drawn by `policy_version`."""

    policy_version: str
    begin: int
    end: int


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One answer. `feedback_token` rates it; empty where it may not be rated (`store=False`)."""

    index: int
    text: str
    rollout_id: str
    policy_version: str
    feedback_token: str
    finish_reason: str
    spans: tuple[Span, ...]


@dataclass(frozen=True, kw_only=True)
class AnswerStarted:
    """First part of each answer of a stream; see `Answer`."""

    index: int
    rollout_id: str
    policy_version: str
    feedback_token: str


@dataclass(frozen=True, kw_only=True)
class AnswerText:
    """More text of an answer."""

    index: int
    text: str


@dataclass(frozen=True, kw_only=True)
class AnswerFinished:
    """Last part of each answer of a stream."""

    index: int
    finish_reason: str
    spans: tuple[Span, ...]


AnswerPart = AnswerStarted | AnswerText | AnswerFinished


@dataclass(frozen=True, kw_only=True)
class FeedbackReceipt:
    """A durable feedback: "accepted" (in the log) or "spooled" (on the gateway's disk)."""

    feedback_id: str
    state: str
    revision: int


@dataclass(frozen=True, kw_only=True)
class FeedbackFate:
    """Where a feedback is, and which versions learned from it."""

    feedback_id: str
    state: str
    reason: str
    rollout_id: str
    kind: str
    revision: int
    trained_into: tuple[str, ...]
    trained_into_through_reward_model: tuple[str, ...]
    reward_model_versions: tuple[str, ...]


def gather(parts: Iterable[AnswerPart]) -> tuple[Answer, ...]:
    """The whole answers of a stream's parts, in order of index. An answer that was cut has no finish reason."""
    answers: dict[int, Answer] = {}
    for part in parts:
        match part:
            case AnswerStarted(index=index):
                answers[index] = Answer(
                    index=index,
                    text="",
                    rollout_id=part.rollout_id,
                    policy_version=part.policy_version,
                    feedback_token=part.feedback_token,
                    finish_reason="",
                    spans=(),
                )
            case AnswerText(index=index, text=text):
                answers[index] = replace(answers[index], text=answers[index].text + text)
            case AnswerFinished(index=index):
                answers[index] = replace(answers[index], finish_reason=part.finish_reason, spans=part.spans)
    return tuple(answers[index] for index in sorted(answers))
