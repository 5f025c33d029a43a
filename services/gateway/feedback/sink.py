"""Where accepted feedback goes: a sink answers when it is durable, or raises.

Three sinks, by broker and disk. `KafkaFeedbackSink` has no disk: Kafka or 503. `SpoolingFeedbackSink` turns to the
spool where Kafka does not acknowledge in time. `KeepingFeedbackSink`, for the embedded broker, puts every item on disk
first, since that broker may lose what it acknowledged.

All refuse, with InvalidInput, what the log would refuse for its size: what is acknowledged must be able to get there.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from typing import Protocol

from services.gateway.feedback.fate import FeedbackFate, fate_before_ingest
from services.gateway.spool.delivery import Delivery, Failure, outgoing
from services.gateway.spool.drainer import refuse
from services.gateway.spool.item import SpoolKey, StoredItem, spool_item
from services.gateway.spool.outage import Outage
from services.gateway.spool.spool import SPOOL_FULL, FeedbackSpool
from services.shared.bus.interface import OutgoingEvent
from services.shared.contracts.feedback import decode_feedback, encode_feedback
from services.shared.domain.errors import Busy, InvalidInput, PermissionDenied, ThumbloopError, Unavailable
from services.shared.domain.feedback import Feedback, FeedbackState

RETRY_AFTER_S = 2.0
ACCEPTED_WITHIN_S = 0.1
"""Embedded broker: how long an answer that is safe on disk waits for the broker, so that it can say `accepted`."""


class FeedbackSink(Protocol):
    """Makes feedback durable."""

    async def store(self, feedback: Feedback) -> FeedbackState:
        """ACCEPTED when the log has it, SPOOLED when this gateway's disk has it. Raises Unavailable when neither does;
        sending it again is then safe. Raises Conflict where another statement lies on disk under the same id,
        InvalidInput for what is too large, PermissionDenied when its rater was forgotten meanwhile.
        """


class Waker(Protocol):
    """Empties the spool."""

    def wake(self) -> None:
        """Something was put there."""


class KafkaFeedbackSink:
    """Straight to the topic `feedback`, acks=all; 503 while Kafka is away."""

    def __init__(self, delivery: Delivery, *, max_event_bytes: int) -> None:
        self._delivery = delivery
        self._max_event_bytes = max_event_bytes

    async def store(self, feedback: Feedback) -> FeedbackState:
        """See FeedbackSink."""
        event = _event(feedback, self._max_event_bytes)
        failure = await self._delivery.publish(event, tenant=feedback.meta.tenant, rater_id=feedback.rater_id)
        if failure is not None:
            raise Unavailable(
                "Your feedback could not be stored: the log is away for the moment. Send it again with the same "
                f"feedback_id ({feedback.feedback_id}); that is safe.",
                reason="LOG_UNAVAILABLE",
                retry_after=RETRY_AFTER_S,
            ) from failure
        return FeedbackState.ACCEPTED


class SpoolSearch:
    """See SpooledStatements."""

    def __init__(self, spool: FeedbackSpool) -> None:
        self._spool = spool

    async def find(self, *, tenant: str, rater_id: str, feedback_id: str) -> FeedbackFate | None:
        """See SpooledStatements. Knows statements of the time before a restart too."""
        try:
            stored: StoredItem | None = await asyncio.wrap_future(
                self._spool.find(tenant=tenant, rater_id=rater_id, feedback_id=feedback_id)
            )
        except Unavailable as error:
            raise Unavailable(
                "This gateway's disk, where your feedback may lie, cannot be read for the moment. Ask again.",
                reason="SPOOL_UNREADABLE",
                retry_after=RETRY_AFTER_S,
            ) from error
        if stored is None:
            return None
        feedback = decode_feedback(stored.item.event)
        if stored.refused_reason:
            why = (
                f"Kafka will never take it ({stored.refused_reason}); it lies on the gateway's disk, and trains nothing"
            )
            return fate_before_ingest(feedback, FeedbackState.REJECTED, reason=why)
        return fate_before_ingest(feedback, FeedbackState.SPOOLED)


class SpoolingFeedbackSink:
    """To the topic; where Kafka does not acknowledge in time, or the partition is known to be away, to the spool.

    A rollout that has items in the spool gets its newer ones there too, so that they stay in order.
    """

    def __init__(
        self,
        *,
        delivery: Delivery,
        spool: FeedbackSpool,
        drainer: Waker,
        outage: Outage,
        max_event_bytes: int,
    ) -> None:
        self._delivery = delivery
        self._spool = spool
        self._drainer = drainer
        self._outage = outage
        self._max_event_bytes = max_event_bytes

    async def store(self, feedback: Feedback) -> FeedbackState:
        """See FeedbackSink."""
        event = _event(feedback, self._max_event_bytes)
        waits = self._spool.has_waiting(feedback.meta.tenant, feedback.rollout_id)
        direct = not waits and not self._outage.covers(feedback.rollout_id)
        if direct and await self._published(event, feedback):
            return FeedbackState.ACCEPTED
        try:
            await asyncio.wrap_future(self._spool.put(spool_item(feedback, event.value)))
        except Unavailable as error:
            if direct or not self._may_pass_by(feedback, error) or not await self._published(event, feedback):
                raise
            self._outage.end(feedback.rollout_id)
            return FeedbackState.ACCEPTED
        self._drainer.wake()
        return FeedbackState.SPOOLED

    def _may_pass_by(self, feedback: Feedback, refusal: Unavailable) -> bool:
        """Whether the log may be tried for what the disk did not take, although the log is held to be away.

        A disk that fails keeps the drainer from finding out that the log is back. One that is full does not, unless
        nothing waits there: while the log is away, nobody is then kept waiting for it.
        """
        if self._spool.has_waiting(feedback.meta.tenant, feedback.rollout_id):
            return False
        return refusal.reason != SPOOL_FULL or not self._spool.anything_waits

    async def _published(self, event: OutgoingEvent, feedback: Feedback) -> bool:
        """Whether the log acknowledged it in time. If not it may still be written: it is sent again, and its id makes
        that once.
        """
        failure = await self._delivery.publish(event, tenant=feedback.meta.tenant, rater_id=feedback.rater_id)
        if failure is not None and not isinstance(failure, Busy):
            self._outage.begin(feedback.rollout_id, failure)
        return failure is None


class KeepingFeedbackSink:
    """To the spool, then to the topic; the answer rests on the disk alone."""

    def __init__(self, *, delivery: Delivery, spool: FeedbackSpool, outage: Outage, max_event_bytes: int) -> None:
        self._delivery = delivery
        self._spool = spool
        self._outage = outage
        self._max_event_bytes = max_event_bytes
        self._running: set[asyncio.Task[ThumbloopError | TimeoutError | None]] = set()

    async def store(self, feedback: Feedback) -> FeedbackState:
        """See FeedbackSink."""
        event = _event(feedback, self._max_event_bytes)
        item = spool_item(feedback, event.value)
        waits = self._spool.has_waiting(item.key.tenant, item.key.rollout_id)
        direct = not waits and not self._outage.covers(item.key.rollout_id)
        placed = self._spool.put(item, sent=direct)
        if not direct:
            await asyncio.wrap_future(placed)
            return FeedbackState.SPOOLED
        # A task of its own: a client that goes away must not leave an item that counts as sent and is not.
        sending = asyncio.create_task(self._send(event, item.key, placed))
        self._running.add(sending)
        sending.add_done_callback(self._running.discard)
        position = await asyncio.wrap_future(placed)
        await asyncio.wait({sending}, timeout=ACCEPTED_WITHIN_S)
        if not sending.done():
            return FeedbackState.SPOOLED
        failure = sending.result()
        if isinstance(failure, InvalidInput):
            # It was set aside, as is right for who was answered before; this one is told instead.
            await asyncio.wrap_future(self._spool.remove([position]))
        if isinstance(failure, (InvalidInput, PermissionDenied)):
            raise failure
        return FeedbackState.ACCEPTED if failure is None else FeedbackState.SPOOLED

    async def _send(
        self, event: OutgoingEvent, key: SpoolKey, placed: Future[int]
    ) -> ThumbloopError | TimeoutError | None:
        """Publishes what the disk has taken. Gives why it was not acknowledged."""
        try:
            return await self._publish(event, key, await asyncio.wrap_future(placed))
        except ThumbloopError as error:  # a request that still waits gets it; nobody else asks for it
            return error

    async def _publish(self, event: OutgoingEvent, key: SpoolKey, position: int) -> Failure | None:
        """What was not acknowledged waits on disk then; what the log never takes is set aside there."""
        try:
            failure = await self._delivery.publish(event, tenant=key.tenant, rater_id=key.rater_id)
        except InvalidInput as error:
            await refuse(self._spool, position, key, error)
            raise
        if failure is not None:
            self._spool.mark_waiting(position, key)
            if not isinstance(failure, Busy):
                self._outage.begin(key.rollout_id, failure)
        return failure


def _event(feedback: Feedback, max_bytes: int) -> OutgoingEvent:
    event = outgoing(feedback.rollout_id, encode_feedback(feedback))
    size = len(event.value)
    if size > max_bytes:
        raise InvalidInput(
            f"Your feedback takes {size} bytes, and at most {max_bytes} are taken. Shorten the text.",
            reason="EVENT_TOO_LARGE",
            field="text",
        )
    return event
