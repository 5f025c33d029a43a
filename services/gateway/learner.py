"""The learner's queries over gRPC: where feedback is, which releases there are, how training goes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TypeVar

import grpc
import grpc.aio
from google.protobuf.timestamp_pb2 import Timestamp
from thumbloop.learner.v1 import learner_pb2, learner_pb2_grpc, policy_pb2

from services.gateway.feedback.fate import FeedbackFate
from services.gateway.releases.facts import LearnerStatus, ReleaseFact
from services.gateway.room_errors import RoomErrors
from services.gateway.spool.item import SpoolKey
from services.shared.contracts.feedback import feedback_kind_from_proto, feedback_kind_to_proto
from services.shared.contracts.wire import EnumMap
from services.shared.domain.errors import InvalidInput, NotFound, ThumbloopError
from services.shared.domain.feedback import FeedbackKind, FeedbackState
from services.shared.domain.release import ReleaseKind, ReleaseState

RELEASES_SHOWN = 100
_KINDS: EnumMap[ReleaseKind, policy_pb2.ReleaseKind.ValueType] = EnumMap(
    ReleaseKind, policy_pb2.ReleaseKind, "RELEASE_KIND"
)
_RELEASE_STATES: EnumMap[ReleaseState, learner_pb2.ReleaseState.ValueType] = EnumMap(
    ReleaseState, learner_pb2.ReleaseState, "RELEASE_STATE"
)
_FEEDBACK_STATES: EnumMap[FeedbackState, learner_pb2.FeedbackState.ValueType] = EnumMap(
    FeedbackState, learner_pb2.FeedbackState, "FEEDBACK_STATE"
)
_Domain = TypeVar("_Domain")
_Number = TypeVar("_Number", bound=int)


class GrpcLearner:
    """A learner behind a gRPC channel, which the caller owns."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = learner_pb2_grpc.LearnerServiceStub(channel)
        self._errors = RoomErrors("learner")

    async def find(
        self, *, tenant: str, feedback_id: str, rater_id: str, rollout_id: str, timeout_s: float
    ) -> FeedbackFate | None:
        """See FeedbackLookup."""
        request = learner_pb2.GetFeedbackRequest(
            tenant=tenant, feedback_id=feedback_id, rater_id=rater_id, rollout_id=rollout_id
        )
        try:
            found = await self._stub.GetFeedback(request, timeout=timeout_s)
        except grpc.RpcError as error:
            known = self._errors.explained(error)
            if isinstance(known, NotFound):
                return None
            raise known from error
        return FeedbackFate(
            feedback_id=found.feedback_id,
            state=_known(_FEEDBACK_STATES.from_proto, found.state, "state"),
            reason=found.reason,
            rollout_id=found.rollout_id,
            rater_id=found.rater_id,
            kind=str(_known(feedback_kind_from_proto, found.kind, "kind")),
            revision=found.revision,
            trained_into=tuple(found.trained_into),
            trained_into_through_reward_model=tuple(found.trained_into_through_reward_model),
            reward_model_versions=tuple(found.reward_model_versions),
        )

    async def find_stored(self, *, tenant: str, keys: Sequence[SpoolKey], timeout_s: float) -> list[bool]:
        """See StoredFeedback."""
        references = [
            learner_pb2.FeedbackReference(
                rollout_id=key.rollout_id,
                rater_id=key.rater_id,
                kind=feedback_kind_to_proto(FeedbackKind(key.kind)),
                feedback_id=key.feedback_id,
            )
            for key in keys
        ]
        request = learner_pb2.FindStoredFeedbackRequest(tenant=tenant, references=references)
        try:
            found = await self._stub.FindStoredFeedback(request, timeout=timeout_s)
        except grpc.RpcError as error:
            raise self._errors.explained(error) from error
        return list(found.stored)

    async def releases(self, *, timeout_s: float) -> tuple[ReleaseFact, ...]:
        """See ReleaseSource."""
        request = learner_pb2.ListReleasesRequest(page_size=RELEASES_SHOWN)
        try:
            page = await self._stub.ListReleases(request, timeout=timeout_s)
        except grpc.RpcError as error:
            raise self._errors.explained(error) from error
        return tuple(_release(release) for release in page.releases)

    async def status(self, *, timeout_s: float) -> LearnerStatus:
        """See ReleaseSource."""
        try:
            status = await self._stub.GetStatus(learner_pb2.GetStatusRequest(), timeout=timeout_s)
        except grpc.RpcError as error:
            raise self._errors.explained(error) from error
        arrived = status.HasField("thumb_to_token")
        return LearnerStatus(
            phase=status.phase,
            paused=status.paused,
            waiting_reason=status.waiting_reason,
            policy_version=status.policy_version,
            reward_model_version=status.reward_model_version,
            rollouts=status.rollouts,
            feedback=status.feedback,
            ready=status.ready,
            used=status.used,
            stale=status.stale,
            thumbs_up=status.thumbs_up,
            thumbs_down=status.thumbs_down,
            reward_auroc=_finite(status.reward_auroc) if status.HasField("reward_auroc") else None,
            reward_auroc_low95=_finite(status.reward_auroc_low95) if status.HasField("reward_auroc_low95") else None,
            thumb_to_token_p50_s=_finite(status.thumb_to_token.p50_seconds) if arrived else None,
            thumb_to_token_p99_s=_finite(status.thumb_to_token.p99_seconds) if arrived else None,
        )


def _release(release: learner_pb2.Release) -> ReleaseFact:
    return ReleaseFact(
        version=release.version,
        kind=_known(_KINDS.from_proto, release.kind, "kind"),
        parent_version=release.parent_version,
        state=_known(_RELEASE_STATES.from_proto, release.state, "state"),
        commit_time=_time(release.commit_time),
        publish_time=_time(release.publish_time) if release.HasField("publish_time") else None,
        first_served_time=_time(release.first_served_time) if release.HasField("first_served_time") else None,
        reward_model_version=release.reward_model_version,
        experiences=release.experiences,
        metrics={name: value for name, value in sorted(release.metrics.items()) if math.isfinite(value)},
        gate_verdict=tuple(release.gate_verdict),
        acknowledged_by=tuple(release.acknowledged_by),
    )


def _known(read: Callable[[_Number, str], _Domain], number: _Number, field: str) -> _Domain:
    """What the number means. Raises ThumbloopError for one that is not known here: nobody's input is wrong."""
    try:
        return read(number, field)
    except InvalidInput as error:
        raise ThumbloopError(
            f"The learner says what this gateway does not know ({error.message}) Update the gateway.",
            reason="LEARNER_NEWER",
        ) from error


def _finite(number: float) -> float | None:
    return number if math.isfinite(number) else None


def _time(timestamp: Timestamp) -> float:
    return timestamp.ToMilliseconds() / 1000
