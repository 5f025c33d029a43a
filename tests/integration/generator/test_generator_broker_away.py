"""Kafka goes away and comes back.

Plan: a room on a broker of the test's own; answers, then the broker is stopped, answers go on; the room itself is
replaced by a new one on the same disk (what kill -9 leaves behind); then the broker starts again.
Pass: no answer fails; rollouts made meanwhile lie on disk and are all in the topic once the broker is back; a full disk
queue refuses recorded requests with UNAVAILABLE, and still answers unrecorded ones.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import grpc
import grpc.aio
import pytest

from services.embedded.brokers import Broker
from services.generator.rollout_queue import RolloutQueue
from services.shared.bus import open_bus
from services.shared.bus.memory import MemoryBus
from services.shared.settings.model import BusSettings
from tests.support.generator_room import generate_request, generator_room, read_rollouts, until

START_TIMEOUT_S = 60.0


async def test_rollouts_wait_on_disk_for_a_real_broker(own_broker: Broker, tmp_path: Path) -> None:
    settings = BusSettings(bootstrap_servers=own_broker.bootstrap_servers, ack_timeout_s=2.0)
    bus = open_bus(settings)
    asked = []
    async with generator_room(bus, tmp_path, rollout_ack_timeout_s=0.5) as generator:
        for _ in range(3):
            request = generate_request()
            asked.append(request.rollout_id)
            await generator.answer(request)
        queue = generator.room.recording.queue
        await until(lambda: queue.count == 0, what="the first ones are in the topic")
        await asyncio.to_thread(own_broker.stop)
        for _ in range(5):
            request = generate_request()
            asked.append(request.rollout_id)
            await generator.answer(request)
        assert {one.rollout_id for one in queue.oldest(99)} == set(asked[3:])
        await until(lambda: generator.metrics.value("thumbloop_generator_queued_rollouts") == 5, what="the gauge")
        await asyncio.to_thread(own_broker.start, START_TIMEOUT_S)
        await until(lambda: queue.count == 0, what="queue drained")
        assert set(asked) <= (await generator.rollouts(len(asked))).keys()
    bus.close()


async def test_what_a_killed_room_left_on_disk_is_sent_by_the_next(memory_bus: MemoryBus, tmp_path: Path) -> None:
    asked = [generate_request() for _ in range(4)]
    async with generator_room(memory_bus, tmp_path, rollout_ack_timeout_s=0.2) as generator:
        memory_bus.go_away()
        await asyncio.gather(*map(generator.answer, asked))
        path = tmp_path / "generator" / "generator-0" / "rollouts.db"
        copy = RolloutQueue(path)  # another connection, as another process would see the file now
        assert copy.count == 4
        copy.close()
    memory_bus.come_back()
    async with generator_room(memory_bus, tmp_path, live=False) as again:
        await until(lambda: again.room.recording.queue.count == 0, what="queue drained")
        found = await asyncio.to_thread(read_rollouts, memory_bus, 4)
    assert found.keys() == {request.rollout_id for request in asked}


async def test_a_full_disk_queue_refuses_recorded_requests(memory_bus: MemoryBus, tmp_path: Path) -> None:
    async with generator_room(memory_bus, tmp_path, rollout_ack_timeout_s=0.2, rollout_queue_max=2) as generator:
        memory_bus.go_away()
        for _ in range(2):
            await generator.answer(generate_request())
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await generator.answer(generate_request())
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        await generator.answer(generate_request(unrecorded=True))
        memory_bus.come_back()
        await until(lambda: generator.room.recording.queue.count == 0, what="queue drained")
        await generator.answer(generate_request())
