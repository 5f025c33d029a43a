"""The learner's methods for forgetting: converts, asks in a thread, converts back."""

from __future__ import annotations

import asyncio
from typing import Any

from thumbloop.learner.v1 import learner_pb2

from services.learner.forgetting.forgetting import Forgetting
from services.shared.domain.errors import InvalidInput


class ForgettingMethods:
    """A part of LearnerServicer."""

    def __init__(self, forgetting: Forgetting) -> None:
        self._forgetting = forgetting

    async def ForgetUser(self, request: learner_pb2.ForgetUserRequest, context: Any) -> learner_pb2.ForgetUserResponse:
        """See the proto."""
        answer = await asyncio.to_thread(
            self._forgetting.forget,
            tenant=request.tenant,
            rater_ids=tuple(request.rater_ids),
            control_id=request.control_id,
        )
        return learner_pb2.ForgetUserResponse(
            control_id=answer.control_id,
            rollouts=answer.rollouts,
            feedback=answer.feedback,
            versions=answer.versions,
        )

    async def GetControl(self, request: learner_pb2.GetControlRequest, context: Any) -> learner_pb2.GetControlResponse:
        """See the proto."""
        if not request.control_id:
            raise InvalidInput("control_id is empty; it is required.", field="control_id")
        progress = await asyncio.to_thread(self._forgetting.progress, request.control_id)
        response = learner_pb2.GetControlResponse(
            acknowledged_by=progress.acknowledged_by, waiting_for=progress.waiting_for
        )
        if progress.publish_time is not None:
            response.publish_time.FromDatetime(progress.publish_time)
        return response
