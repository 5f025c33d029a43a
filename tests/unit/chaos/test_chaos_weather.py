"""Every link has its faults of every kind, and is whole again when the weather ends."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import pytest

from services.embedded.plan import ROOMS
from services.shared.settings.load import Settings
from tests.benchmarks.chaos.blows import BlowLog
from tests.benchmarks.chaos.links import GRPC_LINKS, LINKS, ProxiedLinks
from tests.benchmarks.chaos.proxy import TcpProxy
from tests.benchmarks.chaos.weather import FAULTS, Weather


class Line:
    """A proxy that notes what is done to it."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.whole = True

    def cut(self) -> None:
        self.done.append("cut")
        self.whole = False

    def slow(self, latency_s: float) -> None:
        self.done.append("slow")
        self.whole = False

    def reset(self) -> None:
        self.done.append("reset")

    def heal(self) -> None:
        self.whole = True


class Over(Exception):
    """The weather has lasted long enough."""


async def test_in_a_round_every_link_has_every_kind_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = {link: Line() for link in LINKS}
    log = BlowLog(tmp_path / "blows.jsonl", lambda: 0.0)

    async def no_sleep(_seconds: float) -> None:
        if len(log.blows) == len(LINKS) * len(FAULTS):
            raise Over

    monkeypatch.setattr("tests.benchmarks.chaos.weather.asyncio.sleep", no_sleep)
    proxies = cast(Mapping[str, TcpProxy], lines)
    with pytest.raises(Over):
        await Weather(proxies=proxies, log=log, dice=random.Random(1), now=lambda: 0.0).run()
    assert {link: sorted(line.done) for link, line in lines.items()} == dict.fromkeys(LINKS, sorted(FAULTS))
    assert Counter(blow.target for blow in log.blows) == dict.fromkeys(LINKS, len(FAULTS))
    assert all(line.whole for line in lines.values())


async def test_a_storm_that_is_broken_off_heals_its_link(tmp_path: Path) -> None:
    line = Line()
    storm_s = (1e6, 1e6)
    weather = Weather(
        proxies={"kafka": cast(TcpProxy, line)},
        log=BlowLog(tmp_path / "blows.jsonl", lambda: 0.0),
        dice=random.Random(0),
        calm_s=(0.0, 0.0),
        storm_s=storm_s,
    )
    task = asyncio.create_task(weather.run())
    while line.whole:
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert line.whole


def test_every_address_that_a_room_calls_another_by_is_a_link() -> None:
    settings = Settings()
    called = {
        (room, name.removesuffix("_address"))
        for room in ROOMS
        for name in type(getattr(settings, room)).model_fields
        if name.endswith("_address")
    }
    assert {(link.caller, link.called) for link in GRPC_LINKS} == called


def test_rooms_are_told_the_proxies_addresses() -> None:
    links = ProxiedLinks(dict.fromkeys(ROOMS, 1))
    told = {(room, name) for room, names in links.overrides.items() for name in names}
    assert told == {(link.caller, f"{link.called}_address") for link in GRPC_LINKS}
    addresses = [address for names in links.overrides.values() for address in names.values()]
    assert len(set(addresses)) == len(GRPC_LINKS)
