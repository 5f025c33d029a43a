"""A broker that is to stay dead until something was spooled does so, and is struck when everyone is up."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from tests.benchmarks.chaos.blows import BlowLog
from tests.benchmarks.chaos.killer import Killer, Pace, Progress, Stalled, Strike
from tests.benchmarks.chaos.world import BROKER, World


class Loop:
    """A world and the clients' progress in it: feedback is spooled some looks after the broker has died."""

    def __init__(self, *, looks_until_spooled: int) -> None:
        self.supervisor = SimpleNamespace(failure=None)
        self.done: list[str] = []
        self._left = looks_until_spooled
        self._starting: dict[str, int] = {}
        self._spooled = 0

    def kill(self, victim: str) -> bool:
        up = "all up" if not any(self._starting.values()) else "some down"
        self.done.append(f"kill {victim}, {up}")
        self._starting[victim] = 3
        return True

    def restart_broker(self) -> None:
        self.done.append(f"restart, spooled {self._spooled}")

    def is_up(self, victim: str) -> bool:
        self._starting[victim] = max(0, self._starting[victim] - 1)
        return not self._starting[victim]

    def progress(self) -> Progress:
        if self._starting.get(BROKER):
            self._left -= 1
            self._spooled = int(self._left <= 0)
        return Progress(acknowledged=len(self.done), spooled=self._spooled, published=0, trained=0)


def strike(victim: str, *, hasty: bool = False, until_spooled: bool = False) -> Strike:
    return Strike(victim=victim, pause_s=0.0, away_s=0.0, hasty=hasty, until_spooled=until_spooled)


async def strike_down(loop: Loop, strikes: list[Strike], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of them. Time passes by sleeping alone."""
    clock = SimpleNamespace(now=0.0)
    turn = asyncio.sleep

    async def sleep(seconds: float) -> None:
        clock.now += seconds
        await turn(0)

    monkeypatch.setattr("tests.benchmarks.chaos.killer.asyncio.sleep", sleep)
    await Killer(
        world=cast(World, loop),
        strikes=strikes,
        log=BlowLog(folder / "blows.jsonl", lambda: 0.0),
        progress=loop.progress,
        pace=Pace(acknowledgements=0, release_every=100, stall_s=60.0),
        now=lambda: clock.now,
    ).run()


async def test_the_broker_is_away_until_something_was_spooled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loop = Loop(looks_until_spooled=5)
    await strike_down(loop, [strike(BROKER, until_spooled=True)], tmp_path, monkeypatch)
    assert loop.done == [f"kill {BROKER}, all up", "restart, spooled 1"]


async def test_without_that_it_comes_back_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loop = Loop(looks_until_spooled=5)
    await strike_down(loop, [strike(BROKER)], tmp_path, monkeypatch)
    assert loop.done[1] == "restart, spooled 0"


async def test_it_is_struck_when_everyone_is_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A gateway that starts while there is no broker spools nothing."""
    loop = Loop(looks_until_spooled=1)
    strikes = [strike("gateway", hasty=True), strike(BROKER, until_spooled=True)]
    await strike_down(loop, strikes, tmp_path, monkeypatch)
    assert loop.done[1] == f"kill {BROKER}, all up"


async def test_a_loop_that_never_spools_has_stalled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loop = Loop(looks_until_spooled=10**9)
    with pytest.raises(Stalled, match="nothing was spooled"):
        await strike_down(loop, [strike(BROKER, until_spooled=True)], tmp_path, monkeypatch)
