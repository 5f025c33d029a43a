"""The killer: it runs through strikes that are planned beforehand; when each falls, the loop's own progress says."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tests.benchmarks.chaos.blows import KILL, BlowLog
from tests.benchmarks.chaos.world import BROKER, World

POLL_S = 0.1


class Stalled(Exception):
    """The loop did not go on within its time: a violation of its own."""


@dataclass(frozen=True, kw_only=True)
class Strike:
    """One kill. `pause_s`: between the loop's going on, or the kill if it is `hasty`, and the next; `away_s`: how long
    a broker stays dead. `until_spooled`: it is killed when all are up, and stays dead until feedback went to a disk.
    """

    victim: str
    pause_s: float
    away_s: float
    hasty: bool
    until_spooled: bool = False


@dataclass(frozen=True, kw_only=True)
class Progress:
    """What clients and store have seen so far."""

    acknowledged: int
    spooled: int
    published: int
    trained: int


@dataclass(frozen=True, kw_only=True)
class Pace:
    """After each kill so many more acknowledgements, after every n-th a new policy too, within the time."""

    acknowledgements: int = 5
    release_every: int = 5
    stall_s: float = 120.0


class Killer:
    """Runs through its strikes. `done` counts those that hit."""

    def __init__(
        self,
        *,
        world: World,
        strikes: Sequence[Strike],
        log: BlowLog,
        progress: Callable[[], Progress],
        pace: Pace,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._world = world
        self._strikes = strikes
        self._log = log
        self._progress = progress
        self._pace = pace
        self._now = now
        self._aftermaths: dict[str, asyncio.Task[None]] = {}
        self.done = 0

    async def run(self) -> None:
        """Returns when all have hit, and all that was hit is up again. Raises Stalled."""
        try:
            for number, strike in enumerate(self._strikes, start=1):
                if strike.until_spooled:
                    await asyncio.gather(*self._aftermaths.values())
                before = await asyncio.to_thread(self._progress)
                await self._hit(strike, before)
                if not strike.hasty:
                    await self._go_on(strike, before, released=number % self._pace.release_every == 0)
                await asyncio.sleep(strike.pause_s)
            await asyncio.gather(*self._aftermaths.values())
        finally:
            for task in self._aftermaths.values():
                task.cancel()
            await asyncio.gather(*self._aftermaths.values(), return_exceptions=True)

    async def _hit(self, strike: Strike, before: Progress) -> None:
        """One that is dead still is killed once it lives."""
        deadline = self._now() + self._pace.stall_s
        while not await asyncio.to_thread(self._world.kill, strike.victim):
            await self._breathe(deadline, f"{strike.victim} does not come back to life")
        self.done += 1
        self._log.note(KILL, strike.victim, at=self._now())
        await self._forget_aftermath(strike.victim)
        self._aftermaths[strike.victim] = asyncio.create_task(self._aftermath(strike, before))

    async def _forget_aftermath(self, victim: str) -> None:
        """Whoever is killed again while it starts is up when the later one is. A broker starts to the end first."""
        former = self._aftermaths.pop(victim, None)
        if former is not None:
            if victim != BROKER:
                former.cancel()
            await asyncio.gather(former, return_exceptions=True)

    async def _aftermath(self, strike: Strike, before: Progress) -> None:
        """Until the victim is up again."""
        deadline = self._now() + self._pace.stall_s
        if strike.victim == BROKER:
            await asyncio.sleep(strike.away_s)
            while strike.until_spooled and (await asyncio.to_thread(self._progress)).spooled <= before.spooled:
                await self._breathe(deadline, "nothing was spooled while the broker was away")
            await asyncio.to_thread(self._world.restart_broker)
        while not await asyncio.to_thread(self._world.is_up, strike.victim):
            await self._breathe(deadline, f"{strike.victim} is not up again")

    async def _go_on(self, strike: Strike, before: Progress, *, released: bool) -> None:
        deadline = self._now() + self._pace.stall_s
        await self._aftermaths[strike.victim]
        while True:
            now = await asyncio.to_thread(self._progress)
            heard = now.acknowledged - before.acknowledged >= self._pace.acknowledgements
            if heard and (now.published > before.published or not released):
                return
            lacking = "no policy was released" if heard else "too little feedback was acknowledged"
            await self._breathe(deadline, f"{lacking} after the kill of {strike.victim}")

    async def _breathe(self, deadline: float, what: str) -> None:
        failure = self._world.supervisor.failure
        if failure or self._now() > deadline:
            raise Stalled(failure or f"not within {self._pace.stall_s:.0f} s: {what}")
        await asyncio.sleep(POLL_S)
