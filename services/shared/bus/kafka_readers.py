"""The consumers' side of the bus. A reader belongs to one thread; it connects at its first use."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from kafka import OffsetAndMetadata, TopicPartition
from kafka.errors import (
    CommitFailedError,
    CorruptRecordError,
    FencedInstanceIdError,
    KafkaError,
    LogTruncationError,
    NoOffsetForPartitionError,
    OffsetOutOfRangeError,
    UnsupportedCodecError,
)

from services.shared.bus.interface import REBALANCED, RECORD_UNREADABLE, Place, Record
from services.shared.bus.kafka_client import abandon
from services.shared.bus.kafka_connection import KafkaConnection
from services.shared.bus.kafka_joining import KafkaJoining
from services.shared.bus.kafka_metadata import all_topics, metadata
from services.shared.domain.errors import Corrupt, Fenced, Unavailable
from services.shared.telemetry.log import get_logger

CALL_TIMEOUT_MS = 5_000
EMPTY_POLL_S = 0.02
"""Between two looks for records: the price is so much delay, the gain is an idle reader that costs next to nothing."""
SETTLE_S = 3.0
UPKEEP_S = 1.0
PATIENT_POLL_MS = 100
"""A group's member polls with this patience for SETTLE_S after its assignment changed, then once in UPKEEP_S."""
SILENCE_S = 2.0
"""After so long without a record a reader asks whether Kafka is still there."""
SESSION_TIMEOUT_MS = 10_000
"""A member of a group that is gone for so long loses its partitions to the others."""
COORDINATOR_TIMEOUT_S = 10.0
"""A member that has not found its group's coordinator for so long is given up."""
JOIN_TIMEOUT_S = 60.0
"""So is one whose join has not ended for so long. The client waits five minutes for its answer: time for members that
are at work, and time lost when the coordinator fell silent. A static member that joins anew harms no join."""
CLOSE_TIMEOUT_MS = 2_000
LATEST_MS = 253_402_300_799_000
"""The end of the year 9999, which is that of Python's calendar."""

_log = get_logger()


class KafkaReader:
    """What both readers share: a consumer made when it is needed, and made again after it failed to connect."""

    def __init__(self, connection: KafkaConnection) -> None:
        self._connection = connection
        self._consumer: Any = None
        self._closed = False
        self._heard_at = 0.0
        self.on_close: Callable[[KafkaReader], object] = lambda _: None
        """Told when it is closed."""

    def _make_consumer(self) -> Any:
        raise NotImplementedError

    def _open(self) -> Any:
        """The consumer. Raises Unavailable."""
        if self._closed:
            raise Unavailable("This reader is closed.", reason="READER_CLOSED")
        if self._consumer is None:
            self._consumer = self._make_consumer()
            self._heard_at = time.monotonic()
        return self._consumer

    @contextmanager
    def _calling(self, doing: str) -> Iterator[Any]:
        """The consumer; Kafka's errors become ours."""
        consumer = self._open()
        try:
            yield consumer
        except (OffsetOutOfRangeError, NoOffsetForPartitionError, LogTruncationError) as error:
            raise Corrupt(
                f"The log does not hold the offset that was asked for ({error}): records were removed before they were "
                "read, or the log was replaced.",
                reason="OFFSET_GONE",
            ) from error
        except (CorruptRecordError, UnsupportedCodecError) as error:
            self._let_go()  # kafka-python would look for the rest of such a batch for ever
            raise Corrupt(
                f"Kafka at {self._connection.settings.bootstrap_servers} gives a batch that cannot be read "
                f"({type(error).__name__}: {error}). If its codec is missing here, set the "
                "topic's `compression.type` to `producer`, gzip, snappy, lz4 or zstd; if it is damaged, look at the "
                "broker's disk.",
                reason=RECORD_UNREADABLE,
            ) from error
        except FencedInstanceIdError as error:
            raise Fenced(
                "Another process joined the group under the same member id. Give each replica its own.",
                reason="MEMBER_REPLACED",
            ) from error
        except KeyError as error:
            # kafka-python looks a partition up that an assignment, or new metadata, has just taken from it.
            if not (error.args and isinstance(error.args[0], TopicPartition)):
                raise
            raise self._connection.unavailable(doing, error) from error
        except KafkaError as error:
            raise self._connection.unavailable(doing, error) from error

    def _poll(self, timeout_s: float, max_records: int) -> list[Record]:
        """Next records. Raises Unavailable when there are none and Kafka does not answer."""
        with self._calling("reading") as consumer:
            batches = self._paced_poll(consumer, timeout_s, max_records)
            now = time.monotonic()
            if batches:
                self._heard_at = now
            elif now - self._heard_at > SILENCE_S:
                self._ask_for_a_sign_of_life(consumer)
                self._heard_at = time.monotonic()
        return [self._record(raw) for raws in batches.values() for raw in raws]

    def _paced_poll(self, consumer: Any, timeout_s: float, max_records: int) -> Any:
        """The client's own poll asks again as soon as an answer is empty, which burns half a core against a broker that
        does not hold empty fetches (the embedded one). So it is asked at intervals instead."""
        deadline = time.monotonic() + timeout_s
        while True:
            patience_ms = self._patience_ms(consumer, max(0.0, deadline - time.monotonic()))
            batches = consumer.poll(timeout_ms=patience_ms, max_records=max_records)
            left_s = deadline - time.monotonic()
            if batches or left_s <= 0:
                return batches
            time.sleep(min(EMPTY_POLL_S, left_s))

    def _patience_ms(self, consumer: Any, left_s: float) -> int:
        """How long one of the client's own polls may wait, of what is left of ours."""
        return 0

    def _ask_for_a_sign_of_life(self, consumer: Any) -> None:
        """kafka-python's poll returns nothing, silently and for ever, from a Kafka that is away."""
        assigned = consumer.assignment()
        if assigned:
            consumer.end_offsets(list(assigned), timeout_ms=CALL_TIMEOUT_MS)

    def _record(self, raw: Any) -> Record:
        return Record(
            place=self._connection.place(raw.topic, raw.partition),
            offset=raw.offset,
            key=(raw.key or b"").decode(errors="replace"),
            value=raw.value or b"",
            # A header may have no value, which kafka-python reads and will not write (as a dead letter's, say).
            headers={name: value or b"" for name, value in raw.headers},
            # Whoever writes another unit than milliseconds is taken for late, not for a reason to stop.
            timestamp=datetime.fromtimestamp(min(max(0, raw.timestamp), LATEST_MS) / 1000, UTC),
        )

    def close(self) -> None:
        """Twice is once."""
        self._closed = True
        try:
            self._let_go()
        finally:
            self.on_close(self)

    def _let_go(self) -> None:
        """Of the consumer; the next call makes another."""
        consumer, self._consumer = self._consumer, None
        if consumer is None:
            return
        try:
            consumer.close(autocommit=False, timeout_ms=CLOSE_TIMEOUT_MS)
        except Exception as error:  # its network thread may be gone; what is left must go all the same
            _log.warning("consumer_not_closed", error=repr(error))
            abandon(consumer)


