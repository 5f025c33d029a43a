"""A gateway on real ports, between a generator and a learner that do what a test tells them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable, Mapping
from concurrent.futures import Future
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import httpx
from openai import AsyncOpenAI
from thumbloop.generator.v1 import generator_pb2, generator_pb2_grpc, rollout_pb2
from thumbloop.learner.v1 import learner_pb2, learner_pb2_grpc

from services.embedded.ports import free_ports
from services.gateway.main import serve
from services.shared.access import AccessSnapshot, LiveKey
from services.shared.access.wire import snapshot_to_proto
from services.shared.bus.interface import (
    Bus,
    GroupOffsets,
    GroupReader,
    LogReader,
    OutgoingEvent,
    Place,
    Publisher,
    Record,
)
from services.shared.bus.memory import MemoryBus
from services.shared.contracts.feedback import decode_feedback
from services.shared.contracts.topics import CONTROLS, TopicPage, load_topic_pages
from services.shared.domain.errors import NotFound, ThumbloopError, Unavailable
from services.shared.domain.feedback import Feedback
from services.shared.ids import utc_now
from services.shared.rpc.statuses import abort_with
from services.shared.settings import Settings

VERSION = "p-0001-000001-aaaaaaaa"
NEXT_VERSION = "p-0001-000002-bbbbbbbb"


@dataclass
class TestGenerator(generator_pb2_grpc.GeneratorServiceServicer):
    """Answers with `words`, one token each; the second half under `flip_to` where it is set."""

    __test__ = False

    words: tuple[str, ...] = ("Water ", "it ", "when ", "dry.")
    version: str = VERSION
    flip_to: str = ""
    token_interval_s: float = 0.0
    finish_reason: rollout_pb2.FinishReason.ValueType = rollout_pb2.FINISH_REASON_STOP
    failures: list[ThumbloopError] = field(default_factory=list)
    """Raised one a call, before anything is sent."""
    fail_after_words: int | None = None
    """Ends each call with UNAVAILABLE after so many words."""
    hold_after_words: int | None = None
    """Each call waits for `go_on` after so many words."""
    go_on: asyncio.Event = field(default_factory=asyncio.Event)
    requests: list[generator_pb2.GenerateRequest] = field(default_factory=list)
    deadlines_s: list[float] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)
    running: int = 0

    async def Generate(
        self, request: generator_pb2.GenerateRequest, context: Any
    ) -> AsyncIterator[generator_pb2.GenerateResponse]:
        self.requests.append(request)
        self.deadlines_s.append(context.time_remaining())
        if self.failures:
            await abort_with(context, self.failures.pop(0))
        self.running += 1
        try:
            async for part in self._parts(request, context):
                yield part
        except (asyncio.CancelledError, GeneratorExit):
            # While a word is being made; or while one is being sent, where whoever drew the words closes this.
            self.cancelled.append(request.rollout_id)
            raise
        finally:
            self.running -= 1

    async def _parts(
        self, request: generator_pb2.GenerateRequest, context: Any
    ) -> AsyncIterator[generator_pb2.GenerateResponse]:
        words = self.words[: request.sampling.max_tokens]
        yield generator_pb2.GenerateResponse(
            started=generator_pb2.GenerationStarted(
                rollout_id=request.rollout_id, policy_version=self.version, prompt_tokens=7
            )
        )
        for count, word in enumerate(words, start=1):
            if self.fail_after_words is not None and count > self.fail_after_words:
                await context.abort(grpc.StatusCode.UNAVAILABLE, "going away")
            await asyncio.sleep(self.token_interval_s)
            yield generator_pb2.GenerateResponse(delta=generator_pb2.GenerationDelta(text=word, response_tokens=count))
            if count == self.hold_after_words:
                await self.go_on.wait()
        yield generator_pb2.GenerateResponse(finished=self._finished(len(words)))

    def _finished(self, tokens: int) -> generator_pb2.GenerationFinished:
        half = tokens // 2 if self.flip_to else tokens
        spans = [
            rollout_pb2.VersionSpan(
                policy_version=self.version, begin=0, end=half, kv_history=rollout_pb2.KV_HISTORY_FRESH
            )
        ]
        if self.flip_to:
            kept = rollout_pb2.KV_HISTORY_KEPT
            spans.append(rollout_pb2.VersionSpan(policy_version=self.flip_to, begin=half, end=tokens, kv_history=kept))
        return generator_pb2.GenerationFinished(
            finish_reason=self.finish_reason,
            spans=spans,
            response_token_ids=range(tokens),
            behaviour_log_probs=[-1.0] * tokens,
            prompt_tokens=7,
        )

    async def GetStatus(self, request: generator_pb2.GetStatusRequest, context: Any) -> generator_pb2.GetStatusResponse:
        return generator_pb2.GetStatusResponse(
            live_version=self.version, capabilities=generator_pb2.EngineCapabilities(engine="test")
        )


@dataclass
class TestLearner(learner_pb2_grpc.LearnerServiceServicer):
    """Knows what a test tells it."""

    __test__ = False

    feedback: dict[str, learner_pb2.GetFeedbackResponse] = field(default_factory=dict)
    releases: list[learner_pb2.Release] = field(default_factory=list)
    status: learner_pb2.GetStatusResponse = field(default_factory=learner_pb2.GetStatusResponse)
    keys: list[LiveKey] | None = field(default_factory=list)
    """None: it does not say."""
    stored: set[str] = field(default_factory=set)
    """Feedback ids that its store has."""

    async def GetAccessSnapshot(
        self, request: learner_pb2.GetAccessSnapshotRequest, context: Any
    ) -> learner_pb2.GetAccessSnapshotResponse:
        if self.keys is None:
            await abort_with(context, Unavailable("the store is away"))
        return snapshot_to_proto(AccessSnapshot.of(self.keys), known_digest=request.known_digest)

    async def GetFeedback(
        self, request: learner_pb2.GetFeedbackRequest, context: Any
    ) -> learner_pb2.GetFeedbackResponse:
        if request.feedback_id not in self.feedback:
            await abort_with(context, NotFound("not ingested"))
        return self.feedback[request.feedback_id]

    async def FindStoredFeedback(
        self, request: learner_pb2.FindStoredFeedbackRequest, context: Any
    ) -> learner_pb2.FindStoredFeedbackResponse:
        return learner_pb2.FindStoredFeedbackResponse(
            stored=[reference.feedback_id in self.stored for reference in request.references]
        )

    async def ListReleases(
        self, request: learner_pb2.ListReleasesRequest, context: Any
    ) -> learner_pb2.ListReleasesResponse:
        return learner_pb2.ListReleasesResponse(releases=self.releases)

    async def GetStatus(self, request: learner_pb2.GetStatusRequest, context: Any) -> learner_pb2.GetStatusResponse:
        return self.status


class TestBus:
    """Keeps what is published, or fails as told."""

    __test__ = False

    def __init__(self) -> None:
        self.events: list[OutgoingEvent] = []
        self.failure: ThumbloopError | None = None
        self.delay_s = 0.0
        self.asked = 0
        self.closed = False

    @property
    def feedback(self) -> list[Feedback]:
        """Decoded events of the topic `feedback`."""
        return [decode_feedback(event.value) for event in self.events if event.topic == "feedback"]

    def ensure_topics(self, pages: Iterable[TopicPage]) -> None:
        if self.failure is not None:
            raise self.failure

    def publisher(self, client_id: str) -> Publisher:
        return _TestPublisher(self)

    def log_reader(self, client_id: str) -> LogReader:
        """An empty topic of orders."""
        orders = MemoryBus()
        orders.ensure_topics([load_topic_pages()[CONTROLS]])
        return orders.log_reader(client_id)

    def group_offsets(self, group: str) -> GroupOffsets:
        raise NotImplementedError("the gateway has no group")

    def delete_records(self, before: Mapping[Place, int]) -> None:
        raise NotImplementedError("the gateway deletes nothing")

    def group_reader(self, *, group: str, member_id: str, topic: str) -> GroupReader:
        raise NotImplementedError("the gateway reads nothing")

    def close(self) -> None:
        self.closed = True


class _TestPublisher:
    def __init__(self, bus: TestBus) -> None:
        self._bus = bus

    def send(self, event: OutgoingEvent) -> Future[Record]:
        future: Future[Record] = Future()
        if self._bus.failure is not None:
            future.set_exception(self._bus.failure)
            return future
        self._bus.events.append(event)
        future.set_result(
            Record(
                place=Place(event.topic, 0),
                offset=len(self._bus.events) - 1,
                key=event.key,
                value=event.value,
                headers=event.headers,
                timestamp=utc_now(),
            )
        )
        return future

    async def publish(self, event: OutgoingEvent) -> Record:
        self._bus.asked += 1
        await asyncio.sleep(self._bus.delay_s)
        assert not self._bus.closed, "closed under a request"
        return await asyncio.wrap_future(self.send(event))

    def close(self, timeout_s: float) -> None:
        self._bus.closed = True


@dataclass
class GatewayHarness:
    """A gateway that serves, and what stands around it."""

    url: str
    control_url: str
    generator: TestGenerator
    learner: TestLearner
    bus: TestBus
    http: httpx.AsyncClient
    openai: AsyncOpenAI
    stop: asyncio.Event
    served: asyncio.Task[None]
    generator_server: grpc.aio.Server
    learner_server: grpc.aio.Server
    generator_port: int

    async def chat(self, text: str = "How do I keep a plant?", **extra: Any) -> httpx.Response:
        """A plain request."""
        body = {"model": "thumbloop", "messages": [{"role": "user", "content": text}], **extra}
        return await self.http.post("/v1/chat/completions", json=body)

    async def choice(self, text: str = "How do I keep a plant?", **extra: Any) -> dict[str, Any]:
        """The `thumbloop` object of a request's first choice."""
        response = await self.chat(text, **extra)
        assert response.status_code == 200, response.text
        found: dict[str, Any] = response.json()["choices"][0]["thumbloop"]
        return found

    async def thumb(self, token: str, value: str | None = "up", **extra: Any) -> httpx.Response:
        """Feedback of kind thumb."""
        return await self.http.post("/v1/feedback", json={"token": token, "kind": "thumb", "value": value, **extra})


