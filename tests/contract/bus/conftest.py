"""The two buses under one suite: memory, and Kafka on the broker of `--broker`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from services.embedded.brokers import Broker
from services.shared.bus.interface import Bus
from services.shared.bus.memory import MemoryBus
from services.shared.contracts.topics import TopicPage
from services.shared.settings.model import BusSettings
from tests.support.brokers import bus_with_topics

SPREAD = TopicPage(
    name="spread",
    description="Four partitions.",
    key="any",
    message="none",
    producers=("test",),
    consumers=("test",),
    partitions=4,
    retention_ms=3_600_000,
    max_message_bytes=200_000,
    dead_letter=True,
    example="{}",
)
MAX_EVENT_BYTES = 100_000
ACK_TIMEOUT_S = 4.0
"""So long a set-up's send may take on a busy machine; an outage is told after it."""


@dataclass(frozen=True, kw_only=True)
class Outage:
    """A bus whose broker can be stopped in good order and started again."""

    bus: Bus
    stop: Callable[[], None]
    start: Callable[[], None]


@pytest.fixture(params=["memory", "kafka"])
def bus(request: pytest.FixtureRequest) -> Iterator[Bus]:
    """A bus with the topic `spread` and its dead-letter topic."""
    opened: Bus
    if request.param == "memory":
        opened = MemoryBus(BusSettings(max_event_bytes=MAX_EVENT_BYTES))
        opened.ensure_topics([SPREAD])
    else:
        settings: BusSettings = request.getfixturevalue("bus_settings")
        opened = bus_with_topics(settings.model_copy(update={"max_event_bytes": MAX_EVENT_BYTES}), [SPREAD])
    yield opened
    opened.close()


@pytest.fixture(params=["memory", "kafka"])
def outage(request: pytest.FixtureRequest) -> Iterator[Outage]:
    """A bus whose broker is the test's own."""
    if request.param == "memory":
        memory = MemoryBus(BusSettings(max_event_bytes=MAX_EVENT_BYTES))
        memory.ensure_topics([SPREAD])
        yield Outage(bus=memory, stop=memory.go_away, start=memory.come_back)
        return
    broker: Broker = request.getfixturevalue("own_broker")
    bus = bus_with_topics(
        BusSettings(
            bootstrap_servers=broker.bootstrap_servers, max_event_bytes=MAX_EVENT_BYTES, ack_timeout_s=ACK_TIMEOUT_S
        ),
        [SPREAD],
    )
    yield Outage(bus=bus, stop=broker.stop, start=lambda: broker.start(60))
    bus.close()
