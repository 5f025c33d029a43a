"""The learner's methods for forgetting, over gRPC."""

from __future__ import annotations

from datetime import UTC

import grpc
import grpc.aio
from thumbloop.learner.v1 import learner_pb2, learner_pb2_grpc

from services.gateway.forgetting.service import Forgotten, Progress
from services.gateway.room_errors import RoomErrors


class GrpcForgetting:
    """See ForgettingLearner. The channel is the caller's."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = learner_pb2_grpc.LearnerServiceStub(channel)
        self._errors = RoomErrors("learner")

    async def forget(self, *, tenant: str, rater_ids: tuple[str, ...], control_id: str, timeout_s: float) -> Forgotten:
        """See ForgettingLearner."""
        request = learner_pb2.ForgetUserRequest(tenant=tenant, rater_ids=rater_ids, control_id=control_id)
        try:
            done = await self._stub.ForgetUser(request, timeout=timeout_s)
        except grpc.RpcError as error:
            raise self._errors.explained(error) from error
        return Forgotten(
            control_id=done.control_id, rollouts=done.rollouts, feedback=done.feedback, versions=tuple(done.versions)
        )

    async def control(self, control_id: str, *, timeout_s: float) -> Progress:
        """See ForgettingLearner."""
        try:
            found = await self._stub.GetControl(learner_pb2.GetControlRequest(control_id=control_id), timeout=timeout_s)
        except grpc.RpcError as error:
            raise self._errors.explained(error) from error
        published = found.publish_time.ToDatetime(tzinfo=UTC) if found.HasField("publish_time") else None
        return Progress(
            control_id=control_id,
            publish_time=published,
            acknowledged_by=tuple(found.acknowledged_by),
            waiting_for=tuple(found.waiting_for),
        )