@asynccontextmanager
async def running_gateway(
    folder: Path,
    *,
    access: Mapping[str, Any] | None = None,
    keys: Iterable[LiveKey] | None = (),
    log: Bus | None = None,
    **room: Any,
) -> AsyncIterator[GatewayHarness]:
    """Everything up and the gateway ready; everything gone afterwards.

    `room` overrides gateway settings, `access` those of access (default: everyone may chat); the learner has `keys`
    (None: it does not say). `log` takes the place of the harness's bus.
    """
    generator, learner, bus = TestGenerator(), TestLearner(), TestBus()  # type: ignore[abstract]  # answers what the gateway asks
    generator_server, generator_port = await start_generator(generator)
    learner.keys = None if keys is None else list(keys)
    learner_server = grpc.aio.server()
    learner_pb2_grpc.add_LearnerServiceServicer_to_server(learner, learner_server)
    learner_port = learner_server.add_insecure_port("127.0.0.1:0")
    await learner_server.start()
    port, control_port = free_ports(2)
    settings = Settings.model_validate(
        {
            "deployment": {"name": "test", "data_dir": folder},
            "access": {"anonymous_chat": True, "snapshot_interval_s": 0.05, **(access or {})},
            "gateway": {
                "port": port,
                "control_port": control_port,
                "generator_address": f"127.0.0.1:{generator_port}",
                "learner_address": f"127.0.0.1:{learner_port}",
                **room,
            },
        }
    )
    stop = asyncio.Event()
    served = asyncio.create_task(serve(settings, log or bus, stop))
    url = f"http://127.0.0.1:{port}"
    try:
        async with (
            httpx.AsyncClient(base_url=url, timeout=20) as http,
            AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as openai,
        ):
            await until(lambda: _ready(http, served), what="the gateway to be ready")
            yield GatewayHarness(
                url=url,
                control_url=f"http://127.0.0.1:{control_port}",
                generator=generator,
                learner=learner,
                bus=bus,
                http=http,
                openai=openai,
                stop=stop,
                served=served,
                generator_server=generator_server,
                learner_server=learner_server,
                generator_port=generator_port,
            )
    finally:
        stop.set()
        with contextlib.suppress(asyncio.CancelledError):
            await served
        await generator_server.stop(None)
        await learner_server.stop(None)


async def start_generator(generator: TestGenerator, port: int = 0) -> tuple[grpc.aio.Server, int]:
    """Serves it on a port of its own, or again on one that it had."""
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    generator_pb2_grpc.add_GeneratorServiceServicer_to_server(generator, server)
    bound = server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    return server, bound


async def until(condition: Any, *, what: str, within_s: float = 30.0) -> None:
    """Polls an async or plain condition. Raises AssertionError at the deadline."""
    async with asyncio.timeout(within_s):
        try:
            while True:
                met = condition()
                if asyncio.iscoroutine(met):
                    met = await met
                if met:
                    return
                await asyncio.sleep(0.02)
        except asyncio.CancelledError:
            raise AssertionError(f"waited {within_s} s in vain for {what}") from None


async def _ready(http: httpx.AsyncClient, served: asyncio.Task[None]) -> bool:
    if served.done():
        served.result()
    try:
        return (await http.get("/readyz")).status_code == 200
    except httpx.TransportError:
        return False
