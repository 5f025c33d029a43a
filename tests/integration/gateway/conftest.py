"""A gateway on real ports, with a generator, a learner and a log that tests steer."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.gateway import GatewayHarness, running_gateway


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[GatewayHarness]:
    """Ready when the test begins."""
    async with running_gateway(tmp_path) as harness:
        yield harness
