"""What cannot be read goes to the dead-letter topic: its bytes as they were, the reason, and where it lay.

The share that may go there is capped. A few bad events are a bug of somebody; a stream of them is a bad deploy or the
wrong topic, and then it is better to stop than to route everything away.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Connection
from sqlalchemy.dialects import postgresql, sqlite

from services.learner.ingest.decoding import Read
from services.learner.ingest.positions import Position
from services.shared.bus.interface import OutgoingEvent, Publisher
from services.shared.contracts.topics import dead_letter_topic
from services.shared.domain.errors import Corrupt, Unavailable
from services.shared.store.tables import dead_letters

WINDOW = 1000
"""The share is taken of about so many records of a partition; so few unreadable ones never stop ingest."""

ACK_TIMEOUT_S = 30.0


class DeadLetters:
    """Publishes and counts."""

    def __init__(self, publisher: Publisher, *, max_share: float, window: int = WINDOW) -> None:
        """`max_share`: of a partition's last `window` records, at most so many may be unreadable."""
        self._publisher = publisher
        self._max_share = max_share
        self._window = window

    def publish(self, unreadable: Sequence[Read]) -> None:
        """Returns when Kafka has them. Raises Unavailable, Busy: none of the records may count as read."""
        for acknowledged in [self._publisher.send(_event(item)) for item in unreadable]:
            try:
                acknowledged.result(timeout=ACK_TIMEOUT_S)
            except TimeoutError as error:
                raise Unavailable("dead letters were not acknowledged", retry_after=1.0) from error

    def recount(self, position: Position, *, read: int, dead: int) -> tuple[int, int]:
        """The partition's recent (records, unreadable ones) after so many more. Raises Corrupt over the cap."""
        recent_read, recent_dead = position.recent_read + read, position.recent_dead + dead
        if dead and recent_dead > self._max_share * max(recent_read, self._window):
            raise Corrupt(
                f"{recent_dead} of the last {recent_read} records of {position.place.topic}[{position.place.partition}]"
                f" cannot be read, more than {self._max_share:.0%}. Ingest stops rather than dead-letter a whole topic:"
                " look at the newest dead letters' reasons, mend or roll back the producer, or this reader; or raise"
                " the cap, THUMBLOOP_LEARNER__DEAD_LETTER_MAX_SHARE.",
                reason="TOO_MANY_DEAD_LETTERS",
            )
        while recent_read >= 2 * self._window:
            recent_read, recent_dead = recent_read // 2, recent_dead // 2
        return recent_read, recent_dead

    def count(self, connection: Connection, unreadable: Sequence[Read], now: datetime) -> None:
        """Adds to the totals by topic and reason."""
        for item in sorted(unreadable, key=lambda item: (item.record.place.topic, _reason(item))):
            insert = (postgresql if connection.dialect.name == "postgresql" else sqlite).insert(dead_letters)
            row = {"topic": item.record.place.topic, "reason": _reason(item), "count": 1, "last_time": now}
            connection.execute(
                insert.on_conflict_do_update(
                    index_elements=["topic", "reason"], set_={"count": dead_letters.c.count + 1, "last_time": now}
                ),
                row,
            )


def _reason(item: Read) -> str:
    return item.error.reason if item.error else ""


def _event(item: Read) -> OutgoingEvent:
    record = item.record
    headers = dict(record.headers) | {
        "dlq-reason": _reason(item).encode(),
        "dlq-message": (item.error.message if item.error else "").encode()[:1000],
        "dlq-topic": record.place.topic.encode(),
        "dlq-partition": str(record.place.partition).encode(),
        "dlq-offset": str(record.offset).encode(),
    }
    topic = dead_letter_topic(record.place.topic)
    return OutgoingEvent(topic=topic, key=record.key, value=record.value, headers=headers)
