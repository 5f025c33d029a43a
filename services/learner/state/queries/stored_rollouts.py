"""How far rollouts have come: what a generator whose log may lose its tail asks before it lets go of its own copies."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import select

from services.learner.state.past_retention import past_retention
from services.shared.domain.errors import InvalidInput
from services.shared.domain.rollout import RolloutProgress
from services.shared.store.database import Database
from services.shared.store.tables import rollouts, scores, tombstones

MOST_ROLLOUTS = 1_000


def stored_rollouts(database: Database, *, tenant: str, rollout_ids: Sequence[str]) -> list[RolloutProgress]:
    """For each id, in their order. SETTLED are also those that the store never wants, since they were forgotten or are
    past retention. Raises InvalidInput for none or more than 1,000.
    """
    if not 1 <= len(rollout_ids) <= MOST_ROLLOUTS:
        raise InvalidInput(
            f"{len(rollout_ids)} rollout ids were sent; send 1 to {MOST_ROLLOUTS} a call.", field="rollout_ids"
        )
    asked = set(rollout_ids)
    here = select(rollouts.c.rollout_id).where(rollouts.c.tenant == tenant, rollouts.c.rollout_id.in_(asked))
    # An answer without a token has a score, and never counts as scored experience.
    judged = select(scores.c.rollout_id).where(scores.c.tenant == tenant, scores.c.rollout_id.in_(asked))
    forgotten = select(tombstones.c.subject_id).where(
        tombstones.c.tenant == tenant, tombstones.c.subject == "rollout", tombstones.c.subject_id.in_(asked)
    )
    with database.read() as connection:
        stored = set(connection.scalars(here))
        settled = stored & set(connection.scalars(judged))
        settled |= set(connection.scalars(forgotten)) | past_retention(connection, asked)

    def progress(rollout_id: str) -> RolloutProgress:
        if rollout_id in settled:
            return RolloutProgress.SETTLED
        return RolloutProgress.UNSCORED if rollout_id in stored else RolloutProgress.MISSING

    return [progress(rollout_id) for rollout_id in rollout_ids]
