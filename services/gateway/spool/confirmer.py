"""Embedded broker: keeps every item until the learner's store has it, and sends again what is missing there.

That broker may lose the tail of what it acknowledged when it is killed, so its acknowledgement is no reason to let go.
Each round asks the learner about items in the order of arrival; what is stored leaves the disk. Of the rest, what
still *waits* (it was never sent, or in vain) goes to the log at once, and what was sent goes again after
`resend_after_s`, and after twice as long each further time.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from services.gateway.spool.drainer import refuse
from services.gateway.spool.item import SpoolKey, StoredItem
from services.gateway.spool.outage import Outage
from services.gateway.spool.sending import Sender
from services.gateway.spool.spool import FeedbackSpool
from services.shared.domain.errors import ThumbloopError
from services.shared.releases.backoff import Backoff
from services.shared.telemetry.log import get_logger
from services.shared.telemetry.metrics import Metrics

BATCH = 500
ROUND_ITEMS = 5_000
"""Most that one round looks at; the next goes on behind them."""
ASK_TIMEOUT_S = 5.0
LAST_RESEND_S = 600.0
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
        self._resend_after_s = resend_after_s
        self._monotonic = monotonic
        self._resends: dict[int, Backoff] = {}
        """By position; what is not in here and was sent is seen for the first time."""
        self._asked_up_to = 0

    async def run(self) -> None:
        """Until it is cancelled. Begins with what an earlier run left. No failure ends it."""
        while True:
            try:
                await self.round()
            except ThumbloopError as error:
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
            if page:
                await self._settle(page)
            looked_at += len(page)
            self._asked_up_to = page[-1].position if len(page) == BATCH else 0
            if len(page) < BATCH:
                return

    async def _settle(self, page: list[StoredItem]) -> None:
        missing = page
        try:
            missing = await self._confirm(page)
        except ThumbloopError:
            # While the learner is away, what was never sent can go all the same; nothing is sent twice blindly.
            await self._send([stored for stored in page if not self._spool.is_sent(stored)])
            raise
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
                self._resends.pop(stored.position, None)
        gone = {stored.position for stored in safe}
        return [stored for stored in page if stored.position not in gone]

    def _is_due(self, stored: StoredItem) -> bool:
        if not self._spool.is_sent(stored):
            return True
        resend = self._resends.get(stored.position)
        if resend is None:
            self._resends[stored.position] = self._first_resend()
            return False
        return resend.remaining_s() == 0

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
        before = self._resends.get(stored.position)
        if before is None or not self._spool.is_sent(stored):
            self._resends[stored.position] = self._first_resend()
        else:
            self._metrics.increment("thumbloop_gateway_spool_resent_total")
            _log.warning("feedback_sent_again", rollout_id=stored.item.key.rollout_id, next_in_s=before.failed())
        self._spool.mark_sent(stored.position, stored.item.key)

    def _first_resend(self) -> Backoff:
        resend = Backoff(first_s=self._resend_after_s, max_s=LAST_RESEND_S, monotonic=self._monotonic)
        resend.failed()
        return resend
