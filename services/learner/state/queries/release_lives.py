"""What users got from policy versions and said of their answers: one count for all versions, however many are shown.

The count passes once over the answers and once over the thumbs, so it costs the more the more there are; whoever is
asked often keeps it for a while.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, and_, func, select

from services.shared.domain.feedback import FeedbackKind
from services.shared.domain.rollout import Purpose
from services.shared.store.database import Database
from services.shared.store.tables import feedback_slots, rollout_versions

_OF_USERS = rollout_versions.c.purpose == Purpose.USER.value


@dataclass(frozen=True, kw_only=True)
class Life:
    """Of one policy version, as far as the store still has the rollouts. `answers`: users' responses with at least one
    token of it; `thumbs_*`: of responses drawn by it alone."""

    answers: int = 0
    thumbs_up: int = 0
    thumbs_down: int = 0

    def metrics(self) -> dict[str, float]:
        """ "answers", "thumbs", and where there is a thumb "thumbs_up_rate"."""
        thumbs = self.thumbs_up + self.thumbs_down
        life = {"answers": float(self.answers), "thumbs": float(thumbs)}
        return life | ({"thumbs_up_rate": self.thumbs_up / thumbs} if thumbs else {})


def read_lives(database: Database) -> Mapping[str, Life]:
    """By version, in one consistent look; a version that gave users nothing is left out."""
    with database.read() as connection:
        thumbs = _thumbs(connection)
        return {
            version: Life(
                answers=answers,
                thumbs_up=thumbs.get((version, True), 0),
                thumbs_down=thumbs.get((version, False), 0),
            )
            for version, answers in _answers(connection).items()
        }


def _answers(connection: Connection) -> dict[str, int]:
    query = (
        select(rollout_versions.c.policy_version, func.count().label("answers"))
        .where(_OF_USERS)
        .group_by(rollout_versions.c.policy_version)
    )
    return {row.policy_version: row.answers for row in connection.execute(query)}


def _thumbs(connection: Connection) -> dict[tuple[str, bool], int]:
    """By version and sign."""
    answer = and_(
        rollout_versions.c.rollout_id == feedback_slots.c.rollout_id,
        rollout_versions.c.tenant == feedback_slots.c.tenant,
        rollout_versions.c.whole.is_(True),
        _OF_USERS,
    )
    query = (
        select(rollout_versions.c.policy_version, feedback_slots.c.up, func.count())
        .select_from(feedback_slots)
        .join(rollout_versions, answer)
        .where(feedback_slots.c.kind == FeedbackKind.THUMB.value, feedback_slots.c.retracted.is_(False))
        .group_by(rollout_versions.c.policy_version, feedback_slots.c.up)
    )
    return {(version, bool(up)): count for version, up, count in connection.execute(query)}
