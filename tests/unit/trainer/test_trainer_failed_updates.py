"""An update that fails for an unforeseen reason: no batch is claimed for ever, and none pays for a broken machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from services.learner.trainer.failed_updates import FailedUpdates, foreseen
from services.learner.trainer.learners import PolicyUpdate, ScoredExperience
from services.learner.trainer.pacing import Stopped
from services.learner.trainer.scripted_policy import ScriptedPolicy
from services.shared.domain.errors import Fenced, InvalidInput, Unavailable
from services.shared.domain.release import ReleaseKind
from tests.unit.trainer.trainer_world import BATCH, TrainerWorld, scripted_settings


class Choosy(ScriptedPolicy):
    """Fails on every batch that holds a rollout of `poison`, before or after it has learned from it."""

    def __init__(self, poison: set[str], *, where: str) -> None:
        super().__init__()
        self.poison = poison
        self.where = where
        self.failed: list[list[str]] = []

    def update(self, batch: Sequence[ScoredExperience]) -> PolicyUpdate:
        report = super().update(batch)
        self._fail(batch, "update")
        return report

    def measure(self, batch: Sequence[ScoredExperience]) -> Mapping[str, float]:
        self._fail(batch, "measure")
        return super().measure(batch)

    def _fail(self, batch: Sequence[ScoredExperience], where: str) -> None:
        names = [item.experience.rollout.rollout_id for item in batch]
        if where == self.where and not self.poison.isdisjoint(names):
            self.failed.append(names)
            raise RuntimeError("the tensors do not fit")


@pytest.mark.parametrize("where", ["update", "measure"])
def test_a_poisoned_batch_is_tried_twice_given_up_and_the_rest_goes_on(tmp_path: Path, where: str) -> None:
    policy = Choosy(set(), where=where)
    settings = scripted_settings(reward_min_new_thumbs=1000)
    world = TrainerWorld(folder=tmp_path, learner=settings, make_learner=lambda: policy)
    poisoned = world.rate(BATCH)  # of equal age, so the first by name are claimed first
    good = world.rate(BATCH)
    policy.poison = {poisoned[1]}
    world.turns_until(lambda: bool(policy.failed))
    assert {world.states()[name] for name in poisoned} == {"open"}
    world.turns_until(lambda: world.states()[poisoned[0]] == "stale")
    assert policy.failed == [policy.failed[0]] * 2
    world.turns_until(lambda: bool(world.lineage()))
    assert [world.states()[name] for name in poisoned] == ["stale"] * BATCH
    assert world.used(world.live_version()) == good
    assert policy.state[0] == 1, "what a failed update had left behind was learned on"
    assert world.metrics.value("thumbloop_trainer_updates_total", kind="policy", outcome="failed") == 2
    world.turn()
    assert "failed" not in world.board.status.waiting_reason
    assert world.failures == []
    world.stop()


def test_the_status_says_what_failed(tmp_path: Path) -> None:
    policy = Choosy(set(), where="update")
    settings = scripted_settings(reward_min_new_thumbs=1000)
    world = TrainerWorld(folder=tmp_path, learner=settings, make_learner=lambda: policy)
    policy.poison = set(world.rate(BATCH))
    world.turns_until(lambda: "stale" in world.states().values())
    world.turn()
    reason = world.board.status.waiting_reason
    assert reason.startswith(f"0 of {BATCH} experiences are ready; ")
    assert reason.endswith("the last update of the policy failed: RuntimeError: the tensors do not fit")
    world.stop()


def test_where_every_update_fails_the_trainer_ends_and_one_batch_alone_is_lost(tmp_path: Path) -> None:
    policy = Choosy(set(), where="update")
    settings = scripted_settings(reward_min_new_thumbs=1000)
    world = TrainerWorld(folder=tmp_path, learner=settings, make_learner=lambda: policy)
    policy.poison = set(world.rate(4 * BATCH))
    with pytest.raises(RuntimeError, match="do not fit"):
        world.turns_until(lambda: False)
    assert len(policy.failed) == 4
    assert sorted(world.states().values()) == ["open"] * 3 * BATCH + ["stale"] * BATCH
    world.stop()


def test_input_that_the_reward_room_refuses_stops_no_later_batch(tmp_path: Path) -> None:
    world = TrainerWorld(folder=tmp_path, learner=scripted_settings(reward_min_new_thumbs=1000))
    names = world.rate(BATCH)
    world.reward.failure = InvalidInput("items[0].features has 3 bytes")
    world.turns_until(lambda: set(world.states().values()) == {"stale"})
    world.reward.failure = None
    later = world.rate(BATCH)
    world.turns_until(lambda: bool(world.lineage()))
    assert world.used(world.live_version()) == later != names
    world.stop()


def test_reward_training_that_fails_waits_for_more_thumbs_and_ends_where_it_always_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = TrainerWorld(folder=tmp_path, learner=scripted_settings(reward_min_auroc_low95=0.6))
    tried: list[int] = []

    def failing(self: object, *args: Sequence[object]) -> object:
        tried.append(1)
        raise ValueError("the matrix is singular")

    monkeypatch.setattr("services.learner.trainer.heads_learner.RewardTrainer.cycle", failing)
    world.rate(8)
    for _ in range(4):
        world.turn()
    assert len(tried) == 1
    assert world.board.status.waiting_reason.endswith("failed: ValueError: the matrix is singular")
    with pytest.raises(ValueError, match="singular"):
        for _ in range(6):
            world.rate(8)
            world.turn()
    assert len(tried) == 4
    assert world.live_version(ReleaseKind.REWARD_MODEL).startswith("rm-0001-000000")
    world.stop()


def test_success_wipes_the_slate() -> None:
    failures = FailedUpdates("update", tries=2, most_in_a_row=3)
    assert failures.note(["a", "b"], ValueError("x")) == []
    failures.succeeded()
    assert failures.last == ""
    assert failures.note(["b", "c"], ValueError("y")) == []
    assert failures.note(["c", "d"], ValueError("z")) == ["c"]
    with pytest.raises(KeyError):
        failures.note(["d"], KeyError("again"))


@pytest.mark.parametrize(
    ("error", "others"),
    [(Stopped(), True), (Unavailable("x"), True), (Fenced("x"), True), (InvalidInput("x"), False), (OSError(), False)],
)
def test_what_others_answer_for(error: Exception, others: bool) -> None:
    assert foreseen(error) is others
