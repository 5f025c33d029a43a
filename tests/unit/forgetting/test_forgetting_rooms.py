"""What each room does when it is ordered to forget: nothing of the person comes out afterwards."""

from __future__ import annotations

import asyncio
import sqlite3
from concurrent.futures import Future
from contextlib import closing
from pathlib import Path

import pytest

from services.gateway.feedback.recent import Acknowledged, RecentFeedback
from services.gateway.feedback.turns import StatementId
from services.gateway.forgetting.memory import GatewayMemory
from services.gateway.releases.tally import ThumbTally
from services.generator.forgetting import GeneratorMemory
from services.generator.rollout_queue import RolloutQueue
from services.reward.forgetting import RecordsInHand, RewardMemory
from services.shared.bus.interface import OutgoingEvent, Place, Record
from services.shared.contracts.rollouts import encode_rollout
from services.shared.domain.control import Control, Forget, Pause, Quarantine
from services.shared.domain.errors import Busy, NotSupported
from services.shared.domain.feedback import FeedbackState
from services.shared.releases.forget_orders import ForgottenRaters, forget_only
from tests.support.facts import START, TENANT, make_meta, make_rollout, make_thumb
from tests.support.forgetting_world import ALICE, BOB, HERS, HIS

ORDER = Forget(rater_id=ALICE, rollout_ids=HERS[:1])


def control(order: Forget | Pause | Quarantine) -> Control:
    return Control(meta=make_meta("order"), control_id="c-1", epoch=1, order=order)


def test_orders_of_other_kinds_are_refused_without_harm() -> None:
    done: list[str] = []
    carry_out = forget_only(lambda control_id, tenant, order: done.append(order.rater_id))
    for other in (Quarantine(rater_ids=(BOB,), reason="burst"), Pause(paused=True, reason="maintenance")):
        with pytest.raises(NotSupported):
            carry_out(control(other))
    carry_out(control(ORDER))
    assert done == [ALICE]


class Disk:
    """A spool that notes what it was told."""

    def __init__(self) -> None:
        self.deleted: list[tuple[str, list[str], list[str]]] = []

    def delete_for(self, *, tenant: str, rater_ids: list[str], rollout_ids: list[str]) -> Future[int]:
        self.deleted.append((tenant, rater_ids, rollout_ids))
        done: Future[int] = Future()
        done.set_result(1)
        return done


async def test_the_gateway_lets_go_of_memory_and_spool() -> None:
    recent, tally, forgotten, disk = RecentFeedback(10), ThumbTally(10), ForgottenRaters(), Disk()
    statements = [
        make_thumb("a", rollout=HERS[1], rater=ALICE),
        make_thumb("b-on-hers", rollout=HERS[0], rater=BOB),
        make_thumb("b", rollout=HIS[0], rater=BOB),
    ]
    for statement in statements:
        name = StatementId(TENANT, statement.rater_id, statement.feedback_id)
        recent.remember(name, Acknowledged.of(statement, FeedbackState.ACCEPTED))
    tally.answer_started(rollout_id=HERS[0], policy_version="p-1")
    memory = GatewayMemory(
        asyncio.get_running_loop(),
        forgotten=forgotten,
        drops=[recent.forget, tally.forget],
        in_hand=[],
        spool=disk,  # type: ignore[arg-type]  # takes any sequence
    )
    for _ in range(2):
        await asyncio.to_thread(memory.forget, "c-1", TENANT, ORDER)
    assert [recent.find(StatementId(TENANT, said.rater_id, said.feedback_id)) is None for said in statements] == [
        True,
        True,
        False,
    ]
    assert forgotten.has(TENANT, ALICE) and not forgotten.has(TENANT, BOB) and not forgotten.has("other", ALICE)
    assert not forgotten.has(TENANT, "")
    tally.feedback_accepted(make_thumb("late", rollout=HERS[0], rater=ALICE))
    assert (tally.of("p-1").answers, tally.of("p-1").up) == (1, 0)
    assert disk.deleted[0] == (TENANT, [ALICE], list(HERS[:1]))


async def test_the_gateway_waits_for_what_is_on_its_way(tmp_path: Path) -> None:
    forgotten, disk, on_its_way = ForgottenRaters(), Disk(), {(TENANT, ALICE)}
    memory = GatewayMemory(
        asyncio.get_running_loop(),
        forgotten=forgotten,
        drops=[],
        in_hand=[lambda tenant, rater_id: False, lambda tenant, rater_id: (tenant, rater_id) in on_its_way],
        spool=disk,  # type: ignore[arg-type]  # takes any sequence
    )
    with pytest.raises(Busy):
        await asyncio.to_thread(memory.forget, "c-1", TENANT, ORDER)
    assert forgotten.has(TENANT, ALICE) and len(disk.deleted) == 1  # nothing new comes in, and what lies there is gone
    on_its_way.clear()
    await asyncio.to_thread(memory.forget, "c-1", TENANT, ORDER)
    assert len(disk.deleted) == 2


