"""The collector's setting: fewer looks, and cycles are found all the same."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from services.gateway import collector, main
from services.shared.settings import Settings


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


class Stop(Exception):
    """Ends the gateway before it opens its ports."""


def test_it_is_set_when_everything_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []

    def keep_out_of_the_way() -> None:
        done.append("set")
        raise Stop

    monkeypatch.setattr(main, "configure", lambda *_: None)
    monkeypatch.setattr(main, "open_bus", lambda _: SimpleNamespace(close=lambda: done.append("closed")))
    monkeypatch.setattr(main, "build", lambda *_: done.append("built"))
    monkeypatch.setattr(collector, "keep_out_of_the_way", keep_out_of_the_way)
    with pytest.raises(Stop):
        main.run(Settings.model_validate({"deployment": {"data_dir": tmp_path}}))
    assert done == ["built", "set", "closed"]
