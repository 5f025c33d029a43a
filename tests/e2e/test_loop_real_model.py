"""The whole loop with the real model: thumbs in, a trained policy out, served to users.

Plan: start everything as `thumbloop demo` does, but with small batches and the reward model's skill gate opened (a
minute of thumbs says nothing about skill). Users chat and rate until two trained policies have been published and
answered; then stop in good order.
Pass: two releases with different adapters, each with answers of users by its spans; every acknowledged thumb is in the
store; some thumb reached a served token; no request refused, no answer cut; every service exits with 0.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from services.embedded.chat_model import ensure_chat_model
from services.embedded.plan import EmbeddedPlan, choose_ports
from services.embedded.supervisor import Supervisor
from services.learner.state.queries.thumb_to_token import NEVER, thumb_times
from services.shared.checkpoints import CheckpointStore
from services.shared.ids import utc_now
from services.shared.store.database import open_database
from services.simulate.counting import release_rows
from services.simulate.journal import read_thumbs
from services.simulate.store_reader import feedback_ids, published_policies
from tests.support.loop import LearnerProbe, crowd_of, eventually

SMALL = {
    "learner": {
        "unrated_wait_s": 1,
        "reward_min_new_thumbs": 1,
        "reward_min_auroc_low95": 0.0,
        "reward_min_thumbs_of_each": 1,
        "ppo": {"rollouts_per_update": 8, "minibatch": 4, "min_reward_sd": 0.0},
        "gate": {"samples": 4, "min_entropy_ratio": 0.0, "min_distinct2_ratio": 0.0},
    },
}


@pytest.mark.timeout(600)
async def test_thumbs_become_a_served_policy(tmp_path: Path) -> None:
    ensure_chat_model()
    plan = EmbeddedPlan(data_dir=tmp_path, ports=choose_ports(prefer_defaults=False), overrides=SMALL)
    supervisor, probe = Supervisor(plan), LearnerProbe(plan)
    crowd, journal = crowd_of(plan, tmp_path / "journal.jsonl")
    try:
        await asyncio.to_thread(supervisor.start)
        users = asyncio.create_task(crowd.run())
        await eventually(lambda: probe.published() >= 3, within_s=240, what="two trained releases")
        crowd.stop_rating()
        seen = journal.counts.answers
        await eventually(lambda: journal.counts.answers >= seen + 12, within_s=60, what="answers of the last release")
        crowd.stop()
        await users
        thumbs = [thumb.feedback_id for thumb in read_thumbs(journal.path)]
        await eventually(lambda: probe.feedback() >= len(thumbs), within_s=30, what="all thumbs in the store")
    finally:
        codes = await asyncio.to_thread(supervisor.stop)
    assert set(codes.values()) == {0}
    assert (journal.counts.refused, journal.counts.cut, journal.counts.thumbs_refused) == (0, 0, 0)
    database = open_database(f"sqlite:///{tmp_path / 'store.db'}")
    try:
        stored, policies = feedback_ids(database), published_policies(database)
        times = thumb_times(database, now=utc_now())
    finally:
        database.close()
    assert thumbs
    assert set(thumbs) <= stored
    trained = release_rows(policies, CheckpointStore((tmp_path / "checkpoints").as_uri()))[1:]
    assert len({row["adapter_sha256"] for row in trained}) == len(trained) >= 2
    assert sum(int(str(row["user_answers"])) > 0 for row in trained) >= 2
    assert min(time.to_token_s for time in times) < NEVER
