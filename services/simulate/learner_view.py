"""What the learner says of its releases while a run goes on (gRPC `LearnerService`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import grpc
from thumbloop.learner.v1 import learner_pb2, learner_pb2_grpc, policy_pb2

from services.shared.rpc import Credential, open_channel

CALL_TIMEOUT_S = 5.0
PAGE_SIZE = 200


@dataclass(frozen=True, kw_only=True)
class LearnerView:
    """A moment of the learner. Releases of the policy, oldest first."""

    status: learner_pb2.GetStatusResponse
    releases: Sequence[learner_pb2.Release]

    @property
    def published(self) -> list[learner_pb2.Release]:
        """Those that were announced."""
        return [release for release in self.releases if release.HasField("publish_time")]

    def cycle_seconds(self, default: float) -> float:
        """Mean time between the last published releases; `default` while there are fewer than three."""
        times = [release.publish_time.ToSeconds() for release in self.published[1:]][-4:]
        return (times[-1] - times[0]) / (len(times) - 1) if len(times) > 1 else default


class LearnerClient:
    """Asks one learner. Closed by the caller."""

    def __init__(self, address: str, credential: Credential) -> None:
        self._channel = open_channel(address, credential=credential)
        self._stub = learner_pb2_grpc.LearnerServiceStub(self._channel)

    async def look(self) -> LearnerView | None:
        """None: the learner is away at the moment."""
        request = learner_pb2.ListReleasesRequest(kind=policy_pb2.RELEASE_KIND_POLICY, page_size=PAGE_SIZE)
        try:
            status = await self._stub.GetStatus(learner_pb2.GetStatusRequest(), timeout=CALL_TIMEOUT_S)
            page = await self._stub.ListReleases(request, timeout=CALL_TIMEOUT_S)
        except grpc.RpcError:
            return None
        return LearnerView(status=status, releases=tuple(reversed(page.releases)))

    async def pause(self, reason: str) -> None:
        """Training stops at its next safe point."""
        await self._stub.Pause(learner_pb2.PauseRequest(reason=reason), timeout=CALL_TIMEOUT_S)

    async def close(self) -> None:
        """Closes the channel."""
        await self._channel.close()
