"""Says the live state again at intervals, for readers that missed it.

The topic is kept for ever, and every replica that starts reads it whole. So what all have acknowledged is repeated
rarely.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from sqlalchemy import Connection, select, tuple_

from services.shared.bus.interface import OutgoingEvent, Publisher
from services.shared.contracts.policies import decode_announcement, encode_announcement
from services.shared.contracts.topics import POLICIES
from services.shared.domain.events import Clock, NewId
from services.shared.domain.release import Announcement, AnnouncementReason, ReleaseKind
from services.shared.store.database import Database
from services.shared.store.tables import acknowledgements, announcements, outbox, replicas

AT_FIRST = 3
"""So many repeats follow an announcement, whoever has acknowledged it: a broker that is killed may lose the last second
of what it had, and a replica that starts then finds nothing to acknowledge."""

SELDOM = timedelta(hours=1)
"""Between later repeats, as long as nobody lags behind."""

HEARD_WITHIN = timedelta(minutes=5)
"""Whoever was not heard for longer lags behind no more: it reads the topic when it comes back."""


@dataclass
class _Said:
    """Repeats of one announcement; `last`: of the newest."""

    order: tuple[int, int]
    last: datetime
    times: int = 0


class Announcer:
    """A repeat has the epoch and sequence of the announcement that it repeats, so it decides nothing anew."""

    def __init__(
        self, database: Database, publisher: Publisher, *, clock: Clock, new_id: NewId, interval_s: float
    ) -> None:
        self._database = database
        self._publisher = publisher
        self._clock = clock
        self._new_id = new_id
        self._interval = timedelta(seconds=interval_s)
        self._next: datetime | None = None
        self._said: dict[ReleaseKind, _Said] = {}

    def step(self) -> None:
        """Sends the repeats where it is time. An unacknowledged repeat is no loss: the next one comes."""
        now = self._clock()
        if self._next is None:
            self._next = now + self._interval
        if now < self._next:
            return
        self._next = now + self._interval
        for live in self._live():
            if self._is_due(live, now):
                meta = replace(live.meta, event_id=self._new_id(), event_time=now)
                repeat = replace(live, meta=meta, reason=AnnouncementReason.REPEAT)
                self._publisher.send(OutgoingEvent(topic=POLICIES, key=repeat.key, value=encode_announcement(repeat)))

    def _is_due(self, live: Announcement, now: datetime) -> bool:
        """Whether to repeat it now; notes that it is."""
        said = self._said.get(live.kind)
        if said is None or said.order != live.order:
            self._said[live.kind] = said = _Said(order=live.order, last=now)
        if said.times >= AT_FIRST and now - said.last < SELDOM and not self._somebody_lags(live, now):
            return False
        said.last, said.times = now, said.times + 1
        return True

    def _somebody_lags(self, live: Announcement, now: datetime) -> bool:
        """A replica that was heard lately has acknowledged an older announcement of the kind, and not this one."""
        lagging = (
            select(acknowledgements.c.replica_id)
            .join(replicas, replicas.c.replica_id == acknowledgements.c.replica_id)
            .where(
                replicas.c.seen_time > now - HEARD_WITHIN,
                acknowledgements.c.kind == live.kind.value,
                tuple_(acknowledgements.c.epoch, acknowledgements.c.sequence) < tuple_(*live.order),
            )
            .limit(1)
        )
        with self._database.read() as connection:
            return connection.scalar(lagging) is not None

    def _live(self) -> list[Announcement]:
        with self._database.read() as connection:
            found = [newest_announcement(connection, kind) for kind in ReleaseKind]
        return [announcement for announcement in found if announcement is not None]


def newest_announcement(connection: Connection, kind: ReleaseKind) -> Announcement | None:
    """The announcement with the greatest sequence of a kind, from its event."""
    event_id = (
        select(announcements.c.event_id)
        .where(announcements.c.kind == kind.value)
        .order_by(announcements.c.sequence.desc())
        .limit(1)
    )
    value = connection.scalar(select(outbox.c.value).where(outbox.c.event_id == event_id.scalar_subquery()))
    return None if value is None else decode_announcement(value)
