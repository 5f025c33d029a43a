"""One checked body: submitted, counted, timed. What the documented route and the short way to it share."""

from __future__ import annotations

from services.gateway.chat.choice import Monotonic
from services.gateway.feedback.body import AnyStatement
from services.gateway.feedback.counting import FeedbackCounts
from services.gateway.feedback.recent import Acknowledged
from services.gateway.feedback.service import FeedbackService
from services.gateway.tracing import valid_traceparent
from services.shared.domain.errors import ThumbloopError


class FeedbackAcceptor:
    """Belongs to one event loop."""

    def __init__(self, *, service: FeedbackService, counts: FeedbackCounts, monotonic: Monotonic) -> None:
        self._service = service
        self._counts = counts
        self._monotonic = monotonic

    async def accept(self, body: AnyStatement, *, traceparent: str) -> Acknowledged:
        """Returns when the statement is durable. Raises as `FeedbackService.submit` does."""
        begin = self._monotonic()
        try:
            answer = await self._service.submit(body, traceparent=valid_traceparent(traceparent))
        except ThumbloopError as error:
            self._counts.refused(body.kind, error)
            raise
        acknowledged = answer.acknowledged
        self._counts.acknowledged(
            body.kind,
            state=str(acknowledged.state),
            repeated=answer.repeated,
            seconds=self._monotonic() - begin,
        )
        return acknowledged
