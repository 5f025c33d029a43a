"""Network faults on links: cut, slow, reset, in seeded order with seeded pauses."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Mapping

from tests.benchmarks.chaos.blows import BlowLog
from tests.benchmarks.chaos.proxy import TcpProxy

FAULTS = ("cut", "slow", "reset")


class Weather:
    """One fault at a time on one of the links, until it is cancelled; the network is healed then."""

    def __init__(
        self,
        *,
        proxies: Mapping[str, TcpProxy],
        log: BlowLog,
        dice: random.Random,
        calm_s: tuple[float, float] = (3.0, 9.0),
        storm_s: tuple[float, float] = (0.5, 4.0),
        now: Callable[[], float] = time.time,
    ) -> None:
        """`proxies` by link. `calm_s`, `storm_s`: least and greatest length."""
        self._proxies = proxies
        self._log = log
        self._dice = dice
        self._calm_s = calm_s
        self._storm_s = storm_s
        self._now = now

    async def run(self) -> None:
        """In each round every kind once on every link."""
        faults = [(fault, link) for link in self._proxies for fault in FAULTS]
        while True:
            for fault, link in self._dice.sample(faults, len(faults)):
                await asyncio.sleep(self._dice.uniform(*self._calm_s))
                await self._blow(fault, link)

    async def _blow(self, fault: str, link: str) -> None:
        proxy, at, length_s = self._proxies[link], self._now(), self._dice.uniform(*self._storm_s)
        try:
            match fault:
                case "cut":
                    proxy.cut()
                    await asyncio.sleep(length_s)
                case "slow":
                    proxy.slow(self._dice.uniform(0.05, 0.4))
                    await asyncio.sleep(length_s)
                case _:
                    proxy.reset()
        finally:
            proxy.heal()
            self._log.note(fault, link, at=at)
