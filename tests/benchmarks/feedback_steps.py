"""What each step of a feedback request costs by itself, and the bare producer that nothing can be faster than."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

from kafka import KafkaProducer
from pydantic import TypeAdapter

from services.gateway.feedback.body import FeedbackRequestBody
from services.gateway.feedback.statement import statement
from services.gateway.spool.delivery import outgoing
from services.gateway.tokens import FeedbackTokens
from services.shared.bus import open_bus
from services.shared.bus.interface import OutgoingEvent
from services.shared.bus.kafka_connection import KafkaConnection
from services.shared.contracts.feedback import encode_feedback
from services.shared.contracts.topics import FEEDBACK
from services.shared.domain.events import EventMeta
from services.shared.domain.feedback import Feedback, FeedbackKind
from services.shared.ids import new_id, utc_now
from services.shared.secrets import KeyUse, load_or_create
from services.shared.settings.model import BusSettings

CALLS = 2_000
REPEATS = 5
IN_FLIGHT = 64
BARE_IN_FLIGHT = 1_000

Steps = dict[str, float]
"""Microseconds of processor time by step."""


async def measure_steps(bus_settings: BusSettings, secrets: Path) -> Steps:
    """Each in this process, alone, medians."""
    tokens = FeedbackTokens(
        deployment="local",
        tenant="default",
        keys=load_or_create(secrets, KeyUse.FEEDBACK_TOKEN, utc_now),
        ttl=timedelta(hours=1),
        clock=utc_now,
    )
    kinds = list(FeedbackKind)
    token = tokens.issue(rater_id="r" * 32, rollout_id=new_id(), prompt_id="p" * 32, kinds=kinds)
    adapter: TypeAdapter[Any] = TypeAdapter(FeedbackRequestBody)
    raw = json.dumps({"token": token, "kind": "thumb", "value": "up"}).encode()
    body, claims = adapter.validate_json(raw), tokens.check(token)

    def make() -> Feedback:
        meta = EventMeta(event_id=new_id(), deployment="local", tenant=claims.tenant, event_time=utc_now())
        return statement(body=body, claims=claims, rejected=None, meta=meta, feedback_id=new_id())

    return {
        "token check": _each(lambda: tokens.check(token)),
        "schema check": _each(lambda: adapter.validate_json(raw)),
        "event encoding": _each(lambda: encode_feedback(make())),
        "publish": await _publish_cost(bus_settings, make),
    }


def _each(call: Callable[[], object]) -> float:
    costs = []
    for _ in range(REPEATS):
        begin = time.process_time()
        for _ in range(CALLS):
            call()
        costs.append(1e6 * (time.process_time() - begin) / CALLS)
    return statistics.median(costs)


async def _publish_cost(bus_settings: BusSettings, make: Callable[[], Feedback]) -> float:
    """Processor time of all threads, with as many events in flight as the closed loop has connections."""
    bus = open_bus(bus_settings)
    publisher = bus.publisher("bench")
    events = [outgoing(feedback.rollout_id, encode_feedback(feedback)) for feedback in (make() for _ in range(CALLS))]
    await publisher.publish(events[0])

    async def lane(waiting: Iterator[OutgoingEvent]) -> None:
        for event in waiting:
            await publisher.publish(event)

    costs = []
    for _ in range(REPEATS):
        waiting = iter(events)
        begin = time.process_time()
        await asyncio.gather(*(lane(waiting) for _ in range(IN_FLIGHT)))
        costs.append(1e6 * (time.process_time() - begin) / CALLS)
    await asyncio.to_thread(bus.close)
    return statistics.median(costs)


def bare_producer_rate(bus_settings: BusSettings, *, core: int, seconds: float) -> float:
    """Acknowledged events a second of kafka-python alone, acks=all, in a process of its own on one core."""
    context = multiprocessing.get_context("spawn")
    mine, its = context.Pipe(duplex=False)
    process = context.Process(target=_produce, args=(bus_settings, core, seconds, its))
    process.start()
    try:
        if not mine.poll(seconds + 60):
            raise RuntimeError("the bare producer gave no result")
        return float(mine.recv())
    finally:
        process.join(10)
        process.kill()
        process.join()


def _produce(bus_settings: BusSettings, core: int, seconds: float, told: Any) -> None:
    os.sched_setaffinity(0, {core})
    connection = KafkaConnection(bus_settings)
    producer: KafkaProducer = connection.producer("bare")
    value = bytes(_event_size())
    room = threading.Semaphore(BARE_IN_FLIGHT)
    acknowledged = [0]

    def on_acknowledged(_: object) -> None:
        acknowledged[0] += 1
        room.release()

    begin, number = time.monotonic(), 0
    while time.monotonic() - begin < seconds:
        room.acquire()
        number += 1
        sent = producer.send(connection.full_name(FEEDBACK), key=f"rollout-{number:028d}".encode(), value=value)
        sent.add_callback(on_acknowledged)
    producer.flush(30)
    told.send(acknowledged[0] / (time.monotonic() - begin))
    producer.close()


def _event_size() -> int:
    """Bytes of a thumb's event."""
    from tests.support.facts import make_thumb

    return len(encode_feedback(make_thumb(new_id(), rollout=new_id(), rater="r" * 32)))
