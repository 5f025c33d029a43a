"""The bus in memory, for tests: the same partitions, order, bounds and errors as Kafka's, in one process.

Beyond `Bus` it can be cut off (`go_away`, `come_back`) and its logs can be shortened (`truncate_before`,
`truncate_after`), so that tests need no real outage. Readers wait on one condition; nothing here sleeps.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from services.shared.bus.interface import OutgoingEvent, Place, Record
from services.shared.bus.partitioning import partition_of
from services.shared.contracts.topics import TopicPage, dead_letter_topic
from services.shared.domain.errors import Corrupt, Fenced, InvalidInput, ThumbloopError, Unavailable
from services.shared.domain.events import Clock
from services.shared.ids import utc_now
from services.shared.settings.model import BusSettings


@dataclass(kw_only=True)
class _Log:
    """One partition: records from offset `first` on."""

    first: int = 0
    records: list[Record] = field(default_factory=list)

    @property
    def end(self) -> int:
        return self.first + len(self.records)


class MemoryBus:
    """See `Bus`."""

    def __init__(self, settings: BusSettings | None = None, clock: Clock = utc_now) -> None:
        self.settings = settings or BusSettings()
        self.clock = clock
        self.changed = threading.Condition()
        self.logs: dict[Place, _Log] = {}
        self.committed: dict[tuple[str, Place], int] = {}
        self.members: dict[tuple[str, str], dict[str, MemoryGroupReader]] = {}
        self.is_away = False

    def ensure_topics(self, pages: Iterable[TopicPage]) -> None:
        """See `Bus`."""
        with self.changed:
            self.raise_if_away("creating topics")
            for page in pages:
                self._create(page.name, page.partitions)
                if page.dead_letter:
                    self._create(dead_letter_topic(page.name), 1)

    def publisher(self, client_id: str) -> MemoryPublisher:
        """See `Bus`."""
        return MemoryPublisher(self)

    def log_reader(self, client_id: str) -> MemoryLogReader:
        """See `Bus`."""
        return MemoryLogReader(self)

    def group_reader(self, *, group: str, member_id: str, topic: str) -> MemoryGroupReader:
        """See `Bus`."""
        return MemoryGroupReader(self, group=group, member_id=member_id, topic=topic)

    def group_offsets(self, group: str) -> MemoryGroupOffsets:
        """See `Bus`."""
        return MemoryGroupOffsets(self, group)

    def delete_records(self, before: Mapping[Place, int]) -> None:
        """See `Bus`."""
        self.raise_if_away("deleting records")
        for place, offset in before.items():
            self.truncate_before(place, offset)

    def close(self) -> None:
        """See `Bus`."""

    def go_away(self) -> None:
        """As if Kafka stopped."""
        with self.changed:
            self.is_away = True
            self.changed.notify_all()

    def come_back(self) -> None:
        """As if it had started again, with all it had."""
        with self.changed:
            self.is_away = False
            self.changed.notify_all()

    def truncate_before(self, place: Place, offset: int) -> None:
        """As retention does: records before the offset are gone."""
        with self.changed:
            log = self.logs[place]
            del log.records[: max(0, offset - log.first)]
            log.first = max(log.first, offset)

    def truncate_after(self, place: Place, offset: int) -> None:
        """As a broker does that lost its tail: records from the offset on are gone, and their offsets used again."""
        with self.changed:
            log = self.logs[place]
            del log.records[max(0, offset - log.first) :]

    def places(self, topic: str) -> list[Place]:
        """All partitions; raises Unavailable for an unknown topic."""
        found = sorted(place for place in self.logs if place.topic == topic)
        if not found:
            raise Unavailable(f"There is no topic {topic}. Create it: `ensure_topics`.", reason="NO_TOPIC")
        return found

    def raise_if_away(self, doing: str) -> None:
        """Raises Unavailable."""
        if self.is_away:
            raise Unavailable(f"The bus is away: {doing} failed.", reason="KAFKA_UNAVAILABLE", retry_after=1.0)

    def append(self, event: OutgoingEvent) -> Record:
        """Writes it at the end of its key's partition."""
        if len(event.value) > self.settings.max_event_bytes:
            raise InvalidInput(
                f"An event of {len(event.value)} bytes for {event.topic} is too large: "
                f"at most {self.settings.max_event_bytes} bytes are taken.",
                reason="EVENT_TOO_LARGE",
                field="value",
            )
        with self.changed:
            self.raise_if_away("sending")
            places = self.places(event.topic)
            place = places[partition_of(event.key, len(places))]
            log = self.logs[place]
            record = Record(
                place=place,
                offset=log.end,
                key=event.key,
                value=event.value,
                headers=dict(event.headers),
                timestamp=self.clock(),
            )
            log.records.append(record)
            self.changed.notify_all()
        return record

    def read(self, place: Place, offset: int, max_records: int) -> list[Record]:
        """Records from the offset on. Raises Corrupt when the log does not hold the offset."""
        log = self.logs[place]
        if not log.first <= offset <= log.end:
            raise Corrupt(
                f"{place} holds offsets {log.first} to {log.end}; {offset} was asked for.", reason="OFFSET_GONE"
            )
        return log.records[offset - log.first :][:max_records]

    def _create(self, topic: str, partitions: int) -> None:
        if not any(place.topic == topic for place in self.logs):
            self.logs.update({Place(topic, partition): _Log() for partition in range(partitions)})


