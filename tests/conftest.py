"""What all tests share: the broker of `--broker`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from services.embedded.brokers import Broker
from services.shared.settings.model import BusSettings
from tests.support.brokers import SharedBroker, running_broker, shared_broker

settings.register_profile("shared machine", deadline=None)  # an example may take long while others use the machine
settings.load_profile("shared machine")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--broker", default="embedded", help="embedded, apache (KAFKA_HOME), or HOST:PORT of one that runs"
    )


@pytest.fixture(scope="session")
def broker_choice(request: pytest.FixtureRequest) -> str:
    """The value of `--broker`."""
    return str(request.config.getoption("--broker"))


@pytest.fixture(scope="session")
def broker(broker_choice: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SharedBroker]:
    """One broker for the whole run, started at its first use."""
    with shared_broker(broker_choice, tmp_path_factory.mktemp("broker") / "data") as shared:
        yield shared


@pytest.fixture
def bus_settings(broker: SharedBroker) -> BusSettings:
    """Settings for the shared broker with a topic prefix of the test's own."""
    return broker.settings()


@pytest.fixture
def own_broker(broker_choice: str, tmp_path: Path) -> Iterator[Broker]:
    """A started broker that the test may stop, kill and start again."""
    with running_broker(broker_choice, tmp_path / "own-broker") as broker:
        yield broker
