"""Empties the spool into Kafka, by itself, whenever something lies there and Kafka takes it."""

from __future__ import annotations

import asyncio
import time

from services.gateway.spool.item import SpoolKey, StoredItem
from services.gateway.spool.outage import Outage
from services.gateway.spool.sending import Sender
from services.gateway.spool.spool import FeedbackSpool
from services.shared.domain.errors import InvalidInput, ThumbloopError
from services.shared.releases.backoff import Backoff
from services.shared.telemetry.log import get_logger
from services.shared.telemetry.metrics import Metrics

BATCH = 500
FIRST_RETRY_S = 0.2
LAST_RETRY_S = 2.0
_log = get_logger()


class SpoolDrainer:
    """Belongs to one event loop. `run` is a task; `wake` says that something new lies there."""

    def __init__(self, *, spool: FeedbackSpool, sender: Sender, outage: Outage, metrics: Metrics) -> None:
        self._spool = spool
        self._sender = sender
        self._outage = outage
        self._metrics = metrics
        self._backoff = Backoff(first_s=FIRST_RETRY_S, max_s=LAST_RETRY_S, monotonic=time.monotonic)
        self._something = asyncio.Event()
        self._something.set()

    def wake(self) -> None:
        """Something was put there."""
        self._something.set()

    async def run(self) -> None:
        """Until it is cancelled. Begins with what an earlier run left. No failure ends it."""
        while True:
            await self._something.wait()
            self._something.clear()
            if await self._drained():
                self._backoff.reset()
            else:
                self._something.set()
                await asyncio.sleep(self._backoff.failed())
            self._spool.note()

    async def _drained(self) -> bool:
        """Sends until nothing is left, or until something does not go."""
        try:
            while batch := await asyncio.wrap_future(self._spool.oldest(BATCH)):
                if not await self._send(batch):
                    return False
        except ThumbloopError as error:
            _log.warning("spool_not_drained", reason=error.reason, cause=error.message)
            return False
        except Exception as error:  # feedback waits here: it must not stop being sent
            _log.error("spool_drain_failed", exc_info=error)
            return False
        return True

    async def _send(self, batch: list[StoredItem]) -> bool:
        """Whether all of it went; what went leaves the disk."""
        sent = await self._sender.send(batch)
        for stored, error in sent.refused:
            await refuse(self._spool, stored.position, stored.item.key, error)
        if sent.acknowledged:
            self._outage.end()
            self._backoff.reset()
            await asyncio.wrap_future(self._spool.remove([stored.position for stored in sent.acknowledged]))
            self._metrics.increment("thumbloop_gateway_spool_drained_total", len(sent.acknowledged))
            _log.info("spool_drained", sent=len(sent.acknowledged), left=self._spool.items)
        if sent.failure is not None:
            self._outage.begin(sent.failure)
        self._spool.note()
        return sent.failure is None


async def refuse(spool: FeedbackSpool, position: int, key: SpoolKey, error: InvalidInput) -> None:
    """Puts aside what Kafka will never take: its topic takes less than this gateway was told, or a bound was lowered
    after the acknowledgement.
    """
    _log.error("spool_item_refused", rollout_id=key.rollout_id, feedback_id=key.feedback_id, cause=error.message)
    await asyncio.wrap_future(spool.refuse(position, key, error.reason))
