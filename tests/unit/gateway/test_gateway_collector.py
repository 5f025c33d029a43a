"""The collector's setting: fewer looks, and cycles are found all the same."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from services.gateway import collector


class Cycle:
    """Refers to itself."""

    def __init__(self) -> None:
        self.me = self


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    thresholds = gc.get_threshold()
    yield
    gc.set_threshold(*thresholds)
    gc.unfreeze()


def test_cycles_are_still_collected_by_themselves() -> None:
    collector.keep_out_of_the_way()
    assert gc.get_threshold() == collector.THRESHOLDS
    gone = weakref.ref(Cycle())
    kept = [Cycle() for _ in range(2 * collector.THRESHOLDS[0])]
    assert gone() is None and len(kept) == 2 * collector.THRESHOLDS[0]
