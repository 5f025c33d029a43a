"""Says the live state again at intervals, for readers that missed it or whose stage had failed."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from sqlalchemy import Connection, select

from services.shared.bus.interface import OutgoingEvent, Publisher
from services.shared.contracts.policies import decode_announcement, encode_announcement
from services.shared.contracts.topics import POLICIES
from services.shared.domain.events import Clock, NewId
from services.shared.domain.release import Announcement, AnnouncementReason, ReleaseKind
from services.shared.store.database import Database
from services.shared.store.tables import announcements, outbox


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

    def step(self) -> None:
        """Sends the repeats where it is time. An unacknowledged repeat is no loss: the next one comes."""
        now = self._clock()
        if self._next is None:
            self._next = now + self._interval
        if now < self._next:
            return
        self._next = now + self._interval
        for live in self._live():
            meta = replace(live.meta, event_id=self._new_id(), event_time=now)
            repeat = replace(live, meta=meta, reason=AnnouncementReason.REPEAT)
            self._publisher.send(OutgoingEvent(topic=POLICIES, key=repeat.key, value=encode_announcement(repeat)))

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
