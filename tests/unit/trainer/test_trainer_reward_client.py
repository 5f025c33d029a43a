"""Rescoring against a real reward servicer, over gRPC."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from thumbloop.reward.v1 import reward_pb2_grpc

from services.embedded.ports import free_port
from services.learner.trainer.reward_client import GrpcRewardScorer
from services.reward.servicer import RewardServicer
from services.shared.domain.errors import InvalidInput, Unavailable
from services.shared.releases.follower import FollowerStatus
from services.shared.reward_heads.heads import RewardHeads
from services.shared.rpc import RpcServer, open_sync_channel
from tests.support.access import OpenGuard
from tests.support.facts import reward_version
from tests.unit.reward.reward_world import RewardWorld, features_of, stage


@pytest.fixture
async def room(tmp_path: Path) -> AsyncIterator[tuple[RewardWorld, int]]:
    """A reward world behind a port."""
    world = RewardWorld(folder=tmp_path)
    servicer = RewardServicer(
        world.base, world.lane, world.scorer, world.models, lambda: FollowerStatus(), world.metrics
    )
    server = RpcServer(
        "127.0.0.1",
        0,
        [lambda grpc_server: reward_pb2_grpc.add_RewardServiceServicer_to_server(servicer, grpc_server)],
        [],
        guard=OpenGuard(),
    )
    await server.start()
    yield world, server.port
    await server.stop()
    world.stop()


async def test_it_waits_until_the_version_is_resident_and_keeps_the_order(room: tuple[RewardWorld, int]) -> None:
    world, port = room
    items = [(f"r{number}", features_of(*[number / 300] * world.base.feature_count)) for number in range(300)]
    with open_sync_channel(f"127.0.0.1:{port}") as channel:
        waits: list[float] = []
        release = asyncio.Event()
        loop = asyncio.get_running_loop()

        def sleep(seconds: float) -> None:
            waits.append(seconds)
            loop.call_soon_threadsafe(release.set)

        scorer = GrpcRewardScorer(channel, sleep=sleep)
        asked = asyncio.create_task(
            asyncio.to_thread(scorer.rescore, items, reward_model_version=reward_version(1), timeout_s=20)
        )
        await asyncio.wait_for(release.wait(), 10)
        heads = RewardHeads.zero(world.base.feature_count)
        stage(world.models, heads, world.folder, number=1, live=False)
        judgements = await asked
    assert waits
    assert len(judgements) == 300
    assert judgements[0] == (0.5, 0.0, (("thumb", 0.0), ("spread", 0.0)))


async def test_a_version_that_never_comes_is_unavailable_and_says_why(room: tuple[RewardWorld, int]) -> None:
    world, port = room
    world.go_live(0)
    with open_sync_channel(f"127.0.0.1:{port}") as channel:
        scorer = GrpcRewardScorer(channel, retry_s=0.05)
        item = [("r1", features_of(*[0.0] * world.base.feature_count))]
        with pytest.raises(Unavailable, match="not resident"):
            await asyncio.to_thread(scorer.rescore, item, reward_model_version=reward_version(7), timeout_s=0.3)


async def test_nobody_there_is_unavailable() -> None:
    with open_sync_channel(f"127.0.0.1:{free_port()}") as channel:
        scorer = GrpcRewardScorer(channel, retry_s=0.05)
        with pytest.raises(Unavailable):
            await asyncio.to_thread(scorer.rescore, [("r1", b"xx")], reward_model_version="rm", timeout_s=0.3)


async def test_what_is_wrong_is_not_tried_again(room: tuple[RewardWorld, int]) -> None:
    world, port = room
    version = world.go_live(0)
    with open_sync_channel(f"127.0.0.1:{port}") as channel:
        scorer = GrpcRewardScorer(channel)
        with pytest.raises(InvalidInput):
            await asyncio.to_thread(scorer.rescore, [("r1", b"xx")], reward_model_version=version, timeout_s=30)