class KafkaLogReader(KafkaReader):
    """See `LogReader`."""

    def __init__(self, connection: KafkaConnection, client_id: str) -> None:
        super().__init__(connection)
        self._client_id = client_id

    def _make_consumer(self) -> Any:
        return self._connection.consumer(
            self._client_id, group_id=None, auto_offset_reset="none", request_timeout_ms=CALL_TIMEOUT_MS
        )

    def places(self, topic: str) -> Sequence[Place]:
        """See `LogReader`."""
        full = self._connection.full_name(topic)
        doing = f"listing the partitions of {topic}"
        with self._calling(doing) as consumer, all_topics(consumer, CALL_TIMEOUT_MS) as cluster:
            partitions = cluster.partitions_for_topic(full)
        if not partitions:
            raise Unavailable(
                f"Kafka has no topic {full}. Create it: `thumbloop topics`.", reason="NO_TOPIC", retry_after=1.0
            )
        return [Place(topic, partition) for partition in sorted(partitions)]

    def assign(self, positions: Mapping[Place, int]) -> None:
        """See `LogReader`."""
        with self._calling("assigning partitions") as consumer:
            offsets = {self._partition(place): offset for place, offset in positions.items()}
            consumer.assign(list(offsets))
            for partition, offset in offsets.items():
                consumer.seek(partition, offset)

    def poll(self, timeout_s: float, max_records: int = 500) -> list[Record]:
        """See `LogReader`."""
        return self._poll(timeout_s, max_records)

    def beginning_offsets(self, places: Iterable[Place]) -> dict[Place, int]:
        """See `LogReader`."""
        with self._calling("asking for first offsets") as consumer:
            found = consumer.beginning_offsets([self._partition(place) for place in places], CALL_TIMEOUT_MS)
        return {self._connection.place(*partition): int(offset) for partition, offset in found.items()}

    def end_offsets(self, places: Iterable[Place]) -> dict[Place, int]:
        """See `LogReader`."""
        with self._calling("asking for last offsets") as consumer:
            found = consumer.end_offsets([self._partition(place) for place in places], CALL_TIMEOUT_MS)
        return {self._connection.place(*partition): int(offset) for partition, offset in found.items()}

    def cluster_id(self) -> str:
        """See `LogReader`."""
        # The administration client's describe_cluster fails on brokers that answer in an older form.
        doing = "asking for the cluster's id"
        with self._calling(doing) as consumer, all_topics(consumer, CALL_TIMEOUT_MS) as cluster:
            return cluster.cluster_id or ""

    def topic_id(self, topic: str) -> str:
        """See `LogReader`."""
        with self._calling("asking for a topic's id") as consumer:
            return str(metadata(consumer).topic_id(self._connection.full_name(topic)) or "")

    def incarnations(self, places: Iterable[Place]) -> dict[Place, str]:
        """See `LogReader`."""
        with self._calling("asking who leads partitions") as consumer:
            cluster = metadata(consumer)
            found: dict[Place, str] = {}
            for place in places:
                partition = self._partition(place)
                leader, epoch = cluster.leader_for_partition(partition), cluster.leader_epoch_for_partition(partition)
                found[place] = f"{cluster.cluster_id}/{cluster.topic_id(partition.topic)}/{leader}/{epoch}"
        return found

    def _partition(self, place: Place) -> TopicPartition:
        return self._connection.partition(place)


