"""Network faults between services and broker: cut, slow, reset, in seeded order with seeded pauses."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable

from tests.benchmarks.chaos.blows import BlowLog
from tests.benchmarks.chaos.proxy import TcpProxy

FAULTS = ("cut", "slow", "reset")
TARGET = "network"


class Weather:
    """Changes until it is cancelled; the network is healed then."""

    def __init__(
        self,
        *,
        proxy: TcpProxy,
        log: BlowLog,
        seed: int,
        calm_s: tuple[float, float] = (3.0, 9.0),
        storm_s: tuple[float, float] = (0.5, 4.0),
        now: Callable[[], float] = time.time,
    ) -> None:
        """`calm_s`, `storm_s`: least and greatest length."""
        self._proxy = proxy
        self._log = log
        self._dice = random.Random(f"{seed}/weather")
        self._calm_s = calm_s
        self._storm_s = storm_s
        self._now = now

    async def run(self) -> None:
        """Each kind once in every three faults."""
        try:
            while True:
                for fault in self._dice.sample(FAULTS, len(FAULTS)):
                    await asyncio.sleep(self._dice.uniform(*self._calm_s))
                    await self._blow(fault)
        finally:
            self._proxy.heal()

    async def _blow(self, fault: str) -> None:
        at, length_s = self._now(), self._dice.uniform(*self._storm_s)
        try:
            match fault:
                case "cut":
                    self._proxy.cut()
                    await asyncio.sleep(length_s)
                case "slow":
                    self._proxy.slow(self._dice.uniform(0.05, 0.4))
                    await asyncio.sleep(length_s)
                case _:
                    self._proxy.reset()
        finally:
            self._proxy.heal()
            self._log.note(fault, TARGET, at=at)
