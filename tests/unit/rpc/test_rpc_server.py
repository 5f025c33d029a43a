"""A real server and real channels on loopback, with servicers that misbehave."""

from __future__ import annotations

import asyncio
import io
import logging
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import grpc.aio
import pytest
import structlog
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from thumbloop.generator.v1 import generator_pb2, generator_pb2_grpc
from thumbloop.reward.v1 import reward_pb2, reward_pb2_grpc

from services.shared.domain.errors import Busy, InvalidInput, Misconfigured, ThumbloopError, Unavailable
from services.shared.rpc import RpcServer, error_from_rpc, open_channel, open_sync_channel
from services.shared.settings.model import DeploymentSettings
from services.shared.telemetry.log import configure
from tests.support.access import OpenGuard

REWARD = "thumbloop.reward.v1.RewardService"
GENERATOR = "thumbloop.generator.v1.GeneratorService"
DEADLINE_S = 10.0


class Reward(reward_pb2_grpc.RewardServiceServicer):
    """Raises what it was given; else answers."""

    def __init__(self) -> None:
        self.error: Exception | None = None

    async def Score(self, request: reward_pb2.ScoreRequest, context: Any) -> reward_pb2.ScoreResponse:
        if self.error is not None:
            raise self.error
        return reward_pb2.ScoreResponse(reward_model_version=request.reward_model_version)


class Generator(generator_pb2_grpc.GeneratorServiceServicer):
    """Sends one part, then waits to be released, then fails or ends."""

    def __init__(self) -> None:
        self.go_on = asyncio.Event()
        self.closed = asyncio.Event()
        self.error: Exception | None = None

    async def Generate(
        self, request: generator_pb2.GenerateRequest, context: Any
    ) -> AsyncIterator[generator_pb2.GenerateResponse]:
        try:
            yield generator_pb2.GenerateResponse(started=generator_pb2.GenerationStarted(rollout_id="r"))
            await self.go_on.wait()
            if self.error is not None:
                raise self.error
            yield generator_pb2.GenerateResponse(finished=generator_pb2.GenerationFinished(prompt_tokens=7))
        finally:
            self.closed.set()


class Room:
    """A started server with both servicers."""

    def __init__(self) -> None:
        self.reward = Reward()  # type: ignore[abstract]  # what it leaves out answers UNIMPLEMENTED
        self.generator = Generator()  # type: ignore[abstract]  # likewise
        self.server = RpcServer(
            "127.0.0.1",
            0,
            register=[
                lambda server: reward_pb2_grpc.add_RewardServiceServicer_to_server(self.reward, server),
                lambda server: generator_pb2_grpc.add_GeneratorServiceServicer_to_server(self.generator, server),
            ],
            service_names=[REWARD, GENERATOR],
            guard=OpenGuard(),
        )

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server.port}"


@pytest.fixture
async def room() -> AsyncIterator[Room]:
    room = Room()
    await room.server.start()
    yield room
    await room.server.stop()


@pytest.fixture
async def channel(room: Room) -> AsyncIterator[grpc.aio.Channel]:
    async with open_channel(room.address) as channel:
        yield channel


async def score(channel: grpc.aio.Channel, version: str = "rm-1") -> reward_pb2.ScoreResponse:
    stub: Any = reward_pb2_grpc.RewardServiceStub(channel)
    response = await stub.Score(reward_pb2.ScoreRequest(reward_model_version=version), timeout=DEADLINE_S)
    assert isinstance(response, reward_pb2.ScoreResponse)
    return response


async def caught(channel: grpc.aio.Channel) -> ThumbloopError:
    with pytest.raises(grpc.aio.AioRpcError) as info:
        await score(channel)
    return error_from_rpc(info.value)


async def test_an_answer_passes_unchanged(room: Room, channel: grpc.aio.Channel) -> None:
    assert (await score(channel, "rm-7")).reward_model_version == "rm-7"


async def test_a_refused_request_names_the_field(room: Room, channel: grpc.aio.Channel) -> None:
    room.reward.error = InvalidInput("items is empty; send 1 to 256.", field="items")
    error = await caught(channel)
    assert type(error) is InvalidInput
    assert (error.field, error.message) == ("items", "items is empty; send 1 to 256.")


async def test_busy_says_when_to_come_again(room: Room, channel: grpc.aio.Channel) -> None:
    room.reward.error = Busy("full", retry_after=2.5)
    error = await caught(channel)
    assert isinstance(error, Busy)
    assert error.retry_after == 2.5


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """What is logged; a process has one log, so it is given back as it was."""
    root = logging.getLogger()
    handlers, level, output = list(root.handlers), root.level, io.StringIO()
    configure(DeploymentSettings(log_json=True), "reward", output)
    yield output
    root.handlers, root.level = handlers, level
    structlog.reset_defaults()


async def test_a_fault_is_logged_and_not_told(room: Room, channel: grpc.aio.Channel, log: io.StringIO) -> None:
    room.reward.error = KeyError("/var/secret/path")
    with pytest.raises(grpc.aio.AioRpcError) as info:
        await score(channel)
    assert info.value.code() is grpc.StatusCode.INTERNAL
    assert "secret" not in str(info.value.details())
    assert b"secret" not in b"".join(v for _, v in info.value.trailing_metadata() or () if isinstance(v, bytes))
    assert "rpc_fault" in log.getvalue()
    assert "/var/secret/path" in log.getvalue()


