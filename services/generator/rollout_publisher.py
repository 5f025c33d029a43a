"""Makes rollouts safe: acknowledged by Kafka, or, when Kafka is late, on this machine's disk until it is back.

A response's stream ends only after `record` returned. While Kafka is known to be away, rollouts go to disk at once, so
that users do not wait for a time-out each; a task sends what is on disk until none is left. Where Kafka's word is not
enough (`keeps`), every rollout goes to disk first, and stays there when it was sent: see `rollout_confirmer`.
"""

from __future__ import annotations

import asyncio
import contextlib
from concurrent.futures import Future
from typing import Final

from services.generator.rollout_queue import RolloutQueue, WaitingRollout
from services.shared.bus.interface import OutgoingEvent, Publisher, Record
from services.shared.contracts.rollouts import SENT_BEFORE, tenant_of
from services.shared.contracts.topics import ROLLOUTS
from services.shared.domain.errors import Busy, InvalidInput, Unavailable, Unprocessable
from services.shared.domain.events import Clock
from services.shared.telemetry.log import get_logger
from services.shared.telemetry.metrics import Metrics

BATCH: Final = 100
RETRY_S: Final = 0.5
MOST_REFUSED: Final = 1_000
"""So many that Kafka will never take stay on disk, the newest."""
_log = get_logger()


