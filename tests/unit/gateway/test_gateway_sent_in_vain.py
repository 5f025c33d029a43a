"""Embedded broker: what the learner's store will never have is not sent to it for ever, and is kept all the same."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from services.gateway.spool.resends import MOST_SENT
from services.shared.domain.errors import Unavailable
from services.shared.domain.feedback import FeedbackState
from tests.support.facts import make_thumb
from tests.support.feedback_rooms import AWAY, Embedded, embedded
from tests.support.spool import names

GAUGE = "thumbloop_gateway_spool_in_vain_items"


AN_HOUR = 360


async def rounds(room: Embedded, number: int) -> None:
    """One every ten seconds."""
    for _ in range(number):
        room.now[0] += 10.0
        await room.confirmer.round()


async def test_it_is_sent_again_a_few_times_asked_about_for_ever_and_told_once(tmp_path: Path) -> None:
    async with embedded(tmp_path) as room:
        assert await room.sink.store(make_thumb("f1")) is FeedbackState.ACCEPTED
        with capture_logs() as told:
            await rounds(room, 2 * AN_HOUR)
        assert room.log.written == ["f1"] * (1 + MOST_SENT)
        assert room.metrics.value("thumbloop_gateway_spool_resent_total") == MOST_SENT
        in_vain = [line for line in told if line["event"] == "feedback_sent_in_vain"]
        assert [(line["feedback_id"], line["times"]) for line in in_vain] == [("f1", 1 + MOST_SENT)]
        assert room.metrics.value(GAUGE) == 1 and names(room.spool) == ["f1"]
        asked = len(room.store.asked)
        await room.confirmer.round()
        assert len(room.store.asked) == asked + 1
        # The learner is mended, or has only just come to it.
        room.store_has("f1")
        await room.confirmer.round()
        assert room.spool.items == 0 and room.metrics.value(GAUGE) == 0


async def test_others_go_on(tmp_path: Path) -> None:
    async with embedded(tmp_path) as room:
        await room.sink.store(make_thumb("f1"))
        await rounds(room, AN_HOUR)
        await room.sink.store(make_thumb("f2"))
        await rounds(room, 18)
        assert room.log.written.count("f2") > 1 and room.log.written.count("f1") == 1 + MOST_SENT
        assert room.metrics.value(GAUGE) == 1


async def test_it_is_not_given_up_before_the_last_copy_had_its_time(tmp_path: Path) -> None:
    async with embedded(tmp_path) as room:
        await room.sink.store(make_thumb("f1"))
        while len(room.log.written) < 1 + MOST_SENT:
            await rounds(room, 1)
        for _ in range(15):  # 10, 20, 40, 80 and now 160 seconds
            await rounds(room, 1)
            assert room.metrics.value(GAUGE) == 0
        await rounds(room, 1)
        assert room.metrics.value(GAUGE) == 1


async def test_while_the_learner_does_not_answer_nothing_is_used_up(tmp_path: Path) -> None:
    async with embedded(tmp_path) as room:
        await room.sink.store(make_thumb("f1"))
        room.store.away = True
        for _ in range(100):
            room.now[0] += 600.0
            with pytest.raises(Unavailable):
                await room.confirmer.round()
        assert room.log.written == ["f1"]
        room.store.away = False
        await rounds(room, AN_HOUR)
        assert len(room.log.written) == 1 + MOST_SENT


async def test_only_what_the_broker_acknowledged_counts(tmp_path: Path) -> None:
    async with embedded(tmp_path) as room:
        await room.sink.store(make_thumb("f1"))
        room.log.failure = AWAY
        await rounds(room, AN_HOUR)
        assert room.log.written == ["f1"] and room.metrics.value(GAUGE) == 0
        room.log.failure = None
        await rounds(room, AN_HOUR)
        assert len(room.log.written) == 1 + MOST_SENT


async def test_a_restart_tries_again(tmp_path: Path) -> None:
    for _ in range(2):
        async with embedded(tmp_path) as room:
            await room.sink.store(make_thumb("f1"))
            await rounds(room, AN_HOUR)
            assert room.metrics.value(GAUGE) == 1
            assert len(room.log.written) == 1 + MOST_SENT


async def test_what_leaves_by_other_ways_no_longer_counts(tmp_path: Path) -> None:
    async with embedded(tmp_path) as room:
        await room.sink.store(make_thumb("f1", rater="alice"))
        await rounds(room, AN_HOUR)
        gone = room.spool.delete_for(tenant="default", rater_ids=["alice"], rollout_ids=[])
        assert await asyncio.wrap_future(gone) == 1
        await room.confirmer.round()
        assert room.metrics.value(GAUGE) == 0
