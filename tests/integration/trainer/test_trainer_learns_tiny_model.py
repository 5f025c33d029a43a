"""PPO on a tiny model, from thumbs to releases, over real gRPC; then a restart.

Plan: people like answers whose tokens' embeddings lean to one side of a plane. They chat in rounds; learner and reward
room do the rest. After some releases both rooms stop and start again on the same store.
Pass: several releases, each with another adapter and its lineage; the policy is liked clearly more often at the end
than at the beginning; after the restart the first cycle goes on from the live release, with the same optimizer state.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from sqlalchemy import func, select

from services.shared.domain.release import ReleaseKind
from services.shared.settings.model import GateSettings, LearnerSettings, PpoSettings
from services.shared.store.database import Database, open_database
from services.shared.store.tables import experiences, releases, uses
from tests.integration.trainer.half_loop import HalfLoop, People, new_bus, running_half_loop
from tests.support.tiny_model import build_tiny_model

BATCH = 24
SETTINGS = LearnerSettings(
    reward_min_auroc_low95=0.5,
    reward_min_thumbs_of_each=5,
    max_staleness=8,
    acknowledge_timeout_s=30.0,
    # A tiny random model is moved far by little: the gate's bounds for real models do not fit it.
    gate=GateSettings(samples=6, max_kl_nats=60.0, min_distinct2_ratio=0.0, min_entropy_ratio=0.0),
    ppo=PpoSettings(
        rollouts_per_update=BATCH,
        minibatch=8,
        learning_rate=3e-3,
        kl_coefficient=0.01,
        kl_controller="fixed",
        value_learning_rate=1e-2,
        trunk_dtype="float32",
    ),
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("tiny"))


def taste_of(model: Path) -> Callable[[tuple[int, ...]], bool]:
    """Likes what leans to one side of a plane through the embeddings' centre."""
    embedding_VD = load_file(model / "model.safetensors")["model.embed_tokens.weight"]
    side_V = (embedding_VD - embedding_VD.mean(dim=0)) @ torch.randn(
        embedding_VD.shape[1], generator=torch.Generator().manual_seed(3)
    )
    return lambda response: float(side_V[list(response)].mean()) > 0.0


@pytest.mark.timeout(280)
async def test_thumbs_make_the_tiny_policy_better_and_a_restart_goes_on(
    model: Path, tmp_path: Path, device: str
) -> None:
    bus = new_bus()
    async with running_half_loop(tmp_path, model, SETTINGS, bus, device) as loop:
        people = People(loop, taste=taste_of(model))
        released = await _rounds(loop, people, releases=6)
    # Answers may be left for one more update: which version is the last is known once the rooms have ended.
    with closing(open_database(loop.settings.store_url)) as database:
        last = _policies(database)[-1].version
    assert len(set(released)) == 6
    before, after = people.liked[0], max(people.liked[-2:])
    assert after > before + 0.1, people.liked

    async with running_half_loop(tmp_path, model, SETTINGS, bus, device) as loop:
        again = People(loop, taste=taste_of(model), seed=1)
        again._numbers = people._numbers
        await _rounds(loop, again, releases=1)
        _check_release(loop, tmp_path)
    with closing(open_database(loop.settings.store_url)) as database:
        policies = _policies(database)
        successor = next(release for release in policies if release.parent_version == last)
        assert successor.version.startswith("p-0002-")
        _check_optimizer_went_on(loop, last, successor.version)
        with database.read() as connection:
            policy_uses = select(func.count(), func.count(uses.c.rollout_id.distinct())).where(uses.c.kind == "policy")
            total, distinct = connection.execute(policy_uses).one()
    assert total == distinct == (len(policies) - 1) * BATCH


def _policies(database: Database) -> list[Any]:
    """Policy releases, release 0 first."""
    with database.read() as connection:
        query = select(releases).where(releases.c.kind == "policy").order_by(releases.c.epoch, releases.c.number)
        return list(connection.execute(query))


async def _rounds(loop: HalfLoop, people: People, *, releases: int) -> list[str]:
    """People chat until so many new policies have been released."""
    seen = [loop.live().version]
    for _ in range(3 * releases + 10):
        if len(seen) > releases:
            break
        before = loop.live().version
        names = people.chat(BATCH)
        await loop.wait_for(partial(_scored, loop, names), what="scores")
        await loop.wait_for(
            partial(_released_or_waits, loop, people, before),
            what="a release, or a reason why there is none",
        )
        if loop.live().version != before:
            seen.append(loop.live().version)
    assert len(seen) > releases, seen
    return seen[1:]


def _scored(loop: HalfLoop, names: list[str]) -> bool:
    with loop.ground.database.read() as connection:
        query = select(func.count()).where(experiences.c.rollout_id.in_(names), experiences.c.scored.is_(True))
        return connection.scalar(query) == len(names)


def _released_or_waits(loop: HalfLoop, people: People, before: str) -> bool:
    return loop.live().version != before or _waits(loop, people)


def _waits(loop: HalfLoop, people: People) -> bool:
    """The reward model has seen these thumbs and has no skill yet: more chat is needed."""
    thumbs = loop.live(ReleaseKind.REWARD_MODEL).metrics.get("thumbs", 0.0)
    seen = thumbs + SETTINGS.reward_min_new_thumbs > people.rated
    return seen and "has not proved skill" in loop.trainer.status.waiting_reason


def _check_release(loop: HalfLoop, folder: Path) -> None:
    live = loop.live()
    into = folder / "check" / live.version
    manifest = loop.ground.checkpoints.fetch(live.checkpoint_path, live.manifest_sha256, into)
    assert {"adapter.safetensors", "adapter.json", "value_head.safetensors"} <= set(manifest.files)
    assert "trainer/training_state.safetensors" in manifest.files
    assert len(manifest.rollout_ids) == BATCH
    assert len(manifest.feedback_ids) == BATCH
    assert manifest.settings["algorithm"] == "ppo"
    assert manifest.metrics["finite"] == 1.0
    assert manifest.metrics["kl_per_answer"] > 0
    assert 0 < manifest.metrics["distinct2_ratio"] < 2
    assert json.loads((into / "adapter.json").read_text())["rank"] == 16
    assert live.reward_model_version.startswith("rm-")


def _check_optimizer_went_on(loop: HalfLoop, parent: str, child: str) -> None:
    """Adam's step count of the child is the parent's plus one update's steps, not one update's alone."""
    steps = {}
    for version in (parent, child):
        path = f"policy/{int(version.split('-')[1])}/{version}"
        manifest_file = Path(loop.ground.checkpoints.url.removeprefix("file://")) / path
        state = load_file(manifest_file / "trainer" / "training_state.safetensors")
        steps[version] = float(state["policy.0.step"])
    assert steps[child] == steps[parent] + SETTINGS.ppo.epochs * BATCH / SETTINGS.ppo.minibatch
