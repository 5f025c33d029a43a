"""Reads experiences and rated examples out of the store's tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import Connection, and_, select

from services.learner.ports import Experience, RatedExample
from services.learner.state.rows import rollout_from_row
from services.shared.domain.feedback import FeedbackKind
from services.shared.domain.rollout import Rollout
from services.shared.store.columns import unpack_floats
from services.shared.store.tables import features, feedback_slots, reference_passes, rollouts, scores
from services.shared.store.upsert import chunks

_HELD_THUMB = and_(
    feedback_slots.c.kind == FeedbackKind.THUMB.value,
    feedback_slots.c.retracted.is_(False),
    feedback_slots.c.quarantined.is_(False),
)


def read_experiences(
    connection: Connection,
    rollout_ids: Sequence[str],
    *,
    staleness: Mapping[str, int],
    reward_model_version: str,
    join_window: timedelta,
) -> list[Experience]:
    """Experiences in the order of `rollout_ids`. `staleness` gives each version's distance from the learner's. A thumb
    that came later than `join_window` after the response is left out: it trains the reward model alone.
    """
    thumbs = _thumbs(connection, rollout_ids)
    found: dict[str, Experience] = {}
    for row in _joined(connection, rollout_ids, reward_model_version):
        rollout = rollout_from_row(row)
        up, feedback_id = _timely(thumbs.get(rollout.rollout_id, []), rollout, join_window)
        found[rollout.rollout_id] = Experience(
            rollout=rollout,
            staleness=max(staleness[span.policy_version] for span in rollout.spans),
            thumb=up,
            thumb_feedback_id=feedback_id,
            reference_log_probs=unpack_floats(row.reference_log_probs or b""),
            features=row.features or b"",
            feature_layout=row.layout or "",
            score_mean=row.score_mean,
            score_spread=row.score_spread,
            score_terms=tuple((name, value) for name, value in row.score_terms or ()),
        )
    return [found[rollout_id] for rollout_id in rollout_ids if rollout_id in found]


def read_rated_examples(connection: Connection, *, limit: int) -> list[RatedExample]:
    """The newest thumbs that hold their slots and whose rollouts have features, oldest first."""
    newest = (
        select(feedback_slots, features.c.features, features.c.layout)
        .join(features, features.c.rollout_id == feedback_slots.c.rollout_id)
        .where(_HELD_THUMB)
        .order_by(feedback_slots.c.accept_time.desc(), feedback_slots.c.feedback_id.desc())
        .limit(limit)
    )
    examples = [
        RatedExample(
            rollout_id=row.rollout_id,
            feedback_id=row.feedback_id,
            rater_id=row.rater_id,
            up=row.up,
            accept_time=row.accept_time,
            features=row.features,
            feature_layout=row.layout,
        )
        for row in connection.execute(newest)
    ]
    return examples[::-1]


def _joined(connection: Connection, rollout_ids: Sequence[str], reward_model_version: str) -> list[Any]:
    """Rows of `rollouts`, each with its reference pass, its features and its score by the pinned reward model."""
    pinned = and_(scores.c.rollout_id == rollouts.c.rollout_id, scores.c.reward_model_version == reward_model_version)
    query = (
        select(
            rollouts,
            reference_passes.c.log_probs.label("reference_log_probs"),
            features.c.features,
            features.c.layout,
            scores.c.mean.label("score_mean"),
            scores.c.spread.label("score_spread"),
            scores.c.terms.label("score_terms"),
        )
        .outerjoin(reference_passes, reference_passes.c.rollout_id == rollouts.c.rollout_id)
        .outerjoin(features, features.c.rollout_id == rollouts.c.rollout_id)
        .outerjoin(scores, pinned)
    )
    return [
        row for some in chunks(rollout_ids) for row in connection.execute(query.where(rollouts.c.rollout_id.in_(some)))
    ]


def _thumbs(connection: Connection, rollout_ids: Sequence[str]) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for some in chunks(rollout_ids):
        query = select(feedback_slots).where(_HELD_THUMB, feedback_slots.c.rollout_id.in_(some))
        for row in connection.execute(query.order_by(feedback_slots.c.accept_time, feedback_slots.c.feedback_id)):
            found.setdefault(row.rollout_id, []).append(row)
    return found


def _timely(thumbs: Sequence[Any], rollout: Rollout, join_window: timedelta) -> tuple[bool | None, str]:
    """The last thumb within the window; its own rater's before another's."""
    timely = [thumb for thumb in thumbs if thumb.accept_time - rollout.end_time <= join_window]
    if not timely:
        return None, ""
    chosen = max(timely, key=lambda thumb: (thumb.rater_id == rollout.rater_id, thumb.accept_time))
    return chosen.up, chosen.feedback_id
