"""Features and reference log-probs are kept only as long as training may need them.

They come with scores and are by far the heaviest that the store holds of a rollout. Once older than the retention they
go, except those of an experience that is claimed just now, and features that the newest thumbs are trained with.
An experience that nobody claimed in all that time becomes stale: so these are bounded also while the policy does not
train. Everything else of a rollout stays until its own retention (`rollouts_retention`) has passed.

The leader's releaser does it in rounds, one bounded page a turn. A round looks at each old row once, in the order of
time; what was deleted and comes again from the log (a partition that is read again) goes again in the next round.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Table, func, select, tuple_

from services.learner.state.deletion import RolloutKey, delete_each
from services.learner.state.experience_moves import move
from services.learner.state.experience_reader import held_thumbs_since
from services.learner.state.fencing import fenced_write
from services.learner.state.retention_rounds import RetentionRounds
from services.shared.store.tables import experiences, features, reference_passes

PAST_RETENTION = "past retention"
"""Reason of experiences that were not claimed as long as what they need was kept."""

_TABLES = (reference_passes, features)


@dataclass(kw_only=True)
class _Round:
    """Where a round is: in which table, after which row; what it deletes, and which thumbs it spares."""

    before: datetime
    thumbs_since: datetime | None
    table: int = 0
    after: tuple[datetime, str] | None = None


class FeaturesRetention(RetentionRounds[_Round]):
    """Ages are of the scores that features and log-probs came with, beside the newest of them: a clock that is ahead
    deletes nothing before its time, and without traffic nothing ages. What is counted are rows."""

    def _begin(self, now: datetime, thumbs_since: datetime | None) -> _Round:
        with self._database.read() as connection:
            times = [connection.scalar(select(func.max(table.c.event_time))) for table in _TABLES]
        newest = max((time for time in times if time), default=now)
        return _Round(before=min(now, newest) - self._keep, thumbs_since=thumbs_since)

    def _is_over(self, at: _Round) -> bool:
        return at.table == len(_TABLES)

    def _turn(self, at: _Round) -> int:
        table = _TABLES[at.table]
        with fenced_write(self._database, self._epoch, alone=False) as connection:
            rows = self._old(connection, table, at)
            keys = [(row.rollout_id, row.tenant) for row in rows]
            kept = _claimed(connection, keys, self._epoch)
            move(connection, [rollout_id for rollout_id, _ in set(keys) - kept], *_UNCLAIMED, **_STALE)
            if table is features:
                kept |= held_thumbs_since(connection, [rollout_id for rollout_id, _ in keys], at.thumbs_since)
            gone = [key for key in keys if key not in kept]
            delete_each(connection, table, ("rollout_id", "tenant"), gone)
        if len(rows) == self._page:
            at.after = (rows[-1].event_time, rows[-1].rollout_id)
        else:
            at.table, at.after = at.table + 1, None
        return len(gone)

    def _old(self, connection: Connection, table: Table, at: _Round) -> Sequence[Any]:
        """The next page. (Rows of two tenants with one id and one time are neighbours; the second may be passed over at
        a page's end, and is the next round's.)"""
        query = select(table.c.event_time, table.c.rollout_id, table.c.tenant).where(table.c.event_time < at.before)
        if at.after is not None:
            query = query.where(tuple_(table.c.event_time, table.c.rollout_id) > at.after)
        return connection.execute(query.order_by(table.c.event_time, table.c.rollout_id).limit(self._page)).all()


_UNCLAIMED = (experiences.c.state == "open", experiences.c.eligible.is_(True))
_STALE = {"state": "stale", "stale_reason": PAST_RETENTION}


def _claimed(connection: Connection, keys: Collection[RolloutKey], epoch: int) -> set[RolloutKey]:
    """Claims of an older epoch are void."""
    query = select(experiences.c.rollout_id, experiences.c.tenant).where(
        experiences.c.rollout_id.in_({rollout_id for rollout_id, _ in keys}),
        experiences.c.state == "claimed",
        experiences.c.claim_epoch == epoch,
    )
    return {(row.rollout_id, row.tenant) for row in connection.execute(query)}
