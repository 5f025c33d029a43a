"""From a feedback body and checked tokens to a statement, or an error that says how to mend it."""

from __future__ import annotations

from datetime import datetime, timedelta

from services.gateway.feedback.body import (
    COMMENT_WORDS,
    COMPARISON_WORDS,
    EDIT_WORDS,
    RATING_WORDS,
    THUMB_WORDS,
    AnyStatement,
    CommentStatement,
    ComparisonStatement,
    EditStatement,
    RatingStatement,
    ThumbStatement,
)
from services.gateway.tokens import FeedbackClaims
from services.shared.domain.errors import InvalidInput, PermissionDenied
from services.shared.domain.events import EventMeta
from services.shared.domain.feedback import (
    Comment,
    Comparison,
    Edit,
    Feedback,
    FeedbackBody,
    FeedbackKind,
    Rating,
    Thumb,
)

OFFERED_KINDS = tuple(FeedbackKind)
"""What tokens allow, and `POST /v1/feedback` takes."""

MAX_AHEAD = timedelta(minutes=5)


def check_claims(body: AnyStatement, claims: FeedbackClaims) -> None:
    """Raises PermissionDenied for what the token does not allow."""
    if body.rollout_id is not None and body.rollout_id != claims.rollout_id:
        raise PermissionDenied(
            "This feedback token was given for another answer. Use the one that came with the answer you mean.",
            reason="OTHER_ROLLOUT",
            field="rollout_id",
        )
    check_kind(FeedbackKind(body.kind), claims, field="kind")


def check_kind(kind: FeedbackKind, claims: FeedbackClaims, *, field: str) -> None:
    """Raises PermissionDenied for a kind that the token lacks."""
    if kind not in claims.kinds:
        raise PermissionDenied(
            f"This feedback token does not allow kind {str(kind)!r}, but: {', '.join(claims.kinds) or 'nothing'}.",
            reason="KIND_NOT_ALLOWED",
            field=field,
        )


def check_pair(chosen: FeedbackClaims, rejected: FeedbackClaims) -> None:
    """Raises PermissionDenied or InvalidInput unless one rater may compare the two, and they can be compared."""
    check_kind(FeedbackKind.COMPARISON, rejected, field="rejected_token")
    if (chosen.tenant, chosen.rater_id) != (rejected.tenant, rejected.rater_id):
        raise PermissionDenied(
            "The two tokens are of two raters. Compare answers of one request (`n` of 2 or more), or of two requests "
            "with the same `user`.",
            reason="OTHER_RATER",
            field="rejected_token",
        )
    if chosen.rollout_id == rejected.rollout_id:
        raise InvalidInput(
            "Both tokens are of the same answer. Send the token of the other one as 'rejected_token'.",
            reason="SELF_COMPARISON",
            field="rejected_token",
        )
    if chosen.prompt_id != rejected.prompt_id:
        raise InvalidInput(
            "The two answers are to different messages. Compare answers with the same `thumbloop.prompt_id`.",
            reason="OTHER_PROMPT",
            field="rejected_token",
        )


def parse_body(body: AnyStatement, rejected: FeedbackClaims | None) -> FeedbackBody | None:
    """What was said; None in a retraction that says nothing more. `rejected`: claims of a checked `rejected_token`.

    Raises InvalidInput where there is nothing said, and nothing taken back.
    """
    match body:
        case ThumbStatement(value=("up" | "down") as value):
            return Thumb(up=value == "up")
        case RatingStatement(value=int(stars)):
            return Rating(stars=stars)
        case ComparisonStatement() if rejected is not None:
            return Comparison(rejected_rollout_id=rejected.rollout_id)
        case EditStatement(text=str(text)):
            return Edit(text=text)
        case CommentStatement(text=str(text)):
            return Comment(text=text)
    if body.retracted:
        return None
    raise _nothing_said(body)


def _nothing_said(body: AnyStatement) -> InvalidInput:
    field, words = {
        "thumb": ("value", THUMB_WORDS),
        "rating": ("value", RATING_WORDS),
        "comparison": ("rejected_token", COMPARISON_WORDS),
        "edit": ("text", EDIT_WORDS),
        "comment": ("text", COMMENT_WORDS),
    }[body.kind]
    return InvalidInput(f"{field!r} is missing. {words}.", reason="BAD_VALUE", field=field)


def check_revision(revision: int | None, now: datetime) -> int:
    """The client's revision, or the accept time in milliseconds."""
    if revision is None:
        return milliseconds(now)
    latest = milliseconds(now + MAX_AHEAD)
    if revision > latest:
        raise InvalidInput(
            f"'revision' is more than five minutes ahead of this gateway's clock ({milliseconds(now)} ms since 1970). "
            "Send milliseconds since 1970, or leave it out.",
            reason="REVISION_AHEAD",
            field="revision",
        )
    return revision


def statement(
    *,
    body: AnyStatement,
    claims: FeedbackClaims,
    rejected: FeedbackClaims | None,
    meta: EventMeta,
    feedback_id: str,
) -> Feedback:
    """The event's content. `meta.event_time` is the accept time. Raises InvalidInput."""
    return Feedback(
        meta=meta,
        feedback_id=feedback_id,
        rollout_id=claims.rollout_id,
        prompt_id=claims.prompt_id,
        rater_id=claims.rater_id,
        kind=FeedbackKind(body.kind),
        body=parse_body(body, rejected),
        revision=check_revision(body.revision, meta.event_time),
        retracted=body.retracted,
        accept_time=meta.event_time,
        token_key_id=claims.key_id,
    )


def milliseconds(time: datetime) -> int:
    """Since 1970."""
    return int(time.timestamp() * 1000)
