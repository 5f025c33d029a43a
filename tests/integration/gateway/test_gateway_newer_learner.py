"""A learner that is newer than this gateway says what the gateway does not know: an error that says what to do."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc.aio
import pytest
from thumbloop.gateway.v1 import feedback_pb2
from thumbloop.learner.v1 import learner_pb2, learner_pb2_grpc, policy_pb2

from services.gateway.learner import GrpcLearner
from services.shared.domain.errors import InvalidInput, ThumbloopError
from services.shared.domain.release import ReleaseKind, ReleaseState
from tests.support.gateway import TestLearner

LATER = 99
"""A number that a later proto gives a meaning."""


@asynccontextmanager
async def asking(learner: TestLearner) -> AsyncIterator[GrpcLearner]:
    server = grpc.aio.server()
    learner_pb2_grpc.add_LearnerServiceServicer_to_server(learner, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield GrpcLearner(channel)
    finally:
        await server.stop(None)


def release(
    kind: int = policy_pb2.RELEASE_KIND_POLICY, state: int = learner_pb2.RELEASE_STATE_PUBLISHED
) -> learner_pb2.Release:
    return learner_pb2.Release(version="p-1", kind=kind, state=state)  # type: ignore[arg-type]  # any number fits


def fate(
    state: int = learner_pb2.FEEDBACK_STATE_JOINED, kind: int = feedback_pb2.FEEDBACK_KIND_THUMB
) -> learner_pb2.GetFeedbackResponse:
    return learner_pb2.GetFeedbackResponse(
        feedback_id="f1",
        state=state,  # type: ignore[arg-type]  # any number fits
        rollout_id="r1",
        rater_id="alice",
        kind=kind,  # type: ignore[arg-type]
        revision=7,
    )


def learner() -> TestLearner:
    return TestLearner()  # type: ignore[abstract]  # answers what the gateway asks


@pytest.mark.parametrize("unknown", [release(kind=LATER), release(state=LATER), release(state=0)])
async def test_an_unknown_release_is_an_error_that_says_what_to_do(unknown: learner_pb2.Release) -> None:
    room = learner()
    async with asking(room) as gateway:
        room.releases = [release()]
        (known,) = await gateway.releases(timeout_s=10)
        assert (known.kind, known.state) == (ReleaseKind.POLICY, ReleaseState.PUBLISHED)
        room.releases = [release(), unknown]
        with pytest.raises(ThumbloopError, match="Update the gateway") as refused:
            await gateway.releases(timeout_s=10)
    assert refused.value.reason == "LEARNER_NEWER"


@pytest.mark.parametrize("unknown", [fate(state=LATER), fate(kind=LATER)])
async def test_an_unknown_fate_is_no_fault_of_who_asks(unknown: learner_pb2.GetFeedbackResponse) -> None:
    room = learner()
    room.feedback["f1"] = unknown
    async with asking(room) as gateway:
        with pytest.raises(ThumbloopError, match="Update the gateway") as refused:
            await gateway.find(tenant="t", feedback_id="f1", rater_id="alice", rollout_id="r1", timeout_s=10)
        assert not isinstance(refused.value, InvalidInput)
        room.feedback["f1"] = fate()
        found = await gateway.find(tenant="t", feedback_id="f1", rater_id="alice", rollout_id="r1", timeout_s=10)
        assert found is not None and found.revision == 7


async def test_figures_that_are_no_numbers_are_not_shown() -> None:
    """JSON has no word for them, and the page would show nothing at all."""
    room = learner()
    room.status = learner_pb2.GetStatusResponse(reward_auroc=float("nan"), reward_auroc_low95=0.5)
    room.status.thumb_to_token.p50_seconds = float("inf")
    room.status.thumb_to_token.p99_seconds = 12.0
    async with asking(room) as gateway:
        status = await gateway.status(timeout_s=10)
    assert (status.reward_auroc, status.reward_auroc_low95) == (None, 0.5)
    assert (status.thumb_to_token_p50_s, status.thumb_to_token_p99_s) == (None, 12.0)
