"""The cycle with the scripted policy on the real store, releaser and checkpoints."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from services.learner.ports import Candidate, RatedExample
from services.learner.trainer.learners import PolicyUpdate, ScoredExperience
from services.learner.trainer.pacing import Stopped
from services.learner.trainer.scripted_policy import ScriptedPolicy
from services.shared.domain.errors import Unavailable
from services.shared.domain.release import ReleaseKind
from tests.unit.trainer.trainer_world import BATCH, TrainerWorld, scripted_settings


@pytest.fixture
def world(tmp_path: Path) -> Iterator[TrainerWorld]:
    world = TrainerWorld(folder=tmp_path)
    yield world
    assert world.failures == []
    world.stop()


def test_thumbs_become_a_reward_model_and_then_policies(world: TrainerWorld) -> None:
    names = world.rate(3 * BATCH)
    world.turns_until(lambda: len(world.lineage()) == 3)
    first, second, third = world.lineage()
    reward_model = world.live(ReleaseKind.REWARD_MODEL)
    assert reward_model is not None and reward_model.parent_version
    assert first.reward_model_version == second.reward_model_version == reward_model.version
    assert sorted(name for release in (first, second, third) for name in world.used(release.version)) == names
    assert first.manifest_sha256 != second.manifest_sha256
    assert set(world.states().values()) == {"used"}
    manifest = world.ground.checkpoints.read_manifest(second.checkpoint_path, second.manifest_sha256)
    assert manifest.parent_version == first.version
    assert sorted(manifest.feedback_ids) == sorted(f"f-{name}" for name in world.used(second.version))
    assert manifest.metrics["reward_mean"] == pytest.approx(0.45)
    assert manifest.metrics["reward_term_thumb"] == pytest.approx(0.5)
    assert manifest.metrics["thumbs_up_rate"] == 0.5
    assert manifest.metrics["staleness_mean"] == 1.0
    assert {"seconds_wait", "seconds_train", "seconds_gate", "seconds_stage"} <= set(manifest.metrics)


def test_all_of_a_batch_is_scored_by_the_pinned_version(world: TrainerWorld) -> None:
    names = world.rate(BATCH)
    world.turns_until(lambda: bool(world.lineage()))
    assert world.reward.asked == [(world.live_version(ReleaseKind.REWARD_MODEL), tuple(names))]


def test_it_waits_for_a_whole_batch_and_says_so(world: TrainerWorld) -> None:
    names = world.rate(BATCH - 1)
    world.turn()
    assert world.board.status.waiting_reason == f"{BATCH - 1} of {BATCH} experiences are ready"
    assert [world.states()[name] for name in names] == ["open"] * (BATCH - 1)


def test_ppo_waits_for_the_skill_of_the_reward_model_and_says_so(tmp_path: Path) -> None:
    world = TrainerWorld(folder=tmp_path, learner=scripted_settings(reward_min_auroc_low95=0.6))
    world.rate(2 * BATCH)
    for _ in range(4):
        world.turn()
    assert world.lineage() == []
    assert "has not proved skill" in world.board.status.waiting_reason
    for _ in range(4):
        # Tastes are clear, so thumbs that the heads had not seen prove it.
        world.rate(2 * BATCH)
        world.turn()
    world.turns_until(lambda: bool(world.lineage()), most=40)
    auroc = world.board.status.reward_auroc_low95
    assert auroc is not None and auroc > 0.6
    world.stop()


def test_thumbs_of_one_sign_train_nothing_and_do_not_stop_the_policy(world: TrainerWorld) -> None:
    world.rate(2 * BATCH, up=lambda _: True)
    world.turns_until(lambda: len(world.lineage()) == 2)
    assert world.live_version(ReleaseKind.REWARD_MODEL).startswith("rm-0001-000000")


def test_one_sign_among_the_newest_is_tried_once_however_many_are_new(
    world: TrainerWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More thumbs are new than a training takes: what was tried in vain is not tried again, and new ones are."""
    world.rate(BATCH)
    read, trainings = world.state.experiences.rated_examples, count()

    def newest(limit: int | None = None) -> list[RatedExample]:
        if limit is None:  # all of them: for a training
            next(trainings)
        return read(limit=min(2 * BATCH, limit or 2 * BATCH))

    world.paused = True
    monkeypatch.setattr(world.state.experiences, "rated_examples", newest)
    world.rate(8 * BATCH, up=lambda _: True)
    world.paused = False
    world.turns_until(lambda: world.board.status.waiting_reason.startswith(f"0 of {BATCH}"), most=40)
    world.turn()
    assert next(trainings) == 1
    world.rate(2 * BATCH)
    world.turns_until(lambda: world.live_version(ReleaseKind.REWARD_MODEL) != "rm-0001-000000", most=40)


