"""The brokers come back at another address of the bootstrap list."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from services.embedded.brokers import Broker, make_broker
from services.embedded.ports import free_port
from services.shared.bus.interface import OutgoingEvent
from services.shared.bus.kafka_connection import KafkaConnection
from services.shared.settings.model import BusSettings
from tests.contract.bus.conftest import ACK_TIMEOUT_S, SPREAD
from tests.support.brokers import START_TIMEOUT_S, bus_with_topics, local_kind
from tests.support.patience import eventually


@pytest.fixture
def elsewhere(broker_choice: str, own_broker: Broker) -> Iterator[Broker]:
    """The same broker at another port, not started yet."""
    broker = make_broker(local_kind(broker_choice), port=free_port(), data_dir=own_broker.data_dir)
    yield broker
    broker.stop()


def test_a_publisher_that_had_not_sent_when_the_brokers_moved_sends(
    own_broker: Broker, elsewhere: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its producer has no metadata of the topic, and asks for it where the brokers were."""
    made = threading.Event()
    make = KafkaConnection.producer

    def make_and_tell(connection: KafkaConnection, client_id: str) -> Any:
        producer = make(connection, client_id)
        made.set()
        return producer

    monkeypatch.setattr(KafkaConnection, "producer", make_and_tell)
    servers = f"{own_broker.bootstrap_servers},{elsewhere.bootstrap_servers}"
    bus = bus_with_topics(BusSettings(bootstrap_servers=servers, ack_timeout_s=ACK_TIMEOUT_S), [SPREAD])
    publisher = bus.publisher("writer")
    assert made.wait(START_TIMEOUT_S)
    own_broker.stop()
    elsewhere.start(START_TIMEOUT_S)
    event = OutgoingEvent(topic=SPREAD.name, key="one", value=b"1")
    eventually(
        lambda: publisher.send(event).exception(10 * ACK_TIMEOUT_S) is None, what="acknowledged by the moved one"
    )
    bus.close()
