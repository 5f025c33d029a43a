"""A gateway whose secrets are not those of the generator and the learner: the operator's mistake, and nobody else's.

Plan: rooms guarded as in production, with the service credential of another deployment than the gateway's; each of the
gateway's calls to them; then a chat through a whole gateway.
Pass: each call fails as unavailable, in words that name the room and what the operator mends, and the log has the
room's own words; the client gets 503 with Retry-After, and is never told that *its* key is wrong.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs
from thumbloop.generator.v1 import generator_pb2_grpc
from thumbloop.learner.v1 import learner_pb2_grpc

from services.gateway.chat.generation import GenerationRequest, GrpcGenerator
from services.gateway.forgetting.learner import GrpcForgetting
from services.gateway.learner import GrpcLearner
from services.gateway.spool.item import SpoolKey
from services.generator.access import METHODS as GENERATOR
from services.learner.access.methods import METHODS as LEARNER
from services.shared.access import AccessSnapshot
from services.shared.access.authenticator import KeyAuthenticator
from services.shared.access.method_guard import MethodGuard, MethodScopes
from services.shared.domain.errors import PermissionDenied, Unauthenticated, Unavailable
from services.shared.domain.rollout import ChatMessage, Role, Sampling
from services.shared.ids import utc_now
from services.shared.limits import TokenBuckets
from services.shared.rpc.channel import open_channel
from services.shared.rpc.server import RpcServer
from tests.support.access import credential_of
from tests.support.gateway import running_gateway

TIMEOUT_S = 20.0
QUESTION = GenerationRequest(
    rollout_id="r1",
    tenant="default",
    conversation_id="c1",
    prompt_id="p1",
    group_id="r1",
    messages=(ChatMessage(role=Role.USER, content="Hi"),),
    sampling=Sampling(temperature=1.0, max_tokens=4),
    rater_id="",
    recorded=False,
    traceparent="",
)
Call = Callable[[Any], Awaitable[Any]]


async def generate(channel: Any) -> None:
    async with aclosing(GrpcGenerator(channel).generate(QUESTION, timeout_s=TIMEOUT_S)) as parts:
        async for _ in parts:
            pass


CALLS: dict[str, tuple[str, Call]] = {
    "generate": ("generator", generate),
    "generator's status": ("generator", lambda channel: GrpcGenerator(channel).status(timeout_s=TIMEOUT_S)),
    "status": ("learner", lambda channel: GrpcLearner(channel).status(timeout_s=TIMEOUT_S)),
    "releases": ("learner", lambda channel: GrpcLearner(channel).releases(timeout_s=TIMEOUT_S)),
    "find": (
        "learner",
        lambda channel: GrpcLearner(channel).find(
            tenant="default", feedback_id="f", rater_id="a", rollout_id="r", timeout_s=TIMEOUT_S
        ),
    ),
    "find stored": (
        "learner",
        lambda channel: GrpcLearner(channel).find_stored(
            tenant="default",
            keys=[SpoolKey(tenant="default", rater_id="a", rollout_id="r", kind="thumb", feedback_id="f")],
            timeout_s=TIMEOUT_S,
        ),
    ),
    "forget": (
        "learner",
        lambda channel: GrpcForgetting(channel).forget(
            tenant="default", rater_ids=("a",), control_id="c", timeout_s=TIMEOUT_S
        ),
    ),
    "control": ("learner", lambda channel: GrpcForgetting(channel).control("c", timeout_s=TIMEOUT_S)),
}


@asynccontextmanager
async def room(folder: Path, methods: MethodScopes, register: Callable[[Any], None]) -> AsyncIterator[str]:
    """The address of a room of the deployment whose secrets lie in the folder. Nobody gets as far as its methods."""
    guard = MethodGuard(
        methods=methods,
        service=credential_of(folder),
        keys=KeyAuthenticator(snapshot=lambda: AccessSnapshot.of([]), clock=utc_now),
        tenant="default",
        buckets=TokenBuckets(1.0, 1, 1, lambda: 0.0),
    )
    server = RpcServer("127.0.0.1", 0, [register], [], guard=guard)
    await server.start()
    try:
        yield f"127.0.0.1:{server.port}"
    finally:
        await server.stop()


def generator_service(server: Any) -> None:
    nobody = generator_pb2_grpc.GeneratorServiceServicer()  # type: ignore[abstract]  # nobody gets as far
    generator_pb2_grpc.add_GeneratorServiceServicer_to_server(nobody, server)


def learner_service(server: Any) -> None:
    nobody = learner_pb2_grpc.LearnerServiceServicer()  # type: ignore[abstract]  # nobody gets as far
    learner_pb2_grpc.add_LearnerServiceServicer_to_server(nobody, server)


ROOMS = {"generator": (GENERATOR, generator_service), "learner": (LEARNER, learner_service)}


@pytest.mark.parametrize("closed", [False, True], ids=["another credential", "a method that it does not know"])
@pytest.mark.parametrize("name", CALLS)
async def test_a_room_that_refuses_the_gateway_is_away(tmp_path: Path, name: str, closed: bool) -> None:
    called, call = CALLS[name]
    table, register = ROOMS[called]
    ours = tmp_path / "ours"
    theirs = ours if closed else tmp_path / "theirs"
    async with (
        room(theirs, {} if closed else table, register) as address,
        open_channel(address, credential=credential_of(ours)) as channel,
    ):
        with capture_logs() as logged, pytest.raises(Unavailable) as caught:
            await call(channel)
    assert caught.value.reason == "ROOM_REFUSED"
    assert called in caught.value.message and "service.json" in caught.value.message
    (line,) = [line for line in logged if line["event"] == "room_refused"]
    assert (line["log_level"], line["room"]) == ("error", called)
    assert line["reason"] == ("METHOD_CLOSED" if closed else "SERVICE_KEY_UNKNOWN") and line["cause"]


@pytest.mark.parametrize("failure", [Unauthenticated("not ours"), PermissionDenied("not for you")])
async def test_a_client_is_not_told_that_its_key_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: Any
) -> None:
    monkeypatch.setattr("services.gateway.wiring.RETRY_WINDOW_S", 0.0)
    async with running_gateway(tmp_path) as gateway:
        for stream in (False, True):
            gateway.generator.failures = [failure]
            answer = await gateway.chat(stream=stream)
            assert answer.status_code == 503, answer.text
            assert answer.json()["error"]["code"] == "room_refused"
            assert "WWW-Authenticate" not in answer.headers and int(answer.headers["Retry-After"]) >= 1
        assert (await gateway.chat()).status_code == 200
