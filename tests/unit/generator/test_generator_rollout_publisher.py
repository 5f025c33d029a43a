"""What is on its way to Kafka is known until Kafka, or the client that gave up, has answered."""

from __future__ import annotations

from collections.abc import AsyncIterator
from concurrent.futures import Future
from pathlib import Path

import pytest

from services.generator.rollout_publisher import RolloutPublisher
from services.generator.rollout_queue import RolloutQueue
from services.shared.bus.interface import OutgoingEvent, Record
from services.shared.domain.errors import InvalidInput, Unavailable
from services.shared.telemetry.metrics import Metrics
from tests.support.generator_room import until


class ByHand:
    """A publisher whose acknowledgements come when the test gives them."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, Future[Record]]] = []

    def send(self, event: OutgoingEvent) -> Future[Record]:
        future: Future[Record] = Future()
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
        publisher=kafka, queue=queue, ack_timeout_s=ack_timeout_s, max_queued=100, metrics=metrics, keeps=keeps
    )


async def test_an_event_is_on_its_way_until_it_is_answered_not_until_its_time_out(queue: RolloutQueue) -> None:
    kafka = ByHand()
    publisher = make_publisher(kafka, queue, ack_timeout_s=0.01)
    await publisher.record("r1", b"event")
    assert [name for name, _ in queue.oldest(1)] == ["r1"], "its time was out, so that the disk has it"
    queue.remove(["r1"])
    assert queue.oldest(1) == []
    assert publisher.sending == {"r1"}
    (_, future), *_ = kafka.sent
    future.set_exception(Unavailable("gone"))
    assert publisher.sending == frozenset()


async def test_a_batch_from_the_disk_is_on_its_way_from_its_reading_on(queue: RolloutQueue) -> None:
    kafka = ByHand()
    publisher = make_publisher(kafka, queue, ack_timeout_s=60.0)
    queue.put("r1", b"one")
    queue.put("r2", b"two")
    assert queue.oldest(1) == [("r1", b"one")] and publisher.sending == {"r1"}
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
    await publisher.record("r1", b"event")
    assert kafka.sent == [] and queue.count == 1, "it is safe before it is sent"
    publisher.start()
    await until(lambda: len(kafka.sent) == 1, what="it is handed over")
    kafka.sent[0][1].set_result(None)  # type: ignore[arg-type]  # nobody looks at the record
    await until(lambda: queue.count == 0, what="it waits no more")
    assert [kept.rollout_id for kept in queue.kept(9, after=0)] == ["r1"]
    await publisher.record("r2", b"event")
    await until(lambda: len(kafka.sent) == 2, what="the next goes by itself")
    kafka.sent[1][1].set_exception(InvalidInput("too large for the topic", reason="TOO_LARGE"))
    await until(lambda: queue.count == 0, what="what Kafka never takes waits no more")
    assert [kept.rollout_id for kept in queue.kept(9, after=0)] == ["r1"]
    queue.send_again(["r1", "r2"])
    publisher.wake()
    await until(lambda: [name for name, _ in kafka.sent] == ["r1", "r2", "r1"], what="it goes again when told so")
    await publisher.stop()
