"""The room as a process of its own, killed with kill -9 while Kafka is away.

Plan: a broker of the test's own and `python -m services.generator`; a release is announced; answers; the broker stops;
answers; kill -9; the broker starts, the room starts again on the same disk.
Pass: every answered rollout is in the topic; the process is ready only with its first version; SIGTERM ends it with 0.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from thumbloop.generator.v1 import generator_pb2_grpc

from services.embedded.brokers import Broker
from services.embedded.ports import free_port
from services.shared.bus import open_bus
from services.shared.contracts.topics import load_topic_pages
from services.shared.rpc import open_channel
from services.shared.settings.model import BusSettings
from tests.support.access import credential_of
from tests.support.generator_room import announce_release, generate_request, read_rollouts

READY_S = 60.0
START_TIMEOUT_S = 60.0


@contextmanager
def _process(port: int, bootstrap_servers: str, data_dir: Path) -> Iterator[subprocess.Popen[bytes]]:
    environment = {
        **os.environ,
        "THUMBLOOP_DEPLOYMENT__DATA_DIR": str(data_dir),
        "THUMBLOOP_BUS__BOOTSTRAP_SERVERS": bootstrap_servers,
        "THUMBLOOP_GENERATOR__ENGINE": "scripted",
        "THUMBLOOP_GENERATOR__PORT": str(port),
        "THUMBLOOP_GENERATOR__METRICS_PORT": str(free_port()),
        "THUMBLOOP_GENERATOR__ROLLOUT_ACK_TIMEOUT_S": "0.5",
        "THUMBLOOP_GENERATOR__LEARNER_ADDRESS": "127.0.0.1:9",
    }
    process = subprocess.Popen([sys.executable, "-m", "services.generator"], env=environment)
    try:
        yield process
    finally:
        process.kill()
        process.wait(10)


@asynccontextmanager
async def _ready(port: int, data_dir: Path) -> AsyncIterator[grpc.aio.Channel]:
    async with open_channel(f"127.0.0.1:{port}", credential=credential_of(data_dir)) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        async with asyncio.timeout(READY_S):
            while True:
                try:
                    reply = await health.Check(health_pb2.HealthCheckRequest(), timeout=1)
                    if reply.status == health_pb2.HealthCheckResponse.SERVING:
                        break
                except grpc.aio.AioRpcError:
                    pass
                await asyncio.sleep(0.05)
        yield channel


async def _answer(channel: grpc.aio.Channel, count: int) -> set[str]:
    stub = generator_pb2_grpc.GeneratorServiceStub(channel)
    asked = set()
    for _ in range(count):
        request = generate_request()
        parts = [part async for part in stub.Generate(request, timeout=20)]
        assert parts[-1].WhichOneof("part") == "finished"
        asked.add(request.rollout_id)
    return asked


async def test_rollouts_outlive_kill_9_while_kafka_is_away(own_broker: Broker, tmp_path: Path) -> None:
    bus = open_bus(BusSettings(bootstrap_servers=own_broker.bootstrap_servers))
    await asyncio.to_thread(bus.ensure_topics, load_topic_pages().values())
    await announce_release(bus, (tmp_path / "checkpoints").as_uri(), number=0, parent="")
    port = free_port()
    with _process(port, own_broker.bootstrap_servers, tmp_path) as process:
        async with _ready(port, tmp_path) as channel:
            asked = await _answer(channel, 3)
            await asyncio.to_thread(own_broker.stop)
            asked |= await _answer(channel, 4)
        process.send_signal(signal.SIGKILL)
        process.wait(10)
    await asyncio.to_thread(own_broker.start, START_TIMEOUT_S)
    with _process(port, own_broker.bootstrap_servers, tmp_path) as process:
        async with _ready(port, tmp_path) as channel:
            asked |= await _answer(channel, 1)
            assert asked <= (await asyncio.to_thread(read_rollouts, bus, len(asked))).keys()
        process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(process.wait, 20) == 0
    bus.close()
