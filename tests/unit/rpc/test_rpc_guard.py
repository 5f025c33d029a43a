"""Who may call, over real ports and for all four kinds of calls: a server of bytes behind a guard of this file."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.shared.domain.errors import PermissionDenied, ThumbloopError, Unauthenticated
from services.shared.rpc import RpcServer, current_caller, error_from_rpc, open_channel, open_sync_channel
from tests.support.access import KeyCredential

DEADLINE_S = 10.0
KINDS = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")


@dataclass(frozen=True)
class Limited:
    """May send anything but "forbidden"."""

    def check_request(self, request: Any) -> None:
        if request == b"forbidden":
            raise PermissionDenied("not that", reason="NOT_THAT")


@dataclass
class Guard:
    """ "Bearer room" may do everything, "Bearer limited" most, others nothing."""

    asked: list[tuple[str, str]] = field(default_factory=list)

    def admit(self, method: str, authorization: str) -> Limited | None:
        self.asked.append((method, authorization))
        if authorization == "Bearer room":
            return None
        if authorization == "Bearer limited":
            return Limited()
        raise Unauthenticated("who are you?", reason="NOBODY")


class Echo:
    """Answers what it is sent, and notes that it was reached and by whom."""

    def __init__(self) -> None:
        self.reached: list[str] = []
        self.callers: list[Any] = []

    def handlers(self) -> dict[str, grpc.RpcMethodHandler[Any, Any]]:
        return {
            "unary_unary": grpc.unary_unary_rpc_method_handler(self._unary_unary),
            "unary_stream": grpc.unary_stream_rpc_method_handler(self._unary_stream),
            "stream_unary": grpc.stream_unary_rpc_method_handler(self._stream_unary),
            "stream_stream": grpc.stream_stream_rpc_method_handler(self._stream_stream),
        }

    def _note(self, kind: str) -> None:
        self.reached.append(kind)
        self.callers.append(current_caller.get())

    async def _unary_unary(self, request: bytes, context: Any) -> bytes:
        self._note("unary_unary")
        return request

    async def _unary_stream(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        self._note("unary_stream")
        yield request

    async def _stream_unary(self, requests: AsyncIterator[bytes], context: Any) -> bytes:
        received = [request async for request in requests]
        self._note("stream_unary")
        return b"".join(received)

    async def _stream_stream(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        async for request in requests:
            self._note("stream_stream")
            yield request


@dataclass
class World:
    echo: Echo
    guard: Guard
    address: str

    async def call(self, kind: str, secret: str | None, request: bytes = b"x", **extra: Any) -> bytes:
        """One call with one message each way; raises the server's error."""
        credential = None if secret is None else KeyCredential(secret)
        async with open_channel(self.address, credential=credential) as channel:
            method = getattr(channel, kind)(f"/test.Echo/{kind}")
            sent = iter([request]) if kind.startswith("stream") else request
            call = method(sent, timeout=DEADLINE_S, **extra)
            try:
                if kind.endswith("stream"):
                    return b"".join([part async for part in call])
                return bytes(await call)
            except grpc.aio.AioRpcError as error:
                raise error_from_rpc(error) from error


@pytest.fixture
async def world() -> AsyncIterator[World]:
    echo, guard = Echo(), Guard()
    handler = grpc.method_handlers_generic_handler("test.Echo", echo.handlers())
    server = RpcServer("127.0.0.1", 0, [lambda one: one.add_generic_rpc_handlers((handler,))], [], guard=guard)
    await server.start()
    yield World(echo, guard, f"127.0.0.1:{server.port}")
    await server.stop()


@pytest.mark.parametrize("kind", KINDS)
async def test_who_is_known_is_answered(world: World, kind: str) -> None:
    assert await world.call(kind, "room", b"hello") == b"hello"
    assert world.guard.asked == [(f"/test.Echo/{kind}", "Bearer room")]
    assert world.echo.callers == [None]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("secret", [None, "stranger", ""])
async def test_who_is_unknown_never_reaches_the_method(world: World, kind: str, secret: str | None) -> None:
    with pytest.raises(Unauthenticated, match="who are you") as refused:
        await world.call(kind, secret)
    assert refused.value.reason == "NOBODY"
    assert world.echo.reached == []


@pytest.mark.parametrize("kind", KINDS)
async def test_a_limited_callers_requests_are_looked_at(world: World, kind: str) -> None:
    assert await world.call(kind, "limited", b"fine") == b"fine"
    assert world.echo.callers == [Limited()]
    with pytest.raises(PermissionDenied, match="not that"):
        await world.call(kind, "limited", b"forbidden")
    assert len(world.echo.reached) == 1


async def test_two_credentials_are_none(world: World) -> None:
    """What a proxy would take for one and the server for another is refused."""
    with pytest.raises(Unauthenticated):
        await world.call("unary_unary", "room", metadata=[("authorization", "Bearer other")])
    assert world.guard.asked[-1][1] == ""


async def test_a_callers_own_metadata_travel_too(world: World) -> None:
    assert await world.call("unary_unary", "room", metadata=[("x-request", "7")]) == b"x"


async def test_a_method_that_is_not_there_is_unimplemented(world: World) -> None:
    async with open_channel(world.address) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            method: Any = channel.unary_unary("/test.Echo/None")
            await method(b"", timeout=DEADLINE_S)
    assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_health_is_open_to_everyone(world: World) -> None:
    async with open_channel(world.address) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        await stub.Check(health_pb2.HealthCheckRequest(), timeout=DEADLINE_S)
    assert world.guard.asked == []


@pytest.mark.parametrize("kind", KINDS)
async def test_channels_of_threads_carry_it_too(world: World, kind: str) -> None:
    def call(secret: str) -> bytes:
        with open_sync_channel(world.address, credential=KeyCredential(secret)) as channel:
            sent: Any = iter([b"hello"]) if kind.startswith("stream") else b"hello"
            answer = getattr(channel, kind)(f"/test.Echo/{kind}")(sent, timeout=DEADLINE_S)
            return b"".join(answer) if kind.endswith("stream") else bytes(answer)

    assert await asyncio.to_thread(call, "room") == b"hello"
    with pytest.raises(grpc.RpcError) as refused:
        await asyncio.to_thread(call, "stranger")
    known: ThumbloopError = error_from_rpc(refused.value)
    assert isinstance(known, Unauthenticated)