async def test_a_stream_fails_in_its_middle_with_a_rich_status(room: Room, channel: grpc.aio.Channel) -> None:
    room.generator.error = Unavailable("The engine ended; it restarts.", retry_after=1.0)
    stub: Any = generator_pb2_grpc.GeneratorServiceStub(channel)
    call = stub.Generate(generator_pb2.GenerateRequest(), timeout=DEADLINE_S)
    assert (await call.read()).started.rollout_id == "r"
    room.generator.go_on.set()
    with pytest.raises(grpc.aio.AioRpcError) as info:
        await call.read()
    assert type(error_from_rpc(info.value)) is Unavailable


async def test_a_cancelled_stream_closes_the_servicer(room: Room, channel: grpc.aio.Channel) -> None:
    stub: Any = generator_pb2_grpc.GeneratorServiceStub(channel)
    call = stub.Generate(generator_pb2.GenerateRequest(), timeout=DEADLINE_S)
    await call.read()
    call.cancel()
    await asyncio.wait_for(room.generator.closed.wait(), DEADLINE_S)


async def health(channel: grpc.aio.Channel, service: str = "") -> int:
    stub: Any = health_pb2_grpc.HealthStub(channel)
    response = await stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=DEADLINE_S)
    return int(response.status)


async def test_health_follows_set_serving(room: Room, channel: grpc.aio.Channel) -> None:
    state = health_pb2.HealthCheckResponse
    assert await health(channel) == state.NOT_SERVING
    await room.server.set_serving(True)
    assert [await health(channel, name) for name in ("", REWARD, GENERATOR)] == [state.SERVING] * 3
    await room.server.set_serving(False)
    assert await health(channel, REWARD) == state.NOT_SERVING


async def test_reflection_lists_the_services(room: Room, channel: grpc.aio.Channel) -> None:
    stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
    call = stub.ServerReflectionInfo(timeout=DEADLINE_S)
    await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
    answer = await call.read()
    await call.done_writing()
    names = {service.name for service in answer.list_services_response.service}
    assert {REWARD, GENERATOR, "grpc.health.v1.Health"} <= names


async def test_drain_lets_a_running_answer_end(room: Room, channel: grpc.aio.Channel) -> None:
    stub: Any = generator_pb2_grpc.GeneratorServiceStub(channel)
    call = stub.Generate(generator_pb2.GenerateRequest(), timeout=DEADLINE_S)
    await call.read()
    draining = asyncio.create_task(room.server.drain(DEADLINE_S))
    room.generator.go_on.set()
    assert (await call.read()).finished.prompt_tokens == 7
    await asyncio.wait_for(draining, DEADLINE_S)
    assert type(await caught(channel)) is Unavailable


async def test_stop_cuts_and_may_be_said_twice(room: Room, channel: grpc.aio.Channel) -> None:
    stub: Any = generator_pb2_grpc.GeneratorServiceStub(channel)
    call = stub.Generate(generator_pb2.GenerateRequest(), timeout=DEADLINE_S)
    await call.read()
    await room.server.stop()
    await room.server.stop()
    with pytest.raises(grpc.aio.AioRpcError) as info:
        await call.read()
    assert type(error_from_rpc(info.value)) is Unavailable


async def test_a_taken_port_is_told(room: Room) -> None:
    other = RpcServer("127.0.0.1", room.server.port, register=[], service_names=[], guard=OpenGuard())
    with pytest.raises(Misconfigured, match=str(room.server.port)):
        await other.start()


async def test_a_channel_reaches_a_restarted_server_within_seconds(room: Room, channel: grpc.aio.Channel) -> None:
    await score(channel)
    await room.server.stop()
    assert type(await caught(channel)) is Unavailable
    again = RpcServer(
        "127.0.0.1", room.server.port, register=room.server._register, service_names=[REWARD], guard=OpenGuard()
    )
    await again.start()
    try:
        stub: Any = reward_pb2_grpc.RewardServiceStub(channel)
        request = reward_pb2.ScoreRequest(reward_model_version="back")
        assert (await stub.Score(request, timeout=30.0, wait_for_ready=True)).reward_model_version == "back"
    finally:
        await again.stop()


async def test_messages_over_four_megabytes_pass(room: Room, channel: grpc.aio.Channel) -> None:
    assert len((await score(channel, "x" * 8_000_000)).reward_model_version) == 8_000_000


async def test_a_sync_channel_sees_the_same_errors(room: Room) -> None:
    room.reward.error = Busy("full", retry_after=1.0)

    def call() -> ThumbloopError:
        with open_sync_channel(room.address) as channel:
            stub: Any = reward_pb2_grpc.RewardServiceStub(channel)
            with pytest.raises(grpc.RpcError) as info:
                stub.Score(reward_pb2.ScoreRequest(), timeout=DEADLINE_S)
            return error_from_rpc(info.value)

    assert type(await asyncio.to_thread(call)) is Busy
