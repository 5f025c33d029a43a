"""Empties the spool into Kafka, by itself, whenever something lies there and Kafka takes it."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from services.gateway.spool.item import SpoolKey, StoredItem
from services.gateway.spool.outage import Outage
from services.gateway.spool.sending import Sender, Sent
from services.gateway.spool.spool import FeedbackSpool
from services.shared.domain.errors import Busy, InvalidInput, ThumbloopError
from services.shared.releases.backoff import Backoff
from services.shared.telemetry.log import get_logger
from services.shared.telemetry.metrics import Metrics

BATCH = 500
FIRST_RETRY_S = 0.2
LAST_RETRY_S = 2.0
_log = get_logger()


@dataclass(frozen=True, kw_only=True)
class Round:
    """What became of all that lay there."""

    went: int
    """Items that the log acknowledged."""
    left: bool
    """Something did not go, and is to be tried again."""


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
            done = await self._tried_round()
            if done.left:
                self._something.set()
            if done.left and not done.went:
                await asyncio.sleep(self._backoff.failed())
            else:
                self._backoff.reset()
            self._spool.note()

    async def round(self) -> Round:
        """Sends what lies there, page after page, whatever fails: a partition that is away must not hold up the others
        (each page that has something of it takes the sender's patience). What comes behind a failure in its rollout
        stays for the next round. Raises ThumbloopError.
        """
        went, after, held = 0, 0, set[tuple[str, str]]()
        while page := await asyncio.wrap_future(self._spool.oldest(BATCH, after=after)):
            after = page[-1].position
            sent = await self._send([stored for stored in page if stored.item.key.rollout not in held])
            went += len(sent.acknowledged)
            held.update(stored.item.key.rollout for stored, _ in sent.failed)
            if any(isinstance(failure, Busy) for _, failure in sent.failed):
                break  # the publisher takes no more
        return Round(went=went, left=bool(held))

    async def _tried_round(self) -> Round:
        try:
            return await self.round()
        except ThumbloopError as error:
            _log.warning("spool_not_drained", reason=error.reason, cause=error.message)
        except Exception as error:  # feedback waits here: it must not stop being sent
            _log.error("spool_drain_failed", exc_info=error)
        return Round(went=0, left=True)

    async def _send(self, batch: list[StoredItem]) -> Sent:
        """What went leaves the disk."""
        sent = await self._sender.send(batch)
        self._outage.note(sent)
        for stored, error in sent.refused:
            await refuse(self._spool, stored.position, stored.item.key, error)
        if sent.acknowledged:
            await asyncio.wrap_future(self._spool.remove([stored.position for stored in sent.acknowledged]))
            self._metrics.increment("thumbloop_gateway_spool_drained_total", len(sent.acknowledged))
            _log.info("spool_drained", sent=len(sent.acknowledged), left=self._spool.items)
        self._spool.note()
        return sent


async def refuse(spool: FeedbackSpool, position: int, key: SpoolKey, error: InvalidInput) -> None:
    """Puts aside what Kafka will never take: its topic takes less than this gateway was told, or a bound was lowered
    after the acknowledgement.
    """
    _log.error("spool_item_refused", rollout_id=key.rollout_id, feedback_id=key.feedback_id, cause=error.message)
    await asyncio.wrap_future(spool.refuse(position, key, error.reason))
