"""One run: start the world, load it, hit it, let it settle, judge."""

from __future__ import annotations

import asyncio
import contextlib
import random
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from tests.benchmarks.chaos.blows import Blow, BlowLog
from tests.benchmarks.chaos.fates import Fates
from tests.benchmarks.chaos.journal import read_journals
from tests.benchmarks.chaos.killer import Killer, Pace, Progress, Stalled, Strike
from tests.benchmarks.chaos.links import KAFKA
from tests.benchmarks.chaos.load import Load, LoadSettings
from tests.benchmarks.chaos.logs import Repairs, read_repairs
from tests.benchmarks.chaos.orphans import explains_orphan
from tests.benchmarks.chaos.statements import Ledger
from tests.benchmarks.chaos.store_view import StoreView, read_store, read_totals
from tests.benchmarks.chaos.verdict import Verdict, judge
from tests.benchmarks.chaos.weather import Weather
from tests.benchmarks.chaos.world import World, WorldSettings

POLL_S = 0.25
LAST_WORDS = 3
"""A client may have so many statements to send, with patience for each, when it is asked to stop."""
NOTHING = Progress(acknowledged=0, spooled=0, published=0, trained=0)


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """`releases`, `trained`: the load goes on until so much has come of it. `within_s`: bound of load and kills."""

    seed: int
    strikes: Sequence[Strike]
    world: WorldSettings
    load: LoadSettings
    pace: Pace = field(default_factory=Pace)
    weather: bool = True
    calm_s: tuple[float, float] = (3.0, 9.0)
    releases: int = 0
    trained: int = 0
    within_s: float = 1800.0
    settle_s: float = 60.0
    states_per_s: float = 100.0
    """`settle_s` is longer by the time it takes to ask for every state at this rate."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a run brought. `stalled`: why it did not come to its end; empty: it did."""

    ledger: Ledger
    store: StoreView
    states: dict[str, str]
    blows: list[Blow]
    verdict: Verdict
    exit_codes: dict[str, int]
    """Of the rooms, by name, when all was over and they were asked to end."""
    stalled: str
    seconds: float
    repairs: Repairs = field(default_factory=Repairs)
    """Of what the broker had lost."""
    carried: Mapping[str, int] = field(default_factory=dict)
    """Connections by proxied link: one without any was never under test."""

    @property
    def violations(self) -> list[str]:
        """Everything that must not be; empty: the promise held."""
        stalled = [f"stalled: {self.stalled}"] if self.stalled else []
        return [*self.verdict.violations, *stalled, *(f"did not drain: {line}" for line in self.failed_drains)]

    @property
    def failed_drains(self) -> list[str]:
        """Rooms that did not end in good order."""
        return [f"{room} ended with {code}" for room, code in self.exit_codes.items() if code != 0]


def _quiet(line: str) -> None:
    """The supervisor's words; its logs have them too."""