class KafkaGroupOffsets(KafkaReader):
    """See `GroupOffsets`. A consumer that is never assigned anything; it only speaks to the group's coordinator."""

    def __init__(self, connection: KafkaConnection, group: str) -> None:
        super().__init__(connection)
        self._group = connection.full_name(group)

    def _make_consumer(self) -> Any:
        return self._connection.consumer(f"{self._group}-offsets", group_id=self._group)

    def commit(self, positions: Mapping[Place, int]) -> None:
        """See `GroupOffsets`."""
        offsets = {
            self._connection.partition(place): OffsetAndMetadata(offset, "", -1) for place, offset in positions.items()
        }
        try:
            with self._calling("mirroring offsets") as consumer:
                consumer.commit(offsets, timeout_ms=CLOSE_TIMEOUT_MS)
        except Unavailable:  # after a broker was killed the group's coordinator may be looked for in vain for ever
            self._let_go()
            raise


class KafkaGroupReader(KafkaReader):
    """See `GroupReader`."""

    def __init__(self, connection: KafkaConnection, *, group: str, member_id: str, topic: str) -> None:
        super().__init__(connection)
        self._group = connection.full_name(group)
        self._assigned: set[Any] = set()
        self._settled_at = 0.0
        self._upkeep_at = 0.0
        self._coordinated_at = 0.0
        self._joining: KafkaJoining | None = None
        self._member_id = member_id
        self._topic = topic

    def _make_consumer(self) -> Any:
        consumer = self._connection.consumer(
            self._member_id,
            group_id=self._group,
            # Static membership: a member that comes back takes its own place at once, without a rebalance, and a
            # broker that never drops dead members is not blocked by one.
            group_instance_id=self._member_id,
            auto_offset_reset="earliest",
            session_timeout_ms=SESSION_TIMEOUT_MS,
        )
        consumer.subscribe([self._connection.full_name(self._topic)])
        self._coordinated_at = time.monotonic()
        self._joining = KafkaJoining(consumer)
        return consumer

    def poll(self, timeout_s: float, max_records: int = 500) -> list[Record]:
        """See `GroupReader`."""
        records = self._poll(timeout_s, max_records)
        if records:  # only a silence is looked into, so it begins here
            self._coordinated_at = time.monotonic()
        return records

    def _patience_ms(self, consumer: Any, left_s: float) -> int:
        """Joining the group and finding its offsets happen inside a poll, and are begun anew when its time is up: so
        polls are given time while a join is due or the assignment new, and now and then later."""
        if self._joining is not None and self._joining.is_due():
            return max(PATIENT_POLL_MS, int(left_s * 1000))
        now, assigned = time.monotonic(), consumer.assignment()
        if assigned != self._assigned:
            self._assigned, self._settled_at = set(assigned), now + SETTLE_S
        if assigned and now >= self._settled_at and now < self._upkeep_at:
            return 0
        self._upkeep_at = now + UPKEEP_S
        return PATIENT_POLL_MS

    def _ask_for_a_sign_of_life(self, consumer: Any) -> None:
        """After a broker was killed, kafka-python may look for the group's coordinator for ever, and read nothing, or
        wait long for the answer to a join; a new consumer finds it."""
        now, joining = time.monotonic(), self._joining or KafkaJoining(consumer)
        found = joining.has_coordinator()
        if found and not joining.is_under_way():
            self._coordinated_at = now
        elif now - self._coordinated_at > (patience_s := JOIN_TIMEOUT_S if found else COORDINATOR_TIMEOUT_S):
            raise Unavailable(
                f"Nobody has coordinated the group {self._group} for {patience_s:g} s.",
                reason="NO_COORDINATOR",
                retry_after=1.0,
            )
        super()._ask_for_a_sign_of_life(consumer)

    def commit(self, records: Sequence[Record]) -> None:
        """See `GroupReader`. Raises Unavailable when the group did not take it: the records will come again."""
        offsets: dict[TopicPartition, OffsetAndMetadata] = {}
        for record in records:
            partition = TopicPartition(self._connection.full_name(record.place.topic), record.place.partition)
            known = offsets.get(partition)
            if known is None or known.offset <= record.offset:
                offsets[partition] = OffsetAndMetadata(record.offset + 1, "", -1)
        if not offsets:
            return
        with self._calling("committing offsets") as consumer:
            try:
                consumer.commit(offsets, timeout_ms=CALL_TIMEOUT_MS)
            except CommitFailedError as error:
                raise Unavailable(
                    "The group gave these partitions to another member before the commit; it will read them again.",
                    reason=REBALANCED,
                    retry_after=0.0,
                ) from error
