"""Answers of the store as gRPC messages."""

from __future__ import annotations

from datetime import datetime

from google.protobuf.timestamp_pb2 import Timestamp
from thumbloop.learner.v1 import learner_pb2

from services.learner.service.queries import Status
from services.learner.state.queries.feedback_fate import FeedbackFate
from services.learner.state.queries.releases import ReleaseView
from services.learner.state.queries.thumb_to_token import ThumbToToken
from services.shared.contracts.feedback import feedback_kind_to_proto
from services.shared.contracts.policies import release_kind_to_proto
from services.shared.domain.feedback import FeedbackState
from services.shared.domain.release import ReleaseState

_FEEDBACK_STATES = {state: learner_pb2.FeedbackState.Value(f"FEEDBACK_STATE_{state.name}") for state in FeedbackState}
_RELEASE_STATES = {state: learner_pb2.ReleaseState.Value(f"RELEASE_STATE_{state.name}") for state in ReleaseState}


def status_to_proto(status: Status) -> learner_pb2.GetStatusResponse:
    """What the store knows; the caller adds what the trainer knows."""
    totals = status.totals
    message = learner_pb2.GetStatusResponse(
        policy_version=status.policy_version,
        reward_model_version=status.reward_model_version,
        rollouts=totals.rollouts,
        feedback=totals.slots,
        ready=status.ready,
        used=totals.used,
        stale=totals.stale,
        thumbs_up=totals.thumbs_up,
        thumbs_down=totals.thumbs_down,
    )
    if status.thumb_to_token.served:
        message.thumb_to_token.CopyFrom(_thumb_to_token(status.thumb_to_token))
    return message


def fate_to_proto(fate: FeedbackFate) -> learner_pb2.GetFeedbackResponse:
    """Where a feedback is."""
    return learner_pb2.GetFeedbackResponse(
        feedback_id=fate.feedback_id,
        state=_FEEDBACK_STATES[fate.state],
        reason=fate.reason,
        rollout_id=fate.rollout_id,
        trained_into=fate.trained_into,
        trained_into_through_reward_model=fate.trained_into_through_reward_model,
        reward_model_versions=fate.reward_model_versions,
        kind=feedback_kind_to_proto(fate.kind),
        rater_id=fate.rater_id,
        revision=fate.revision,
    )


def release_to_proto(view: ReleaseView) -> learner_pb2.Release:
    """A release as shown."""
    release = view.release
    message = learner_pb2.Release(
        version=release.version,
        kind=release_kind_to_proto(release.kind),
        parent_version=release.parent_version,
        state=_RELEASE_STATES[release.state],
        commit_time=_timestamp(release.commit_time),
        manifest_sha256=release.manifest_sha256,
        reward_model_version=release.reward_model_version,
        experiences=view.experiences,
        metrics=view.metrics,
        gate_verdict=release.gate_verdict,
        acknowledged_by=view.acknowledged_by,
    )
    if release.publish_time is not None:
        message.publish_time.CopyFrom(_timestamp(release.publish_time))
    if view.first_served_time is not None:
        message.first_served_time.CopyFrom(_timestamp(view.first_served_time))
    return message


def _thumb_to_token(figures: ThumbToToken) -> learner_pb2.ThumbToToken:
    return learner_pb2.ThumbToToken(
        p50_seconds=figures.p50_s,
        p99_seconds=figures.p99_s,
        served=figures.served,
        thumbs=figures.thumbs,
        to_rm_p50_seconds=figures.to_reward_model_p50_s,
    )


def _timestamp(time: datetime) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(time)
    return stamp
