"""Helpers for tests of the whole loop: people at work, and patience with a deadline."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import grpc
from thumbloop.learner.v1 import learner_pb2, learner_pb2_grpc, policy_pb2

from services.embedded.plan import EmbeddedPlan
from services.shared.rpc import open_sync_channel
from services.simulate.journal import Journal
from services.simulate.tastes import find_taste
from services.simulate.users import Crowd, Habits
from tests.support.access import credential_of


def crowd_of(plan: EmbeddedPlan, journal_path: Path, *, users: int = 6) -> tuple[Crowd, Journal]:
    """Quick users who rate most answers."""
    journal = Journal(journal_path)
    habits = Habits(taste=find_taste("no_comma"), users=users, rated_share=0.8, think_s=0.02, max_tokens=12)
    return Crowd(url=plan.page_url, habits=habits, journal=journal, seed=7), journal


async def eventually(condition: Callable[[], bool], *, within_s: float, what: str) -> None:
    """Polls until the condition holds. Raises AssertionError with `what` at the deadline."""
    deadline = time.monotonic() + within_s
    while not await asyncio.to_thread(condition):
        assert time.monotonic() < deadline, f"not within {within_s:.0f} s: {what}"
        await asyncio.sleep(0.1)


class LearnerProbe:
    """Short questions to the learner; a learner that is away at the moment answers nothing."""

    def __init__(self, plan: EmbeddedPlan) -> None:
        self._address = f"127.0.0.1:{plan.ports['learner']}"
        self._credential = credential_of(plan.data_dir)

    def status(self) -> learner_pb2.GetStatusResponse | None:
        """None: away."""
        with suppress(grpc.RpcError), self._channel() as channel:
            stub = learner_pb2_grpc.LearnerServiceStub(channel)
            return stub.GetStatus(learner_pb2.GetStatusRequest(), timeout=2)
        return None

    def published(self) -> int:
        """Policy releases that were announced, release 0 among them; 0 while away."""
        with suppress(grpc.RpcError), self._channel() as channel:
            stub = learner_pb2_grpc.LearnerServiceStub(channel)
            request = learner_pb2.ListReleasesRequest(kind=policy_pb2.RELEASE_KIND_POLICY, page_size=200)
            page = stub.ListReleases(request, timeout=2)
            return sum(release.HasField("publish_time") for release in page.releases)
        return 0

    def _channel(self) -> grpc.Channel:
        return open_sync_channel(self._address, credential=self._credential)

    def feedback(self) -> int:
        """Slots filled; -1 while away."""
        status = self.status()
        return -1 if status is None else status.feedback
