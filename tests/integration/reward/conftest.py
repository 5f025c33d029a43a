"""A reward room as a process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from services.shared.settings.model import BusSettings
from tests.integration.reward.reward_process import RewardProcess


@pytest.fixture
def reward(tmp_path: Path, bus_settings: BusSettings) -> Iterator[RewardProcess]:
    """Not started yet."""
    process = RewardProcess(folder=tmp_path, bus_settings=bus_settings)
    yield process
    process.close()
