"""Routes of the feedback API."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Header, Path

from services.gateway.chat.choice import Monotonic
from services.gateway.documents import error_documents
from services.gateway.feedback.body import FeedbackAnswerBody, FeedbackRequestBody, FeedbackStateBody
from services.gateway.feedback.service import FeedbackService
from services.gateway.tracing import valid_traceparent
from services.shared.domain.errors import ThumbloopError, Unauthenticated, Unavailable
from services.shared.domain.feedback import FeedbackKind
from services.shared.telemetry.metrics import Metrics

SCHEME = "Feedback"


def feedback_router(*, service: FeedbackService, metrics: Metrics, monotonic: Monotonic) -> APIRouter:
    """Sending feedback, and asking where it is."""
    router = APIRouter(tags=["feedback"])

    @router.post(
        "/v1/feedback",
        summary="Say what you think of an answer",
        responses=error_documents(400, 401, 403, 409, 413, 503),
    )
    async def create_feedback(
        body: FeedbackRequestBody, traceparent: Annotated[str, Header()] = ""
    ) -> FeedbackAnswerBody:
        """Answers when the feedback is durable. Sending it again with the same `feedback_id` changes nothing."""
        begin = monotonic()
        try:
            acknowledged = await service.submit(body, traceparent=valid_traceparent(traceparent))
        except ThumbloopError as error:
            _count(metrics, body.kind, "unavailable" if isinstance(error, Unavailable) else "rejected")
            raise
        _count(metrics, body.kind, str(acknowledged.state))
        metrics.observe("thumbloop_gateway_feedback_seconds", monotonic() - begin)
        return FeedbackAnswerBody(
            feedback_id=acknowledged.feedback.feedback_id,
            state=str(acknowledged.state),
            revision=acknowledged.feedback.revision,
        )

    @router.get(
        "/v1/feedback/{feedback_id}",
        summary="Where is my feedback?",
        responses=error_documents(400, 401, 403, 404, 503),
    )
    async def show_feedback(
        feedback_id: Annotated[str, Path(max_length=64)],
        authorization: Annotated[str, Header(description="`Feedback TOKEN`")] = "",
    ) -> FeedbackStateBody:
        """Accepted, joined with its answer, trained into which versions."""
        fate: dict[str, Any] = asdict(await service.fate(feedback_id, token=_token(authorization)))
        fate.pop("rater_id")
        return FeedbackStateBody(**fate)

    return router


def _token(authorization: str) -> str:
    scheme, _, token = authorization.partition(" ")
    if scheme.lower() != SCHEME.lower() or not token.strip():
        raise Unauthenticated(
            "The header 'Authorization: Feedback TOKEN' is missing, TOKEN being the answer's feedback_token.",
            reason="FEEDBACK_TOKEN_MISSING",
            field="Authorization",
        )
    return token.strip()


def _count(metrics: Metrics, kind: str, outcome: str) -> None:
    """Kinds that nobody knows are one label: a client must not be able to make new ones."""
    known = kind if kind in {str(one) for one in FeedbackKind} else "unknown"
    metrics.increment("thumbloop_gateway_feedback_total", kind=known, outcome=outcome)
