"""Rollouts go once they are older than their retention, with all that was said and learned of them: the store's bound.

What stays is what the reward model is trained on (rollouts with features whose thumb is among the newest), and what is
claimed under the present epoch. Releases stay, and their manifests name what made them; their rows in `uses` go with
the rollouts.

A round first raises the floor (`past_retention`), below which nothing new is stored any more. Then it deletes page by
page, a bounded one a turn, first rollouts, then uses. The leader's releaser takes the turns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, delete, func, select, tuple_

from services.learner.forgetting.tombstones import hold_off_storing
from services.learner.state.deletion import RolloutKey, delete_rollouts_and_feedback
from services.learner.state.experience_reader import held_thumbs_since
from services.learner.state.fencing import fenced_write
from services.learner.state.first_served import keep_first_served
from services.learner.state.past_retention import raise_floor
from services.learner.state.retention_rounds import RetentionRounds
from services.shared.ids import least_id, minted_time
from services.shared.store.erasing import erasing
from services.shared.store.tables import experiences, features, rollouts, uses
from services.shared.store.upsert import chunks


@dataclass(kw_only=True)
class _Round:
    """Where a round is. `after`: the last rollout that was looked at; None: it has seen all, and is at the uses.
    `uses_after`: the same of rollouts that have uses; None: it has seen these too."""

    floor: str
    thumbs_since: datetime | None
    after: RolloutKey | None = ("", "")
    uses_after: str | None = ""


class RolloutsRetention(RetentionRounds[_Round]):
    """Ages are of the rollouts' ids, beside the newest of them: a clock that is ahead deletes nothing before its time,
    and without traffic nothing ages. What is counted are rollouts. Kept for 0 seconds means for ever."""

    def step(self) -> int:
        """See `RetentionRounds`."""
        return super().step() if self._keep else 0

    def _begin(self, now: datetime, thumbs_since: datetime | None) -> _Round:
        with fenced_write(self._database, self._epoch, alone=False) as connection:
            hold_off_storing(connection)
            newest = minted_time(connection.scalar(select(func.max(rollouts.c.rollout_id))) or "")
            floor = raise_floor(connection, least_id(min(now, newest or now) - self._keep), now=now)
        return _Round(floor=floor, thumbs_since=thumbs_since)

    def _turn(self, at: _Round) -> int:
        if at.after is not None:
            return self._delete_rollouts(at, at.after)
        self._delete_uses(at)
        return 0

    def _is_over(self, at: _Round) -> bool:
        return at.uses_after is None

    def _delete_rollouts(self, at: _Round, after: RolloutKey) -> int:
        """The next page."""
        key = tuple_(experiences.c.rollout_id, experiences.c.tenant)
        query = (
            select(experiences.c.rollout_id, experiences.c.tenant, experiences.c.state, experiences.c.claim_epoch)
            .where(experiences.c.rollout_id < at.floor, key > after)
            .order_by(experiences.c.rollout_id, experiences.c.tenant)
            .limit(self._page)
        )
        with fenced_write(self._database, self._epoch, alone=False) as connection:
            held = query.with_for_update() if self._database.is_postgresql else query
            rows = connection.execute(held).all()
            claimed = (row for row in rows if row.state == "claimed" and row.claim_epoch == self._epoch)
            kept = {(row.rollout_id, row.tenant) for row in claimed}
            kept |= _trained_on(connection, [row.rollout_id for row in rows], at.thumbs_since)
            gone = [(row.rollout_id, row.tenant) for row in rows if (row.rollout_id, row.tenant) not in kept]
            keep_first_served(connection, (rollout_id for rollout_id, _ in gone))
            with erasing(connection):
                delete_rollouts_and_feedback(connection, gone)
        at.after = (rows[-1].rollout_id, rows[-1].tenant) if len(rows) == self._page else None
        return len(gone)

    def _delete_uses(self, at: _Round) -> None:
        """Of rollouts that are gone, the next page."""
        named = (
            select(uses.c.rollout_id)
            .where(uses.c.rollout_id < at.floor, uses.c.rollout_id > (at.uses_after or ""))
            .distinct()
            .order_by(uses.c.rollout_id)
            .limit(self._page)
        )
        with fenced_write(self._database, self._epoch, alone=False) as connection:
            rollout_ids = connection.scalars(named).all()
            for some in chunks(rollout_ids):
                there = select(experiences.c.rollout_id).where(experiences.c.rollout_id.in_(some))
                gone = sorted(set(some) - set(connection.scalars(there)))
                connection.execute(delete(uses).where(uses.c.rollout_id.in_(gone)))
        at.uses_after = rollout_ids[-1] if len(rollout_ids) == self._page else None


def _trained_on(connection: Connection, rollout_ids: Sequence[str], since: datetime | None) -> set[RolloutKey]:
    """Those with features whose thumb is of that time or later; None: has any thumb."""
    rated = held_thumbs_since(connection, rollout_ids, since)
    found: set[RolloutKey] = set()
    for some in chunks(sorted({rollout_id for rollout_id, _ in rated})):
        query = select(features.c.rollout_id, features.c.tenant).where(features.c.rollout_id.in_(some))
        found |= {(row.rollout_id, row.tenant) for row in connection.execute(query)}
    return rated & found
