"""A whole generator room in the test's process: real gRPC on a free port, a bus of the test's choice."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from thumbloop.generator.v1 import generator_pb2, generator_pb2_grpc, rollout_pb2
from thumbloop.shared.v1 import meta_pb2

from services.generator.engines.scripted import ScriptedEngine
from services.generator.engines.scripted_language import ScriptedTokenizer
from services.generator.main import Room, make_room, watch
from services.shared.bus.interface import Bus, OutgoingEvent
from services.shared.checkpoints import CheckpointStore, Manifest, release_path
from services.shared.contracts.policies import encode_announcement
from services.shared.contracts.rollouts import decode_rollout
from services.shared.contracts.topics import POLICIES, ROLLOUTS, load_topic_pages
from services.shared.domain.errors import Unavailable
from services.shared.domain.events import EventMeta
from services.shared.domain.release import Announcement, AnnouncementReason, ReleaseKind, version_id
from services.shared.domain.rollout import Rollout
from services.shared.domain.scripted_language import BASE_MODEL_DIGEST, BASE_MODEL_NAME
from services.shared.ids import new_id, utc_now
from services.shared.rpc import open_channel, open_sync_channel
from services.shared.settings import Settings
from services.shared.telemetry.metrics import Metrics
from tests.support.access import credential_of

DEADLINE_S = 30.0
NO_LEARNER = "127.0.0.1:9"


async def until(condition: Callable[[], bool], *, within_s: float = DEADLINE_S, what: str = "") -> None:
    """Polls until it holds; fails at the deadline."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {within_s:g} s: {what}"
        await asyncio.sleep(0.01)


def generate_request(
    text: str = "How are you?", *, max_tokens: int = 20, seed: int | None = 1, **changes: Any
) -> generator_pb2.GenerateRequest:
    """A valid request; `changes` are fields of the message."""
    fields: dict[str, Any] = {
        "rollout_id": new_id(),
        "tenant": "default",
        "prompt_id": "prompt",
        "purpose": rollout_pb2.PURPOSE_USER,
        "messages": [meta_pb2.ChatMessage(role=meta_pb2.ROLE_USER, content=text)],
        "sampling": meta_pb2.SamplingParameters(temperature=1.0, top_p=1.0, max_tokens=max_tokens, seed=seed),
        "rater_id": "rater",
    }
    return generator_pb2.GenerateRequest(**{**fields, **changes})


@dataclass
class Answer:
    """A stream that ended, in parts."""

    started: generator_pb2.GenerationStarted
    text: str
    finished: generator_pb2.GenerationFinished


def number_of(version: str) -> int:
    return int(version.split("-")[2])


@dataclass
class GeneratorHarness:
    """The room, a client, and the other ends of the bus."""

    settings: Settings
    bus: Bus
    room: Room
    stub: generator_pb2_grpc.GeneratorServiceAsyncStub
    channel: grpc.aio.Channel
    metrics: Metrics
    ending: asyncio.Event
    watching: asyncio.Task[str]
    versions: list[str] = field(default_factory=list)

    async def drain(self, grace_s: float) -> None:
        """As the process ends: nobody watches for dead parts any more, then the room drains."""
        self.ending.set()
        await self.watching
        await self.room.drain(grace_s)

    async def announce(self) -> str:
        """Writes the next release and announces it; returns its version at once."""
        parent = self.versions[-1] if self.versions else ""
        version = await announce_release(
            self.bus, self.settings.checkpoints_url, number=len(self.versions), parent=parent
        )
        self.versions.append(version)
        return version

    async def release(self) -> str:
        """`announce`, and waits until it is live."""
        version = await self.announce()
        await until(lambda: self.room.engine.live_version == version, what=f"{version} live")
        return version

    async def answer(self, request: generator_pb2.GenerateRequest) -> Answer:
        """The whole response."""
        parts = [part async for part in self.stub.Generate(request, timeout=DEADLINE_S)]
        kinds = [part.WhichOneof("part") for part in parts]
        assert kinds[0] == "started" and kinds[-1] == "finished" and set(kinds[1:-1]) <= {"delta"}
        return Answer(parts[0].started, "".join(part.delta.text for part in parts[1:-1]), parts[-1].finished)

    async def serving(self) -> bool:
        """What health says."""
        reply = await health_pb2_grpc.HealthStub(self.channel).Check(health_pb2.HealthCheckRequest(), timeout=5)
        return bool(reply.status == health_pb2.HealthCheckResponse.SERVING)

    async def rollouts(self, count: int) -> dict[str, Rollout]:
        """The first `count` different rollouts of the topic, by id."""
        return await asyncio.to_thread(read_rollouts, self.bus, count)


