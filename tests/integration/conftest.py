"""Which of these tests run on which broker."""

from __future__ import annotations

from pathlib import Path

import pytest

APACHE_ALONE = Path(__file__).parent / "kafka"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With another broker than the usual one, what no broker has a part in is left out: `make test` has run it."""
    if config.getoption("--broker") == "embedded":
        return
    here = Path(__file__).parent
    others = [item for item in items if here in item.path.parents and not _depends_on_broker(item)]
    config.hook.pytest_deselected(items=others)
    items[:] = [item for item in items if item not in others]


def _depends_on_broker(item: pytest.Item) -> bool:
    """By its fixtures. `mark.kafka` says so of one that asks for them as it runs; `mark.embedded_alone` says no."""
    if item.get_closest_marker("embedded_alone"):
        return False
    fixtures: list[str] = getattr(item, "fixturenames", [])
    marked = item.get_closest_marker("kafka") is not None
    return APACHE_ALONE in item.path.parents or "broker_choice" in fixtures or marked
