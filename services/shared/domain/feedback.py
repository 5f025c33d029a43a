"""Feedback: what a rater said of a rollout, and which of two statements wins."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from services.shared.domain.events import EventMeta


class FeedbackKind(StrEnum):
    """One slot for each (tenant, rater, rollout, kind)."""

    THUMB = "thumb"
    RATING = "rating"
    COMPARISON = "comparison"
    EDIT = "edit"
    COMMENT = "comment"


class FeedbackState(StrEnum):
    """Where a feedback is."""

    ACCEPTED = "accepted"
    SPOOLED = "spooled"
    WAITING = "waiting"
    JOINED = "joined"
    LATE = "late"
    SUPERSEDED = "superseded"
    RETRACTED = "retracted"
    ORPHANED = "orphaned"
    QUARANTINED = "quarantined"
    REJECTED = "rejected"


@dataclass(frozen=True, kw_only=True)
class Thumb:
    """Up or down."""

    up: bool


@dataclass(frozen=True, kw_only=True)
class Rating:
    """1 to 5 stars, 5 is best."""

    stars: int


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The feedback's rollout was chosen over this one, of the same prompt id."""

    rejected_rollout_id: str


@dataclass(frozen=True, kw_only=True)
class Edit:
    """The user's own text in place of the response."""

    text: str


@dataclass(frozen=True, kw_only=True)
class Comment:
    """A remark."""

    text: str


FeedbackBody = Thumb | Rating | Comparison | Edit | Comment

BODY_KINDS: dict[type[FeedbackBody], FeedbackKind] = {
    Thumb: FeedbackKind.THUMB,
    Rating: FeedbackKind.RATING,
    Comparison: FeedbackKind.COMPARISON,
    Edit: FeedbackKind.EDIT,
    Comment: FeedbackKind.COMMENT,
}
_canonical = json.JSONEncoder(sort_keys=True, separators=(",", ":")).encode


def body_digest(body: FeedbackBody | None) -> str:
    """Hex sha256 of the body's canonical JSON; "" for no body. Breaks ties between equal revisions."""
    if body is None:
        return ""
    return hashlib.sha256(_canonical({BODY_KINDS[type(body)]: vars(body)}).encode()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class Feedback:
    """One statement. `body` is None only in a retraction."""

    meta: EventMeta
    feedback_id: str
    rollout_id: str
    prompt_id: str
    rater_id: str
    kind: FeedbackKind
    body: FeedbackBody | None
    revision: int
    retracted: bool = False
    accept_time: datetime
    token_key_id: str

    @property
    def digest(self) -> str:
        """See `body_digest`."""
        return body_digest(self.body)

    @property
    def precedence(self) -> tuple[int, bool, str]:
        """In a slot the greatest wins, whatever the order of arrival."""
        return (self.revision, self.retracted, self.digest)
