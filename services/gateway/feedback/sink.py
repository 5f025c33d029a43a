"""Where accepted feedback goes: a sink answers when it is durable, or raises.

Three sinks, by broker and disk. `KafkaFeedbackSink` has no disk: Kafka or 503. `SpoolingFeedbackSink` turns to the
spool where Kafka does not acknowledge in time. `KeepingFeedbackSink`, for the embedded broker, puts every item on disk
too, since that broker may lose what it acknowledged.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from typing import Protocol

from services.gateway.spool.item import SpoolKey, StoredItem, spool_item
from services.gateway.spool.outage import Outage
from services.gateway.spool.sending import outgoing
from services.gateway.spool.spool import FeedbackSpool
from services.shared.bus.interface import OutgoingEvent, Publisher
from services.shared.contracts.feedback import decode_feedback, encode_feedback
from services.shared.domain.errors import Busy, InvalidInput, ThumbloopError, Unavailable
from services.shared.domain.feedback import Feedback, FeedbackState

RETRY_AFTER_S = 2.0
ACCEPTED_WITHIN_S = 0.1
"""Embedded broker: how long an answer that is safe on disk waits for the broker, so that it can say `accepted`."""


class FeedbackSink(Protocol):
    """Makes feedback durable."""

    async def store(self, feedback: Feedback) -> FeedbackState:
        """ACCEPTED when the log has it, SPOOLED when this gateway's disk has it. Raises Unavailable when neither does;
        sending it again is then safe. Raises Conflict where another statement lies on disk under the same id.
        """


class Waker(Protocol):
    """Empties the spool."""

    def wake(self) -> None:
        """Something was put there."""


class KafkaFeedbackSink:
    """Straight to the topic `feedback`, acks=all; 503 while Kafka is away."""

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher

    async def store(self, feedback: Feedback) -> FeedbackState:
        """See FeedbackSink."""
        try:
            await self._publisher.publish(_event(feedback))
        except (Unavailable, Busy) as error:
            raise Unavailable(
                "Your feedback could not be stored: the log is away for the moment. Send it again with the same "
                f"feedback_id ({feedback.feedback_id}); that is safe.",
                reason="LOG_UNAVAILABLE",
                retry_after=RETRY_AFTER_S,
            ) from error
        return FeedbackState.ACCEPTED


class SpoolSearch:
    """See SpooledStatements."""

    def __init__(self, spool: FeedbackSpool) -> None:
        self._spool = spool

    async def find(self, *, tenant: str, rater_id: str, feedback_id: str) -> Feedback | None:
        """A rater's statement that lies on this gateway's disk, also of the time before a restart."""
        stored: StoredItem | None = await asyncio.wrap_future(
            self._spool.find(tenant=tenant, rater_id=rater_id, feedback_id=feedback_id)
        )
        return None if stored is None else decode_feedback(stored.item.event)


class SpoolingFeedbackSink:
    """To the topic; where Kafka does not acknowledge within `patience_s`, or is known to be away, to the spool.

    A rollout that has items in the spool gets its newer ones there too, so that they stay in order.
    """

    def __init__(
        self, *, publisher: Publisher, spool: FeedbackSpool, drainer: Waker, outage: Outage, patience_s: float
    ) -> None:
        self._publisher = publisher
        self._spool = spool
        self._drainer = drainer
        self._outage = outage
        self._patience_s = patience_s

    async def store(self, feedback: Feedback) -> FeedbackState:
        """See FeedbackSink."""
        event = _event(feedback)
        if not self._outage.running and not self._spool.has_waiting(feedback.meta.tenant, feedback.rollout_id):
            try:
                async with asyncio.timeout(self._patience_s):
                    await self._publisher.publish(event)
                return FeedbackState.ACCEPTED
            except (TimeoutError, Unavailable) as error:
                # It may still be written: it is sent again from the spool, and its id makes that once.
                self._outage.begin(error)
            except Busy:
                pass
        await asyncio.wrap_future(self._spool.put(spool_item(feedback, event.value)))
        self._drainer.wake()
        return FeedbackState.SPOOLED


class KeepingFeedbackSink:
    """To the topic and to the spool at the same time; the answer rests on the disk alone."""

    def __init__(self, *, publisher: Publisher, spool: FeedbackSpool, outage: Outage, patience_s: float) -> None:
        self._publisher = publisher
        self._spool = spool
        self._outage = outage
        self._patience_s = patience_s
        self._deliveries: set[asyncio.Task[ThumbloopError | TimeoutError | None]] = set()

    async def store(self, feedback: Feedback) -> FeedbackState:
        """See FeedbackSink."""
        event = _event(feedback)
        item = spool_item(feedback, event.value)
        direct = not self._outage.running and not self._spool.has_waiting(item.key.tenant, item.key.rollout_id)
        placed = self._spool.put(item, sent=direct)
        if not direct:
            await asyncio.wrap_future(placed)
            return FeedbackState.SPOOLED
        # A task of its own: a client that goes away must not leave an item that counts as sent and is not.
        delivery = asyncio.create_task(self._deliver(event, item.key, placed))
        self._deliveries.add(delivery)
        delivery.add_done_callback(self._deliveries.discard)
        await asyncio.wrap_future(placed)
        await asyncio.wait({delivery}, timeout=ACCEPTED_WITHIN_S)
        if not delivery.done():
            return FeedbackState.SPOOLED
        failure = delivery.result()
        if isinstance(failure, InvalidInput):
            raise failure
        return FeedbackState.ACCEPTED if failure is None else FeedbackState.SPOOLED

    async def _deliver(
        self, event: OutgoingEvent, key: SpoolKey, placed: Future[int]
    ) -> ThumbloopError | TimeoutError | None:
        """Publishes; what was not acknowledged waits in the spool from then on. Gives why it was not."""
        failure = await self._publish(event)
        if failure is None:
            return None
        try:
            position = await asyncio.wrap_future(placed)
        except ThumbloopError:  # the request gets it
            return failure
        if isinstance(failure, InvalidInput):
            await asyncio.wrap_future(self._spool.remove([position]))
        else:
            self._spool.mark_waiting(position, key)
        return failure

    async def _publish(self, event: OutgoingEvent) -> ThumbloopError | TimeoutError | None:
        try:
            async with asyncio.timeout(self._patience_s):
                await self._publisher.publish(event)
        except (InvalidInput, Busy) as error:
            return error
        except (TimeoutError, Unavailable) as error:
            self._outage.begin(error)
            return error
        return None


def _event(feedback: Feedback) -> OutgoingEvent:
    return outgoing(feedback.rollout_id, encode_feedback(feedback))
