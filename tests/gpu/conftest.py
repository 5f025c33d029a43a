"""The tests compute as the rooms do."""

from __future__ import annotations

import pytest

from services.shared.torch_process import prepare_torch


@pytest.fixture(scope="session", autouse=True)
def as_the_rooms_do() -> None:
    prepare_torch()
