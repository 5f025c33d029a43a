"""On a bus that may lose its tail, a room keeps each rollout until the learner's store has it and a score of it.

Plan: a room and a learner on real ports, on a bus in memory. The learner says that it lacks an answer; then that it
has it without its score, while a later answer of the same partition has one; then that all is there.
Pass: the rollout is in the topic once, then twice, then three times, and only then leaves the disk; what a room kept
is sent by the next one on the same disk whose bus keeps its word.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from thumbloop.learner.v1 import learner_pb2, learner_pb2_grpc

from services.shared.bus.interface import Bus
from services.shared.bus.memory import MemoryBus
from services.shared.bus.partitioning import partition_of
from services.shared.contracts.topics import ROLLOUTS
from services.shared.ids import new_id
from tests.support.generator_room import generate_request, generator_room, until

MISSING = learner_pb2.ROLLOUT_PROGRESS_MISSING
UNSCORED = learner_pb2.ROLLOUT_PROGRESS_UNSCORED
SETTLED = learner_pb2.ROLLOUT_PROGRESS_SETTLED
PACE: dict[str, Any] = {"confirm_interval_s": 0.02, "resend_after_s": 0.2, "unscored_after_s": 0.2}


@dataclass
class Store(learner_pb2_grpc.LearnerServiceServicer):
    """Says what the test tells it."""

    progress: dict[str, learner_pb2.RolloutProgress.ValueType] = field(default_factory=dict)
    tenants: set[str] = field(default_factory=set)
    asked: int = 0

    async def FindStoredRollouts(
        self, request: learner_pb2.FindStoredRolloutsRequest, context: Any
    ) -> learner_pb2.FindStoredRolloutsResponse:
        self.tenants.add(request.tenant)
        self.asked += 1
        return learner_pb2.FindStoredRolloutsResponse(
            progress=[self.progress.get(name, MISSING) for name in request.rollout_ids]
        )


@pytest.fixture
async def store() -> AsyncIterator[tuple[Store, str]]:
    """With its address."""
    server, servicer = grpc.aio.server(), Store()  # type: ignore[abstract]  # answers what the generator asks
    learner_pb2_grpc.add_LearnerServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield servicer, f"127.0.0.1:{port}"
    await server.stop(0)


def times_in_topic(bus: Bus) -> Counter[str]:
    """How often each rollout stands in the topic."""
    reader = bus.log_reader("test")
    try:
        places = reader.places(ROLLOUTS)
        reader.assign(reader.beginning_offsets(places))
        end, found = sum(reader.end_offsets(places).values()), Counter[str]()
        while found.total() < end:
            found.update(record.key for record in reader.poll(0.1))
        return found
    finally:
        reader.close()


def two_of_a_partition() -> tuple[str, str]:
    first = new_id()
    while True:
        second = new_id()
        if partition_of(second, 4) == partition_of(first, 4):
            return first, second


async def test_an_answer_stays_until_the_store_has_it_and_its_score(
    memory_bus: MemoryBus, tmp_path: Path, store: tuple[Store, str]
) -> None:
    servicer, address = store
    lost, later = two_of_a_partition()

    async def in_topic(times: int) -> None:
        await until(lambda: times_in_topic(memory_bus)[lost] >= times, what=f"{times} times in the topic")

    async with generator_room(memory_bus, tmp_path, embedded=True, learner_address=address, **PACE) as generator:
        queue = generator.room.recording.queue
        await generator.answer(generate_request(rollout_id=lost, tenant="acme"))
        await in_topic(2)
        await until(lambda: queue.count_kept() == 1, what="it is kept again")
        assert servicer.tenants == {"acme"}
        servicer.progress, asked = {lost: UNSCORED}, servicer.asked
        await until(lambda: servicer.asked > asked + 1 and queue.count == 0, what="all that was due has gone out")
        before = times_in_topic(memory_bus)[lost]
        servicer.progress = {lost: UNSCORED, later: SETTLED}
        await generator.answer(generate_request(rollout_id=later, tenant="acme"))
        await in_topic(before + 1)
        servicer.progress = {lost: SETTLED, later: SETTLED}
        await until(lambda: queue.count_kept() + queue.count == 0, what="the disk is empty")
        for lacks in ("rollout", "score"):
            assert generator.metrics.value("thumbloop_generator_rollouts_resent_total", lacks=lacks)


async def test_what_was_kept_goes_to_a_kafka_that_keeps_its_word(memory_bus: MemoryBus, tmp_path: Path) -> None:
    names = [new_id() for _ in range(3)]
    async with generator_room(memory_bus, tmp_path, embedded=True) as generator:
        for name in names:
            await generator.answer(generate_request(rollout_id=name))
    assert set(times_in_topic(memory_bus)) == set(names), "a room that ends in good order has sent all"
    other = MemoryBus()
    async with generator_room(other, tmp_path, live=False) as generator:
        await until(lambda: generator.room.recording.queue.count == 0, what="all are sent")
        assert generator.room.recording.queue.count_kept() == 0
        assert set(times_in_topic(other)) == set(names)
    other.close()