def test_a_reward_model_that_the_store_did_not_take_is_made_again(
    world: TrainerWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = world.rate(4 * BATCH)
    submit, todo = world.state.candidates.submit, [Unavailable("the store is away")]

    def fails_once(candidate: Candidate) -> None:
        if todo and candidate.kind is ReleaseKind.REWARD_MODEL:
            raise todo.pop()
        submit(candidate)

    before = world.live_version(ReleaseKind.REWARD_MODEL)
    monkeypatch.setattr(world.state.candidates, "submit", fails_once)
    with pytest.raises(Unavailable):
        world.turns_until(lambda: False)
    world.turns_until(lambda: world.live_version(ReleaseKind.REWARD_MODEL) != before)
    assert world.used(world.live_version(ReleaseKind.REWARD_MODEL)) == sorted(names)


def test_nothing_is_trained_while_paused(world: TrainerWorld) -> None:
    world.paused = True
    world.rate(2 * BATCH)
    world.turn()
    assert world.lineage() == []
    assert world.board.status.phase == "paused"
    world.paused = False
    world.turns_until(lambda: bool(world.lineage()))


def test_the_reward_room_away_gives_the_batch_back(world: TrainerWorld) -> None:
    names = world.rate(BATCH)
    world.reward.failure = Unavailable("the reward room is away")
    with pytest.raises(Unavailable):
        world.turns_until(lambda: False)
    assert [world.states()[name] for name in names] == ["open"] * BATCH
    world.reward.failure = None
    world.turns_until(lambda: bool(world.lineage()))


def test_a_stop_between_steps_gives_the_batch_back(world: TrainerWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    names = world.rate(BATCH)
    rescore = world.reward.rescore

    def stopping(*args: Any, **kwargs: Any) -> Any:
        world.pacing.stop()
        return rescore(*args, **kwargs)

    monkeypatch.setattr(world.reward, "rescore", stopping)
    with pytest.raises(Stopped):
        world.turns_until(lambda: False)
    assert [world.states()[name] for name in names] == ["open"] * BATCH


def test_a_rollback_is_followed(world: TrainerWorld) -> None:
    world.rate(2 * BATCH)
    world.turns_until(lambda: len(world.lineage()) == 2)
    first, second = world.lineage()
    world.releaser.roll_back(first.version)
    world.turns_until(lambda: world.live_version() not in (first.version, second.version))
    line = world.lineage()
    assert [row.version for row in line[:1]] == [first.version]
    assert world.used(line[1].version) == world.used(second.version)
    assert isinstance(world.policy, ScriptedPolicy) and world.policy.state[0] == 2


class Wild(ScriptedPolicy):
    """Its first candidate has gone too far, its second is fine."""

    def measure(self, batch: Sequence[ScoredExperience]) -> Mapping[str, float]:
        self.measured = getattr(self, "measured", 0) + 1
        return {**super().measure(batch), "kl_per_answer": 99.0 if self.measured == 1 else 1.0}


def test_a_refused_candidate_costs_its_batch_and_leaves_no_trace_in_the_policy(tmp_path: Path) -> None:
    world = TrainerWorld(folder=tmp_path, make_learner=Wild)
    names = world.rate(BATCH)
    world.turns_until(lambda: [world.states()[name] for name in names] == ["stale"] * BATCH)
    assert world.lineage() == []
    world.rate(BATCH)
    world.turns_until(lambda: bool(world.lineage()))
    assert isinstance(world.policy, ScriptedPolicy) and world.policy.state[0] == 1
    world.stop()


def test_an_experience_without_reference_is_discarded_and_the_rest_goes_on(world: TrainerWorld) -> None:
    lame = world.rate(1, whole=False)
    names = world.rate(BATCH)
    world.turns_until(lambda: bool(world.lineage()))
    assert world.states()[lame[0]] == "stale"
    assert world.used(world.live_version()) == names


class NothingToLearn(ScriptedPolicy):
    """Skips every update."""

    def update(self, batch: Sequence[ScoredExperience]) -> PolicyUpdate:
        return PolicyUpdate(skipped="rewards differ too little: standard deviation 0.010 < 0.15")


def test_a_skipped_update_discards_its_batch_with_the_reason(tmp_path: Path) -> None:
    world = TrainerWorld(folder=tmp_path, make_learner=NothingToLearn)
    names = world.rate(BATCH)
    world.turns_until(lambda: [world.states()[name] for name in names] == ["stale"] * BATCH)
    assert world.lineage() == []
    assert world.metrics.value("thumbloop_trainer_updates_total", kind="policy", outcome="skipped") == 1
    world.stop()
