"""Topics whose broker compresses what it is given.

Plan: `compression.type` of a topic is set to each codec in turn; an event is published, which the broker stores so.
Pass: it is read.
"""

from __future__ import annotations

import pytest
from kafka import KafkaAdminClient
from kafka.admin import ConfigResource, ConfigResourceType

from services.shared.bus.interface import OutgoingEvent
from services.shared.contracts.topics import load_topic_pages
from services.shared.settings.model import BusSettings
from tests.support.brokers import ACK_TIMEOUT_S, bus_with_topics
from tests.support.reading import assign_all, read_count

TOPIC = "feedback"


@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
def test_a_topic_of_any_compression_is_read(plain: BusSettings, codec: str) -> None:
    bus = bus_with_topics(plain, [load_topic_pages()[TOPIC]])
    admin = KafkaAdminClient(bootstrap_servers=plain.bootstrap_servers)
    admin.alter_configs(
        [ConfigResource(ConfigResourceType.TOPIC, plain.topic_prefix + TOPIC, {"compression.type": codec})]
    )
    admin.close()
    value = b"said " * 1_000
    bus.publisher("writer").send(OutgoingEvent(topic=TOPIC, key="k", value=value)).result(timeout=2 * ACK_TIMEOUT_S)
    reader = bus.log_reader("reader")
    assign_all(reader, TOPIC)
    assert [record.value for record in read_count(reader, 1)] == [value]
    bus.close()
