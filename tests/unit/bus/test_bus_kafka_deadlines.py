"""Every event that is not acknowledged fails at its own deadline, whatever the deadline thread waited for before."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any, cast

import pytest

from services.shared.bus.interface import OutgoingEvent, Place, Record
from services.shared.bus.kafka_connection import KafkaConnection
from services.shared.bus.kafka_publisher import KafkaPublisher
from services.shared.domain.errors import Unavailable
from services.shared.settings.model import BusSettings

ACK_TIMEOUT_S = 0.3
PATIENCE_S = 10.0
ANSWERED, UNANSWERED = "answered", "unanswered"


class Sent:
    """What the client gives for an event: acknowledged at once, or never."""

    def __init__(self, key: bytes) -> None:
        self._answered = key == ANSWERED.encode()

    def add_callback(self, told: Callable[..., None], pending: Any) -> None:
        if self._answered:
            told(pending, SimpleNamespace(topic="t", partition=0, offset=1, timestamp=0))

    def add_errback(self, told: Callable[..., None]) -> None:
        """Nothing fails here."""


class Client:
    def send(self, topic: str, *, key: bytes, value: bytes, headers: object) -> Sent:
        return Sent(key)

    def close(self, timeout: float) -> None:
        """There is nothing to close."""


class Connection:
    settings = BusSettings(ack_timeout_s=ACK_TIMEOUT_S)

    def producer(self, client_id: str) -> Client:
        return Client()

    def full_name(self, topic: str) -> str:
        return topic

    def place(self, topic: str, partition: int) -> Place:
        return Place(topic, partition)

    def unavailable(self, doing: str, error: BaseException | None = None) -> Unavailable:
        return Unavailable(doing)


@pytest.fixture
def publisher() -> Iterator[KafkaPublisher]:
    opened = KafkaPublisher(cast(KafkaConnection, Connection()), "test")
    yield opened
    opened.close(0.1)


def send(publisher: KafkaPublisher, key: str) -> Future[Record]:
    return publisher.send(OutgoingEvent(topic="t", key=key, value=b"v"))


def fails_in_s(begin: float, sent: Future[Record]) -> float:
    with pytest.raises(Unavailable):
        sent.result(PATIENCE_S)
    return time.monotonic() - begin


def test_each_fails_at_its_own_deadline(publisher: KafkaPublisher) -> None:
    begun: list[tuple[float, Future[Record]]] = []
    for _ in range(3):
        begun.append((time.monotonic(), send(publisher, UNANSWERED)))
        time.sleep(ACK_TIMEOUT_S / 4)
    for begin, sent in begun:
        assert fails_in_s(begin, sent) >= ACK_TIMEOUT_S


def test_after_a_rest_too(publisher: KafkaPublisher) -> None:
    for _ in range(2):
        begin = time.monotonic()
        assert fails_in_s(begin, send(publisher, UNANSWERED)) >= ACK_TIMEOUT_S


@pytest.mark.parametrize("rest_s", [0.0, ACK_TIMEOUT_S * 1.5])
def test_after_events_that_were_acknowledged(publisher: KafkaPublisher, rest_s: float) -> None:
    for _ in range(50):
        assert send(publisher, ANSWERED).result(5.0).offset == 1
    time.sleep(rest_s)
    begin = time.monotonic()
    assert fails_in_s(begin, send(publisher, UNANSWERED)) >= ACK_TIMEOUT_S
