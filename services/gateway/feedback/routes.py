"""Routes of the feedback API."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Header, Path

from services.gateway.access.http_access import HttpAccess
from services.gateway.documents import error_documents
from services.gateway.feedback.accepting import FeedbackAcceptor
from services.gateway.feedback.body import (
    FeedbackAnswerBody,
    FeedbackId,
    FeedbackRequestBody,
    FeedbackStateBody,
)
from services.gateway.feedback.counting import FeedbackCounts, counting_route
from services.gateway.feedback.service import FeedbackService
from services.shared.access.bearer import SCHEME as BEARER
from services.shared.domain.errors import NotFound, ThumbloopError, Unauthenticated

SCHEME = "Feedback"
AUTHORIZATION = (
    "`Feedback TOKEN`, a token of the rater's; or `Bearer KEY`, an API key of the tenant with scope feedback or admin."
)


def feedback_router(
    *, service: FeedbackService, acceptor: FeedbackAcceptor, access: HttpAccess, counts: FeedbackCounts
) -> APIRouter:
    """Sending feedback, and asking where it is."""
    router = APIRouter(tags=["feedback"], route_class=counting_route(counts))

    @router.post(
        "/v1/feedback",
        summary="Say what you think of an answer",
        responses=error_documents(400, 401, 403, 408, 409, 413, 429, 500, 503),
    )
    async def create_feedback(
        body: FeedbackRequestBody, traceparent: Annotated[str, Header()] = ""
    ) -> FeedbackAnswerBody:
        """A thumb, a rating, a comparison, an edit or a comment. Answers when it is durable.

        Sending it again with the same `feedback_id` changes nothing and answers the same. Changing one's mind is a new
        statement; the highest `revision` of a kind holds. `retracted` takes back what was said of that kind.
        """
        acknowledged = await acceptor.accept(body, traceparent=traceparent)
        return FeedbackAnswerBody.model_validate(
            {
                "feedback_id": acknowledged.feedback_id,
                "state": str(acknowledged.state),
                "revision": acknowledged.revision,
            }
        )

    @router.get(
        "/v1/feedback/{feedback_id}",
        summary="Where is my feedback?",
        responses=error_documents(400, 401, 403, 404, 429, 500, 503),
    )
    async def show_feedback(
        feedback_id: Annotated[FeedbackId, Path(description="As `POST /v1/feedback` answered.")],
        authorization: Annotated[str, Header(description=AUTHORIZATION)] = "",
    ) -> FeedbackStateBody:
        """Accepted, joined with its answer, trained into which versions, directly and through which reward model."""
        try:
            if _scheme(authorization) == BEARER.lower():
                tenant = access.feedback_reader(_key(authorization)).tenant
                fate = await service.fate_for_tenant(feedback_id, tenant=tenant)
            else:
                fate = await service.fate(feedback_id, token=_token(authorization))
        except ThumbloopError as error:
            counts.asked("unknown" if isinstance(error, NotFound) else "refused")
            raise
        counts.asked(str(fate.state))
        told: dict[str, Any] = asdict(fate)
        told.pop("rater_id")
        return FeedbackStateBody(**told)

    return router


def _scheme(authorization: str) -> str:
    return authorization.strip().partition(" ")[0].lower()


def _key(authorization: str) -> str:
    """Unchanged; raises Unauthenticated for a feedback token (a JWT has two dots, a key none) in the place of a key."""
    if authorization.count(".") == 2:
        raise Unauthenticated(
            "A feedback_token is no API key: send it as 'Authorization: Feedback TOKEN'.",
            reason="FEEDBACK_TOKEN_AS_KEY",
            field="Authorization",
        )
    return authorization


def _token(authorization: str) -> str:
    scheme, _, token = authorization.partition(" ")
    if scheme.lower() != SCHEME.lower() or not token.strip():
        raise Unauthenticated(
            "The header 'Authorization: Feedback TOKEN' is missing, TOKEN being the answer's feedback_token.",
            reason="FEEDBACK_TOKEN_MISSING",
            field="Authorization",
        )
    return token.strip()
