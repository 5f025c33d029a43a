"""Real brokers for tests: the one that all share, and ones that a test may stop and kill."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from services.embedded.brokers import Broker, make_broker
from services.embedded.ports import free_port
from services.shared.bus import open_bus
from services.shared.bus.interface import Bus
from services.shared.contracts.topics import TopicPage
from services.shared.domain.errors import Unavailable
from services.shared.settings.model import BusSettings

START_TIMEOUT_S = 60.0
ACK_TIMEOUT_S = 30.0
"""A broker that is there acknowledges in the end, however busy the machine is."""
TOLD_WITHIN_S = 2 * ACK_TIMEOUT_S
"""By then a bus of that patience has told what became of an event, either way."""


@dataclass(frozen=True, kw_only=True)
class SharedBroker:
    """A broker that serves for the whole test run. Tests keep apart by topic prefixes."""

    bootstrap_servers: str
    embedded: bool

    def settings(self, **changes: object) -> BusSettings:
        """Settings with a topic prefix that nobody else has."""
        values = {
            "bootstrap_servers": self.bootstrap_servers,
            "topic_prefix": f"t{uuid.uuid4().hex[:10]}.",
            "embedded": self.embedded,
            "ack_timeout_s": ACK_TIMEOUT_S,
        }
        return BusSettings.model_validate({**values, **changes})


def local_kind(choice: str) -> str:
    """The kind of broker that a test starts for itself; a broker elsewhere is not for a test to stop."""
    return "embedded" if ":" in choice else choice


@contextmanager
def running_broker(choice: str, data_dir: Path) -> Iterator[Broker]:
    """One of the test's own, started; it is gone afterwards."""
    broker = make_broker(local_kind(choice), port=free_port(), data_dir=data_dir)
    broker.start(START_TIMEOUT_S)
    try:
        yield broker
    finally:
        broker.stop()


@contextmanager
def shared_broker(choice: str, data_dir: Path) -> Iterator[SharedBroker]:
    """The broker of `--broker`: embedded, apache, or HOST:PORT of one that runs."""
    if ":" in choice:
        yield SharedBroker(bootstrap_servers=choice, embedded=False)
        return
    with running_broker(choice, data_dir) as broker:
        yield SharedBroker(bootstrap_servers=broker.bootstrap_servers, embedded=broker.embedded)


def bus_with_topics(settings: BusSettings, pages: Iterable[TopicPage]) -> Bus:
    """On a broker that is up, though it may be busy for a moment. Raises Unavailable when it stays away."""
    bus, wanted = open_bus(settings), list(pages)
    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        try:
            bus.ensure_topics(wanted)
        except Unavailable:
            if time.monotonic() > deadline:
                bus.close()
                raise
            time.sleep(0.1)
        else:
            return bus
