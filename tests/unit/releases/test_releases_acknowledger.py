"""The sender by itself, and the acknowledgers against a real learner service on loopback."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from thumbloop.learner.v1 import learner_pb2, learner_pb2_grpc, policy_pb2

from services.shared.domain.errors import InvalidInput, Unavailable
from services.shared.domain.release import ReleaseKind
from services.shared.releases.acknowledger import Acknowledgement, ControlAcknowledger, ReleaseAcknowledger
from services.shared.releases.background_sender import BackgroundSender
from services.shared.rpc import RpcServer, open_sync_channel
from tests.support.access import OpenGuard

DEADLINE_S = 10.0


def sender(send: Any, **options: Any) -> BackgroundSender[str, int]:
    return BackgroundSender[str, int]("test", send, **options)


def test_only_the_last_word_of_a_key_is_sent() -> None:
    sent: list[int] = []
    background = sender(sent.append)
    background.offer("policy", 1)
    background.offer("reward_model", 2)
    background.offer("policy", 3)
    background.send_waiting()
    assert sorted(sent) == [2, 3]
    assert background.waiting == 0


def test_a_failure_keeps_what_waits_and_a_refusal_drops_it() -> None:
    errors: list[Exception] = [Unavailable("away"), RuntimeError("bug"), InvalidInput("no such version")]

    def send(value: int) -> None:
        raise errors.pop(0)

    background = sender(send)
    background.offer("policy", 1)
    background.send_waiting()
    assert background.waiting == 1
    background.send_waiting()
    assert background.waiting == 1
    background.send_waiting()
    assert background.waiting == 0


def test_a_newer_value_during_the_call_is_sent_too() -> None:
    sent: list[int] = []

    def send(value: int) -> None:
        sent.append(value)
        if value == 1:
            background.offer("policy", 2)

    background = sender(send)
    background.offer("policy", 1)
    background.send_waiting()
    background.send_waiting()
    assert sent == [1, 2]


def test_what_waits_is_bounded() -> None:
    background = sender(lambda value: None, max_waiting=3)
    for number in range(10):
        background.offer(str(number), number)
    assert background.waiting == 3


def test_the_thread_sends_again_until_it_is_taken() -> None:
    taken = threading.Event()
    attempts: list[int] = []

    def send(value: int) -> None:
        attempts.append(value)
        if len(attempts) < 3:
            raise Unavailable("away")
        taken.set()

    background = sender(send, retry_first_s=0.01)
    background.start()
    background.offer("policy", 7)
    assert taken.wait(DEADLINE_S)
    background.stop(DEADLINE_S)
    background.stop(DEADLINE_S)
    assert attempts == [7, 7, 7]


class Learner(learner_pb2_grpc.LearnerServiceServicer):
    """Notes what it is told; refuses the first call."""

    def __init__(self) -> None:
        self.releases: list[learner_pb2.AcknowledgeReleaseRequest] = []
        self.controls: list[learner_pb2.AcknowledgeControlRequest] = []
        self.told = asyncio.Event()
        self.calls = 0

    async def AcknowledgeRelease(self, request: Any, context: Any) -> learner_pb2.AcknowledgeReleaseResponse:
        self.calls += 1
        if self.calls == 1:
            raise Unavailable("The store is busy.", retry_after=0.1)
        self.releases.append(request)
        self.told.set()
        return learner_pb2.AcknowledgeReleaseResponse()

    async def AcknowledgeControl(self, request: Any, context: Any) -> learner_pb2.AcknowledgeControlResponse:
        self.controls.append(request)
        self.told.set()
        return learner_pb2.AcknowledgeControlResponse()


@pytest.fixture
async def learner() -> Any:
    servicer = Learner()  # type: ignore[abstract]  # the other methods answer UNIMPLEMENTED
    server = RpcServer(
        "127.0.0.1",
        0,
        register=[lambda s: learner_pb2_grpc.add_LearnerServiceServicer_to_server(servicer, s)],
        service_names=["thumbloop.learner.v1.LearnerService"],
        guard=OpenGuard(),
    )
    await server.start()
    yield servicer, f"127.0.0.1:{server.port}"
    await server.stop()


async def test_a_release_is_acknowledged_after_a_refusal(learner: tuple[Learner, str]) -> None:
    servicer, address = learner
    with open_sync_channel(address) as channel:
        acknowledge = ReleaseAcknowledger(channel=channel, replica_id="generator-0")
        acknowledge.start()
        acknowledge(
            Acknowledgement(kind=ReleaseKind.POLICY, epoch=2, sequence=3, version="p-1", stage_error="no space")
        )
        await asyncio.wait_for(servicer.told.wait(), DEADLINE_S)
        await asyncio.to_thread(acknowledge.stop)
    [request] = servicer.releases
    assert request == learner_pb2.AcknowledgeReleaseRequest(
        replica_id="generator-0",
        kind=policy_pb2.RELEASE_KIND_POLICY,
        epoch=2,
        sequence=3,
        version="p-1",
        stage_error="no space",
    )


async def test_an_order_is_acknowledged(learner: tuple[Learner, str]) -> None:
    servicer, address = learner
    with open_sync_channel(address) as channel:
        acknowledge = ControlAcknowledger(channel=channel, replica_id="reward-0")
        acknowledge.start()
        acknowledge("order-1")
        await asyncio.wait_for(servicer.told.wait(), DEADLINE_S)
        await asyncio.to_thread(acknowledge.stop)
    assert [(r.replica_id, r.control_id) for r in servicer.controls] == [("reward-0", "order-1")]
