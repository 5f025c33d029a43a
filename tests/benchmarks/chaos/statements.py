"""What clients know: their answers, what they said of them, and what they were told.

A statement is *acknowledged* once a try was answered 2xx; *refused* when every try was answered 4xx; else *unknown*:
some try got no answer, or one that promises nothing, so the store may have it or not.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from services.shared.domain.feedback import (
    Comment,
    Comparison,
    Edit,
    FeedbackBody,
    FeedbackKind,
    Rating,
    Thumb,
    body_digest,
)

Slot = tuple[str, str]
"""Rollout id and kind: a rollout has one rater, so this names what design calls a slot."""


TEXTS = ("edit", "comment")
"""Kinds whose words stand in the field `text`."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One choice that a client was shown, whole or in part. Times in seconds since 1970, the client's clock."""

    rollout_id: str
    prompt_id: str
    token: str
    kinds: tuple[str, ...]
    complete: bool
    """False: it broke off."""
    asked_at: float
    ended_at: float


@dataclass(frozen=True, kw_only=True)
class Statement:
    """What a client says. `revision` None is left out; `rejected` names the other answer of a comparison."""

    feedback_id: str
    rollout_id: str
    token: str
    kind: str
    value: Any
    revision: int | None
    retracted: bool = False
    rejected_rollout_id: str = ""
    rejected_token: str = ""

    @property
    def slot(self) -> Slot:
        """Where it counts."""
        return (self.rollout_id, self.kind)

    @property
    def digest(self) -> str:
        """Of its body, as the store has it."""
        return body_digest(self._body())

    def request(self) -> dict[str, Any]:
        """The body of `POST /v1/feedback`."""
        body: dict[str, Any] = {"token": self.token, "kind": self.kind, "feedback_id": self.feedback_id}
        if self.value is not None:
            body["text" if self.kind in TEXTS else "value"] = self.value
        if self.revision is not None:
            body["revision"] = self.revision
        if self.retracted:
            body["retracted"] = True
        if self.rejected_token:
            body["rejected_token"] = self.rejected_token
        return body

    def _body(self) -> FeedbackBody | None:
        if self.retracted:
            return None
        match FeedbackKind(self.kind):
            case FeedbackKind.THUMB:
                return Thumb(up=self.value == "up")
            case FeedbackKind.RATING:
                return Rating(stars=self.value)
            case FeedbackKind.COMPARISON:
                return Comparison(rejected_rollout_id=self.rejected_rollout_id)
            case FeedbackKind.EDIT:
                return Edit(text=self.value)
            case FeedbackKind.COMMENT:
                return Comment(text=self.value)


@dataclass(frozen=True, kw_only=True)
class Acknowledged:
    """A 2xx: what the client was told."""

    state: str
    revision: int
    at: float


@dataclass(kw_only=True)
class Told:
    """A statement with all that its client heard of it."""

    statement: Statement
    acknowledged: list[Acknowledged] = field(default_factory=list)
    uncertain: int = 0
    """Tries without a clear answer."""
    refused: int = 0


@dataclass(kw_only=True)
class Ledger:
    """All clients' journals together."""

    answers: dict[str, Answer] = field(default_factory=dict)
    statements: dict[str, Told] = field(default_factory=dict)
    refused_chats: int = 0
    cut_chats: int = 0

    @property
    def acknowledged(self) -> list[Told]:
        """What must be in the store."""
        return [told for told in self.statements.values() if told.acknowledged]

    def spooled(self) -> int:
        """Statements that were acknowledged from the gateway's own disk at least once."""
        every = list(self.statements.values())  # another thread may ask while clients speak
        return sum(any(one.state == "spooled" for one in told.acknowledged) for told in every)


def by_slot(told: Iterable[Told]) -> dict[Slot, list[Told]]:
    """Statements of each slot."""
    slots: dict[Slot, list[Told]] = {}
    for one in told:
        slots.setdefault(one.statement.slot, []).append(one)
    return slots