class MemoryPublisher:
    """See `Publisher`. Acknowledges at once, so nothing is ever in flight."""

    def __init__(self, bus: MemoryBus) -> None:
        self._bus = bus
        self._closed = False

    def send(self, event: OutgoingEvent) -> Future[Record]:
        """See `Publisher`."""
        future: Future[Record] = Future()
        future.set_running_or_notify_cancel()
        try:
            if self._closed:
                raise Unavailable("This publisher is closed.", reason="PUBLISHER_CLOSED")
            future.set_result(self._bus.append(event))
        except ThumbloopError as error:
            future.set_exception(error)
        return future

    async def publish(self, event: OutgoingEvent) -> Record:
        """See `Publisher`."""
        return await asyncio.wrap_future(self.send(event))

    def close(self, timeout_s: float) -> None:
        """See `Publisher`."""
        self._closed = True


class _MemoryReader:
    """Reads partitions at positions of its own."""

    def __init__(self, bus: MemoryBus) -> None:
        self._bus = bus
        self._positions: dict[Place, int] = {}
        self._closed = False

    def _raise_if_closed(self) -> None:
        if self._closed:
            raise Unavailable("This reader is closed.", reason="READER_CLOSED")

    def _take(self, max_records: int) -> list[Record]:
        """What there is now, partition after partition; those that gave something go last the next time."""
        taken: list[Record] = []
        for place, offset in list(self._positions.items()):
            records = self._bus.read(place, offset, max_records - len(taken))
            if records:
                del self._positions[place]
                self._positions[place] = records[-1].offset + 1
                taken += records
            if len(taken) >= max_records:
                break
        return taken

    def _prepare_poll(self) -> None:
        """Called under the lock before each look."""

    def poll(self, timeout_s: float, max_records: int = 500) -> list[Record]:
        """See `LogReader` and `GroupReader`."""
        deadline = time.monotonic() + timeout_s
        with self._bus.changed:
            while True:
                self._raise_if_closed()
                self._bus.raise_if_away("reading")
                self._prepare_poll()
                taken = self._take(max_records)
                remaining = deadline - time.monotonic()
                if taken or remaining <= 0:
                    return taken
                self._bus.changed.wait(remaining)

    def close(self) -> None:
        """Twice is once."""
        with self._bus.changed:
            self._closed = True
            self._bus.changed.notify_all()


class MemoryLogReader(_MemoryReader):
    """See `LogReader`."""

    def places(self, topic: str) -> Sequence[Place]:
        """See `LogReader`."""
        with self._bus.changed:
            self._bus.raise_if_away("listing partitions")
            return self._bus.places(topic)

    def assign(self, positions: Mapping[Place, int]) -> None:
        """See `LogReader`."""
        self._positions = dict(positions)

    def beginning_offsets(self, places: Iterable[Place]) -> dict[Place, int]:
        """See `LogReader`."""
        with self._bus.changed:
            self._bus.raise_if_away("asking for first offsets")
            return {place: self._bus.logs[place].first for place in places}

    def end_offsets(self, places: Iterable[Place]) -> dict[Place, int]:
        """See `LogReader`."""
        with self._bus.changed:
            self._bus.raise_if_away("asking for last offsets")
            return {place: self._bus.logs[place].end for place in places}

    def cluster_id(self) -> str:
        """See `LogReader`."""
        return ""

    def topic_id(self, topic: str) -> str:
        """See `LogReader`."""
        return ""

    def incarnations(self, places: Iterable[Place]) -> dict[Place, str]:
        """See `LogReader`. A log in memory is never another one."""
        return dict.fromkeys(places, "")


class MemoryGroupOffsets:
    """See `GroupOffsets`."""

    def __init__(self, bus: MemoryBus, group: str) -> None:
        self._bus = bus
        self._group = group

    def commit(self, positions: Mapping[Place, int]) -> None:
        """See `GroupOffsets`."""
        with self._bus.changed:
            self._bus.raise_if_away("mirroring offsets")
            for place, offset in positions.items():
                self._bus.committed[self._group, place] = offset

    def close(self) -> None:
        """Twice is once."""


class MemoryGroupReader(_MemoryReader):
    """See `GroupReader`. Partitions are dealt out to the members in the order of their ids."""

    def __init__(self, bus: MemoryBus, *, group: str, member_id: str, topic: str) -> None:
        super().__init__(bus)
        self._group = group
        self._member_id = member_id
        self._topic = topic
        self._joined = False

    def _prepare_poll(self) -> None:
        """Joins at the first poll, then keeps to the partitions that the group gives it now."""
        members = self._bus.members.setdefault((self._group, self._topic), {})
        if not self._joined:
            members[self._member_id] = self
            self._joined = True
        if members.get(self._member_id) is not self:
            raise Fenced("Another reader joined the group under the same member id.", reason="MEMBER_REPLACED")
        ranks = sorted(members)
        mine = self._bus.places(self._topic)[ranks.index(self._member_id) :: len(ranks)]
        self._positions = {
            place: self._positions.get(
                place, self._bus.committed.get((self._group, place), self._bus.logs[place].first)
            )
            for place in (*(place for place in self._positions if place in mine), *mine)
        }

    def commit(self, records: Sequence[Record]) -> None:
        """See `GroupReader`."""
        with self._bus.changed:
            self._raise_if_closed()
            self._bus.raise_if_away("committing")
            for record in records:
                key = (self._group, record.place)
                self._bus.committed[key] = max(self._bus.committed.get(key, 0), record.offset + 1)
