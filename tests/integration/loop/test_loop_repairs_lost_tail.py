"""The embedded broker is killed and loses answers that it had acknowledged and nobody had read yet.

Plan: the learner and reward are killed, so that nobody reads; users chat and send thumbs; then the broker is killed.
The supervisor starts all of them again. A broker that had written all to disk by then lost nothing, and a reader that
is back sooner has read all: so there are more rounds until something was lost.
Pass: every answer is in the store with a score of it, and every thumb is joined with its answer. (Apache Kafka loses
nothing of it in the first place; there the same must hold after one round.)
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import select

from services.client import AsyncThumbloopClient
from services.embedded.supervisor import Supervisor
from services.shared.store.database import Database, open_database
from services.shared.store.tables import experiences
from tests.support.loop import LearnerProbe, eventually

ANSWERS = 5
ROUNDS = 6
FOUND = {"joined", "late"}


@pytest.mark.kafka
@pytest.mark.timeout(600)
async def test_answers_that_the_broker_lost_are_sent_again(scripted_loop: Supervisor, tmp_path: Path) -> None:
    probe = LearnerProbe(scripted_loop.plan)
    await eventually(lambda: probe.published() >= 1, within_s=60, what="release 0")
    database = open_database(f"sqlite:///{tmp_path / 'store.db'}")
    try:
        async with AsyncThumbloopClient(scripted_loop.plan.page_url) as client:
            for _ in range(ROUNDS):
                await lose_and_repair(scripted_loop, client, database)
                if scripted_loop.plan.broker != "embedded" or resent(scripted_loop) > 0:
                    return
                await eventually(lambda: all_ready(scripted_loop), within_s=60, what="all rooms ready again")
    finally:
        database.close()
    pytest.fail(f"the broker lost nothing in {ROUNDS} rounds, so nothing was shown")


async def lose_and_repair(loop: Supervisor, client: AsyncThumbloopClient, database: Database) -> None:
    """One round: returns when every answer is scored in the store, and every thumb joined."""
    for room in ("learner", "reward"):
        loop.kill(room)
    answers = await asyncio.gather(*(client.chat(f"Question {number}?", max_tokens=8) for number in range(ANSWERS)))
    receipts = await asyncio.gather(*(client.thumb(answer.feedback_token, up=True) for answer in answers))
    loop.kill_broker()

    async def states() -> set[str]:
        pairs = zip(receipts, answers, strict=True)
        return {(await client.feedback_state(one.feedback_id, of.feedback_token)).state for one, of in pairs}

    async with asyncio.timeout(120):
        while not await states() <= FOUND:
            await asyncio.sleep(0.5)
    asked = {answer.rollout_id for answer in answers}
    query = select(experiences.c.rollout_id).where(experiences.c.rollout_id.in_(asked), experiences.c.scored)

    def scored() -> set[str]:
        with database.read() as connection:
            return set(connection.scalars(query))

    await eventually(lambda: scored() == asked, within_s=60, what="a score of every answer")


def all_ready(loop: Supervisor) -> bool:
    """Every room answers."""
    return all(loop.is_ready(room) for room in loop.plan.rooms)


def resent(loop: Supervisor) -> float:
    """Rollouts that the generator sent again."""
    page = httpx.get(f"http://127.0.0.1:{loop.plan.ports['generator_metrics']}/metrics").text
    samples = (sample for family in text_string_to_metric_families(page) for sample in family.samples)
    return sum(sample.value for sample in samples if sample.name == "thumbloop_generator_rollouts_resent_total")
