"""The embedded broker is killed and loses answers that it had acknowledged and nobody had read yet.

Plan: the learner and reward are killed, so that nobody reads; users chat and send thumbs; then the broker is killed.
The supervisor starts all of them again.
Pass: every answer is in the store with a score of it, and every thumb is joined with its answer. (Apache Kafka loses
nothing of it in the first place; there the same must hold.)
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
from services.shared.store.database import open_database
from services.shared.store.tables import experiences
from tests.support.loop import LearnerProbe, eventually

ANSWERS = 5
FOUND = {"joined", "late"}


@pytest.mark.kafka
@pytest.mark.timeout(240)
async def test_answers_that_the_broker_lost_are_sent_again(scripted_loop: Supervisor, tmp_path: Path) -> None:
    probe = LearnerProbe(scripted_loop.plan)
    await eventually(lambda: probe.published() >= 1, within_s=60, what="release 0")
    async with AsyncThumbloopClient(scripted_loop.plan.page_url) as client:
        for room in ("learner", "reward"):
            scripted_loop.kill(room)
        answers = [await client.chat(f"Question {number}?", max_tokens=8) for number in range(ANSWERS)]
        receipts = [await client.thumb(answer.feedback_token, up=True) for answer in answers]
        scripted_loop.kill_broker()

        async def states() -> set[str]:
            pairs = zip(receipts, answers, strict=True)
            return {(await client.feedback_state(one.feedback_id, of.feedback_token)).state for one, of in pairs}

        async with asyncio.timeout(120):
            while not await states() <= FOUND:
                await asyncio.sleep(0.5)
    asked = {answer.rollout_id for answer in answers}
    database = open_database(f"sqlite:///{tmp_path / 'store.db'}")
    query = select(experiences.c.rollout_id).where(experiences.c.rollout_id.in_(asked), experiences.c.scored)

    def scored() -> set[str]:
        with database.read() as connection:
            return set(connection.scalars(query))

    try:
        await eventually(lambda: scored() == asked, within_s=60, what="a score of every answer")
    finally:
        database.close()
    if scripted_loop.plan.broker == "embedded":
        assert resent(scripted_loop) > 0, "the broker lost nothing, so nothing was shown"


def resent(loop: Supervisor) -> float:
    """Rollouts that the generator sent again."""
    page = httpx.get(f"http://127.0.0.1:{loop.plan.ports['generator_metrics']}/metrics").text
    samples = (sample for family in text_string_to_metric_families(page) for sample in family.samples)
    return sum(sample.value for sample in samples if sample.name == "thumbloop_generator_rollouts_resent_total")
