"""Claims: which experiences the trainer may have, once.

An experience goes open → claimed → used | stale | quarantined. A claim is a lease fenced by the learner's epoch: one
that has run out, or that an older epoch made, counts as open. *Ready* is never stored; it is asked here, at the
claim: scored, fit for PPO, fresh, and rated or old enough to go without.

Each question goes down one index, version by version, and looks at a bounded number of rows: it costs the same however
many experiences the store holds. On PostgreSQL several learners of one epoch claim side by side; each passes over the
rows that another is about to claim.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from itertools import pairwise, product
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, and_, exists, func, or_, select

from services.learner.ports import RATED_EXAMPLES, Experience, RatedExample
from services.learner.state.ancestry import distances
from services.learner.state.experience_moves import TOO_OLD, move
from services.learner.state.experience_reader import read_experiences, read_rated_examples
from services.learner.state.fencing import fenced_write
from services.shared.domain.events import Clock
from services.shared.store.database import Database
from services.shared.store.tables import experiences, rollout_versions
from services.shared.store.upsert import chunks

RETIRED_AT_A_TIME = 1_000
"""Bounds a claim's transaction."""

COUNTED_AT_MOST = 10_000
"""More ready experiences than this are not counted."""

_OPEN = experiences.c.state == "open"
_FIT = (experiences.c.eligible.is_(True), experiences.c.scored.is_(True))
_OLDEST_FIRST = (experiences.c.oldest_version, experiences.c.end_time, experiences.c.rollout_id)
"""The order of the index of what is ready. Asked for, it leads PostgreSQL down that index also where a planner that
thinks of many such rows would rather read the table until it has met enough of them."""

_AGAIN = {"state": "open", "claim_epoch": None, "lease_until": None}
_TOO_OLD = {"state": "stale", "stale_reason": TOO_OLD, "claim_epoch": None, "lease_until": None}


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
            states = (_OPEN, and_(experiences.c.state == "claimed", self._is_void()))
            found = 0
            for version, state in product(fresh, states):
                ready = self._ready(state, version).where(~_drawn_by_others(fresh)).limit(COUNTED_AT_MOST - found)
                found += connection.scalar(select(func.count()).select_from(ready.subquery())) or 0
            return found

    def claim(self, *, limit: int, policy_version: str, reward_model_version: str) -> list[Experience]:
        """See the port."""
        with fenced_write(self._database, self._epoch, alone=False) as connection:
            fresh = distances(connection, policy_version, most=self._max_staleness)
            self._void(connection)
            rollout_ids = self._take(connection, limit, fresh)
            self._retire(connection, fresh)
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

    def rated_examples(self, *, limit: int = RATED_EXAMPLES) -> list[RatedExample]:
        """See the port."""
        with self._database.read() as connection:
            return read_rated_examples(connection, limit=limit)

    def _release(self, rollout_ids: Sequence[str], *, state: str, reason: str) -> None:
        with fenced_write(self._database, self._epoch, alone=False) as connection:
            mine = and_(experiences.c.state == "claimed", experiences.c.claim_epoch == self._epoch)
            move(connection, rollout_ids, mine, state=state, stale_reason=reason, claim_epoch=None, lease_until=None)

    def _take(self, connection: Connection, limit: int, fresh: Mapping[str, int]) -> list[str]:
        """Claims what is ready: the least stale first, and of one version the newest. The nearer a rollout is to the
        live policy, the more an update learns from it."""
        taken: list[str] = []
        for version in fresh:
            newest = self._ready(_OPEN, version).order_by(experiences.c.end_time.desc(), experiences.c.rollout_id)
            while len(taken) < limit:
                found = list(connection.scalars(self._unlocked(newest.limit(limit - len(taken)))))
                stray = _drawn_in_part_by_others(connection, found, fresh)
                mine = [rollout_id for rollout_id in found if rollout_id not in stray]
                move(
                    connection, mine, state="claimed", claim_epoch=self._epoch, lease_until=self._clock() + self._lease
                )
                move(connection, stray, **_TOO_OLD)
                taken += mine
                if not stray:
                    break
        return taken

    def _retire(self, connection: Connection, fresh: Mapping[str, int]) -> None:
        """What no claim will take any more becomes stale (a rollback reopens it), so many at a time."""
        edges = [None, *sorted(fresh), None]
        for above, below in pairwise(edges):
            between = [] if above is None else [experiences.c.oldest_version > above]
            between += [] if below is None else [experiences.c.oldest_version < below]
            left = select(experiences.c.rollout_id).where(_OPEN, *_FIT, *between).order_by(*_OLDEST_FIRST)
            left = left.limit(RETIRED_AT_A_TIME)
            move(connection, connection.scalars(self._unlocked(left)).all(), **_TOO_OLD)

    def _void(self, connection: Connection) -> None:
        """Claims that no longer count are open again."""
        void = select(experiences.c.rollout_id).where(experiences.c.state == "claimed", self._is_void())
        move(connection, connection.scalars(self._unlocked(void)).all(), **_AGAIN)

    def _is_void(self) -> ColumnElement[bool]:
        return or_(experiences.c.claim_epoch < self._epoch, experiences.c.lease_until < self._clock())

    def _ready(self, state: ColumnElement[bool], version: str) -> Select[*tuple[Any, ...]]:
        """Rollouts that `version` is the oldest version of, scored, fit, and rated or old enough."""
        waited = experiences.c.end_time <= self._clock() - self._unrated_wait
        return select(experiences.c.rollout_id).where(
            state, *_FIT, experiences.c.oldest_version == version, or_(experiences.c.rated.is_(True), waited)
        )

    def _unlocked(self, query: Select[*tuple[Any, ...]]) -> Select[*tuple[Any, ...]]:
        """Locks the rows, and passes over those that another has locked; SQLite has one writer anyway."""
        return query.with_for_update(skip_locked=True, of=experiences) if self._database.is_postgresql else query


def _drawn_by_others(fresh: Mapping[str, int]) -> ColumnElement[bool]:
    """A version that is not among these drew some of the response's tokens."""
    return exists().where(
        rollout_versions.c.rollout_id == experiences.c.rollout_id, rollout_versions.c.policy_version.not_in(fresh)
    )


def _drawn_in_part_by_others(connection: Connection, rollout_ids: Sequence[str], fresh: Mapping[str, int]) -> set[str]:
    found: set[str] = set()
    for some in chunks(rollout_ids):
        query = select(rollout_versions.c.rollout_id).where(
            rollout_versions.c.rollout_id.in_(some), rollout_versions.c.policy_version.not_in(fresh)
        )
        found.update(connection.scalars(query))
    return found
