"""The learner's answers to the generator, over gRPC."""

from __future__ import annotations

from collections.abc import Sequence

import grpc
from thumbloop.learner.v1 import learner_pb2, learner_pb2_grpc

from services.shared.contracts.rollout_progress import rollout_progress_from_proto
from services.shared.domain.rollout import RolloutProgress
from services.shared.rpc import error_from_rpc


class GrpcStoredRollouts:
    """A learner behind a blocking channel, which the caller owns."""

    def __init__(self, channel: grpc.Channel, *, timeout_s: float = 5.0) -> None:
        """`timeout_s` is the deadline of a call."""
        self._stub = learner_pb2_grpc.LearnerServiceStub(channel)
        self._timeout_s = timeout_s

    def find(self, *, tenant: str, rollout_ids: Sequence[str]) -> list[RolloutProgress]:
        """See StoredRollouts."""
        request = learner_pb2.FindStoredRolloutsRequest(tenant=tenant, rollout_ids=rollout_ids)
        try:
            found = self._stub.FindStoredRollouts(request, timeout=self._timeout_s)
        except grpc.RpcError as error:
            raise error_from_rpc(error) from error
        return [rollout_progress_from_proto(one) for one in found.progress]
