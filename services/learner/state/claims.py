"""Claims: which experiences the trainer may have, once.

An experience goes open → claimed → used | stale | quarantined. A claim is a lease fenced by the learner's epoch: one
that has run out, or that an older epoch made, counts as open. *Ready* is never stored; it is asked here, at the
claim: scored, fit for PPO, fresh, and rated or old enough to go without.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, and_, exists, false, func, or_, select, update

from services.learner.ports import Experience, RatedExample
from services.learner.state.ancestry import distances
from services.learner.state.experience_moves import TOO_OLD, move
from services.learner.state.experience_reader import read_experiences, read_rated_examples
from services.learner.state.fencing import fenced_write
from services.shared.domain.events import Clock
from services.shared.store.database import Database
from services.shared.store.tables import experiences, rollout_versions

RETIRED_AT_A_TIME = 1_000
"""Bounds a claim's transaction."""


class SqlExperienceStore:
    """`ports.ExperienceStore` on SQL, for the holder of one epoch."""

    def __init__(
        self,
        database: Database,
        *,
        clock: Clock,
        epoch: int,
        max_staleness: int,
        unrated_wait_s: float,
        join_window_s: float,
        claim_lease_s: float,
    ) -> None:
        self._database = database
        self._clock = clock
        self._epoch = epoch
        self._max_staleness = max_staleness
        self._unrated_wait = timedelta(seconds=unrated_wait_s)
        self._join_window = timedelta(seconds=join_window_s)
        self._lease = timedelta(seconds=claim_lease_s)

    def ready_count(self, *, policy_version: str) -> int:
        """See the port."""
        with self._database.read() as connection:
            fresh = distances(connection, policy_version, most=self._max_staleness)
            free = or_(experiences.c.state == "open", and_(experiences.c.state == "claimed", self._is_void()))
            query = select(func.count()).select_from(experiences).where(free, self._ready(), _drawn_by_only(fresh))
            return int(connection.scalar(query) or 0)

    def claim(self, *, limit: int, policy_version: str, reward_model_version: str) -> list[Experience]:
        """See the port."""
        with fenced_write(self._database, self._epoch) as connection:
            fresh = distances(connection, policy_version, most=self._max_staleness)
            self._void(connection)
            rollout_ids = self._take(connection, limit, fresh)
            return read_experiences(
                connection,
                rollout_ids,
                staleness=fresh,
                reward_model_version=reward_model_version,
                join_window=self._join_window,
            )

    def unclaim(self, rollout_ids: Sequence[str]) -> None:
        """See the port."""
        self._release(rollout_ids, state="open", reason="")

    def discard(self, rollout_ids: Sequence[str], *, reason: str) -> None:
        """See the port."""
        self._release(rollout_ids, state="stale", reason=reason)

    def rated_examples(self, *, limit: int = 5000) -> list[RatedExample]:
        """See the port."""
        with self._database.read() as connection:
            return read_rated_examples(connection, limit=limit)

    def _release(self, rollout_ids: Sequence[str], *, state: str, reason: str) -> None:
        with fenced_write(self._database, self._epoch) as connection:
            mine = and_(experiences.c.state == "claimed", experiences.c.claim_epoch == self._epoch)
            move(connection, rollout_ids, mine, state=state, stale_reason=reason, claim_epoch=None, lease_until=None)

    def _take(self, connection: Connection, limit: int, fresh: dict[str, int]) -> list[str]:
        """Claims what is ready and fresh, newest first: the nearer to the live policy, the more an update learns."""
        ready = select(experiences.c.rollout_id).where(experiences.c.state == "open", self._ready())
        newest = ready.where(_drawn_by_only(fresh)).order_by(experiences.c.end_time.desc(), experiences.c.rollout_id)
        taken = list(connection.scalars(self._skip_locked(newest.limit(limit))))
        move(connection, taken, state="claimed", claim_epoch=self._epoch, lease_until=self._clock() + self._lease)
        self._retire(connection, ready, fresh)
        return taken

    def _retire(self, connection: Connection, ready: Select[*tuple[Any, ...]], fresh: dict[str, int]) -> None:
        """The oldest that no claim will take any more become stale (a rollback reopens them), so many at a time."""
        left = ready.where(~_drawn_by_only(fresh)).order_by(experiences.c.end_time, experiences.c.rollout_id)
        stale = list(connection.scalars(self._skip_locked(left.limit(RETIRED_AT_A_TIME))))
        move(connection, stale, state="stale", stale_reason=TOO_OLD, claim_epoch=None, lease_until=None)

    def _void(self, connection: Connection) -> None:
        """Claims that no longer count are open again."""
        query = update(experiences).where(experiences.c.state == "claimed", self._is_void())
        connection.execute(query.values(state="open", claim_epoch=None, lease_until=None))

    def _is_void(self) -> ColumnElement[bool]:
        return or_(experiences.c.claim_epoch < self._epoch, experiences.c.lease_until < self._clock())

    def _ready(self) -> ColumnElement[bool]:
        """Scored, fit, and rated or old enough; whether it is open is another question."""
        return and_(
            experiences.c.eligible.is_(True),
            experiences.c.scored.is_(True),
            or_(experiences.c.rated.is_(True), experiences.c.end_time <= self._clock() - self._unrated_wait),
        )

    def _skip_locked(self, query: Select[*tuple[Any, ...]]) -> Select[*tuple[Any, ...]]:
        """Several learners claim side by side where the database can lock rows; SQLite has one writer anyway."""
        return query.with_for_update(skip_locked=True, of=experiences) if self._database.is_postgresql else query


def _drawn_by_only(fresh: dict[str, int]) -> ColumnElement[bool]:
    """All of the response's versions are among these."""
    if not fresh:
        return false()
    other = exists().where(
        rollout_versions.c.rollout_id == experiences.c.rollout_id, rollout_versions.c.policy_version.not_in(fresh)
    )
    return and_(experiences.c.oldest_version.in_(fresh), ~other)
