"""Certificate files are away for a moment, while the broker is away, too.

Plan: a reader with a client certificate lists a topic's partitions; the broker is killed, the files are moved away, the
broker starts; the reader asks until it was refused once more; the files come back.
Pass: each refusal comes in time, and the same reader lists the partitions again.
"""

from __future__ import annotations

import time

import pytest

from services.shared.contracts.topics import load_topic_pages
from services.shared.domain.errors import Unavailable
from services.shared.settings.model import BusSettings
from tests.support.brokers import START_TIMEOUT_S, SharedBroker, bus_with_topics
from tests.support.secured_kafka import SecuredKafka

TOPIC = "feedback"


def test_a_reader_outlives_it(kafka: SecuredKafka) -> None:
    prefix = SharedBroker(bootstrap_servers="", embedded=False).settings().topic_prefix
    bus = bus_with_topics(BusSettings.model_validate(kafka.mutual(topic_prefix=prefix)), [load_topic_pages()[TOPIC]])
    reader = bus.log_reader("reader")
    places = reader.places(TOPIC)
    kafka.broker.kill()
    away = kafka.client.certificate.rename(kafka.client.certificate.with_suffix(".away"))
    try:
        kafka.broker.start(START_TIMEOUT_S)
        for _ in range(3):
            with pytest.raises(Unavailable):
                reader.places(TOPIC)
    finally:
        away.rename(kafka.client.certificate)
    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        try:
            assert reader.places(TOPIC) == places
            break
        except Unavailable:
            assert time.monotonic() < deadline, "it does not come back"
    bus.close()
