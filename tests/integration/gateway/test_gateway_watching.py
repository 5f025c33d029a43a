"""Streams of releases: there are only so many, and none lasts for ever.

Plan: a gateway with one place for who watches at each port; one watches, another comes, the first goes; streams that
live shortly. Pass: the second is told when to come again, the other port and the list still answer, a place comes back
when its client goes, and a stream ends by itself, whole.
"""

from __future__ import annotations

import json
from contextlib import AsyncExitStack
from pathlib import Path

import httpx

from services.shared.access import Scope
from tests.support.access import live_key
from tests.support.gateway import running_gateway, until

EVENTS = "/v1/releases/events"


async def test_who_comes_when_all_places_are_taken_is_told_when_to_come_again(tmp_path: Path) -> None:
    minted, key = live_key(Scope.ADMIN)
    admin = {"Authorization": f"Bearer {minted.text}"}
    async with (
        running_gateway(tmp_path, keys=[key], max_release_watchers=1) as gateway,
        httpx.AsyncClient(base_url=gateway.control_url, timeout=20) as control,
    ):

        async def known() -> bool:
            return (await control.get("/v1/releases", headers=admin)).status_code == 200

        await until(known, what="the gateway to know the keys")
        async with AsyncExitStack() as watching:
            first = await watching.enter_async_context(gateway.http.stream("GET", EVENTS))
            assert first.status_code == 200
            assert await anext(first.aiter_lines()) == "event: releases"
            async with gateway.http.stream("GET", EVENTS) as second:
                assert second.status_code == 429
                assert json.loads(await second.aread())["error"]["code"] == "too_many_watchers"
            assert int(second.headers["Retry-After"]) >= 1
            assert (await gateway.http.get("/v1/releases")).json()["releases"] == []
            async with control.stream("GET", EVENTS, headers=admin) as operators:
                assert operators.status_code == 200

        async def has_a_place() -> bool:
            async with gateway.http.stream("GET", EVENTS) as stream:
                return stream.status_code == 200

        await until(has_a_place, what="the place of the client that went")


async def test_a_stream_ends_by_itself_and_leaves_its_place(tmp_path: Path) -> None:
    async with running_gateway(tmp_path, max_release_watchers=1, release_stream_s=0.05) as gateway:
        for _ in range(2):
            stream = await gateway.http.get(EVENTS)
            assert stream.status_code == 200 and stream.headers["content-type"].startswith("text/event-stream")
            event = stream.text.split("\n\n")[0].split("\n")
            assert event[0] == "event: releases" and json.loads(event[1].removeprefix("data: "))["releases"] == []
