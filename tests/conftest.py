"""What all tests share: the broker of `--broker`, the device of `--device`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from services.embedded.brokers import Broker
from services.embedded.ports import PORTS, choose_from
from services.shared.settings.model import BusSettings
from tests.support.brokers import SharedBroker, running_broker, shared_broker

settings.register_profile(
    "shared machine",
    deadline=None,  # an example may take long while others use the machine
    derandomize="CI" in os.environ,  # there a change is judged, and not what chance finds beside it
)
settings.load_profile("shared machine")


def pytest_configure(config: pytest.Config) -> None:
    """Test processes that run side by side take their ports from parts of their own."""
    here = getattr(config, "workerinput", {"workerid": "gw0", "workercount": 1})
    number, count = int(here["workerid"].removeprefix("gw")), int(here["workercount"])
    choose_from(PORTS[number::count])
    _check_device(str(config.getoption("--device")))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--broker", default="embedded", help="embedded, apache (KAFKA_HOME), or HOST:PORT of one that runs"
    )
    parser.addoption("--device", default="cpu", help="cpu or cuda: where engines, learner and reward model compute")


def _check_device(device: str) -> None:
    """A machine without the device fails."""
    if device == "cpu":
        return
    import torch

    if not torch.cuda.is_available():
        raise pytest.UsageError(
            f"--device {device}: torch {torch.__version__} sees no GPU. These tests need one, and a torch built for "
            "it: UV_TORCH_BACKEND=auto make setup"
        )


@pytest.fixture(scope="session")
def device(request: pytest.FixtureRequest) -> str:
    """The value of `--device`."""
    return str(request.config.getoption("--device"))


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
