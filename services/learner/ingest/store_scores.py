"""Scores into the store, and what comes with them: the reference log-probs and the features of the same pass.

A score is unique for (rollout, reward model). Where the reward service scored twice, or several reward models scored
one rollout, the earliest event's numbers stay, so that the order of arrival does not matter.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection

from services.learner.forgetting.keeping_out import without_forgotten_scores
from services.learner.state.rows import Row
from services.shared.domain.score import Score
from services.shared.store.columns import pack_floats
from services.shared.store.tables import experiences, features, reference_passes, scores
from services.shared.store.upsert import upsert, upsert_earliest


def store_scores(connection: Connection, arrived: Sequence[Score]) -> None:
    """Adds what is new, but for scores of forgotten rollouts. An experience counts as scored once it has a score with
    reference log-probs.
    """
    arrived = without_forgotten_scores(connection, arrived)
    upsert_earliest(connection, scores, [_score_row(score) for score in arrived])
    passes = [score for score in arrived if score.reference_log_probs]
    upsert_earliest(connection, reference_passes, [_pass_row(score) for score in passes])
    upsert_earliest(connection, features, [_features_row(score) for score in arrived if score.features])
    rows = {(score.meta.tenant, score.rollout_id): _scored_row(score) for score in passes}
    upsert(connection, experiences, list(rows.values()), update=("scored",))


def _event(score: Score) -> Row:
    return {
        "rollout_id": score.rollout_id,
        "tenant": score.meta.tenant,
        "event_id": score.meta.event_id,
        "event_time": score.meta.event_time,
    }


def _score_row(score: Score) -> Row:
    return _event(score) | {
        "reward_model_version": score.reward_model_version,
        "mean": score.mean,
        "spread": score.spread,
        "terms": [[name, value] for name, value in score.terms],
    }


def _pass_row(score: Score) -> Row:
    return _event(score) | {
        "log_probs": pack_floats(score.reference_log_probs),
        "temperature": score.temperature,
        "base_model_digest": score.base_model_digest,
    }


def _features_row(score: Score) -> Row:
    return _event(score) | {"features": score.features, "layout": score.feature_layout}


def _scored_row(score: Score) -> Row:
    return {"rollout_id": score.rollout_id, "tenant": score.meta.tenant, "scored": True, "state": "open"}
