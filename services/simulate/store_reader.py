"""What the store holds after a run: read once, when no service has it open any more."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select

from services.shared.domain.release import ReleaseKind
from services.shared.domain.rollout import Purpose
from services.shared.store import tables
from services.shared.store.columns import unpack_floats
from services.shared.store.database import Database


@dataclass(frozen=True, kw_only=True)
class PublishedPolicy:
    """A policy release that was announced."""

    version: str
    checkpoint_path: str
    manifest_sha256: str
    publish_time: datetime
    metrics: dict[str, float]
    user_answers: int
    """Users' answers with at least one token drawn by it."""


def feedback_ids(database: Database) -> set[str]:
    """Ids of all feedback that was ingested."""
    with database.read() as connection:
        return set(connection.scalars(select(tables.feedback.c.feedback_id)))


def published_policies(database: Database) -> list[PublishedPolicy]:
    """Oldest first; release 0 is among them."""
    releases, versions = tables.releases, tables.rollout_versions
    answers = (
        select(versions.c.policy_version, func.count().label("answers"))
        .where(versions.c.purpose == Purpose.USER.value)
        .group_by(versions.c.policy_version)
        .subquery()
    )
    query = (
        select(releases, func.coalesce(answers.c.answers, 0).label("user_answers"))
        .outerjoin(answers, answers.c.policy_version == releases.c.version)
        .where(releases.c.kind == ReleaseKind.POLICY.value, releases.c.publish_time.is_not(None))
        .order_by(releases.c.number)
    )
    with database.read() as connection:
        return [
            PublishedPolicy(
                version=row.version,
                checkpoint_path=row.checkpoint_path,
                manifest_sha256=row.manifest_sha256,
                publish_time=row.publish_time,
                metrics=dict(row.metrics),
                user_answers=row.user_answers,
            )
            for row in connection.execute(query)
        ]


def log_prob_pairs(
    database: Database, rollout_ids: Iterable[str]
) -> dict[str, tuple[tuple[float, ...], tuple[float, ...]]]:
    """Behaviour and reference log-probs [T] of each rollout that has both; nats, at the sampling temperature."""
    rollouts, passes = tables.rollouts, tables.reference_passes
    query = (
        select(rollouts.c.rollout_id, rollouts.c.behaviour_log_probs, passes.c.log_probs)
        .join(passes, passes.c.rollout_id == rollouts.c.rollout_id)
        .where(rollouts.c.rollout_id.in_(list(rollout_ids)))
    )
    with database.read() as connection:
        return {
            row.rollout_id: (unpack_floats(row.behaviour_log_probs), unpack_floats(row.log_probs))
            for row in connection.execute(query)
        }
