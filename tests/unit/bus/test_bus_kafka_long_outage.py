"""Kafka stays away for long: what ran out of time is let go of, whether or not there is a producer by then."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from concurrent.futures import Future
from typing import cast

import pytest

from services.shared.bus.interface import OutgoingEvent, Record
from services.shared.bus.kafka_connection import KafkaConnection
from services.shared.bus.kafka_publisher import KafkaPublisher
from services.shared.domain.errors import Busy, Unavailable
from services.shared.settings.model import BusSettings

MAX_IN_FLIGHT = 20
PATIENCE_S = 30.0


class NoKafka:
    """No producer can be made."""

    settings = BusSettings(ack_timeout_s=0.1, max_in_flight=MAX_IN_FLIGHT)

    def producer(self, client_id: str) -> None:
        raise Unavailable("away")

    def unavailable(self, doing: str, error: BaseException | None = None) -> Unavailable:
        return Unavailable(doing)


@pytest.fixture
def publisher() -> Iterator[KafkaPublisher]:
    opened = KafkaPublisher(cast(KafkaConnection, NoKafka()), "test")
    yield opened
    opened.close(0.1)


def test_what_ran_out_of_time_without_a_producer_is_let_go_of(publisher: KafkaPublisher) -> None:
    sent: list[weakref.ref[OutgoingEvent]] = []

    def send(number: int) -> Future[Record]:
        event = OutgoingEvent(topic="t", key=str(number), value=b"v")
        sent.append(weakref.ref(event))
        return publisher.send(event)

    for _ in range(6):
        outcomes = [send(number).exception for number in range(2 * MAX_IN_FLIGHT)]
        assert {type(outcome(PATIENCE_S)) for outcome in outcomes} <= {Unavailable, Busy}
        assert len([event for event in sent if event() is not None]) <= MAX_IN_FLIGHT
