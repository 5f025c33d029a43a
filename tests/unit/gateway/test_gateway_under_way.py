"""An order to forget meets statements that are on their way to the log: it waits for the log's own word."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from services.gateway.feedback.wiring import Durability, open_durability
from services.gateway.forgetting.memory import GatewayMemory
from services.shared.domain.control import Forget
from services.shared.domain.errors import Busy, PermissionDenied
from services.shared.domain.feedback import FeedbackState
from services.shared.releases.forget_orders import ForgottenRaters
from services.shared.settings.load import Settings
from services.shared.telemetry.metrics import Metrics
from tests.support.facts import TENANT, make_thumb
from tests.support.feedback_rooms import Log, embedded
from tests.support.forgetting_world import ALICE, BOB
from tests.support.spool import StoreOfKeys, names, put

KINDS = ["no disk", "apache", "embedded"]
PATIENCE_S = 5.0


def durability(
    kind: str, folder: Path, log: Log, forgotten: ForgottenRaters, patience_s: float = PATIENCE_S
) -> Durability:
    settings = Settings.model_validate(
        {
            "deployment": {"data_dir": folder},
            "bus": {"embedded": kind == "embedded"},
            "gateway": {"spool": {"enabled": kind != "no disk", "patience_s": patience_s}},
        }
    )
    return open_durability(settings, publisher=log, stored=StoreOfKeys(), forgotten=forgotten, metrics=Metrics())


def memory(room: Durability, forgotten: ForgottenRaters) -> GatewayMemory:
    return GatewayMemory(
        asyncio.get_running_loop(), forgotten=forgotten, drops=[], in_hand=[room.is_sending], spool=room.spool
    )


async def until_begun(log: Log) -> None:
    async with asyncio.timeout(10):
        while not log.running:
            await asyncio.sleep(0.001)


async def carried_out(memory: GatewayMemory) -> None:
    """As its follower does: again while it is Busy."""
    async with asyncio.timeout(10):
        while True:
            try:
                return await asyncio.to_thread(memory.forget, "c-1", TENANT, Forget(rater_id=ALICE))
            except Busy:
                await asyncio.sleep(0.001)


@pytest.mark.parametrize("kind", ["apache", "embedded"])
async def test_what_was_answered_from_the_disk_is_under_way_until_the_log_has_spoken(tmp_path: Path, kind: str) -> None:
    log, forgotten = Log(), ForgottenRaters()
    room = durability(kind, tmp_path, log, forgotten, patience_s=0.05)
    log.gate.clear()
    assert await room.sink.store(make_thumb("f1", rater=ALICE)) is FeedbackState.SPOOLED
    assert room.is_sending(TENANT, ALICE)
    assert not room.is_sending(TENANT, BOB) and not room.is_sending("another", ALICE)
    with pytest.raises(Busy, match="way"):
        await asyncio.to_thread(memory(room, forgotten).forget, "c-1", TENANT, Forget(rater_id=ALICE))
    assert log.written == []
    log.gate.set()
    await carried_out(memory(room, forgotten))
    written = list(log.written)
    assert not room.is_sending(TENANT, ALICE) and written == ["f1"]  # before the order was carried out
    await room.close()


@pytest.mark.parametrize("kind", KINDS)
async def test_a_client_that_goes_does_not_hide_what_is_under_way(tmp_path: Path, kind: str) -> None:
    log, forgotten = Log(), ForgottenRaters()
    room = durability(kind, tmp_path, log, forgotten)
    log.gate.clear()
    request = asyncio.create_task(room.sink.store(make_thumb("f1", rater=ALICE)))
    await until_begun(log)
    request.cancel()
    await asyncio.gather(request, return_exceptions=True)
    assert room.is_sending(TENANT, ALICE)
    log.gate.set()
    await carried_out(memory(room, forgotten))
    assert log.written == ["f1"]
    await room.close()


@pytest.mark.parametrize("kind", KINDS)
async def test_nothing_of_somebody_who_was_forgotten_begins(tmp_path: Path, kind: str) -> None:
    log, forgotten = Log(), ForgottenRaters()
    room = durability(kind, tmp_path, log, forgotten)
    forgotten.add(TENANT, ALICE)
    with pytest.raises(PermissionDenied) as refused:
        await room.sink.store(make_thumb("f1", rater=ALICE))
    assert refused.value.reason == "PERSON_FORGOTTEN"
    await room.sink.store(make_thumb("f2", rater=BOB))
    async with asyncio.timeout(10):
        while not log.written:
            await asyncio.sleep(0.001)
    assert log.written == ["f2"]
    await room.close()


async def test_who_is_forgotten_while_the_learner_is_asked_is_not_sent(tmp_path: Path) -> None:
    forgotten = ForgottenRaters()
    async with embedded(tmp_path, forgotten=forgotten) as room:
        put(room.spool, "hers", rater=ALICE)
        put(room.spool, "his", rater=BOB)
        room.store.on_asked = lambda: forgotten.add(TENANT, ALICE)
        await room.confirmer.round()
        assert room.log.written == ["his"]
        assert names(room.spool) == ["hers", "his"]  # hers: for the order to take off the disk
