"""The killer: who dies, in which order, by seeded dice; when, by the loop's own progress."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tests.benchmarks.chaos.blows import KILL, BlowLog
from tests.benchmarks.chaos.world import BROKER, VICTIMS, World

POLL_S = 0.1
HASTY = 0.2
"""Share of kills that do not wait until the loop has recovered from the one before."""
FLOOR_OF_HUNDRED = 15
"""Of a hundred kills each victim gets at least so many."""


class Stalled(Exception):
    """The loop did not go on within its time: a violation of its own."""


@dataclass(frozen=True, kw_only=True)
class Strike:
    """One kill. `pause_s`: between the loop's going on and the kill; `away_s`: how long a broker stays dead."""

    victim: str
    pause_s: float
    away_s: float
    hasty: bool


@dataclass(frozen=True, kw_only=True)
class Progress:
    """What clients and store have seen so far."""

    acknowledged: int
    published: int
    trained: int


@dataclass(frozen=True, kw_only=True)
class Pace:
    """After each kill so many more acknowledgements, after every n-th a new policy too, within the time."""

    acknowledgements: int = 5
    release_every: int = 5
    stall_s: float = 120.0


def plan_strikes(kills: int, seed: int, victims: Sequence[str] = VICTIMS) -> list[Strike]:
    """The same seed gives the same strikes; every victim has its share."""
    dice = random.Random(f"{seed}/strikes")
    floor = min(kills // len(victims), kills * FLOOR_OF_HUNDRED // 100)
    order = [*victims] * floor
    order += [dice.choice(victims) for _ in range(kills - len(order))]
    dice.shuffle(order)
    return [
        Strike(
            victim=victim, pause_s=dice.uniform(0.0, 1.5), away_s=dice.uniform(0.2, 5.0), hasty=dice.random() < HASTY
        )
        for victim in order
    ]


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
                before = await asyncio.to_thread(self._progress)
                await self._hit(strike)
                if not strike.hasty:
                    await self._go_on(strike, before, released=number % self._pace.release_every == 0)
                await asyncio.sleep(strike.pause_s)
            await asyncio.gather(*self._aftermaths.values())
        finally:
            for task in self._aftermaths.values():
                task.cancel()
            await asyncio.gather(*self._aftermaths.values(), return_exceptions=True)

    async def _hit(self, strike: Strike) -> None:
        """One that is dead still is killed once it lives."""
        deadline = self._now() + self._pace.stall_s
        while not await asyncio.to_thread(self._world.kill, strike.victim):
            await self._breathe(deadline, f"{strike.victim} does not come back to life")
        self.done += 1
        self._log.note(KILL, strike.victim, at=self._now())
        await self._forget_aftermath(strike.victim)
        self._aftermaths[strike.victim] = asyncio.create_task(self._aftermath(strike))

    async def _forget_aftermath(self, victim: str) -> None:
        """Whoever is killed again while it starts is up when the later one is. A broker starts to the end first."""
        former = self._aftermaths.pop(victim, None)
        if former is not None:
            if victim != BROKER:
                former.cancel()
            await asyncio.gather(former, return_exceptions=True)

    async def _aftermath(self, strike: Strike) -> None:
        """Until the victim is up again."""
        deadline = self._now() + self._pace.stall_s
        if strike.victim == BROKER:
            await asyncio.sleep(strike.away_s)
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
