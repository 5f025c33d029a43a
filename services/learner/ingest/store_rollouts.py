"""Rollouts into the store. The second arrival of a rollout id changes nothing."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, select

from services.learner.forgetting.late_rollouts import without_forgotten_rollouts
from services.learner.state.rows import experience_row, rollout_row, version_rows
from services.shared.domain.rollout import Rollout
from services.shared.store.tables import experiences, rollout_versions, rollouts
from services.shared.store.upsert import chunks, insert_missing, upsert


def store_rollouts(connection: Connection, arrived: Sequence[Rollout]) -> None:
    """Adds the rollouts that are new, with their share of the experience; what others know of it stays.

    Rollouts of forgotten people stay out, and take with them what came before them.
    """
    first: dict[str, Rollout] = {}
    for rollout in without_forgotten_rollouts(connection, arrived):
        first.setdefault(rollout.rollout_id, rollout)
    known = _known(connection, list(first))
    new = [rollout for rollout_id, rollout in first.items() if rollout_id not in known]
    insert_missing(connection, rollouts, [rollout_row(rollout) for rollout in new])
    insert_missing(connection, rollout_versions, [row for rollout in new for row in version_rows(rollout)])
    upsert(
        connection,
        experiences,
        [experience_row(rollout) for rollout in new],
        update=("end_time", "oldest_version", "eligible"),
    )


def _known(connection: Connection, rollout_ids: Sequence[str]) -> set[str]:
    found: set[str] = set()
    for some in chunks(rollout_ids):
        found.update(connection.scalars(select(rollouts.c.rollout_id).where(rollouts.c.rollout_id.in_(some))))
    return found
