"""Reading dead letters: what could not be read, kept as it was, with the reason and where it had lain.

A dead letter's *id* is its place in the dead-letter topic, `TOPIC/PARTITION@OFFSET`. Headers that begin with `dlq-`
were added by whoever gave up on the event; all others are the event's own.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from services.shared.bus.interface import Bus, LogReader, OutgoingEvent, Place, Record
from services.shared.contracts.topics import DEAD_LETTER_SUFFIX, dead_letter_topic, load_topic_pages
from services.shared.domain.errors import InvalidInput, Unavailable

HEADER_PREFIX = "dlq-"
READ_TIMEOUT_S = 30.0
"""How long Kafka may stay silent while records are known to be there."""
_ID = re.compile(r"^(?P<topic>[^/@]+)/(?P<partition>\d{1,9})@(?P<offset>\d{1,18})$")


@dataclass(frozen=True, kw_only=True)
class DeadLetter:
    """A record of a dead-letter topic."""

    record: Record

    @property
    def id(self) -> str:
        """See the module."""
        return f"{self.record.place.topic}/{self.record.place.partition}@{self.record.offset}"

    @property
    def topic(self) -> str:
        """Where the event had been published."""
        return self._said("topic") or self.record.place.topic.removesuffix(DEAD_LETTER_SUFFIX)

    @property
    def origin(self) -> str:
        """Its place there; "" where nobody noted it."""
        partition, offset = self._said("partition"), self._said("offset")
        return f"{self.topic}/{partition}@{offset}" if partition and offset else ""

    @property
    def reason(self) -> str:
        """A stable word."""
        return self._said("reason")

    @property
    def message(self) -> str:
        """The reason in words."""
        return self._said("message")

    @property
    def own_headers(self) -> dict[str, bytes]:
        """The event's own."""
        return {name: value for name, value in self.record.headers.items() if not name.startswith(HEADER_PREFIX)}

    def as_it_was(self) -> OutgoingEvent:
        """The event, to be published again where it had been."""
        return OutgoingEvent(topic=self.topic, key=self.record.key, value=self.record.value, headers=self.own_headers)

    def _said(self, name: str) -> str:
        return self.record.headers.get(f"{HEADER_PREFIX}{name}", b"").decode(errors="replace")


def dead_letter_topics() -> list[str]:
    """All of them, by name."""
    return [dead_letter_topic(page.name) for page in load_topic_pages().values() if page.dead_letter]


def parse_id(dead_letter_id: str) -> tuple[Place, int]:
    """Raises InvalidInput for what is no dead letter's id."""
    match = _ID.match(dead_letter_id)
    if match is None or match["topic"] not in dead_letter_topics():
        raise InvalidInput(
            f"{dead_letter_id[:80]!r} is no dead letter's id; they look like {dead_letter_topics()[0]}/0@17. "
            "`thumbloop dead-letters list` shows them.",
            field="id",
        )
    return Place(match["topic"], int(match["partition"])), int(match["offset"])


def read_dead_letters(bus: Bus, topics: Sequence[str]) -> Iterator[DeadLetter]:
    """All that are there now, in the order of their places. Raises Unavailable; a topic that is missing is empty."""
    reader = bus.log_reader("dead-letters")
    try:
        for topic in topics:
            for record in read_whole(reader, _places(reader, topic)):
                yield DeadLetter(record=record)
    finally:
        reader.close()


def read_whole(reader: LogReader, places: Sequence[Place]) -> Iterator[Record]:
    """Every record of these partitions from the first that is kept to the last that is there now."""
    beginnings, ends = reader.beginning_offsets(places), reader.end_offsets(places)
    for place in places:
        yield from read_part(reader, place, beginnings[place], ends[place])


def _places(reader: LogReader, topic: str) -> Sequence[Place]:
    try:
        return reader.places(topic)
    except Unavailable as error:
        if error.reason == "NO_TOPIC":
            return ()
        raise


def read_part(reader: LogReader, place: Place, begin: int, end: int) -> Iterator[Record]:
    """Every record of a partition from offset `begin`, which it holds, to the one before `end`. Raises Unavailable."""
    reader.assign({place: begin})
    heard, expected = time.monotonic(), begin
    while expected < end:
        records = reader.poll(1.0)
        for record in records:
            if record.offset < end:
                yield record
            expected = record.offset + 1
        if records:
            heard = time.monotonic()
        elif time.monotonic() - heard > READ_TIMEOUT_S:
            raise Unavailable(
                f"Kafka did not give {place.topic}/{place.partition} from offset {expected} to {end - 1} within "
                f"{READ_TIMEOUT_S:g} s.",
                retry_after=1.0,
            )
