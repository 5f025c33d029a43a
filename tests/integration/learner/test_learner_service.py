"""LearnerService over a real port.

Plan: a store with a life of its own (a rollout, a thumb, both releases 0, a policy that used the rollout) behind the
room's own server; a client asks everything the service offers, rightly and wrongly.
Pass: answers say what the store holds; every mistake is a status with a reason, never INTERNAL; pausing is kept.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio
import pytest
from thumbloop.gateway.v1 import feedback_pb2
from thumbloop.learner.v1 import learner_pb2, learner_pb2_grpc, policy_pb2

from services.learner.access.key_table import ApiKeyTable
from services.learner.forgetting.forgetting import Forgetting
from services.learner.forgetting.replicas import Replicas
from services.learner.ports import Verdict
from services.learner.service.queries import LearnerQueries
from services.learner.service.servicer import SERVICE_NAME, LearnerServicer
from services.learner.state.acknowledgements import Acknowledgements
from services.learner.state.pausing import Pausing
from services.shared.domain.release import ReleaseKind
from services.shared.rpc.channel import open_channel
from services.shared.rpc.server import RpcServer
from services.shared.store.database import Database
from tests.support.access import OpenGuard
from tests.support.facts import make_rollout, make_score, make_thumb, policy_version, reward_version
from tests.support.forgetting_world import ORDER
from tests.support.learner_store import METRICS, LearnerStore, ManualClock, ingest_facts


@dataclass(frozen=True, kw_only=True)
class Trainer:
    phase: str = "updating_policy"
    waiting_reason: str = ""
    reward_auroc: float | None = 0.75
    reward_auroc_low95: float | None = None


@pytest.fixture
async def stub(database: Database) -> AsyncIterator[learner_pb2_grpc.LearnerServiceAsyncStub]:
    clock = ManualClock(1000)
    learner = LearnerStore(database, clock)
    for kind in ReleaseKind:
        learner.commits.commit_first(learner.candidate(0, kind=kind))
    rollout = make_rollout("r1")
    thumb = make_thumb("f1", rollout="r1")
    ingest_facts(database, clock, [rollout, make_score(rollout), thumb, make_thumb("f2", rollout="r2", up=False)])
    learner.experiences.claim(limit=1, policy_version=policy_version(0), reward_model_version=reward_version(0))
    clock.advance(1)
    candidate = learner.candidate(1, rollouts=("r1",), feedback=("f1",))
    learner.candidates.submit(candidate)
    learner.commits.commit(candidate, Verdict(passed=True, lines=("ok",)))
    replicas = Replicas(database, clock=clock, interval_s=5.0)
    replicas.start()
    servicer = LearnerServicer(
        queries=LearnerQueries(
            database,
            clock=clock,
            experiences=learner.experiences,
            candidates=learner.candidates,
            join_window_s=3600,
            orphan_after_s=3600,
        ),
        acknowledgements=Acknowledgements(database, clock=clock),
        pausing=Pausing(database, clock=clock),
        trainer_status=Trainer,
        read_manifest=lambda release: f'{{"version":"{release.version}"}}',
        epoch=learner.epoch,
        forgetting=Forgetting(database, clock=clock, living=replicas.living),
        keys=ApiKeyTable(database, clock=clock),
        on_replica=replicas.note,
    )
    server = RpcServer(
        "127.0.0.1",
        0,
        [lambda grpc_server: learner_pb2_grpc.add_LearnerServiceServicer_to_server(servicer, grpc_server)],
        [SERVICE_NAME],
        guard=OpenGuard(),
    )
    await server.start()
    channel = open_channel(f"127.0.0.1:{server.port}")
    yield learner_pb2_grpc.LearnerServiceStub(channel)
    await channel.close()
    await server.stop()
    replicas.stop()


async def code_of(call: Any) -> grpc.StatusCode:
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await call
    code: grpc.StatusCode = failed.value.code()
    return code


async def test_status(stub: learner_pb2_grpc.LearnerServiceAsyncStub) -> None:
    status = await stub.GetStatus(learner_pb2.GetStatusRequest(), timeout=10)
    assert (status.epoch, status.phase, status.paused) == (1, "updating_policy", False)
    assert (status.policy_version, status.reward_model_version) == (policy_version(1), reward_version(0))
    assert (status.rollouts, status.feedback, status.used, status.thumbs_up, status.thumbs_down) == (1, 2, 1, 1, 1)
    assert status.reward_auroc == 0.75 and not status.HasField("reward_auroc_low95")
    assert not status.HasField("thumb_to_token")


async def test_pause_is_kept_until_resume(stub: learner_pb2_grpc.LearnerServiceAsyncStub) -> None:
    for _ in range(2):
        assert (await stub.Pause(learner_pb2.PauseRequest(reason="looking"), timeout=10)).paused
    assert (await stub.GetStatus(learner_pb2.GetStatusRequest(), timeout=10)).paused
    assert not (await stub.Resume(learner_pb2.ResumeRequest(), timeout=10)).paused
    assert not (await stub.GetStatus(learner_pb2.GetStatusRequest(), timeout=10)).paused


async def test_where_feedback_went(stub: learner_pb2_grpc.LearnerServiceAsyncStub) -> None:
    found = await stub.GetFeedback(learner_pb2.GetFeedbackRequest(tenant="default", feedback_id="f1"), timeout=10)
    assert found.state == learner_pb2.FEEDBACK_STATE_JOINED
    assert list(found.trained_into) == [policy_version(1)]
    assert (found.kind, found.rater_id) == (feedback_pb2.FEEDBACK_KIND_THUMB, "rater-1")
    waiting = await stub.GetFeedback(learner_pb2.GetFeedbackRequest(tenant="default", feedback_id="f2"), timeout=10)
    assert waiting.state == learner_pb2.FEEDBACK_STATE_WAITING
    missing = learner_pb2.GetFeedbackRequest(tenant="other", feedback_id="f1")
    assert await code_of(stub.GetFeedback(missing, timeout=10)) is grpc.StatusCode.NOT_FOUND
    empty = learner_pb2.GetFeedbackRequest(tenant="default")
    assert await code_of(stub.GetFeedback(empty, timeout=10)) is grpc.StatusCode.INVALID_ARGUMENT


async def test_releases_and_what_made_them(stub: learner_pb2_grpc.LearnerServiceAsyncStub) -> None:
    page = await stub.ListReleases(learner_pb2.ListReleasesRequest(page_size=2), timeout=10)
    rest = learner_pb2.ListReleasesRequest(page_size=2, page_token=page.next_page_token)
    more = await stub.ListReleases(rest, timeout=10)
    assert page.releases[0].version == policy_version(1)
    assert len(page.releases) + len(more.releases) == 3 and not more.next_page_token
    found = await stub.GetRelease(learner_pb2.GetReleaseRequest(version=policy_version(1)), timeout=10)
    assert list(found.rollout_ids) == ["r1"]
    assert found.manifest_json == f'{{"version":"{policy_version(1)}"}}'
    assert (found.release.experiences, found.release.state) == (1, learner_pb2.RELEASE_STATE_COMMITTED)
    assert found.release.metrics["kl_per_answer"] == METRICS["kl_per_answer"]
    assert not found.release.HasField("publish_time")
    unknown = learner_pb2.GetReleaseRequest(version="p-0001-000099-00000000")
    assert await code_of(stub.GetRelease(unknown, timeout=10)) is grpc.StatusCode.NOT_FOUND
    bad = learner_pb2.ListReleasesRequest(page_token="nonsense")
    assert await code_of(stub.ListReleases(bad, timeout=10)) is grpc.StatusCode.INVALID_ARGUMENT


async def test_acknowledgements(stub: learner_pb2_grpc.LearnerServiceAsyncStub) -> None:
    said = learner_pb2.AcknowledgeReleaseRequest(
        replica_id="generator-0",
        kind=policy_pb2.RELEASE_KIND_POLICY,
        epoch=1,
        sequence=2,
        version=policy_version(1),
    )
    for _ in range(2):
        await stub.AcknowledgeRelease(said, timeout=10)
    found = await stub.GetRelease(learner_pb2.GetReleaseRequest(version=policy_version(1)), timeout=10)
    assert list(found.release.acknowledged_by) == ["generator-0"]
    never = learner_pb2.AcknowledgeReleaseRequest()
    never.CopyFrom(said)
    never.sequence = 77
    assert await code_of(stub.AcknowledgeRelease(never, timeout=10)) is grpc.StatusCode.NOT_FOUND
    unknown = learner_pb2.AcknowledgeControlRequest(replica_id="generator-0", control_id="x")
    assert await code_of(stub.AcknowledgeControl(unknown, timeout=10)) is grpc.StatusCode.NOT_FOUND
    nobody = learner_pb2.AcknowledgeReleaseRequest(kind=policy_pb2.RELEASE_KIND_POLICY)
    assert await code_of(stub.AcknowledgeRelease(nobody, timeout=10)) is grpc.StatusCode.INVALID_ARGUMENT


async def test_an_order_waits_for_rooms_that_ask_for_keys(stub: learner_pb2_grpc.LearnerServiceAsyncStub) -> None:
    await stub.GetAccessSnapshot(learner_pb2.GetAccessSnapshotRequest(replica_id="gateway-1"), timeout=10)
    await stub.GetAccessSnapshot(learner_pb2.GetAccessSnapshotRequest(), timeout=10)  # somebody without a name
    forget = learner_pb2.ForgetUserRequest(tenant="default", rater_ids=["rater-1"], control_id=ORDER)
    assert (await stub.ForgetUser(forget, timeout=10)).rollouts == 1
    which = learner_pb2.GetControlRequest(control_id=ORDER)

    async def waiting() -> list[str]:
        return list((await stub.GetControl(which, timeout=10)).waiting_for)

    async with asyncio.timeout(30):
        while await waiting() != ["gateway-1", "learner"]:
            await asyncio.sleep(0.02)
    for name, left in (("learner", ["gateway-1"]), ("gateway-1", [])):
        said = learner_pb2.AcknowledgeControlRequest(replica_id=name, control_id=ORDER)
        await stub.AcknowledgeControl(said, timeout=10)
        assert await waiting() == left
    progress = await stub.GetControl(which, timeout=10)
    assert list(progress.acknowledged_by) == ["gateway-1", "learner"] and not progress.HasField("publish_time")
