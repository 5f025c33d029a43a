"""How the spool empties into Kafka when a part of Kafka is away."""

from __future__ import annotations

import asyncio
from pathlib import Path

from services.gateway.spool.drainer import BATCH
from services.shared.domain.errors import Busy
from services.shared.domain.feedback import FeedbackState
from tests.support.facts import make_thumb
from tests.support.feedback_rooms import AWAY, Room, apache, rollouts_of
from tests.support.spool import names, thumb_item

SICK, WELL = 0, 1


async def put_all(room: Room, items: list[tuple[str, str]]) -> None:
    """(feedback id, rollout), in one wait for the disk."""
    placed = [room.spool.put(thumb_item(name, rollout=rollout)) for name, rollout in items]
    for one in placed:
        await asyncio.wrap_future(one)


async def test_a_partition_that_is_away_keeps_nothing_of_the_others(tmp_path: Path) -> None:
    """Although its items lead, and are more than a page."""
    async with apache(tmp_path, drains=False, max_items=2_000) as room:
        room.log.away = set(rollouts_of(SICK, BATCH + 100))
        sick = [(f"sick-{rollout}", rollout) for rollout in room.log.away]
        well = [(f"well-{rollout}", rollout) for rollout in rollouts_of(WELL, 50)]
        await put_all(room, sick + well)
        done = await room.drainer.round()
        assert (done.went, done.left) == (50, True)
        assert room.log.written == [name for name, _ in well]
        assert names(room.spool) == [name for name, _ in sick]
        done = await room.drainer.round()
        assert (done.went, done.left) == (0, True)  # only now is there a reason to pause
        room.log.away = set()
        done = await room.drainer.round()
        assert (done.went, done.left) == (BATCH + 100, False) and room.spool.items == 0


async def test_a_rollouts_order_holds_from_page_to_page(tmp_path: Path) -> None:
    async with apache(tmp_path, drains=False, max_items=2_000) as room:
        others = [(f"other-{number}", f"other-{number}") for number in range(BATCH)]
        await put_all(room, [("first", "r"), *others, ("second", "r"), ("third", "r")])
        room.log.fails_once = {"first"}
        done = await room.drainer.round()
        assert done.left and names(room.spool) == ["first", "second", "third"]
        done = await room.drainer.round()
        assert not done.left
        assert room.log.written[-3:] == ["first", "second", "third"]


async def test_a_publisher_that_has_its_fill_gets_no_more(tmp_path: Path) -> None:
    async with apache(tmp_path, drains=False, max_items=2_000) as room:
        await put_all(room, [(f"f{number}", f"r{number}") for number in range(BATCH + 1)])
        room.log.failure = Busy("too much in flight")
        done = await room.drainer.round()
        assert (done.went, done.left) == (0, True) and room.log.tried == BATCH
        assert not room.outage.covers("r1")  # that is no outage: nobody would wait for it to end


async def test_a_partition_that_is_away_costs_the_others_nothing(tmp_path: Path) -> None:
    async with apache(tmp_path, drains=False) as room:
        sick, well = rollouts_of(SICK, 3), rollouts_of(WELL, 3)
        room.log.away = set(sick)
        assert await room.sink.store(make_thumb("s0", rollout=sick[0])) is FeedbackState.SPOOLED
        tried = room.log.tried
        assert await room.sink.store(make_thumb("s1", rollout=sick[1])) is FeedbackState.SPOOLED
        assert room.log.tried == tried  # known to be away
        assert await room.sink.store(make_thumb("w0", rollout=well[0])) is FeedbackState.ACCEPTED
        # What is drained of one partition says nothing of another.
        await put_all(room, [("w1", well[1])])
        done = await room.drainer.round()
        assert done.went == 1 and names(room.spool) == ["s0", "s1"]
        assert room.outage.covers(sick[2]) and not room.outage.covers(well[2])
        assert await room.sink.store(make_thumb("w2", rollout=well[2])) is FeedbackState.ACCEPTED
        room.log.away = set()
        await room.drainer.round()
        assert await room.sink.store(make_thumb("s2", rollout=sick[2])) is FeedbackState.ACCEPTED


async def test_a_full_disk_does_not_hide_for_long_that_a_partition_is_back(tmp_path: Path) -> None:
    """What lies there is of another partition: nothing of it would be sent, and find out."""
    async with apache(tmp_path, drains=False, max_items=5) as room:
        sick, back = rollouts_of(SICK, 5), rollouts_of(WELL, 2)
        await put_all(room, [(f"s{number}", rollout) for number, rollout in enumerate(sick)])
        room.outage.begin(back[0], AWAY)
        assert room.outage.covers(back[1])
        room.now[0] += 60.0
        assert await room.sink.store(make_thumb("w", rollout=back[1])) is FeedbackState.ACCEPTED
        assert not room.outage.covers(back[0])
