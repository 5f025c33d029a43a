"""What only Apache Kafka can show. With another broker than `--broker apache` these tests are deselected, and so never
counted as passed; with it they fail where Kafka is missing.

They share one node of their own, beside the run's: some kill it, and some need its secured ports.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from services.shared.settings.model import BusSettings
from tests.support.brokers import SharedBroker
from tests.support.secured_kafka import SecuredKafka, running_secured_kafka

HERE = Path(__file__).parent


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--broker") == "apache":
        return
    here = [item for item in items if HERE in item.path.parents]
    config.hook.pytest_deselected(items=here)
    items[:] = [item for item in items if item not in here]


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredKafka]:
    """The node."""
    with running_secured_kafka(tmp_path_factory.mktemp("kafka")) as kafka:
        yield kafka


@pytest.fixture
def plain(kafka: SecuredKafka) -> BusSettings:
    """Settings for its plain port, under a topic prefix of the test's own."""
    return SharedBroker(bootstrap_servers=kafka.broker.bootstrap_servers, embedded=False).settings()
