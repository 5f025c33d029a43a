"""What is on its way to Kafka is known until Kafka, or the client that gave up, has answered."""

from __future__ import annotations

import asyncio
import gc
import sqlite3
from collections.abc import AsyncIterator
from concurrent.futures import Future
from datetime import UTC, datetime
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from services.generator import rollout_publisher
from services.generator.rollout_publisher import RolloutPublisher
from services.generator.rollout_queue import RolloutQueue
from services.shared.bus.interface import OutgoingEvent, Record
from services.shared.contracts.rollouts import SENT_BEFORE, encode_rollout
from services.shared.domain.errors import InvalidInput, Unavailable
from services.shared.telemetry.metrics import Metrics
from tests.support.facts import make_rollout
from tests.support.generator_room import until


class ByHand:
    """A publisher whose acknowledgements come when the test gives them."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, Future[Record]]] = []
        self.headers: list[dict[str, bytes]] = []

    def send(self, event: OutgoingEvent) -> Future[Record]:
        future: Future[Record] = Future()
        self.headers.append(dict(event.headers))
        self.sent.append((event.key, future))
        return future

    async def publish(self, event: OutgoingEvent) -> Record:
        raise NotImplementedError

    def close(self, timeout_s: float) -> None:
        """Nothing to close."""


@pytest.fixture
async def queue(tmp_path: Path) -> AsyncIterator[RolloutQueue]:
    queue = RolloutQueue(tmp_path / "rollouts.db")
    yield queue
    queue.close()


def make_publisher(
    kafka: ByHand, queue: RolloutQueue, ack_timeout_s: float, *, keeps: bool = False
) -> RolloutPublisher:
    metrics = Metrics(room="generator")
    return RolloutPublisher(
        publisher=kafka,
        queue=queue,
        ack_timeout_s=ack_timeout_s,
        max_queued=100,
        metrics=metrics,
        clock=lambda: datetime.fromtimestamp(100, UTC),
        keeps=keeps,
    )


async def test_an_event_is_on_its_way_until_it_is_answered_not_until_its_time_out(queue: RolloutQueue) -> None:
    kafka = ByHand()
    publisher = make_publisher(kafka, queue, ack_timeout_s=0.01)
    await publisher.record("r1", b"event")
    assert [one.rollout_id for one in queue.oldest(1)] == ["r1"], "its time was out, so that the disk has it"
    queue.remove(["r1"])
    assert queue.oldest(1) == []
    assert publisher.sending == {"r1"}
    (_, future), *_ = kafka.sent
    future.set_exception(Unavailable("gone"))
    assert publisher.sending == frozenset()


async def test_a_failure_after_the_time_out_is_nobodys(queue: RolloutQueue) -> None:
    """An outage would fill the log with futures whose exceptions nobody took."""
    unhandled: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: unhandled.append(context))
    kafka = ByHand()
    publisher = make_publisher(kafka, queue, ack_timeout_s=0.01)
    await publisher.record("r1", event("r1"))
    kafka.sent.pop()[1].set_exception(Unavailable("Kafka is away"))
    assert not publisher.sending
    for _ in range(10):  # turns in which the loop hears it
        await asyncio.sleep(0)
    gc.collect()
    assert unhandled == []


async def test_a_batch_from_the_disk_is_on_its_way_from_its_reading_on(queue: RolloutQueue) -> None:
    kafka = ByHand()
    publisher = make_publisher(kafka, queue, ack_timeout_s=60.0)
    queue.put("r1", b"one")
    queue.put("r2", b"two")
    assert queue.oldest(1) == [("r1", b"one", 0)] and publisher.sending == {"r1"}
    publisher.start()
    await until(lambda: len(kafka.sent) == 2, what="the batch is handed over")
    assert publisher.sending == {"r1", "r2"}
    for name, future in kafka.sent:
        future.set_result(None)  # type: ignore[arg-type]  # nobody looks at the record
        assert name in publisher.sending, "it leaves the disk first"
    await until(lambda: publisher.sending == frozenset(), what="nothing is on its way")
    assert queue.count == 0
    await publisher.stop()


async def test_where_kafkas_word_is_not_enough_the_disk_has_it_first_and_keeps_it(queue: RolloutQueue) -> None:
    kafka = ByHand()
    publisher = make_publisher(kafka, queue, ack_timeout_s=60.0, keeps=True)
    await publisher.record("r1", event("r1"))
    assert kafka.sent == [] and queue.count == 1, "it is safe before it is sent"
    publisher.start()
    await until(lambda: len(kafka.sent) == 1, what="it is handed over")
    kafka.sent[0][1].set_result(None)  # type: ignore[arg-type]  # nobody looks at the record
    await until(lambda: queue.count == 0, what="it waits no more")
    assert [one[1:] for one in queue.kept(9, after=0)] == [("r1", "acme", 1, 1, 100.0)]
    await publisher.record("r2", event("r2"))
    await until(lambda: len(kafka.sent) == 2, what="the next goes by itself")
    kafka.sent[1][1].set_exception(InvalidInput("too large for the topic", reason="TOO_LARGE"))
    await until(lambda: queue.count == 0, what="what Kafka never takes waits no more")
    assert [kept.rollout_id for kept in queue.kept(9, after=0)] == ["r1"]
    queue.send_again(["r1"])
    publisher.wake()
    await until(lambda: [name for name, _ in kafka.sent] == ["r1", "r2", "r1"], what="it goes again when told so")
    assert kafka.headers == [{}, {}, {SENT_BEFORE: b"1"}]
    kafka.sent[2][1].set_result(None)  # type: ignore[arg-type]
    await publisher.stop()
    assert queue.count_kept() == 1


async def test_what_nobody_can_read_is_not_kept(queue: RolloutQueue) -> None:
    kafka = ByHand()
    publisher = make_publisher(kafka, queue, ack_timeout_s=60.0, keeps=True)
    publisher.start()
    await publisher.record("r1", b"damaged")
    await until(lambda: len(kafka.sent) == 1, what="it is handed over")
    kafka.sent[0][1].set_result(None)  # type: ignore[arg-type]
    await until(lambda: queue.count == 0, what="it waits no more")
    assert publisher.running and queue.count_kept() == 0
    await publisher.stop()


async def test_what_was_recorded_goes_out_before_the_end(queue: RolloutQueue) -> None:
    kafka = ByHand()
    publisher = make_publisher(kafka, queue, ack_timeout_s=60.0, keeps=True)
    publisher.start()
    for name in ("r1", "r2", "r3"):
        await publisher.record(name, event(name))
    stopping = asyncio.create_task(publisher.stop())
    for number in range(3):
        await until(lambda number=number: len(kafka.sent) > number, what="the next is handed over")  # type: ignore[misc]
        kafka.sent[number][1].set_result(None)  # type: ignore[arg-type]
    await stopping
    assert (queue.count, queue.count_kept()) == (0, 3)


async def test_an_end_does_not_wait_for_a_kafka_that_is_away(queue: RolloutQueue) -> None:
    kafka = ByHand()
    publisher = make_publisher(kafka, queue, ack_timeout_s=60.0, keeps=True)
    publisher.start()
    await publisher.record("r1", event("r1"))
    await until(lambda: len(kafka.sent) == 1, what="it is handed over")
    kafka.sent[0][1].set_exception(Unavailable("gone"))
    await until(lambda: len(kafka.sent) == 2, what="it is tried again")
    async with asyncio.timeout(10):
        await publisher.stop()
    assert queue.count == 1


async def test_a_disk_that_fails_does_not_hide_that_kafka_is_back(
    queue: RolloutQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    kafka = ByHand()
    publisher = make_publisher(kafka, queue, ack_timeout_s=0.01)
    publisher.start()

    def full(*_: object, **__: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(queue, "put", full)
    async with asyncio.timeout(10):
        while len(kafka.sent) < 2:  # the first time Kafka was late; it is tried once more
            with pytest.raises(sqlite3.OperationalError):
                await publisher.record("r1", event("r1"))
    await publisher.stop()


def event(name: str) -> bytes:
    return encode_rollout(make_rollout(name, tenant="acme"))


@pytest.mark.parametrize("keeps", [False, True])
async def test_what_kafka_refuses_is_counted_and_bounded(
    queue: RolloutQueue, monkeypatch: pytest.MonkeyPatch, keeps: bool
) -> None:
    monkeypatch.setattr(rollout_publisher, "MOST_REFUSED", 2)
    for name in ("a", "b"):
        queue.put(name, b"event", refused_reason="TOO_LARGE")
    kafka = ByHand()
    publisher = make_publisher(kafka, queue, ack_timeout_s=60.0, keeps=keeps)

    def told() -> float | None:
        return publisher._metrics.value("thumbloop_generator_refused_rollouts")

    publisher.start()
    await until(lambda: told() == 2, what="what an earlier run left is told")
    recording = asyncio.create_task(publisher.record("c", event("c")))
    await until(lambda: len(kafka.sent) == 1, what="it is handed over")
    queue.put("d", b"event", refused_reason="TOO_LARGE")
    with capture_logs() as lines:
        kafka.sent[0][1].set_exception(InvalidInput("too large for the topic", reason="TOO_LARGE"))
        await recording
        await until(
            lambda: any(line["event"] == "refused_rollouts_let_go" for line in lines), what="the oldest are let go"
        )
    assert [line["rollouts"] for line in lines if line["event"] == "refused_rollouts_let_go"] == [2]
    await until(lambda: told() == 2, what="as many as may stay")
    assert queue.count_refused() == 2
    await publisher.stop()
