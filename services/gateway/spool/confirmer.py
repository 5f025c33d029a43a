"""Embedded broker: keeps every item until the learner's store has it, and sends again what is missing there.

That broker may lose the tail of what it acknowledged when it is killed, so its acknowledgement is no reason to let go.
Each round asks the learner about items in the order of arrival; what is stored leaves the disk. Of the rest, what
still *waits* (it was never sent, or not acknowledged) goes to the log at once, and what was sent goes again after
`resend_after_s`, and after twice as long each further time, a few times. After that it is *in vain*: it stays, and is
asked about, and is sent no more by this process.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from services.gateway.spool.drainer import refuse
from services.gateway.spool.item import SpoolKey, StoredItem
from services.gateway.spool.outage import Outage
from services.gateway.spool.resends import MOST_SENT, Resends
from services.gateway.spool.sending import Sender
from services.gateway.spool.spool import FeedbackSpool
from services.shared.domain.errors import ThumbloopError
from services.shared.telemetry.last_told import LastTold
from services.shared.telemetry.log import get_logger
from services.shared.telemetry.metrics import Metrics

BATCH = 500
ROUND_ITEMS = 5_000
"""Most that one round looks at; the next goes on behind them."""
ASK_TIMEOUT_S = 5.0
_log = get_logger()


class StoredFeedback(Protocol):
    """Asks the learner."""

    async def find_stored(self, *, tenant: str, keys: Sequence[SpoolKey], timeout_s: float) -> list[bool]:
        """One answer for each key (at most 1,000, of one tenant): whether its store has it, or never wants it.
        Raises Unavailable, DeadlineExceeded.
        """


class SpoolConfirmer:
    """Belongs to one event loop. `run` is a task."""

    def __init__(
        self,
        *,
        spool: FeedbackSpool,
        sender: Sender,
        stored: StoredFeedback,
        outage: Outage,
        metrics: Metrics,
        interval_s: float,
        resend_after_s: float,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._spool = spool
        self._sender = sender
        self._stored = stored
        self._outage = outage
        self._metrics = metrics
        self._interval_s = interval_s
        self._resends = Resends(first_s=resend_after_s, monotonic=monotonic)
        """What is not in here and was sent is seen for the first time."""
        self._told = LastTold()
        self._asked_up_to = 0
        self._seen: set[int] = set()
        """Positions since the pages last began with the first."""

    async def run(self) -> None:
        """Until it is cancelled. Begins with what an earlier run left. No failure ends it."""
        while True:
            try:
                await self.round()
                self._told.succeeded()
            except ThumbloopError as error:
                if self._told.is_news(error.reason):
                    _log.warning("spool_not_confirmed", reason=error.reason, cause=error.message)
            except Exception as error:  # feedback waits here: it must not stop being sent
                _log.error("spool_confirm_failed", exc_info=error)
            self._spool.note()
            await asyncio.sleep(self._interval_s)

    async def round(self) -> None:
        """Asks about the next items, lets go of what is stored, sends what is due. Raises ThumbloopError."""
        looked_at = 0
        while looked_at < ROUND_ITEMS:
            page = await asyncio.wrap_future(self._spool.oldest(BATCH, after=self._asked_up_to))
            self._seen.update(stored.position for stored in page)
            if page:
                await self._settle(page)
            looked_at += len(page)
            self._asked_up_to = page[-1].position if len(page) == BATCH else 0
            if len(page) < BATCH:
                self._note_all_seen()
                return

    def _note_all_seen(self) -> None:
        self._resends.keep_only(self._seen)
        self._seen = set()
        self._metrics.set("thumbloop_gateway_spool_in_vain_items", self._resends.in_vain)

    async def _settle(self, page: list[StoredItem]) -> None:
        missing = page
        try:
            missing = await self._confirm(page)
        except ThumbloopError:
            # While the learner is away, what was never sent can go all the same; nothing is sent twice blindly.
            await self._send([stored for stored in page if not self._spool.is_sent(stored)])
            raise
        for stored in missing:
            self._give_up(stored)
        await self._send([stored for stored in missing if self._is_due(stored)])

    async def _confirm(self, page: list[StoredItem]) -> list[StoredItem]:
        """Removes what the store has; gives what it lacks."""
        by_tenant: dict[str, list[StoredItem]] = {}
        for stored in page:
            by_tenant.setdefault(stored.item.key.tenant, []).append(stored)
        safe: list[StoredItem] = []
        for tenant, items in by_tenant.items():
            keys = [stored.item.key for stored in items]
            answers = await self._stored.find_stored(tenant=tenant, keys=keys, timeout_s=ASK_TIMEOUT_S)
            safe += [stored for stored, has in zip(items, answers, strict=True) if has]
        if safe:
            await asyncio.wrap_future(self._spool.remove([stored.position for stored in safe]))
            self._metrics.increment("thumbloop_gateway_spool_drained_total", len(safe))
            for stored in safe:
                self._resends.drop(stored.position)
        gone = {stored.position for stored in safe}
        return [stored for stored in page if stored.position not in gone]

    def _is_due(self, stored: StoredItem) -> bool:
        if not self._spool.is_sent(stored):
            return True
        if stored.position not in self._resends:
            self._resends.begin(stored.position)
            return False
        return self._resends.is_due(stored.position)

    def _give_up(self, stored: StoredItem) -> None:
        """Tells once that the store lacks what will not be sent any more."""
        if self._resends.give_up(stored.position):
            key = stored.item.key
            _log.warning(
                "feedback_sent_in_vain", rollout_id=key.rollout_id, feedback_id=key.feedback_id, times=1 + MOST_SENT
            )

    async def _send(self, items: list[StoredItem]) -> None:
        if not items:
            return
        sent = await self._sender.send(items)
        for stored in sent.acknowledged:
            self._note_sent(stored)
        for stored, error in sent.refused:
            await refuse(self._spool, stored.position, stored.item.key, error)
        self._outage.note(sent)

    def _note_sent(self, stored: StoredItem) -> None:
        if stored.position not in self._resends or not self._spool.is_sent(stored):
            self._resends.begin(stored.position)
        else:
            self._metrics.increment("thumbloop_gateway_spool_resent_total")
            wait_s = self._resends.again(stored.position)
            _log.warning("feedback_sent_again", rollout_id=stored.item.key.rollout_id, next_in_s=wait_s)
        self._spool.mark_sent(stored.position, stored.item.key)
