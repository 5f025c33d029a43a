from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from services.shared.bus.interface import Bus
from services.shared.contracts.topics import load_topic_pages
from services.shared.settings.model import BusSettings
from services.shared.store.database import Database
from tests.support.brokers import bus_with_topics
from tests.support.learner_store import open_test_database


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = open_test_database(tmp_path)
    yield database
    database.close()


@pytest.fixture
def bus(bus_settings: BusSettings) -> Iterator[Bus]:
    """The broker of `--broker`, with all topics under the test's own prefix."""
    bus = bus_with_topics(bus_settings, load_topic_pages().values())
    yield bus
    bus.close()
