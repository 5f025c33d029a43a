"""The outbox: events that were committed with their cause, on their way to Kafka.

What is in the table and not marked is sent, and marked when Kafka has acknowledged it. A crash between the two sends
it twice: the same event id, epoch and sequence, which changes nothing for a reader. So an announcement is never lost
and never made up, and its effect is there exactly once.
"""

from __future__ import annotations

from concurrent.futures import Future
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, select, update

from services.learner.state.fencing import fenced_write
from services.shared.bus.interface import OutgoingEvent, Publisher, Record
from services.shared.domain.errors import ThumbloopError
from services.shared.domain.events import Clock
from services.shared.domain.release import ReleaseState
from services.shared.store.database import Database
from services.shared.store.tables import announcements, outbox, releases
from services.shared.telemetry.log import get_logger

MAX_IN_FLIGHT = 100

_log = get_logger(role="releaser")


class Outbox:
    """Sends what waits. `step` never blocks on Kafka."""

    def __init__(self, database: Database, publisher: Publisher, *, clock: Clock, epoch: int) -> None:
        self._database = database
        self._publisher = publisher
        self._clock = clock
        self._epoch = epoch
        self._in_flight: dict[str, Future[Record]] = {}

    def step(self) -> int:
        """Marks what was acknowledged and sends what waits; how many still wait. Raises Fenced."""
        self._settle()
        query = select(outbox).where(outbox.c.publish_time.is_(None)).order_by(outbox.c.position).limit(MAX_IN_FLIGHT)
        with self._database.read() as connection:
            waiting = connection.execute(query).all()
        for row in waiting:
            if row.event_id not in self._in_flight:
                self._in_flight[row.event_id] = self._publisher.send(_event(row))
        return len(waiting)

    def _settle(self) -> None:
        acknowledged: list[str] = []
        for event_id, future in list(self._in_flight.items()):
            if future.done():
                del self._in_flight[event_id]
                error = future.exception()
                if error is None:
                    acknowledged.append(event_id)
                elif isinstance(error, ThumbloopError):
                    _log.warning("announcement_not_acknowledged", event_id=event_id, error=error.message)
                else:
                    raise error
        if acknowledged:
            with fenced_write(self._database, self._epoch) as connection:
                for event_id in acknowledged:
                    mark_published(connection, event_id, self._clock())


def mark_published(connection: Connection, event_id: str, now: datetime) -> None:
    """Kafka has the event; a release's first announcement makes it published. Again changes nothing."""
    connection.execute(
        update(outbox).where(outbox.c.event_id == event_id, outbox.c.publish_time.is_(None)).values(publish_time=now)
    )
    connection.execute(
        update(announcements)
        .where(announcements.c.event_id == event_id, announcements.c.publish_time.is_(None))
        .values(publish_time=now)
    )
    version = select(announcements.c.version).where(announcements.c.event_id == event_id).scalar_subquery()
    connection.execute(
        update(releases)
        .where(releases.c.version == version, releases.c.publish_time.is_(None))
        .values(publish_time=now)
    )
    connection.execute(
        update(releases)
        .where(releases.c.version == version, releases.c.state == ReleaseState.COMMITTED.value)
        .values(state=ReleaseState.PUBLISHED.value)
    )


def _event(row: Any) -> OutgoingEvent:
    return OutgoingEvent(topic=row.topic, key=row.key, value=row.value)
