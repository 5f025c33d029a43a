"""A producer whose brokers are gone for good: the publisher goes on with another one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any, cast

import pytest
from kafka.errors import IllegalStateError, KafkaTimeoutError

from services.shared.bus.interface import OutgoingEvent, Place, Record
from services.shared.bus.kafka_connection import KafkaConnection
from services.shared.bus.kafka_publisher import KafkaPublisher
from services.shared.domain.errors import Unavailable
from services.shared.settings.model import BusSettings
from tests.support.patience import eventually

MAX_IN_FLIGHT = 3
PATIENCE_S = 30.0


class Acknowledged:
    def add_callback(self, told: Callable[..., None], pending: Any) -> None:
        told(pending, SimpleNamespace(topic="t", partition=0, offset=1, timestamp=0))

    def add_errback(self, told: Callable[..., None]) -> None:
        """Nothing fails here."""


class Reachable:
    """A client whose brokers are there."""

    def send(self, topic: str, *, key: bytes, value: bytes, headers: object) -> Any:
        return Acknowledged()

    def close(self, timeout: float) -> None:
        """There is nothing to close."""


class WithoutMetadata(Reachable):
    """A client that never sent: it asks its old brokers what partitions there are."""

    def send(self, topic: str, *, key: bytes, value: bytes, headers: object) -> Any:
        raise KafkaTimeoutError("Failed to update metadata after 2.0 secs.")


class WithoutProducerId(Reachable):
    """A client that asks its old brokers for a producer id, and until then looks at no batch's age. Closed, it lets
    go of what it holds.
    """

    def __init__(self) -> None:
        self._told: list[Callable[..., None]] = []

    def send(self, topic: str, *, key: bytes, value: bytes, headers: object) -> Any:
        return SimpleNamespace(add_callback=lambda *_: None, add_errback=self._told.append)

    def close(self, timeout: float) -> None:
        for told in self._told:
            told(IllegalStateError("Producer is closed forcefully."))


class Connection:
    """Makes the clients in turn; the last one as often as it is asked for."""

    settings = BusSettings(ack_timeout_s=0.3, max_in_flight=MAX_IN_FLIGHT)

    def __init__(self, *clients: Reachable) -> None:
        self._clients = list(clients)

    def producer(self, client_id: str) -> Reachable:
        return self._clients.pop(0) if len(self._clients) > 1 else self._clients[0]

    def full_name(self, topic: str) -> str:
        return topic

    def place(self, topic: str, partition: int) -> Place:
        return Place(topic, partition)

    def unavailable(self, doing: str, error: BaseException | None = None) -> Unavailable:
        return Unavailable(doing)


@pytest.fixture
def open_publisher() -> Iterator[Callable[[Connection], KafkaPublisher]]:
    opened: list[KafkaPublisher] = []

    def open_(connection: Connection) -> KafkaPublisher:
        opened.append(KafkaPublisher(cast(KafkaConnection, connection), "test"))
        return opened[-1]

    yield open_
    for publisher in opened:
        publisher.close(0.1)


def send(publisher: KafkaPublisher, number: int) -> Future[Record]:
    return publisher.send(OutgoingEvent(topic="t", key=str(number), value=b"v"))


def test_a_producer_that_gets_no_metadata_is_made_again(
    open_publisher: Callable[[Connection], KafkaPublisher],
) -> None:
    publisher = open_publisher(Connection(WithoutMetadata(), Reachable()))
    assert isinstance(send(publisher, 1).exception(PATIENCE_S), Unavailable)
    assert send(publisher, 2).result(PATIENCE_S).offset == 1


def test_a_producer_that_never_lets_go_of_what_it_holds_is_made_again(
    open_publisher: Callable[[Connection], KafkaPublisher],
) -> None:
    """Else every place in the bound stays taken, and every event is refused, for ever."""
    publisher = open_publisher(Connection(WithoutProducerId(), Reachable()))
    held = [send(publisher, number) for number in range(MAX_IN_FLIGHT)]
    assert {type(each.exception(PATIENCE_S)) for each in held} == {Unavailable}
    eventually(lambda: send(publisher, 10).exception(PATIENCE_S) is None, what="the places are free again")
