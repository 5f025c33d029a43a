"""How far each partition has been read: SQL leases with epochs, and the offset that commits with what was derived.

A partition belongs to one ingest at a time. Taking it raises its epoch; advancing it says from which offset and under
which epoch, and where that no longer holds (another ingest has the partition, or has gone further) the whole
transaction is undone. So each record's effects are committed once, whoever else is reading.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import Connection, select, update

from services.shared.bus.interface import Place
from services.shared.domain.errors import Fenced
from services.shared.domain.events import Clock
from services.shared.store.database import Database
from services.shared.store.tables import ingest_offsets
from services.shared.store.upsert import insert_missing


@dataclass(frozen=True, kw_only=True)
class Position:
    """A partition that this ingest holds.

    `last_event_id` is of the record at `next` - 1, "" where none was read; `topic_id` "": not known; `recent_read` and
    `recent_dead` count the records of late, and how many of them were unreadable.
    """

    place: Place
    next: int
    epoch: int
    last_event_id: str
    cluster_id: str
    topic_id: str = ""
    recent_read: int = 0
    recent_dead: int = 0


class Positions:
    """Takes, advances and gives back partitions for one holder (a stable name)."""

    def __init__(self, database: Database, *, clock: Clock, holder: str, ttl_s: float) -> None:
        self._database = database
        self._clock = clock
        self._holder = holder
        self._ttl = timedelta(seconds=ttl_s)

    def take(
        self,
        beginnings: Mapping[Place, int],
        cluster_id: str,
        *,
        room: Mapping[str, int],
        topic_ids: Mapping[str, str] | None = None,
    ) -> list[Position]:
        """Takes those of the partitions that are this holder's own, free, or whose lease has run out; of each topic at
        most as many as `room` says, own ones first. Own ones beyond that (from before a restart) are given back.

        A partition never seen before starts at its first offset kept. `topic_ids` are remembered where none was; None:
        the broker has none that can be relied on.
        """
        now, topic_ids = self._clock(), topic_ids or {}
        taken: list[Position] = []
        left = dict(room)
        with self._database.write() as connection:
            insert_missing(
                connection,
                ingest_offsets,
                [_new_row(place, offset, cluster_id, now) for place, offset in sorted(beginnings.items())],
            )
            rows = [
                connection.execute(select(ingest_offsets).where(*_at(place)).with_for_update()).one()
                for place in sorted(beginnings)
            ]
            for row in sorted(rows, key=lambda row: row.holder != self._holder):
                mine = row.holder == self._holder
                if left.get(row.topic, 0) > 0 and (mine or row.holder == "" or row.lease_until <= now):
                    left[row.topic] -= 1
                    topic_id = row.topic_id or topic_ids.get(row.topic, "")
                    values = {"epoch": row.epoch + 1, "holder": self._holder, "lease_until": now + self._ttl}
                    values["topic_id"] = topic_id
                    taken.append(_position(row, epoch=row.epoch + 1, topic_id=topic_id))
                elif mine:
                    values = {"epoch": row.epoch + 1, "holder": "", "lease_until": now}
                else:
                    continue
                connection.execute(update(ingest_offsets).where(*_at(Place(row.topic, row.partition))).values(values))
        return sorted(taken, key=lambda position: position.place)

    def read_from(self) -> dict[Place, int]:
        """Every partition that the store knows, with the offset of the record to be read next."""
        with self._database.read() as connection:
            columns = ingest_offsets.c.topic, ingest_offsets.c.partition, ingest_offsets.c.next
            return {Place(row.topic, row.partition): row.next for row in connection.execute(select(*columns))}

    def renew(self, held: Iterable[Position]) -> list[Position]:
        """Keeps leases; gives those positions that are still held."""
        until = self._clock() + self._ttl
        with self._database.write() as connection:
            return [position for position in held if _update(connection, position, lease_until=until)]

    def advance(self, connection: Connection, position: Position, *, to: Position) -> None:
        """Moves a partition on, within the transaction of what was derived. Raises Fenced: undo everything."""
        moved = _update(
            connection,
            position,
            next=to.next,
            last_event_id=to.last_event_id,
            recent_read=to.recent_read,
            recent_dead=to.recent_dead,
            lease_until=self._clock() + self._ttl,
        )
        if not moved:
            raise Fenced(
                f"{position.place.topic}[{position.place.partition}] is no longer at offset {position.next} under epoch"
                f" {position.epoch}: another ingest has taken it over."
            )

    def restart(self, position: Position, *, beginning: int, cluster_id: str) -> Position:
        """Reads a partition again from its first offset kept. Raises Fenced."""
        with self._database.write() as connection:
            if not _update(connection, position, next=beginning, last_event_id="", cluster_id=cluster_id):
                raise Fenced(f"{position.place} has been taken over.")
        return Position(
            place=position.place, next=beginning, epoch=position.epoch, last_event_id="", cluster_id=cluster_id
        )

    def give_back(self, held: Iterable[Position]) -> None:
        """Lets another ingest take the partitions at once."""
        now = self._clock()
        with self._database.write() as connection:
            for position in held:
                _update(connection, position, holder="", lease_until=now)


def _update(connection: Connection, position: Position, **values: Any) -> bool:
    """Changes the row if it is at the position, under its epoch."""
    where = (*_at(position.place), ingest_offsets.c.next == position.next, ingest_offsets.c.epoch == position.epoch)
    return connection.execute(update(ingest_offsets).where(*where).values(values)).rowcount == 1


def _at(place: Place) -> tuple[Any, ...]:
    return (ingest_offsets.c.topic == place.topic, ingest_offsets.c.partition == place.partition)


def _new_row(place: Place, beginning: int, cluster_id: str, now: Any) -> dict[str, Any]:
    return {
        "topic": place.topic,
        "partition": place.partition,
        "next": beginning,
        "epoch": 0,
        "last_event_id": "",
        "cluster_id": cluster_id,
        "topic_id": "",
        "holder": "",
        "lease_until": now,
    }


def _position(row: Any, *, epoch: int, topic_id: str) -> Position:
    return Position(
        place=Place(row.topic, row.partition),
        next=row.next,
        epoch=epoch,
        last_event_id=row.last_event_id,
        cluster_id=row.cluster_id,
        topic_id=topic_id,
        recent_read=row.recent_read,
        recent_dead=row.recent_dead,
    )
