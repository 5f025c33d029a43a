"""Feedback, to and from the wire."""

from __future__ import annotations

from thumbloop.gateway.v1 import feedback_pb2

from services.shared.contracts.checks import check_id, check_integer, check_short, check_text
from services.shared.contracts.meta import meta_from_proto, meta_to_proto
from services.shared.contracts.wire import EnumMap, decode, encode, time_from_proto, time_to_proto
from services.shared.domain.errors import InvalidInput
from services.shared.domain.feedback import (
    BODY_KINDS,
    Comment,
    Comparison,
    Edit,
    Feedback,
    FeedbackBody,
    FeedbackKind,
    Rating,
    Thumb,
)

MAX_EDIT_CHARS = 100_000
MAX_COMMENT_CHARS = 10_000

KINDS: EnumMap[FeedbackKind, feedback_pb2.FeedbackKind.ValueType] = EnumMap(
    FeedbackKind, feedback_pb2.FeedbackKind, "FEEDBACK_KIND"
)


def encode_feedback(feedback: Feedback) -> bytes:
    """Event bytes. Raises InvalidInput for feedback that `check_feedback` refuses."""
    return encode(feedback, feedback_to_proto)


def decode_feedback(data: bytes) -> Feedback:
    """The feedback in an event. Raises Unprocessable with the broken rule's reason."""
    return decode(data, feedback_pb2.Feedback, feedback_from_proto)


def feedback_kind_to_proto(kind: FeedbackKind) -> feedback_pb2.FeedbackKind.ValueType:
    """The wire's number."""
    return KINDS.to_proto(kind)


def feedback_kind_from_proto(value: feedback_pb2.FeedbackKind.ValueType, field: str = "kind") -> FeedbackKind:
    """Raises InvalidInput for an unknown one."""
    return KINDS.from_proto(value, field)


def check_feedback(feedback: Feedback) -> None:
    """Raises InvalidInput unless the statement is whole, of its kind and within bounds."""
    for field in ("feedback_id", "rollout_id", "rater_id"):
        check_id(field, getattr(feedback, field))
    check_short("prompt_id", feedback.prompt_id)
    check_short("token_key_id", feedback.token_key_id)
    check_integer("revision", feedback.revision)
    if feedback.body is None:
        if not feedback.retracted:
            raise InvalidInput("The body is missing; only a retraction has none.", reason="MISSING_BODY", field="body")
        return
    if BODY_KINDS[type(feedback.body)] is not feedback.kind:
        raise InvalidInput(
            f"kind is {feedback.kind}, but the body is a {BODY_KINDS[type(feedback.body)]}; they must agree.",
            reason="KIND_MISMATCH",
            field="kind",
        )
    _check_body(feedback.body, feedback.rollout_id)


def _check_body(body: FeedbackBody, rollout_id: str) -> None:
    match body:
        case Rating(stars=stars):
            check_integer("rating.stars", stars, least=1, most=5)
        case Comparison(rejected_rollout_id=rejected):
            check_id("comparison.rejected_rollout_id", rejected)
            if rejected == rollout_id:
                raise InvalidInput(
                    "A response cannot be preferred to itself; name the other one.",
                    reason="SELF_COMPARISON",
                    field="comparison.rejected_rollout_id",
                )
        case Edit(text=text):
            check_text("edit.text", text, MAX_EDIT_CHARS)
        case Comment(text=text):
            check_text("comment.text", text, MAX_COMMENT_CHARS)
        case Thumb():
            pass


def feedback_to_proto(feedback: Feedback) -> feedback_pb2.Feedback:
    """Raises InvalidInput as `check_feedback` does."""
    check_feedback(feedback)
    message = feedback_pb2.Feedback(
        meta=meta_to_proto(feedback.meta),
        feedback_id=feedback.feedback_id,
        rollout_id=feedback.rollout_id,
        prompt_id=feedback.prompt_id,
        rater_id=feedback.rater_id,
        kind=feedback_kind_to_proto(feedback.kind),
        revision=feedback.revision,
        retracted=feedback.retracted,
        body_digest=feedback.digest,
        accept_time=time_to_proto("accept_time", feedback.accept_time),
        token_key_id=feedback.token_key_id,
    )
    _write_body(message, feedback.body)
    return message


def _write_body(message: feedback_pb2.Feedback, body: FeedbackBody | None) -> None:
    match body:
        case Thumb(up=up):
            up_or_down = feedback_pb2.THUMB_DIRECTION_UP if up else feedback_pb2.THUMB_DIRECTION_DOWN
            message.thumb.direction = up_or_down
        case Rating(stars=stars):
            message.rating.stars = stars
        case Comparison(rejected_rollout_id=rejected):
            message.comparison.rejected_rollout_id = rejected
        case Edit(text=text):
            message.edit.SetInParent()
            message.edit.text = text
        case Comment(text=text):
            message.comment.SetInParent()
            message.comment.text = text
        case None:
            pass


def feedback_from_proto(message: feedback_pb2.Feedback) -> Feedback:
    """Raises InvalidInput as `check_feedback` does, and for a body that does not match its digest."""
    meta = meta_from_proto(message.meta, present=message.HasField("meta"))
    if not message.HasField("accept_time"):
        raise InvalidInput("accept_time is missing.", reason="MISSING_FIELD", field="accept_time")
    feedback = Feedback(
        meta=meta,
        feedback_id=message.feedback_id,
        rollout_id=message.rollout_id,
        prompt_id=message.prompt_id,
        rater_id=message.rater_id,
        kind=feedback_kind_from_proto(message.kind),
        body=_read_body(message),
        revision=message.revision,
        retracted=message.retracted,
        accept_time=time_from_proto("accept_time", message.accept_time),
        token_key_id=message.token_key_id,
    )
    check_feedback(feedback)
    if message.body_digest != feedback.digest:
        raise InvalidInput("body_digest is not the body's.", reason="BAD_DIGEST", field="body_digest")
    return feedback


def _read_body(message: feedback_pb2.Feedback) -> FeedbackBody | None:
    match message.WhichOneof("body"):
        case "thumb":
            return _read_thumb(message.thumb)
        case "rating":
            return Rating(stars=message.rating.stars)
        case "comparison":
            return Comparison(rejected_rollout_id=message.comparison.rejected_rollout_id)
        case "edit":
            return Edit(text=message.edit.text)
        case "comment":
            return Comment(text=message.comment.text)
        case _:
            return None


def _read_thumb(thumb: feedback_pb2.Thumb) -> Thumb:
    directions = {feedback_pb2.THUMB_DIRECTION_UP: True, feedback_pb2.THUMB_DIRECTION_DOWN: False}
    up = directions.get(thumb.direction)
    if up is None:
        raise InvalidInput(
            f"thumb.direction is {thumb.direction}; known are UP=1, DOWN=2.",
            reason="UNKNOWN_ENUM",
            field="thumb.direction",
        )
    return Thumb(up=up)
