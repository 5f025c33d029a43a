"""Joins sink, spool and what empties it, by settings: broker embedded or not, a disk or none."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from services.gateway.feedback.fate import NothingSpooled, SpooledStatements
from services.gateway.feedback.sink import (
    FeedbackSink,
    KafkaFeedbackSink,
    KeepingFeedbackSink,
    SpoolingFeedbackSink,
    SpoolSearch,
)
from services.gateway.spool.confirmer import SpoolConfirmer, StoredFeedback
from services.gateway.spool.delivery import Delivery
from services.gateway.spool.drainer import SpoolDrainer
from services.gateway.spool.outage import Outage
from services.gateway.spool.sending import Sender
from services.gateway.spool.spool import FeedbackSpool, SpoolBounds
from services.shared.bus.interface import Publisher
from services.shared.contracts.topics import FEEDBACK, load_topic_pages
from services.shared.ids import utc_now
from services.shared.releases.forget_orders import ForgottenRaters
from services.shared.settings import Settings
from services.shared.telemetry.metrics import Metrics


async def _nothing() -> None:
    """There is no spool to empty."""


@dataclass(frozen=True, kw_only=True)
class Durability:
    """Where feedback goes, and what has a life of its own there. `run` is a task; then `close`."""

    sink: FeedbackSink
    spooled: SpooledStatements = field(default_factory=NothingSpooled)
    spool: FeedbackSpool | None = None
    run: Callable[[], Coroutine[Any, Any, None]] = _nothing
    is_sending: Callable[[str, str], bool]
    """Whether something of a (tenant, rater) is on its way to the log. To be asked on the event loop."""

    async def close(self) -> None:
        """Finishes the disk's writes and lets go of the folder. After the publisher was closed. Twice is once."""
        if self.spool is not None:
            await asyncio.to_thread(self.spool.close)


def open_durability(
    settings: Settings,
    *,
    publisher: Publisher,
    stored: StoredFeedback,
    forgotten: ForgottenRaters,
    metrics: Metrics,
) -> Durability:
    """Opens the spool where there is one, which adds to `forgotten` whom it knows. Raises Misconfigured: the folder is
    another gateway's, or damaged.
    """
    room, most = settings.gateway.spool, settings.bus.max_event_bytes
    if not room.enabled:
        # As long as the log's own word takes: there is nothing else that could answer.
        delivery = Delivery(publisher, forgotten=forgotten, patience_s=settings.bus.ack_timeout_s)
        return Durability(sink=KafkaFeedbackSink(delivery, max_event_bytes=most), is_sending=delivery.is_under_way)
    bounds = SpoolBounds(max_items=room.max_items, max_bytes=room.max_bytes)
    spool = FeedbackSpool(settings.spool_dir, bounds=bounds, forgotten=forgotten, clock=utc_now, metrics=metrics)
    delivery = Delivery(publisher, forgotten=forgotten, patience_s=room.patience_s)
    sender = Sender(delivery)
    outage = Outage(partitions=load_topic_pages()[FEEDBACK].partitions, monotonic=time.monotonic)
    if settings.bus.embedded:
        confirmer = SpoolConfirmer(
            spool=spool,
            sender=sender,
            stored=stored,
            outage=outage,
            metrics=metrics,
            interval_s=room.confirm_interval_s,
            resend_after_s=room.resend_after_s,
        )
        sink: FeedbackSink = KeepingFeedbackSink(delivery=delivery, spool=spool, outage=outage, max_event_bytes=most)
        return Durability(
            sink=sink, spooled=SpoolSearch(spool), spool=spool, run=confirmer.run, is_sending=delivery.is_under_way
        )
    drainer = SpoolDrainer(spool=spool, sender=sender, outage=outage, metrics=metrics)
    sink = SpoolingFeedbackSink(delivery=delivery, spool=spool, drainer=drainer, outage=outage, max_event_bytes=most)
    return Durability(
        sink=sink, spooled=SpoolSearch(spool), spool=spool, run=drainer.run, is_sending=delivery.is_under_way
    )