class RolloutPublisher:
    """Belongs to one event loop."""

    def __init__(
        self,
        *,
        publisher: Publisher,
        queue: RolloutQueue,
        ack_timeout_s: float,
        max_queued: int,
        metrics: Metrics,
        clock: Clock,
        keeps: bool = False,
    ) -> None:
        self._publisher = publisher
        self._queue = queue
        self._ack_timeout_s = ack_timeout_s
        self._max_queued = max_queued
        self._metrics = metrics
        self._clock = clock
        self._keeps = keeps
        self._queued = asyncio.Event()
        self._drained = asyncio.Event()
        self._away = False
        self._task: asyncio.Task[None] | None = None
        self._unanswered: dict[Future[Record], str] = {}

    @property
    def sending(self) -> frozenset[str]:
        """Rollouts that are on their way to Kafka, those whose acknowledgement is late included. From any thread."""
        return self._queue.handed_out.union(self._unanswered.copy().values())

    @property
    def running(self) -> bool:
        """Whether the queue is being drained. Until `stop` it must be."""
        return self._task is not None and not self._task.done()

    def start(self) -> None:
        """Begins to send what an earlier run left on disk."""
        self.wake()
        self._task = asyncio.create_task(self._drain_loop(), name="rollout queue")

    def wake(self) -> None:
        """Something waits on disk."""
        self._drained.clear()
        self._queued.set()

    async def stop(self) -> None:
        """Sends what Kafka takes at once, then ends; what is on disk stays there. Twice is once."""
        if self._task is None:
            return
        if self.running and not self._away:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._drained.wait(), self._ack_timeout_s)
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    def check_room(self, expected: int) -> None:
        """Raises Unavailable unless `expected` more rollouts would fit on disk."""
        if self._queue.count + expected > self._max_queued:
            raise Unavailable(
                f"{self._queue.count} rollouts wait on disk for Kafka, and no more may. Mend Kafka, or raise "
                "generator.rollout_queue_max.",
                reason="ROLLOUT_QUEUE_FULL",
                retry_after=RETRY_S * 4,
            )

    async def record(self, rollout_id: str, event: bytes) -> None:
        """Returns when the rollout is safe. Raises only where the disk fails too."""
        if not self._away and not self._keeps:
            try:
                await self._acknowledged(rollout_id, event)
                return
            except InvalidInput as error:
                _log.error("rollout_refused", rollout_id=rollout_id, reason=error.reason, message=error.message)
                await asyncio.to_thread(self._queue.put, rollout_id, event, refused_reason=error.reason)
                await self._note_refused()
                return
            except (TimeoutError, Busy, Unavailable) as error:
                self._note_away(error)
        try:
            await asyncio.to_thread(self._queue.put, rollout_id, event)
        finally:
            self._note_count()
            self.wake()

    async def _acknowledged(self, rollout_id: str, event: bytes, sent_count: int = 0) -> None:
        headers = {SENT_BEFORE: str(sent_count).encode()} if sent_count else {}
        sent = self._publisher.send(OutgoingEvent(topic=ROLLOUTS, key=rollout_id, value=event, headers=headers))
        # The event may still arrive after the time-out: it is not called back, and arriving twice does no harm.
        self._unanswered[sent] = rollout_id
        sent.add_done_callback(self._answered)
        answer = asyncio.wrap_future(sent)
        answer.add_done_callback(_take_failure)
        await asyncio.wait_for(asyncio.shield(answer), self._ack_timeout_s)

    async def _drain_loop(self) -> None:
        await self._note_refused()
        while True:
            await self._queued.wait()
            self._queued.clear()
            while batch := await asyncio.to_thread(self._queue.oldest, BATCH):
                if not await self._send_batch(batch):
                    await asyncio.sleep(RETRY_S)
            self._away = False
            if not self._queued.is_set():
                self._drained.set()

    async def _send_batch(self, batch: list[WaitingRollout]) -> bool:
        """Whether Kafka took all of it; what it took leaves the disk, or is kept there."""
        results = await asyncio.gather(*(self._acknowledged(*item) for item in batch), return_exceptions=True)
        done = [item for item, result in zip(batch, results, strict=True) if result is None]
        for one, result in zip(batch, results, strict=True):
            if isinstance(result, InvalidInput):
                _log.error("rollout_refused", rollout_id=one.rollout_id, reason=result.reason, message=result.message)
                await asyncio.to_thread(self._queue.refuse, one.rollout_id, result.reason)
            elif isinstance(result, (TimeoutError, Busy, Unavailable)):
                self._note_away(result)
            elif result is not None:
                raise result
        await asyncio.to_thread(self._note_sent, done)
        self._note_count()
        if any(isinstance(result, InvalidInput) for result in results):
            await self._note_refused()
        if done and (self._away or not self._keeps):
            _log.info("rollouts_drained", sent=len(done), waiting=self._queue.count)
        return all(result is None or isinstance(result, InvalidInput) for result in results)

    def _note_sent(self, done: list[WaitingRollout]) -> None:
        """Kafka has these."""
        if not self._keeps:
            self._queue.remove([one.rollout_id for one in done])
            return
        tenants = {one.rollout_id: _tenant_of(one.event) for one in done}
        kept = [(name, tenant) for name, tenant in tenants.items() if tenant]
        self._queue.keep(kept, sent_time=self._clock().timestamp())
        # What cannot be read is nothing that the store will ever have; the log has it, and its readers put it aside.
        self._queue.remove([name for name, tenant in tenants.items() if not tenant])

    def _note_away(self, cause: BaseException) -> None:
        if not self._away:
            self._away = True
            _log.warning("kafka_away", cause=repr(cause))

    def _note_count(self) -> None:
        self._metrics.set("thumbloop_generator_queued_rollouts", self._queue.count)

    async def _note_refused(self) -> None:
        """Bounds what Kafka will never take, and tells how much it is."""
        if let_go := await asyncio.to_thread(self._queue.remove_refused_beyond, MOST_REFUSED):
            _log.warning("refused_rollouts_let_go", rollouts=let_go, most_refused=MOST_REFUSED)
        self._metrics.set("thumbloop_generator_refused_rollouts", await asyncio.to_thread(self._queue.count_refused))

    def _answered(self, sent: Future[Record]) -> None:
        """On the publisher's thread. Takes a late failure, which was answered by the time-out already."""
        self._unanswered.pop(sent, None)
        with contextlib.suppress(BaseException):
            sent.exception()


def _take_failure(answer: asyncio.Future[Record]) -> None:
    """One that comes after the time-out is nobody's any more, and would be logged as never retrieved."""
    if not answer.cancelled():
        answer.exception()


def _tenant_of(event: bytes) -> str:
    """Empty: the bytes do not say."""
    try:
        return tenant_of(event)
    except Unprocessable:
        return ""