async def announce_release(bus: Bus, checkpoints_url: str, *, number: int, parent: str) -> str:
    """Writes a release without files (the base policy) and announces it; returns its version."""
    version = version_id(ReleaseKind.POLICY, epoch=1, number=number, content_sha256=f"{number:064x}"[::-1])
    path = release_path(ReleaseKind.POLICY, epoch=1, version=version)
    manifest = Manifest(
        version=version,
        kind=ReleaseKind.POLICY,
        epoch=1,
        number=number,
        parent_version=parent,
        base_model_name=BASE_MODEL_NAME,
        base_model_digest=BASE_MODEL_DIGEST,
        created_time=utc_now(),
    )
    _, digest = await asyncio.to_thread(CheckpointStore(checkpoints_url).put_release, path, {}, manifest)
    announcement = Announcement(
        meta=EventMeta(event_id=new_id(), deployment="local", tenant="default", event_time=utc_now()),
        kind=ReleaseKind.POLICY,
        epoch=1,
        sequence=number + 1,
        version=version,
        parent_version=parent,
        checkpoint_path=path,
        manifest_sha256=digest,
        base_model_digest=BASE_MODEL_DIGEST,
        reason=AnnouncementReason.RELEASE,
    )
    publisher = bus.publisher("test-releaser")
    try:
        await publisher.publish(
            OutgoingEvent(topic=POLICIES, key=announcement.key, value=encode_announcement(announcement))
        )
    finally:
        await asyncio.to_thread(publisher.close, 5.0)
    return version


def read_rollouts(bus: Bus, count: int) -> dict[str, Rollout]:
    reader = bus.log_reader("test-rollouts")
    found: dict[str, Rollout] = {}
    deadline = time.monotonic() + DEADLINE_S
    try:
        assigned = False
        while len(found) < count:
            assert time.monotonic() < deadline, f"{len(found)} of {count} rollouts came"
            try:
                if not assigned:
                    reader.assign(reader.beginning_offsets(reader.places(ROLLOUTS)))
                    assigned = True
                for record in reader.poll(0.2):
                    rollout = decode_rollout(record.value)
                    assert record.key == rollout.rollout_id
                    found[rollout.rollout_id] = rollout
            except Unavailable:
                continue
    finally:
        reader.close()
    return found


@asynccontextmanager
async def generator_room(
    bus: Bus,
    data_dir: Path,
    *,
    live: bool = True,
    interval_s: float = 0.002,
    max_running: int = 16,
    embedded: bool = False,
    learner_address: str = NO_LEARNER,
    **generator: Any,
) -> AsyncIterator[GeneratorHarness]:
    """A scripted room, with its first release live (unless `live` is False). Drained at the end. `embedded`: the bus
    may lose its tail.
    """
    values: dict[str, Any] = {"engine": "scripted", "learner_address": learner_address, "max_running": max_running}
    settings = Settings.model_validate(
        {
            "deployment": {"data_dir": data_dir},
            "bus": {"embedded": embedded},
            "generator": {**values, **generator},
        }
    )
    await asyncio.to_thread(bus.ensure_topics, load_topic_pages().values())
    metrics = Metrics(room="generator")
    engine = ScriptedEngine(clock=utc_now, interval_s=interval_s, max_running=max_running)
    await engine.start()
    learner = open_sync_channel(learner_address)
    room = make_room(settings, engine, ScriptedTokenizer(), bus, metrics, learner)
    room.server._port = 0
    await room.start()
    channel = open_channel(f"127.0.0.1:{room.server.port}", credential=credential_of(data_dir))
    ending = asyncio.Event()
    watching = asyncio.create_task(watch(room, ending))
    harness = GeneratorHarness(
        settings=settings,
        bus=bus,
        room=room,
        stub=generator_pb2_grpc.GeneratorServiceStub(channel),
        channel=channel,
        metrics=metrics,
        ending=ending,
        watching=watching,
    )
    try:
        if live:
            await harness.release()
        yield harness
    finally:
        ending.set()
        assert await watching == ""
        await room.drain(5.0)
        await channel.close()
        learner.close()
