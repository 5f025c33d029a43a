from __future__ import annotations

from collections.abc import Iterator

import pytest

from services.shared.bus import open_bus
from services.shared.bus.interface import Bus
from services.shared.bus.memory import MemoryBus
from services.shared.settings.model import BusSettings


@pytest.fixture(params=["memory", pytest.param("kafka", marks=pytest.mark.kafka)])
def any_bus(request: pytest.FixtureRequest) -> Iterator[Bus]:
    """The scenario runs on both."""
    bus: Bus = MemoryBus() if request.param == "memory" else open_bus(request.getfixturevalue("bus_settings"))
    yield bus
    bus.close()


@pytest.fixture
def memory_bus() -> Iterator[MemoryBus]:
    bus = MemoryBus()
    yield bus
    bus.close()


@pytest.fixture
def kafka_bus(bus_settings: BusSettings) -> Iterator[Bus]:
    bus = open_bus(bus_settings)
    yield bus
    bus.close()
