"""Where feedback goes and what empties the spool, on a log that fails as told: with Apache Kafka, and embedded."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import Future
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from services.gateway.feedback.sink import FeedbackSink, KeepingFeedbackSink, SpoolingFeedbackSink
from services.gateway.spool.confirmer import SpoolConfirmer
from services.gateway.spool.delivery import Delivery
from services.gateway.spool.drainer import SpoolDrainer
from services.gateway.spool.item import spool_item
from services.gateway.spool.outage import Outage
from services.gateway.spool.sending import Sender
from services.gateway.spool.spool import FeedbackSpool
from services.shared.bus.interface import OutgoingEvent, Place, Record
from services.shared.bus.partitioning import partition_of
from services.shared.contracts.feedback import decode_feedback
from services.shared.domain.errors import InvalidInput, ThumbloopError, Unavailable
from services.shared.domain.feedback import Comment
from services.shared.ids import utc_now
from services.shared.releases.forget_orders import ForgottenRaters
from services.shared.telemetry.metrics import Metrics
from tests.support.facts import make_feedback, make_thumb
from tests.support.spool import FaultyDisk, StoreOfKeys, open_spool

AWAY = Unavailable("the log is away")
PATIENCE_S = 5.0
PARTITIONS = 4
MAX_EVENT_BYTES = 1_000
LARGE = make_feedback("large", body=Comment(text="x" * MAX_EVENT_BYTES))


def rollouts_of(partition: int, number: int) -> list[str]:
    """Ids of rollouts whose feedback goes there."""
    found = (name for name in map(str, range(100_000)) if partition_of(name, PARTITIONS) == partition)
    return [next(found) for _ in range(number)]


@dataclass
class Log:
    """See Publisher: writes what it acknowledges, fails as told, and answers late while `gate` is closed."""

    failure: ThumbloopError | None = None
    written: list[str] = field(default_factory=list)
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    refuses: str = ""
    """A feedback id that it never takes."""
    away: set[str] = field(default_factory=set)
    """Rollouts whose partition is away."""
    fails_once: set[str] = field(default_factory=set)
    """Feedback ids whose first attempt fails."""
    tried: int = 0
    running: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.gate.set()

    async def publish(self, event: OutgoingEvent) -> Record:
        name = decode_feedback(event.value).feedback_id
        assert event.topic == "feedback" and event.key not in self.running, "two of a rollout at a time"
        self.running.add(event.key)
        self.tried += 1
        try:
            await self.gate.wait()
            await asyncio.sleep(0)
        finally:
            self.running.discard(event.key)
        if name == self.refuses:
            raise InvalidInput("too large", reason="EVENT_TOO_LARGE")
        if self.failure is not None:
            raise self.failure
        if event.key in self.away or name in self.fails_once:
            self.fails_once.discard(name)
            raise AWAY
        self.written.append(name)
        return Record(
            place=Place("feedback", 0), offset=0, key=event.key, value=event.value, headers={}, timestamp=utc_now()
        )

    def send(self, event: OutgoingEvent) -> Future[Record]:
        raise NotImplementedError("nobody here asks for it")

    def close(self, timeout_s: float) -> None:
        raise NotImplementedError("nobody here asks for it")


@dataclass(kw_only=True)
class Room:
    log: Log
    spool: FeedbackSpool
    outage: Outage
    sink: FeedbackSink
    drainer: SpoolDrainer
    metrics: Metrics
    now: list[float]

    async def until_empty(self) -> None:
        async with asyncio.timeout(10):
            while self.spool.items:
                await asyncio.sleep(0.01)


@asynccontextmanager
async def apache(
    folder: Path,
    *,
    patience_s: float = PATIENCE_S,
    drains: bool = True,
    disk: FaultyDisk | None = None,
    max_items: int = 20,
) -> AsyncIterator[Room]:
    log, metrics, now = Log(), Metrics(), [100.0]
    outage = Outage(partitions=PARTITIONS, monotonic=lambda: now[0])
    with open_spool(folder, max_items=max_items, metrics=metrics, disk=disk) as spool:
        delivery = Delivery(log, forgotten=ForgottenRaters(), patience_s=patience_s)
        sender = Sender(delivery)
        drainer = SpoolDrainer(spool=spool, sender=sender, outage=outage, metrics=metrics)
        sink = SpoolingFeedbackSink(
            delivery=delivery, spool=spool, drainer=drainer, outage=outage, max_event_bytes=MAX_EVENT_BYTES
        )
        task = asyncio.create_task(drainer.run()) if drains else None
        try:
            yield Room(log=log, spool=spool, outage=outage, sink=sink, drainer=drainer, metrics=metrics, now=now)
        finally:
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)


@dataclass(kw_only=True)
class Embedded:
    log: Log
    spool: FeedbackSpool
    outage: Outage
    sink: KeepingFeedbackSink
    confirmer: SpoolConfirmer
    store: StoreOfKeys
    metrics: Metrics
    now: list[float]

    def store_has(self, name: str, **values: Any) -> None:
        self.store.keys.add(spool_item(make_thumb(name, **values)).key)


@asynccontextmanager
async def embedded(
    folder: Path, disk: FaultyDisk | None = None, *, forgotten: ForgottenRaters | None = None
) -> AsyncIterator[Embedded]:
    log, metrics, store, now = Log(), Metrics(), StoreOfKeys(), [100.0]
    outage = Outage(partitions=PARTITIONS, monotonic=lambda: now[0])
    forgotten = forgotten or ForgottenRaters()
    delivery = Delivery(log, forgotten=forgotten, patience_s=PATIENCE_S)
    with open_spool(folder, disk=disk, forgotten=forgotten) as spool:
        confirmer = SpoolConfirmer(
            spool=spool,
            sender=Sender(delivery),
            stored=store,
            outage=outage,
            metrics=metrics,
            interval_s=0.01,
            resend_after_s=10,
            monotonic=lambda: now[0],
        )
        sink = KeepingFeedbackSink(delivery=delivery, spool=spool, outage=outage, max_event_bytes=MAX_EVENT_BYTES)
        yield Embedded(
            log=log, spool=spool, outage=outage, sink=sink, confirmer=confirmer, store=store, metrics=metrics, now=now
        )
