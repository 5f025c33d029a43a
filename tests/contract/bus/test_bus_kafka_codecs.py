"""Batches are read in each of Kafka's codecs: who writes, and a topic's `compression.type`, choose among them."""

from __future__ import annotations

import pytest
from kafka import KafkaProducer

from services.shared.settings.model import BusSettings
from tests.contract.bus.conftest import SPREAD
from tests.support.brokers import bus_with_topics
from tests.support.reading import assign_all, read_count


@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
def test_a_batch_in_any_codec_is_read(bus_settings: BusSettings, codec: str) -> None:
    bus = bus_with_topics(bus_settings, [SPREAD])
    producer = KafkaProducer(bootstrap_servers=bus_settings.bootstrap_servers, compression_type=codec)
    value = b"said " * 1_000
    producer.send(bus_settings.topic_prefix + SPREAD.name, key=b"k", value=value).get(timeout=60)
    producer.close(timeout=10)
    reader = bus.log_reader("reader")
    assign_all(reader, SPREAD.name)
    assert [record.value for record in read_count(reader, 1)] == [value]
    bus.close()
