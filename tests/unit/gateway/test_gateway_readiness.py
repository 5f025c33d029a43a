"""When the gateway is ready: it reads first who was forgotten where the log is there, and never waits long for it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, cast

from services.gateway.chat.admission import Admission
from services.gateway.chat.generation import Generator
from services.gateway.status import ORDERS_PATIENCE_S, LogConnection, Readiness
from services.shared.bus.interface import Bus
from services.shared.contracts.topics import FEEDBACK, load_topic_pages
from services.shared.domain.errors import Unavailable


@dataclass
class Live:
    """A generator's status."""

    live_version: str = "p-1"


class ReadyGenerator:
    async def status(self, *, timeout_s: float) -> Live:
        return Live()


@dataclass
class Orders:
    caught_up: bool = False


@dataclass
class Spool:
    has_room: bool = True


class World:
    def __init__(self) -> None:
        self.now = 100.0
        self.orders, self.spool = Orders(), Spool()
        self.log = LogConnection(cast(Bus, None), load_topic_pages()[FEEDBACK])
        self.readiness = Readiness(
            generator=cast(Generator, ReadyGenerator()),
            log=self.log,
            spool=self.spool,
            orders=self.orders,
            admission=Admission(1, on_change=lambda running: None),
            monotonic=lambda: self.now,
        )

    async def missing(self) -> Any:
        return await self.readiness.missing()


async def test_orders_are_waited_for_where_the_log_is_there() -> None:
    world = World()
    world.log.connected = True
    (missing,) = await world.missing()
    assert "forget" in missing
    world.orders.caught_up = True
    assert await world.missing() == []


async def test_feedback_is_taken_while_the_log_is_away_and_there_is_a_disk() -> None:
    world = World()
    assert await world.missing() == []
    world.spool.has_room = False
    (missing,) = await world.missing()
    assert "spool is full" in missing


async def test_a_log_that_goes_away_again_keeps_nobody_out_for_long() -> None:
    world = World()
    world.log.connected = True
    world.now += ORDERS_PATIENCE_S - 1
    assert await world.missing() != []
    world.now += 1
    assert await world.missing() == []


class FaultyBus:
    """Fails in ways that nobody foresaw, then works."""

    def __init__(self) -> None:
        self.failures: list[Exception] = [Unavailable("away"), RuntimeError("a defect"), RuntimeError("again")]

    def ensure_topics(self, pages: Any) -> None:
        if self.failures:
            raise self.failures.pop()


async def test_no_failure_ends_the_way_to_the_log() -> None:
    log = LogConnection(cast(Bus, FaultyBus()), load_topic_pages()[FEEDBACK], interval_s=0.0)
    async with asyncio.timeout(10):
        await log.run()
    assert log.connected
