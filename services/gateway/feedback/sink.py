"""Where accepted feedback goes: a sink answers when it is durable, or raises."""

from __future__ import annotations

from typing import Protocol

from services.shared.bus.interface import OutgoingEvent, Publisher
from services.shared.contracts.feedback import encode_feedback
from services.shared.contracts.topics import FEEDBACK
from services.shared.domain.errors import Busy, Unavailable
from services.shared.domain.feedback import Feedback, FeedbackState

RETRY_AFTER_S = 2.0


class FeedbackSink(Protocol):
    """Makes feedback durable."""

    async def store(self, feedback: Feedback) -> FeedbackState:
        """ACCEPTED when the log has it, SPOOLED when this gateway's disk has it. Raises Unavailable when neither does;
        sending it again is then safe.
        """


class KafkaFeedbackSink:
    """Straight to the topic `feedback`, acks=all."""

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher

    async def store(self, feedback: Feedback) -> FeedbackState:
        """See FeedbackSink."""
        event = OutgoingEvent(topic=FEEDBACK, key=feedback.rollout_id, value=encode_feedback(feedback))
        try:
            await self._publisher.publish(event)
        except (Unavailable, Busy) as error:
            raise Unavailable(
                "Your feedback could not be stored: the log is away for the moment. Send it again with the same "
                f"feedback_id ({feedback.feedback_id}); that is safe.",
                reason="LOG_UNAVAILABLE",
                retry_after=RETRY_AFTER_S,
            ) from error
        return FeedbackState.ACCEPTED
