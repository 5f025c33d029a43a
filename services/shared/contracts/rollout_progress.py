"""How far rollouts have come, in answers to the generator."""

from __future__ import annotations

from thumbloop.learner.v1 import learner_pb2

from services.shared.contracts.wire import EnumMap
from services.shared.domain.rollout import RolloutProgress

_PROGRESS: EnumMap[RolloutProgress, learner_pb2.RolloutProgress.ValueType] = EnumMap(
    RolloutProgress, learner_pb2.RolloutProgress, "ROLLOUT_PROGRESS"
)


def rollout_progress_to_proto(progress: RolloutProgress) -> learner_pb2.RolloutProgress.ValueType:
    """The wire's number."""
    return _PROGRESS.to_proto(progress)


def rollout_progress_from_proto(value: learner_pb2.RolloutProgress.ValueType) -> RolloutProgress:
    """Raises InvalidInput for an unknown one."""
    return _PROGRESS.from_proto(value, "progress")
