"""Where feedback goes when the log is there, late, or away, and how it gets from the disk to the log."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import pytest

from services.gateway.feedback.sink import KafkaFeedbackSink, SpoolSearch
from services.gateway.spool import confirmer
from services.gateway.spool.delivery import Delivery
from services.shared.domain.errors import Busy, Conflict, InvalidInput, ThumbloopError, Unavailable
from services.shared.domain.feedback import FeedbackState
from services.shared.releases.forget_orders import ForgottenRaters
from tests.support.facts import make_thumb
from tests.support.feedback_rooms import AWAY, LARGE, MAX_EVENT_BYTES, PATIENCE_S, Log, apache, embedded, rollouts_of
from tests.support.spool import FaultyDisk, names, open_spool, put, stored, thumb_item


class TestKafkaAlone:
    async def test_accepted_or_503_with_the_id_to_send_again(self) -> None:
        log = Log()
        delivery = Delivery(log, forgotten=ForgottenRaters(), patience_s=PATIENCE_S)
        sink = KafkaFeedbackSink(delivery, max_event_bytes=MAX_EVENT_BYTES)
        assert await sink.store(make_thumb("f1")) is FeedbackState.ACCEPTED
        for failure in (AWAY, Busy("full")):
            log.failure = failure
            with pytest.raises(Unavailable, match="f2") as refused:
                await sink.store(make_thumb("f2"))
            assert refused.value.retry_after
        assert log.written == ["f1"]


class TestApacheKafka:
    async def test_while_the_log_acknowledges_nothing_touches_the_disk(self, tmp_path: Path) -> None:
        async with apache(tmp_path) as room:
            assert await room.sink.store(make_thumb("f1")) is FeedbackState.ACCEPTED
            assert room.log.written == ["f1"] and room.spool.items == 0

    @pytest.mark.parametrize("failure", [AWAY, Busy("too much in flight")])
    async def test_what_the_log_does_not_take_is_on_disk_when_answered(
        self, tmp_path: Path, failure: ThumbloopError
    ) -> None:
        async with apache(tmp_path, drains=False) as room:
            room.log.failure = failure
            assert await room.sink.store(make_thumb("f1")) is FeedbackState.SPOOLED
            assert names(room.spool) == ["f1"] and room.log.written == []

    async def test_a_late_log_is_waited_for_no_longer_than_the_patience(self, tmp_path: Path) -> None:
        async with apache(tmp_path, patience_s=0.05, drains=False) as room:
            room.log.gate.clear()
            one, another = rollouts_of(0, 2)
            assert await room.sink.store(make_thumb("f1", rollout=one)) is FeedbackState.SPOOLED
            assert room.outage.covers(another)
            # Known to be away: nobody waits for it any more.
            assert await room.sink.store(make_thumb("f2", rollout=another)) is FeedbackState.SPOOLED
            assert room.log.running == {one} and names(room.spool) == ["f1", "f2"]

    async def test_a_learner_that_is_away_is_told_of_once_for_each_time(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        told: list[str] = []
        monkeypatch.setattr(confirmer, "_log", SimpleNamespace(warning=lambda event, **_: told.append(event)))
        async with embedded(tmp_path) as room:
            rounds = Mock(side_effect=room.confirmer.round)
            monkeypatch.setattr(room.confirmer, "round", rounds)
            await room.sink.store(make_thumb("f1"))
            task = asyncio.create_task(room.confirmer.run())
            try:
                for times, away in ((0, False), (1, True), (1, False), (2, True)):
                    room.store.away = away
                    seen = rounds.call_count
                    async with asyncio.timeout(10):
                        while rounds.call_count < seen + 4:
                            await asyncio.sleep(0.01)
                    assert told == ["spool_not_confirmed"] * times
            finally:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    async def test_a_disk_that_fails_is_never_a_success(self, tmp_path: Path) -> None:
        disk = FaultyDisk()
        async with apache(tmp_path, disk=disk, drains=False) as room:
            disk.connection.failing, room.log.failure = True, AWAY
            for _ in range(2):  # also when the log is known to be away
                with pytest.raises(Unavailable, match="disk"):
                    await room.sink.store(make_thumb("f1"))
            assert room.log.written == [] and room.outage.covers("r1")

    async def test_a_log_that_is_back_is_found_though_the_disk_fails(self, tmp_path: Path) -> None:
        disk = FaultyDisk()
        async with apache(tmp_path, disk=disk) as room:
            disk.connection.failing, room.log.failure = True, AWAY
            with pytest.raises(Unavailable, match="disk"):
                await room.sink.store(make_thumb("f1"))
            room.log.failure = None
            assert await room.sink.store(make_thumb("f1")) is FeedbackState.ACCEPTED
            assert not room.outage.covers("r1") and room.log.written == ["f1"]

    async def test_a_disk_full_of_what_the_log_refused_does_not_hide_that_the_log_is_back(self, tmp_path: Path) -> None:
        async with apache(tmp_path, drains=False) as room:
            put(room.spool, *(f"f{number}" for number in range(20)))
            room.outage.begin("b", AWAY)
            with pytest.raises(Unavailable) as refused:  # the drainer will find out; nobody is kept waiting
                await room.sink.store(make_thumb("new", rollout="b"))
            assert refused.value.reason == "SPOOL_FULL" and room.log.written == []
            for item in stored(room.spool):
                await asyncio.wrap_future(room.spool.refuse(item.position, item.item.key, "EVENT_TOO_LARGE"))
            assert await room.sink.store(make_thumb("new", rollout="b")) is FeedbackState.ACCEPTED
            assert not room.outage.covers("b")

    @pytest.mark.parametrize("away", [False, True])
    async def test_too_large_for_the_log_is_refused_whether_the_log_is_there_or_not(
        self, tmp_path: Path, away: bool
    ) -> None:
        async with apache(tmp_path, drains=False) as room:
            room.log.failure = AWAY if away else None
            with pytest.raises(InvalidInput) as refused:
                await room.sink.store(LARGE)
            assert refused.value.reason == "EVENT_TOO_LARGE" and "Shorten" in refused.value.message
            assert room.spool.items == 0 and room.log.written == [] and not room.outage.covers("r1")

    async def test_what_the_log_refused_for_good_is_told_as_rejected(self, tmp_path: Path) -> None:
        async with apache(tmp_path, drains=False) as room:
            put(room.spool, "huge", rater="alice")
            search = SpoolSearch(room.spool)
            for rater in ("alice", ""):
                found = await search.find(tenant="default", rater_id=rater, feedback_id="huge")
                assert found is not None and found.state is FeedbackState.SPOOLED and found.rater_id == "alice"
            huge = stored(room.spool)[0]
            await asyncio.wrap_future(room.spool.refuse(huge.position, huge.item.key, "EVENT_TOO_LARGE"))
            found = await search.find(tenant="default", rater_id="alice", feedback_id="huge")
            assert found is not None and found.state is FeedbackState.REJECTED and "EVENT_TOO_LARGE" in found.reason

    async def test_a_disk_that_cannot_be_read_says_so(self, tmp_path: Path) -> None:
        disk = FaultyDisk()
        async with apache(tmp_path, disk=disk, drains=False) as room:
            disk.connection.failing = True
            with pytest.raises(Unavailable, match="read") as refused:
                await SpoolSearch(room.spool).find(tenant="default", rater_id="alice", feedback_id="f1")
            assert refused.value.reason == "SPOOL_UNREADABLE" and refused.value.retry_after

    async def test_full_is_503(self, tmp_path: Path) -> None:
        async with apache(tmp_path, drains=False) as room:
            put(room.spool, *(f"f{number}" for number in range(20)))
            room.log.failure = AWAY
            with pytest.raises(Unavailable) as refused:
                await room.sink.store(make_thumb("one more"))
            assert refused.value.reason == "SPOOL_FULL" and refused.value.retry_after

    async def test_newer_items_of_a_spooled_rollout_go_through_the_spool(self, tmp_path: Path) -> None:
        async with apache(tmp_path, drains=False) as room:
            put(room.spool, "f1", rollout="a")
            assert await room.sink.store(make_thumb("f2", rollout="a")) is FeedbackState.SPOOLED
            assert await room.sink.store(make_thumb("f3", rollout="b")) is FeedbackState.ACCEPTED
            assert names(room.spool) == ["f1", "f2"] and room.log.written == ["f3"]

    async def test_it_drains_by_itself_in_order_for_each_rollout_when_the_log_is_back(self, tmp_path: Path) -> None:
        async with apache(tmp_path) as room:
            room.log.failure = AWAY
            sent = [f"{rollout}{number}" for number in range(5) for rollout in "abc"]
            for name in sent:
                await room.sink.store(make_thumb(name, rollout=name[0]))
            assert room.spool.items == 15
            room.log.failure = None
            await room.until_empty()
            for rollout in "abc":
                assert [name for name in room.log.written if name[0] == rollout] == [
                    name for name in sent if name[0] == rollout
                ]
            assert not any(room.outage.covers(rollout) for rollout in "abc")
            async with asyncio.timeout(10):  # counted after the disk let go of them
                while room.metrics.value("thumbloop_gateway_spool_drained_total") != 15:
                    await asyncio.sleep(0.01)
            assert await room.sink.store(make_thumb("after", rollout="a")) is FeedbackState.ACCEPTED

    async def test_it_drains_what_an_earlier_run_left(self, tmp_path: Path) -> None:
        with open_spool(tmp_path) as spool:
            put(spool, "f1", "f2")
        async with apache(tmp_path) as room:
            await room.until_empty()
            assert room.log.written == ["f1", "f2"]

    async def test_what_the_log_never_takes_is_put_aside_and_stops_nobody(self, tmp_path: Path) -> None:
        with open_spool(tmp_path) as spool:
            put(spool, "f1", "huge", "f2")
        async with apache(tmp_path) as room:
            room.log.refuses = "huge"
            async with asyncio.timeout(10):
                while room.spool.items > 1:
                    await asyncio.sleep(0.01)
            assert room.log.written == ["f1", "f2"] and names(room.spool) == []

    async def test_the_disk_tells_of_statements_of_before_a_restart(self, tmp_path: Path) -> None:
        with open_spool(tmp_path) as spool:
            put(spool, "f1", rater="alice")
        with open_spool(tmp_path) as spool:
            search = SpoolSearch(spool)
            found = await search.find(tenant="default", rater_id="alice", feedback_id="f1")
            assert found is not None
            assert (found.state, found.rater_id, found.revision) == (
                FeedbackState.SPOOLED,
                "alice",
                make_thumb("f1", rater="alice").revision,
            )
            assert await search.find(tenant="default", rater_id="bob", feedback_id="f1") is None


class TestEmbeddedBroker:
    async def test_everything_stays_on_disk_until_the_store_has_it(self, tmp_path: Path) -> None:
        async with embedded(tmp_path) as room:
            for name in ("f1", "f2"):
                assert await room.sink.store(make_thumb(name)) is FeedbackState.ACCEPTED
            await room.confirmer.round()
            assert names(room.spool) == ["f1", "f2"] == room.log.written
            room.store_has("f1")
            await room.confirmer.round()
            assert names(room.spool) == ["f2"]
            assert room.metrics.value("thumbloop_gateway_spool_drained_total") == 1

    async def test_what_the_store_lacks_is_sent_again_after_a_while_and_ever_more_rarely(self, tmp_path: Path) -> None:
        async with embedded(tmp_path) as room:
            await room.sink.store(make_thumb("f1"))
            for at, times in ((100, 1), (109, 1), (110, 2), (129, 2), (130, 3), (169, 3), (170, 4)):
                room.now[0] = at
                await room.confirmer.round()
                assert len(room.log.written) == times, at
            assert room.metrics.value("thumbloop_gateway_spool_resent_total") == 3
            assert names(room.spool) == ["f1"]

    async def test_while_the_log_is_away_the_disk_answers_and_sends_when_it_is_back(self, tmp_path: Path) -> None:
        async with embedded(tmp_path) as room:
            room.log.failure = AWAY
            for name in ("f1", "f2", "f3"):
                assert await room.sink.store(make_thumb(name)) is FeedbackState.SPOOLED
            with_failure = room.confirmer.round()
            await with_failure
            assert room.outage.covers("r1") and room.log.written == []
            room.log.failure = None
            await room.confirmer.round()
            assert room.log.written == ["f1", "f2", "f3"] and not room.outage.covers("r1")
            assert room.spool.items == 3
            assert await room.sink.store(make_thumb("f4")) is FeedbackState.ACCEPTED

    async def test_after_a_restart_what_the_store_lacks_is_sent_at_once(self, tmp_path: Path) -> None:
        async with embedded(tmp_path) as room:
            await room.sink.store(make_thumb("f1"))
            await room.sink.store(make_thumb("f2"))
            room.store_has("f1")
        async with embedded(tmp_path) as room:
            room.store_has("f1")
            await room.confirmer.round()
            assert room.log.written == ["f2"] and names(room.spool) == ["f2"]

    async def test_while_the_learner_is_away_nothing_leaves_and_nothing_goes_twice(self, tmp_path: Path) -> None:
        async with embedded(tmp_path) as room:
            room.store.away = True
            await room.sink.store(make_thumb("f1"))
            room.outage.begin("r1", AWAY)
            await room.sink.store(make_thumb("f2"))
            room.now[0] += 1_000
            for _ in range(2):
                with pytest.raises(Unavailable):
                    await room.confirmer.round()
            assert room.log.written == ["f1", "f2"] and room.spool.items == 2

    async def test_a_disk_that_fails_is_never_a_success_and_nothing_counts_that_was_refused(
        self, tmp_path: Path
    ) -> None:
        disk = FaultyDisk()
        async with embedded(tmp_path, disk) as room:
            disk.connection.failing = True
            with pytest.raises(Unavailable, match="disk"):
                await room.sink.store(make_thumb("f1"))
            disk.connection.failing = False
            assert await room.sink.store(make_thumb("f2")) is FeedbackState.ACCEPTED
            assert room.spool.items == 1 and room.log.written == ["f2"]

    async def test_another_statement_under_an_id_is_refused_and_does_not_count(self, tmp_path: Path) -> None:
        async with embedded(tmp_path) as room:
            assert await room.sink.store(make_thumb("f1", up=True)) is FeedbackState.ACCEPTED
            with pytest.raises(Conflict, match="f1"):
                await room.sink.store(make_thumb("f1", up=False))
            # In the order of the log: what would have been sent of it was sent before this.
            assert await room.sink.store(make_thumb("f2")) is FeedbackState.ACCEPTED
            assert room.log.written == ["f1", "f2"] and room.spool.items == 2

    async def test_too_large_for_the_log_is_refused_and_leaves_nothing(self, tmp_path: Path) -> None:
        async with embedded(tmp_path) as room:
            with pytest.raises(InvalidInput, match="Shorten"):
                await room.sink.store(LARGE)
            assert room.spool.items == 0 and room.log.written == []

    async def test_a_slow_broker_does_not_hold_up_what_is_safe_on_disk(self, tmp_path: Path) -> None:
        async with embedded(tmp_path) as room:
            room.log.gate.clear()
            assert await room.sink.store(make_thumb("f1")) is FeedbackState.SPOOLED
            room.log.gate.set()
            async with asyncio.timeout(10):
                while not room.log.written:
                    await asyncio.sleep(0.01)
            await room.confirmer.round()
            assert room.log.written == ["f1"]

    async def test_what_the_broker_refuses_after_the_answer_is_set_aside(self, tmp_path: Path) -> None:
        async with embedded(tmp_path) as room:
            room.log.refuses = "huge"
            room.log.gate.clear()
            assert await room.sink.store(make_thumb("huge", rater="alice")) is FeedbackState.SPOOLED
            room.log.gate.set()
            async with asyncio.timeout(10):
                while names(room.spool):
                    await asyncio.sleep(0.01)
            found = await SpoolSearch(room.spool).find(tenant="default", rater_id="alice", feedback_id="huge")
            assert found is not None and found.state is FeedbackState.REJECTED and "EVENT_TOO_LARGE" in found.reason
            await room.confirmer.round()
            assert room.log.written == [] and room.spool.items == 1

    async def test_what_the_broker_never_takes_is_refused_and_leaves_the_disk(self, tmp_path: Path) -> None:
        async with embedded(tmp_path) as room:
            room.log.refuses = "huge"
            with pytest.raises(InvalidInput):
                await room.sink.store(make_thumb("huge"))
            assert room.spool.items == 0

    async def test_many_items_are_asked_about_in_pages_and_all_get_their_turn(self, tmp_path: Path) -> None:
        async with embedded(tmp_path) as room:
            placed = [
                room.spool.put(thumb_item(f"f{number}", tenant=f"t{number % 2}"), sent=True) for number in range(700)
            ]
            for one in placed:
                await asyncio.wrap_future(one)
            await room.confirmer.round()
            assert {key.feedback_id for key in room.store.asked} == {f"f{number}" for number in range(700)}
