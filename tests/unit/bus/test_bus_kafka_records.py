"""Whatever a record says that Kafka accepts, a reader gives it: one that raised would come again for ever."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from kafka import TopicPartition
from kafka.consumer.fetcher import ConsumerRecord

from services.shared.bus.interface import Record
from services.shared.bus.kafka_connection import KafkaConnection
from services.shared.bus.kafka_readers import KafkaLogReader
from services.shared.settings.model import BusSettings

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
END = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)


class Consumer:
    """Gives one record."""

    def __init__(self, raw: Any) -> None:
        self._raw = raw

    def poll(self, *, timeout_ms: int, max_records: int) -> dict[TopicPartition, list[Any]]:
        return {TopicPartition(self._raw.topic, self._raw.partition): [self._raw]}


def read(**said: Any) -> Record:
    values = dict.fromkeys(ConsumerRecord._fields)
    values |= {"topic": "feedback", "partition": 0, "offset": 7, "timestamp": 0, "headers": []} | said
    reader = KafkaLogReader(KafkaConnection(BusSettings(bootstrap_servers="127.0.0.1:1")), "reader")
    reader._consumer = Consumer(ConsumerRecord(**values))
    (record,) = reader.poll(0.0)
    return record


@pytest.mark.parametrize(
    ("timestamp", "seen"),
    [
        (1_700_000_000_000, datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)),
        (1_700_000_000_000_000, END),
        (1_700_000_000_000_000_000, END),
        (2**63 - 1, END),
        (-1, EPOCH),
    ],
    ids=["milliseconds", "microseconds", "nanoseconds", "the greatest", "none"],
)
def test_a_time_that_no_calendar_has_is_its_last_or_first(timestamp: int, seen: datetime) -> None:
    assert read(timestamp=timestamp).timestamp == seen


def test_a_header_without_a_value_is_an_empty_one() -> None:
    """kafka-python's producer takes no other, and the dead letter of such an event has its headers."""
    assert read(headers=[("a", None), ("b", b"said")]).headers == {"a": b"", "b": b"said"}


def test_neither_key_nor_value_are_empty_ones() -> None:
    record = read()
    assert (record.key, record.value) == ("", b"")
