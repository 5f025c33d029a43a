"""A topic read whole, by every replica for itself: all partitions from the beginning, then what comes.

For topics that are few events and whose reader keeps only what they come to (`policies`, `controls`). After any trouble
the topic is read again from the beginning; whoever uses this must not mind to see an event twice.
"""

from __future__ import annotations

from collections.abc import Callable

from services.shared.bus.interface import LogReader, Place, Record
from services.shared.domain.errors import Corrupt
from services.shared.telemetry.log import get_logger

_log = get_logger()


class TopicTail:
    """Belongs to one thread, as its reader does."""

    def __init__(
        self,
        *,
        open_reader: Callable[[], LogReader],
        topic: str,
        monotonic: Callable[[], float],
        refresh_s: float = 30.0,
        max_records: int = 500,
    ) -> None:
        """`open_reader` may raise Unavailable; so may `poll` then. Added partitions are found after `refresh_s`.
        `max_records` bounds what one `poll` gives.
        """
        self._open_reader = open_reader
        self._topic = topic
        self._monotonic = monotonic
        self._refresh_s = refresh_s
        self._max_records = max_records
        self._reader: LogReader | None = None
        self._positions: dict[Place, int] = {}
        self._ends: dict[Place, int] = {}
        self._refresh_at = 0.0

    @property
    def at_end(self) -> bool:
        """All that was in the topic when reading began has been given out."""
        return self._reader is not None and all(self._positions[place] >= end for place, end in self._ends.items())

    def poll(self, timeout_s: float) -> list[Record]:
        """Next records; empty after the timeout. Raises Unavailable; the next call then begins again."""
        try:
            reader = self._ready_reader()
            records = reader.poll(timeout_s, self._max_records)
        except Corrupt as error:
            _log.warning("topic_read_again", topic=self._topic, message=error.message)
            self.close()
            return []
        except Exception:
            self.close()
            raise
        for record in records:
            self._positions[record.place] = record.offset + 1
        return records

    def close(self) -> None:
        """Lets the reader go. Twice is once."""
        reader, self._reader = self._reader, None
        self._positions, self._ends = {}, {}
        if reader is not None:
            reader.close()

    def _ready_reader(self) -> LogReader:
        if self._reader is None:
            self._reader = self._open_reader()
            self._assign(self._reader)
        elif self._monotonic() >= self._refresh_at:
            self._assign(self._reader)
        return self._reader

    def _assign(self, reader: LogReader) -> None:
        """Takes the partitions that are not read yet; those that are go on where they were."""
        new = [place for place in reader.places(self._topic) if place not in self._positions]
        if new:
            self._positions.update(reader.beginning_offsets(new))
            self._ends.update(reader.end_offsets(new))
            reader.assign(self._positions)
        self._refresh_at = self._monotonic() + self._refresh_s
