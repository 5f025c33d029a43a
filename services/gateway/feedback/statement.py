"""From a feedback body and a checked token to a statement, or an error that says how to mend it."""

from __future__ import annotations

from datetime import datetime, timedelta

from services.gateway.feedback.body import FeedbackRequestBody
from services.gateway.tokens import FeedbackClaims
from services.shared.domain.errors import InvalidInput, NotSupported, PermissionDenied
from services.shared.domain.events import EventMeta
from services.shared.domain.feedback import Feedback, FeedbackBody, FeedbackKind, Thumb

OFFERED_KINDS = (FeedbackKind.THUMB,)
MAX_AHEAD = timedelta(minutes=5)
_THUMBS = {"up": Thumb(up=True), "down": Thumb(up=False)}


def check_kind(kind: str) -> FeedbackKind:
    """Raises NotSupported for a kind that is not offered yet, InvalidInput for an unknown one."""
    offered = ", ".join(repr(str(offer)) for offer in OFFERED_KINDS)
    try:
        known = FeedbackKind(kind)
    except ValueError as error:
        raise InvalidInput(
            f"{kind[:64]!a} is no kind of feedback. Offered: {offered}.", reason="UNKNOWN_KIND", field="kind"
        ) from error
    if known not in OFFERED_KINDS:
        raise NotSupported(
            f"Feedback of kind {kind!r} is not offered yet. Offered: {offered}.",
            reason="KIND_NOT_OFFERED",
            field="kind",
        )
    return known


def check_claims(body: FeedbackRequestBody, kind: FeedbackKind, claims: FeedbackClaims) -> None:
    """Raises PermissionDenied for what the token does not allow."""
    if body.rollout_id is not None and body.rollout_id != claims.rollout_id:
        raise PermissionDenied(
            "This feedback token was given for another answer. Use the one that came with the answer you mean.",
            reason="OTHER_ROLLOUT",
            field="rollout_id",
        )
    if kind not in claims.kinds:
        raise PermissionDenied(
            f"This feedback token does not allow kind {str(kind)!r}, but: {', '.join(claims.kinds) or 'nothing'}.",
            reason="KIND_NOT_ALLOWED",
            field="kind",
        )


def parse_value(body: FeedbackRequestBody, kind: FeedbackKind) -> FeedbackBody | None:
    """What was said; None in a retraction that says nothing more."""
    if body.value is None and body.retracted:
        return None
    assert kind is FeedbackKind.THUMB  # check_kind lets nothing else through
    thumb = _THUMBS.get(body.value) if isinstance(body.value, str) else None
    if thumb is None:
        raise InvalidInput('The \'value\' of a thumb must be "up" or "down".', reason="BAD_VALUE", field="value")
    return thumb


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
    body: FeedbackRequestBody,
    kind: FeedbackKind,
    claims: FeedbackClaims,
    meta: EventMeta,
    feedback_id: str,
) -> Feedback:
    """The event's content. `meta.event_time` is the accept time."""
    return Feedback(
        meta=meta,
        feedback_id=feedback_id,
        rollout_id=claims.rollout_id,
        prompt_id=claims.prompt_id,
        rater_id=claims.rater_id,
        kind=kind,
        body=parse_value(body, kind),
        revision=check_revision(body.revision, meta.event_time),
        retracted=body.retracted,
        accept_time=meta.event_time,
        token_key_id=claims.key_id,
    )


def milliseconds(time: datetime) -> int:
    """Since 1970."""
    return int(time.timestamp() * 1000)