class ChaosRun:
    """`run` once. `line` is its present state in words."""

    def __init__(
        self, settings: RunSettings, data_dir: Path, report: Callable[[str], None] = lambda line: None
    ) -> None:
        data_dir.mkdir(parents=True, exist_ok=True)
        self.data_dir = data_dir
        self._settings = settings
        self._world = World(settings.world, data_dir, report)
        self._load = Load(url=self._world.plan.page_url, folder=data_dir / "clients", settings=settings.load)
        self._log = BlowLog(data_dir / "blows.jsonl", time.time)
        self._killer = Killer(
            world=self._world, strikes=settings.strikes, log=self._log, progress=self.progress, pace=settings.pace
        )
        self._fates: Fates | None = None
        self._last = NOTHING
        self._phase = "starting"
        self._began = time.monotonic()

    @property
    def line(self) -> str:
        """For people who watch."""
        last, ledger = self._last, self._load.ledger
        kills = " ".join(f"{victim[:3]}{count}" for victim, count in sorted(self._log.kills().items()))
        return (
            f"{time.monotonic() - self._began:6.0f} s  {self._phase:<8}  kills {self._killer.done}/"
            f"{len(self._settings.strikes)} ({kills or 'none'})  faults {len(self._log.blows) - self._killer.done}  "
            f"acknowledged {len(ledger.acknowledged)} (spooled {ledger.spooled()})  policies {last.published}  "
            f"trained {last.trained}  chats refused {ledger.refused_chats} cut {ledger.cut_chats}"
            f"{f'  final {self._fates.final}' if self._fates else ''}"
        )

    def progress(self) -> Progress:
        """Of clients and store. While the store cannot be read, what was known of it last."""
        with contextlib.suppress(sqlite3.Error):
            totals = read_totals(self._world.store_path)
            self._last = replace(NOTHING, published=totals.published, trained=totals.trained)
        told = list(self._load.ledger.statements.values())
        return Progress(
            acknowledged=sum(len(one.acknowledged) for one in told),
            spooled=self._load.ledger.spooled(),
            published=self._last.published,
            trained=self._last.trained,
        )

    async def run(self) -> Outcome:
        """Raises Misconfigured, Unavailable where the world does not even start."""
        stalled, states = "", {}
        try:
            await asyncio.to_thread(self._world.start)
            try:
                await self._hit()
            except (Stalled, TimeoutError) as error:
                stalled = str(error) or f"not done within {self._settings.within_s:.0f} s"
            states = await self._settle()
        finally:
            self._phase = "stopping"
            codes = await asyncio.to_thread(self._world.stop)
        ledger = read_journals(self._load.journals)
        store = read_store(self._world.store_path, self._world.checkpoints_path)
        return Outcome(
            ledger=ledger,
            store=store,
            states=states,
            blows=self._log.blows,
            verdict=judge(ledger, store, states, self._log.blows),
            exit_codes=codes,
            stalled=stalled,
            seconds=time.monotonic() - self._began,
            repairs=read_repairs(self._world.plan.log_path(room) for room in self._world.plan.rooms),
            carried=self._world.carried(),
        )

    async def _hit(self) -> None:
        """Load from the beginning; kills and weather once a policy was trained; load again until there is enough."""
        async with asyncio.timeout(self._settings.within_s), self._loaded():
            self._phase = "warming"
            await self._until(lambda now: now.published >= 2 and now.acknowledged >= 20)
            self._phase = "hitting"
            async with self._stormy():
                await self._killer.run()
            self._phase = "going on"
            wanted = self._settings
            await self._until(lambda now: now.published > wanted.releases and now.trained >= wanted.trained)

    async def _settle(self) -> dict[str, str]:
        """The network is whole, everyone is up, the store has what was acknowledged, or the time is over."""
        self._phase = "settling"
        settings, began = self._settings, time.monotonic()
        await asyncio.to_thread(self._world.wait_up, settings.settle_s)
        ledger, blows = self._load.ledger, self._log.blows
        statements = [told.statement for told in ledger.acknowledged]
        self._fates = Fates(
            self._world.plan.page_url,
            statements,
            may_be_orphaned=lambda one: explains_orphan(ledger.answers[one.rollout_id], blows) is not None,
        )
        left_s = began + settings.settle_s - time.monotonic() + len(statements) / settings.states_per_s
        await self._fates.settle(max(5.0, left_s))
        return self._fates.states

    @asynccontextmanager
    async def _loaded(self) -> AsyncIterator[None]:
        """Clients at work; at the end they bring to an end what they have begun. What they raise is raised here."""
        clients = asyncio.create_task(self._load.run())
        try:
            yield
        finally:
            self._load.stop()
            await asyncio.wait([clients], timeout=LAST_WORDS * self._settings.load.patience_s)
            clients.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await clients

    @asynccontextmanager
    async def _stormy(self) -> AsyncIterator[None]:
        """Network faults, where there are proxies to make them: one at a time to Kafka, one between rooms."""
        storms = [asyncio.create_task(weather.run()) for weather in self._weathers()]
        try:
            yield
        finally:
            for storm in storms:
                storm.cancel()
            await asyncio.gather(*storms, return_exceptions=True)

    def _weathers(self) -> list[Weather]:
        if not self._settings.weather:
            return []
        proxied = {
            "weather": {} if self._world.proxy is None else {KAFKA: self._world.proxy},
            "links": {} if self._world.links is None else self._world.links.proxies,
        }
        return [
            Weather(
                proxies=proxies,
                log=self._log,
                dice=random.Random(f"{self._settings.seed}/{name}"),
                calm_s=self._settings.calm_s,
            )
            for name, proxies in proxied.items()
            if proxies
        ]

    async def _until(self, condition: Callable[[Progress], bool]) -> None:
        """The bound is `within_s`, around it all."""
        while not condition(await asyncio.to_thread(self.progress)):
            if self._world.supervisor.failure:
                raise Stalled(self._world.supervisor.failure)
            await asyncio.sleep(POLL_S)