class Answers:
    """Sessions that record, or do not."""

    def __init__(self) -> None:
        self.recording = False

    def is_recording(self, tenant: str, rater_id: str) -> bool:
        return self.recording and (tenant, rater_id) == (TENANT, ALICE)


class Sender:
    """What is on its way from the queue."""

    sending: frozenset[str] = frozenset()


async def test_the_generator_waits_for_what_is_being_written_and_empties_its_queue(tmp_path: Path) -> None:
    queue, answers, sender, forgotten = RolloutQueue(tmp_path / "q.db"), Answers(), Sender(), ForgottenRaters()
    quoting = make_rollout(HIS[1], rater=BOB, text=f"who is {ALICE}?")
    for rollout in (make_rollout(HERS[1], rater=ALICE), make_rollout(HIS[0], rater=BOB), quoting):
        queue.put(rollout.rollout_id, encode_rollout(rollout))
    queue.put(HERS[2], encode_rollout(make_rollout(HERS[2], rater=ALICE)), refused_reason="EVENT_TOO_LARGE")
    queue.put(HERS[0], b"\xff garbled")  # by its id alone
    memory = GeneratorMemory(
        asyncio.get_running_loop(), forgotten=forgotten, answers=answers, sender=sender, queue=queue
    )
    answers.recording = True
    with pytest.raises(Busy):
        await asyncio.to_thread(memory.forget, "c-1", TENANT, ORDER)
    assert forgotten.has(TENANT, ALICE)  # nothing new begins meanwhile
    answers.recording, sender.sending = False, frozenset({HERS[1], HIS[0]})
    for _ in range(3):  # what the first attempt deleted stays awaited in those that find nothing to delete
        with pytest.raises(Busy):
            await asyncio.to_thread(memory.forget, "c-1", TENANT, ORDER)
    sender.sending = frozenset({HIS[0]})
    await asyncio.to_thread(memory.forget, "c-1", TENANT, ORDER)
    assert [one.rollout_id for one in queue.oldest(10)] == [HIS[0], HIS[1]]
    assert queue.delete_for(tenant=TENANT, rater_id=ALICE, rollout_ids=HERS) == []
    queue.close()


async def test_the_generator_waits_for_whoever_reads_its_queue(tmp_path: Path) -> None:
    """And still knows of what it deleted meanwhile that it was on its way."""
    path, answers, sender, forgotten = tmp_path / "q.db", Answers(), Sender(), ForgottenRaters()
    with closing(RolloutQueue(path)) as queue, closing(sqlite3.connect(path, isolation_level=None)) as backup:
        queue.put(HERS[1], encode_rollout(make_rollout(HERS[1], rater=ALICE, text="Water it when dry.")))
        memory = GeneratorMemory(
            asyncio.get_running_loop(), forgotten=forgotten, answers=answers, sender=sender, queue=queue
        )
        backup.execute("BEGIN")
        backup.execute("SELECT count(*) FROM rollouts").fetchone()
        sender.sending = frozenset({HERS[1]})
        with pytest.raises(Busy, match="way"):
            await asyncio.to_thread(memory.forget, "c-1", TENANT, ORDER)
        sender.sending = frozenset()
        with pytest.raises(Busy, match="read"):
            await asyncio.to_thread(memory.forget, "c-1", TENANT, ORDER)
        backup.execute("COMMIT")
        await asyncio.to_thread(memory.forget, "c-1", TENANT, ORDER)
        assert all(b"Water it" not in file.read_bytes() for file in tmp_path.iterdir())


def test_reward_leaves_out_scores_of_a_batch_that_it_is_at() -> None:
    forgotten = ForgottenRaters()
    in_hand = RecordsInHand(forgotten)
    memory = RewardMemory(forgotten=forgotten, in_hand=in_hand)
    in_hand.begin()
    assert in_hand.take(make_rollout(HERS[0], rater=ALICE)) and in_hand.take(make_rollout(HIS[0], rater=BOB))
    with pytest.raises(Busy):
        memory.forget("c-1", TENANT, ORDER)
    events = [OutgoingEvent(topic="scores", key=key, value=b"") for key in (HERS[0], HIS[0])]
    assert [event.key for event in in_hand.without_forgotten(events)] == [HIS[0]]
    in_hand.begin()
    memory.forget("c-1", TENANT, ORDER)
    assert not in_hand.take(make_rollout(HERS[1], rater=ALICE))
    garbled = Record(
        place=Place("rollouts", 0), offset=0, key="k", value=b"\xff\x20" + ALICE.encode(), headers={}, timestamp=START
    )
    assert in_hand.names_forgotten(garbled)
