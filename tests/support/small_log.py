"""A log in memory whose faults a test can order: truncation, a topic made again, another cluster, Kafka away."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from services.shared.bus.interface import GroupOffsets, GroupReader, OutgoingEvent, Place, Record
from services.shared.contracts.topics import TopicPage
from services.shared.domain.errors import Corrupt, Unavailable
from tests.support.facts import START


@dataclass
class Partition:
    first: int
    records: list[Record]

    @property
    def end(self) -> int:
        return self.first + len(self.records)


class SmallLog:
    """A `Bus` with one broker that does what it is told. The key's first digit chooses the partition."""

    def __init__(self, topics: Sequence[str], partitions: int = 2) -> None:
        self.cluster = "cluster-1"
        self.away = False
        self.refuse_sends = False
        self.lives: dict[str, int] = {}
        """How often each topic was made again."""
        self.has_topic_ids = True
        """As brokers have since Kafka 2.8."""
        self.elections = 0
        """How often partitions got another leader."""
        self._count = partitions
        self.partitions = {Place(topic, index): Partition(0, []) for topic in topics for index in range(partitions)}

    def append(
        self,
        topic: str,
        key: str,
        value: bytes,
        headers: Mapping[str, bytes] | None = None,
        partition: int | None = None,
    ) -> Record:
        place = Place(topic, sum(key.encode()) % self._count if partition is None else partition)
        part = self.partitions.setdefault(place, Partition(0, []))
        record = Record(
            place=place, offset=part.end, key=key, value=value, headers=dict(headers or {}), timestamp=START
        )
        part.records.append(record)
        return record

    def truncate(self, place: Place, end: int) -> None:
        part = self.partitions[place]
        del part.records[end - part.first :]

    def remake(self, topic: str) -> None:
        self.lives[topic] = self.lives.get(topic, 0) + 1
        for place in self.partitions:
            if place.topic == topic:
                self.partitions[place] = Partition(0, [])

    def expire(self, place: Place, first: int) -> None:
        part = self.partitions[place]
        del part.records[: first - part.first]
        part.first = first

    def values(self, topic: str) -> list[Record]:
        return [record for place, part in self.partitions.items() if place.topic == topic for record in part.records]

    def ensure_topics(self, pages: Iterable[TopicPage]) -> None:
        raise NotImplementedError

    def publisher(self, client_id: str) -> SmallPublisher:
        return SmallPublisher(self)

    def log_reader(self, client_id: str) -> SmallReader:
        return SmallReader(self)

    def group_reader(self, *, group: str, member_id: str, topic: str) -> GroupReader:
        raise NotImplementedError

    def group_offsets(self, group: str) -> GroupOffsets:
        raise NotImplementedError

    def delete_records(self, before: Mapping[Place, int]) -> None:
        for place, offset in before.items():
            self.expire(place, offset)

    def close(self) -> None: ...


class SmallPublisher:
    def __init__(self, log: SmallLog) -> None:
        self._log = log

    def send(self, event: OutgoingEvent) -> Future[Record]:
        future: Future[Record] = Future()
        if self._log.away or self._log.refuse_sends:
            future.set_exception(Unavailable("Kafka is away"))
        else:
            future.set_result(self._log.append(event.topic, event.key, event.value, event.headers))
        return future

    async def publish(self, event: OutgoingEvent) -> Record:
        return self.send(event).result()

    def close(self, timeout_s: float) -> None: ...


class SmallReader:
    def __init__(self, log: SmallLog) -> None:
        self._log = log
        self._at: dict[Place, int] = {}

    def _check(self) -> None:
        if self._log.away:
            raise Unavailable("Kafka is away")

    def places(self, topic: str) -> Sequence[Place]:
        self._check()
        return [place for place in sorted(self._log.partitions) if place.topic == topic]

    def assign(self, positions: Mapping[Place, int]) -> None:
        self._at = dict(positions)

    def poll(self, timeout_s: float, max_records: int = 500) -> list[Record]:
        self._check()
        found: list[Record] = []
        for place, offset in self._at.items():
            part = self._log.partitions[place]
            if not part.first <= offset <= part.end:
                raise Corrupt(f"offset {offset} of {place} does not exist")
            records = part.records[offset - part.first :][: max_records - len(found)]
            found += records
            self._at[place] = offset + len(records)
        return found

    def beginning_offsets(self, places: Iterable[Place]) -> dict[Place, int]:
        self._check()
        return {place: self._log.partitions[place].first for place in places}

    def end_offsets(self, places: Iterable[Place]) -> dict[Place, int]:
        self._check()
        return {place: self._log.partitions[place].end for place in places}

    def cluster_id(self) -> str:
        self._check()
        return self._log.cluster

    def topic_id(self, topic: str) -> str:
        return f"{topic}-{self._log.lives.get(topic, 0)}" if self._log.has_topic_ids else ""

    def incarnations(self, places: Iterable[Place]) -> dict[Place, str]:
        self._check()
        log = self._log
        return {place: f"{log.cluster}/{log.lives.get(place.topic, 0)}/{log.elections}" for place in places}

    def close(self) -> None: ...
